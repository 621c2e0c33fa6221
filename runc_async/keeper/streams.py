"""The streams of an attached container: closing one closes it for the keeper too; what was read ahead can go back."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TypeAlias

from runc_async._streams import Descriptor, PipeReader, PipeWriter, ReadingMixin
from runc_async.console import Pty

from .protocol import StreamName


class _Lent(Descriptor):
    """A stream that a keeper has lent us.

    The keeper holds the same pipe, so the other side doesn't notice if only our descriptor is closed.
    """

    name: StreamName
    when_closed: Callable[[StreamName], object] | None = None

    def close(self) -> None:
        """Close the stream, here and in the keeper. Idempotent."""
        if not self.closed and self.when_closed is not None:
            self.when_closed(self.name)
        super().close()

    def give_back(self) -> bytes:
        """Close our descriptor alone; return what was read and not consumed."""
        self.when_closed = None
        self.close()
        return b""


class _LentReading(_Lent, ReadingMixin):
    """A stream with bytes that were read from it before and not consumed."""

    def __init__(self, fd: int, ahead: bytes = b"") -> None:
        super().__init__(fd)
        self._ahead: bytearray = bytearray(ahead)

    def give_back(self) -> bytes:
        """Close our descriptor alone; return what was read and not consumed."""
        super().give_back()
        return bytes(self._ahead)


class LentReader(_LentReading, PipeReader):
    """A container's stdout or stderr."""


class LentWriter(_Lent, PipeWriter):
    """A container's stdin."""


class LentPty(_LentReading, Pty):
    """A container's terminal."""


LentStream: TypeAlias = LentReader | LentWriter | LentPty


def lent(name: StreamName, fd: int, ahead: bytes) -> LentStream:
    """Make the stream of a descriptor, which it takes over.

    Raises:
        ValueError: If the descriptor is no such stream. It stays the caller's then.
    """
    stream: LentStream
    match name:
        case "stdin":
            stream = LentWriter(fd)
        case "pty":
            stream = LentPty(fd, ahead)
        case _:
            stream = LentReader(fd, ahead)
    stream.name = name
    return stream


def memory_of(data: bytes) -> int:
    """Return a descriptor of a file in memory with `data`, to be read from its start.

    Raises:
        OSError: If there is no memory, or no descriptor, for it.
    """
    fd = os.memfd_create("read-ahead", os.MFD_CLOEXEC)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def content_of(fd: int) -> bytes:
    """Read what is left in a file in memory.

    The position is shared with the keeper's descriptor, so what is read here is gone, as with a pipe: a service that is
    killed afterwards has read it, and one that is killed before has not.
    """
    data = bytearray()
    if stat.S_ISREG(os.fstat(fd).st_mode):  # nothing that could block
        while chunk := os.read(fd, 1 << 20):
            data += chunk
    return bytes(data)
