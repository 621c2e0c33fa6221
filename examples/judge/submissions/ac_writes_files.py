"""Writes where it may not, then where it may, and adds."""

from pathlib import Path

total = sum(map(int, input().split()))
for place in ("/box/x", "/usr/x", "/etc/x", "/x"):
    try:
        Path(place).write_text("x")
    except OSError:
        continue
    raise SystemExit(f"could write to {place}")
scratch = Path("/tmp/scratch")
scratch.write_text(str(total))
print(scratch.read_text())
