"""Fills the disk."""

with open("/tmp/full", "wb", buffering=0) as file:
    while True:
        if file.write(bytes(1 << 16)) < 1 << 16:
            raise SystemExit(1)
