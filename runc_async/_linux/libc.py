"""Calls of the C library missing in Python: prctl(2), umount2(2)."""

from __future__ import annotations

import ctypes
import functools
import os

# From <sys/mount.h>: Python has no umount2(2).
_MNT_DETACH = 2


_UMOUNT_NOFOLLOW = 8

PR_SET_CHILD_SUBREAPER = 36
PR_GET_CHILD_SUBREAPER = 37


def orphans_come_to_us() -> bool:
    """Return whether orphaned descendants become children of the current process."""
    return os.getpid() == 1 or bool(get_subreaper())


def get_subreaper() -> int:
    """Return whether the current process is a subreaper: 1 or 0."""
    import ctypes  # noqa: PLC0415  (few programs need it, and all would pay for it)

    value = ctypes.c_int()
    prctl(PR_GET_CHILD_SUBREAPER, ctypes.addressof(value))
    return value.value


def prctl(option: int, argument: int) -> None:
    """Change or read a setting of the current process: see the manual page of the same name."""
    import ctypes  # noqa: PLC0415  (as above)

    libc = ctypes.CDLL(None, use_errno=True)
    # c_ulong: the argument may be an address, and ctypes passes a plain int as 32 bits.
    if libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def detach(target: str) -> None:
    """Unmount lazily: the mount stays for processes with open files there.

    Raises:
        OSError: If unmounting fails; with EINVAL without a mount there.
    """
    if code := call_libc("umount2", os.fsencode(target), ctypes.c_int(_MNT_DETACH | _UMOUNT_NOFOLLOW)):
        raise OSError(code, os.strerror(code), target)


def call_libc(name: str, *args: object) -> int:
    """Call a function of the C library and return the errno, or 0."""
    return ctypes.get_errno() if getattr(libc(), name)(*args) else 0


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the C library, opened once: creating the ctypes objects takes longer than the calls."""
    import ctypes  # noqa: PLC0415  (a program that waits for no file doesn't pay for it)

    return ctypes.CDLL(None, use_errno=True)
