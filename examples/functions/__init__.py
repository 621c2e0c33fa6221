"""A function service: HTTP in, a Python handler in a warm container, HTTP out. See README.md."""
