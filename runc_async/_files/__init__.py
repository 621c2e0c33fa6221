"""Files in containers: read, written and archived from outside, without a program inside."""
