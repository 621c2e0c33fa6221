"""Divides by zero."""

print(1 // 0)
