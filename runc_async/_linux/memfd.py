"""Files in memory: documents that go to runc, its log, and its output."""

from __future__ import annotations

import fcntl
import os

from .prerequisites import check_file_size

_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def memory_file(name: str, data: bytes = b"", *, above: int = 0) -> int:
    """Make a file in memory, and return its descriptor, which is at least `above` and closed on exec.

    Raises:
        SpawnError: If RLIMIT_FSIZE is below its size.
        OSError: If no descriptor is left.
    """
    check_file_size(len(data), name)
    fd = os.memfd_create(f"runc_async:{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd = lifted(fd, above)
    try:
        while data:
            data = data[os.pwrite(fd, data, os.fstat(fd).st_size) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def lifted(fd: int, above: int) -> int:
    """Move a descriptor to a number that is at least `above`; without a free one it is closed and OSError raised."""
    if fd >= above:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
    finally:
        os.close(fd)


class MemoryOutput:
    """A stream of the child's that is a file in memory: no pump, no back-pressure, read once after the exit.

    The file has its full size from the start, without having its pages, and is sealed: a write beyond `limit` fails
    with EPERM instead of filling the machine's memory. How much was written is told by the offset, which the child
    shares, and can move to anywhere.
    """

    __slots__ = ("fd", "limit")

    def __init__(self, name: str, limit: int) -> None:
        """Make the file.

        Raises:
            SpawnError: If RLIMIT_FSIZE is below `limit`.
            OSError: If no descriptor is left.
        """
        check_file_size(limit, name)
        self.limit = limit
        self.fd = memory_file(name)
        try:
            os.ftruncate(self.fd, limit)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def data(self) -> bytes:
        """What was written."""
        return os.pread(self.fd, min(self.limit, os.lseek(self.fd, 0, os.SEEK_CUR)), 0)

    @property
    def dropped(self) -> bool:
        """Whether the file is full: there may have been more."""
        return os.lseek(self.fd, 0, os.SEEK_CUR) >= self.limit

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
