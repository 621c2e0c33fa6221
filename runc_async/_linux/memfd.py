"""Files in memory: documents for runc, the log of runc, and the output of runc."""

from __future__ import annotations

import fcntl
import os

from .prerequisites import check_file_size

_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def memory_file(name: str, data: bytes = b"", *, above: int = 0) -> int:
    """Create a file in memory, and return the descriptor, numbered `above` or higher and closed on exec.

    Raises:
        SpawnError: If RLIMIT_FSIZE is below the size of the file.
        OSError: If no descriptor is left.
    """
    check_file_size(len(data), name)
    fd = os.memfd_create(f"runc_async:{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd = lifted(fd, above)
    try:
        while data:
            # pwrite leaves the file offset at 0, where the child starts to read.
            data = data[os.pwrite(fd, data, os.fstat(fd).st_size) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def lifted(fd: int, above: int) -> int:
    """Move a descriptor to a number of at least `above`.

    Raises:
        OSError: If no such number is free. The descriptor is closed then.
    """
    if fd >= above:
        return fd
    try:
        # The numbers below are those of `preserve_fds` in the child, which runc counts from 3.
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
    finally:
        os.close(fd)


class MemoryOutput:
    """A child's output as a file in memory: no pump, no back-pressure, read once after the exit."""

    # The file has its full size from the start, without pages, and is sealed: a write beyond `limit` fails with EPERM
    # instead of filling the memory of the machine. The shared file offset tells how much was written; the child can
    # move it anywhere, so it is bounded on reading.
    __slots__ = ("fd", "limit")

    def __init__(self, name: str, limit: int) -> None:
        """Create the file.

        Raises:
            SpawnError: If RLIMIT_FSIZE is below `limit`.
            OSError: If no descriptor is left.
        """
        check_file_size(limit, name)
        self.limit = limit
        self.fd = memory_file(name)
        try:
            os.ftruncate(self.fd, limit)
            # The child inherits the descriptor and could otherwise change the size.
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(self.fd)
            raise

    @property
    def data(self) -> bytes:
        """The output so far, at most `limit` bytes."""
        return os.pread(self.fd, min(self.limit, os.lseek(self.fd, 0, os.SEEK_CUR)), 0)

    @property
    def dropped(self) -> bool:
        """Whether the file is full, and output may be lost."""
        return os.lseek(self.fd, 0, os.SEEK_CUR) >= self.limit

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)
