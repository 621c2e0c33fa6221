"""How much memory a process has allocated, and not given back, to the byte: mallinfo(3)."""

from __future__ import annotations

import ctypes
import os
import sys

FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


def by_malloc() -> None:
    """Begin this program again with Python's objects allocated by malloc too, which otherwise gets them by the MiB."""
    if os.environ.get("PYTHONMALLOC") != "malloc":
        os.environ["PYTHONMALLOC"] = "malloc"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - this very program


def allocated() -> int:
    """Tell how many bytes are in use, of the heap and of mappings for large objects, in all arenas.

    Raises:
        AttributeError: If the C library is not glibc 2.33 or later.
    """
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


def settle() -> None:
    """Let Python's table of interned strings grow to the size that it has in the long run.

    pathlib interns each part of a path, and drops it with the path. Only when the table is full of what is gone does
    Python make a new one, of half a MiB more in a process like ours: a step, once, minutes after the beginning.
    """
    for number in range(100_000):
        sys.intern(f"interned {number}")
