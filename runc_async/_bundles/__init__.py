"""Bundles on the disk: checked, made, and their root filesystems."""
