"""A file of a container's, read as a whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from .openat2 import opened_inside, opened_regular
from .root import Root, naming

_CHUNK = 1 << 20
_SMALL = 1 << 20
"""Bytes that may be read of a file that doesn't tell its size, as those of the kernel's own file systems."""


def read_file(root: Root, path: str, limit: int | None, check: Callable[[], None]) -> bytes:
    """Read a regular file.

    Args:
        root: The container.
        path: The file.
        limit: Bytes that it may have; None for any number.
        check: Called between two reads; raises when the work shall be given up.

    Raises:
        OSError: If it can't be read, or is too large (EFBIG), or is no regular file (EINVAL).
    """
    with naming(path), opened_inside(root.fd, path) as pinned, opened_regular(pinned) as fd:
        size = os.fstat(fd).st_size
        if limit is not None and size > limit:
            raise _too_large(limit)
        # A file that grows while it is read would have no end.
        bound = max(size, _SMALL) if limit is None else limit + 1
        pieces: list[bytes] = []
        length = 0
        while length < bound and (data := os.read(fd, min(_CHUNK, bound - length))):
            check()
            pieces.append(data)
            length += len(data)
        if limit is not None and length > limit:
            raise _too_large(limit)
        return b"".join(pieces)


def _too_large(limit: int) -> OSError:
    """Make the error for a file beyond the limit."""
    return OSError(errno.EFBIG, f"it has more than {limit} bytes")
