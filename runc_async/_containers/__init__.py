"""Processes of containers, other than children of the current process, and leftovers of containers."""
