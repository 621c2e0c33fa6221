"""Whether orphaned descendants come to this process: prctl(2), which Python doesn't have."""

from __future__ import annotations

import os

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


def orphans_come_to_us() -> bool:
    """Say whether this process is the one to which its orphaned descendants go."""
    return os.getpid() == 1 or bool(get_subreaper())


def get_subreaper() -> int:
    """Read whether this process is a subreaper: 1 or 0."""
    import ctypes  # noqa: PLC0415  (few programs need it, and all would pay for it)

    value = ctypes.c_int()
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(value))
    return value.value


def prctl(option: int, argument: int) -> None:
    """Change or read a setting of this process, as the manual page of the same name has them."""
    import ctypes  # noqa: PLC0415  (as above)

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
