"""Streams of an attached container: closing one also closes the keeper's end; bytes read ahead can go back."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TypeAlias

from runc_async.console import Pty

from .._streams.pipes import Descriptor, PipeReader, PipeWriter, ReadingMixin
from .protocol import StreamName


class _Lent(Descriptor):
    """A stream lent by a keeper."""

    name: StreamName
    when_closed: Callable[[StreamName], object] | None = None

    def close(self) -> None:
        """Close the stream, here and in the keeper. Idempotent."""
        # The keeper holds the same pipe, so that the other side wouldn't notice the close of our descriptor alone.
        if not self.closed and self.when_closed is not None:
            self.when_closed(self.name)
        super().close()

    def give_back(self) -> bytes:
        """Close only our descriptor; return bytes that were read and not consumed."""
        self.when_closed = None
        self.close()
        return b""


class _LentReading(_Lent, ReadingMixin):
    """A stream preceded by bytes that the last service had read and not consumed."""

    def __init__(self, fd: int, before: int = -1) -> None:
        """Take over a descriptor, and the descriptor of the file with earlier bytes."""
        super().__init__(fd)
        # A file in memory, whose position is shared with the keeper's descriptor. As with a pipe, bytes are gone once
        # read, and unread bytes are left for the next service, even if this process is killed.
        self._before = before

    async def _receive(self, max_bytes: int) -> bytes:
        """Receive the earlier bytes, then from the descriptor."""
        if self._before >= 0 and not self.closed:
            if data := os.read(self._before, max_bytes):
                return data
            self._drop_before()
        return await super()._receive(max_bytes)

    def _drop_before(self) -> None:
        """Close the file. Idempotent."""
        if self._before >= 0:
            os.close(self._before)
            self._before = -1

    def close(self) -> None:
        """Close the stream, here and in the keeper. Idempotent."""
        self._drop_before()
        super().close()

    def give_back(self) -> bytes:
        """Close only our descriptors; return bytes that were read and not consumed, if they have to go back."""
        ahead = bytes(self._ahead)
        if ahead and self._before >= 0:
            ahead += content_of(self._before)
        super().give_back()
        return ahead


class LentReader(_LentReading, PipeReader):
    """A container's stdout or stderr."""


class LentWriter(_Lent, PipeWriter):
    """A container's stdin."""


class LentPty(_LentReading, Pty):
    """A container's terminal."""


LentStream: TypeAlias = LentReader | LentWriter | LentPty


def lent(name: StreamName, fd: int, before: int = -1) -> LentStream:
    """Return the stream for a descriptor, and for a file with earlier bytes; both belong to the stream.

    Raises:
        ValueError: If a descriptor has the wrong type. Both then still belong to the caller.
    """
    # Reading a regular file never blocks the event loop; a pipe sent by a broken keeper could.
    if before >= 0 and not stat.S_ISREG(os.fstat(before).st_mode):
        raise ValueError(f"descriptor {before} is no file, and could block")
    stream: LentStream
    match name:
        case "stdin":
            stream = LentWriter(fd)
        case "pty":
            stream = LentPty(fd, before)
        case _:
            stream = LentReader(fd, before)
    stream.name = name
    return stream


def memory_of(data: bytes) -> int:
    """Return a descriptor of a file in memory with `data`, positioned at its start.

    Raises:
        OSError: If no memory or descriptor is left.
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
    """Read the rest of a file in memory."""
    data = bytearray()
    while chunk := os.read(fd, 1 << 20):
        data += chunk
    return bytes(data)
