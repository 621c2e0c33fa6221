"""Descriptors that callers lend us, and those of files that others have put where we look for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

from ..stdio import SupportsFileno

FileDescriptor: TypeAlias = int | SupportsFileno
"""A descriptor, or something open that tells one."""


def preserved(files: Sequence[FileDescriptor]) -> tuple[int, ...]:
    """Turn what `preserve_fds` takes into descriptors that are open.

    runc itself passes on whatever has the number, its own files included (runc#5474).

    Raises:
        ValueError: If one isn't open.
        TypeError: If it is a number instead of a sequence, as runc's own option takes.
    """
    if isinstance(files, int):
        raise TypeError(f"preserve_fds must be a sequence of descriptors, not how many: {files}")
    fds = tuple(file if isinstance(file, int) else file.fileno() for file in files)
    for fd in fds:
        try:
            os.fstat(fd)
        except (OSError, OverflowError) as exc:
            raise ValueError(f"preserve_fds must be open descriptors: {fd}") from exc
    return fds
