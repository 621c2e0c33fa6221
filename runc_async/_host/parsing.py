"""The formats of cgroup files (kernel: cgroup-v2.rst, "Format"). A missing file reads as 0 or as empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

UNLIMITED: Final = 2**64 - 1
"""runc's value for `max`."""

_KEY_VALUES: Final = msgspec.json.Decoder(dict[str, int])


def number(data: bytes | None, *, unlimited: int = UNLIMITED) -> int:
    """Parse a file of one number, or of the word `max`."""
    if not data:
        return 0
    try:
        return int(data)
    except ValueError:
        return unlimited


def numbers(files: Iterable[bytes | None]) -> Iterator[int]:
    """Parse files of one number each."""
    return map(number, files)


def key_values(data: bytes | None) -> dict[str, int]:
    """Parse a file with a name and a number on each line."""
    if not data:
        return {}
    # Converted to JSON for msgspec's decoder, which is five times as fast as splitting and converting: half of all the
    # work for a container, whose memory.stat has some fifty lines.
    pairs = data.rstrip().replace(b" ", b'":').replace(b"\n", b',"')
    return _KEY_VALUES.decode(b'{"%b}' % pairs)


def ranges(data: bytes | None) -> list[int]:
    """Parse a list of numbers and ranges, such as `0-2,7`."""
    found: list[int] = []
    for part in (data or b"").decode().strip().split(","):
        if part:
            first, _, last = part.partition("-")
            found.extend(range(int(first), int(last or first) + 1))
    return found
