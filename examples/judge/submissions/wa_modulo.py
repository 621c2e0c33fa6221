"""Adds, and forgets the large part."""

print(sum(map(int, input().split())) % 1000)
