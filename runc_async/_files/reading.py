"""Read a whole file of a container."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from .openat2 import opened_inside, opened_regular
from .root import Root, naming

_CHUNK = 1 << 20
_SMALL = 1 << 20
"""Maximal bytes of a file without a size, such as in the kernel's own file systems."""


def read_file(root: Root, path: str, limit: int | None, check: Callable[[], None]) -> bytes:
    """Read a regular file.

    Args:
        root: The container.
        path: The file.
        limit: Maximal size in bytes; None for any size.
        check: Called between two reads; raises to stop the work.

    Raises:
        OSError: If the file can't be read, is too large (EFBIG), or isn't a regular file (EINVAL).
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
    """Return the error for a file beyond the limit."""
    return OSError(errno.EFBIG, f"it has more than {limit} bytes")
