"""The words of a command line: one pure function for each command."""
