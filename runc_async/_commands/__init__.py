"""Command lines: one pure function for each command."""
