"""Files in containers: read, written and archived from outside, without any program inside."""
