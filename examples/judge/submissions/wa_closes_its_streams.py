"""Closes its streams."""

import os

for fd in range(3):
    os.close(fd)
