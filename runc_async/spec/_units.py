"""Amounts as people write them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWER: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}

UNLIMITED: Final = -1
"""No limit, where the runtime-spec has one."""


def to_bytes(size: int | str) -> int:
    """Give the number of bytes of a size.

    Args:
        size: Bytes, or a number with a unit such as ``64M``, ``1.5GiB`` or ``512 kB``. Units are powers of 1024,
            as runc takes them. -1 is no limit.

    Raises:
        ValueError: If it is no size.
    """
    if isinstance(size, str):
        size = _parse(size)
    if size < UNLIMITED:
        raise ValueError(f"not a size: {size}")
    return size


def _parse(size: str) -> int:
    if size.strip() == str(UNLIMITED):
        return UNLIMITED
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        raise ValueError(f"not a size: {size!r}")
    # A fraction, not a float: a double has no room for the larger integers.
    return int(Fraction(match[1]) * 1024 ** _POWER[match[2].lower()])
