"""Processes of containers that are no children of this process, and what containers leave."""
