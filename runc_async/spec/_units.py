"""Amounts in the usual notation."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])i?)?b?", re.IGNORECASE)
_POWER: Final = {None: 0, "k": 1, "m": 2, "g": 3, "t": 4}

UNLIMITED: Final = -1
"""No limit, where the runtime-spec has one."""

RLIM_INFINITY: Final = 2**64 - 1
"""No limit on a resource of a process: config.md, "POSIX process". Python's own `resource.RLIM_INFINITY` is -1."""


def to_limit(size: int | str) -> int:
    """Return the number of bytes of a limit.

    Args:
        size: Bytes, or a number with a unit such as ``64M``, ``64Mi``, ``1.5GiB`` or ``512 kB``. Units are powers of
            1024, as in runc. -1 is no limit.

    Raises:
        ValueError: If the size is 0 (no limit for runtimes and the kernel), less than -1, or not whole.
    """
    amount = _parse(size) if isinstance(size, str) else size
    if not is_whole(amount) or (amount < 1 and amount != UNLIMITED):
        raise ValueError(f"not a size: {size!r}")
    return amount


def to_size(size: int | str) -> int:
    """Return the number of bytes of a finite size; otherwise as `to_limit`."""
    amount = to_limit(size)
    if amount == UNLIMITED:
        raise ValueError(f"not a size: {size!r}")
    return amount


def to_rlimit(limit: int) -> int:
    """Return a resource limit in the specification's form: -1, Python's RLIM_INFINITY, becomes 2^64-1.

    Raises:
        ValueError: If the limit is less than -1, beyond 64 bits, or not whole.
    """
    if not is_whole(limit) or not -1 <= limit <= RLIM_INFINITY:
        raise ValueError(f"not a resource limit: {limit!r}")
    return RLIM_INFINITY if limit == -1 else limit


def is_whole(amount: object) -> bool:
    """Return whether an amount is a whole number for runtimes: a float never is."""
    return isinstance(amount, int) and not isinstance(amount, bool)


def _parse(size: str) -> int:
    if size.strip() == str(UNLIMITED):
        return UNLIMITED
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        raise ValueError(f"not a size: {size!r}")
    # A fraction, not a float: a double has no room for the larger integers.
    return int(Fraction(match[1]) * 1024 ** _POWER[match[2] and match[2].lower()])
