"""Byte streams over non-blocking descriptors: the pipe ends of this process, and the base of `Pty`.

A read or write is tried at once; the loop waits only if the kernel says "not now". Only requested bytes are read, so a
slow consumer slows the writer down (back-pressure), and a cancelled wait loses no data.

epoll(7) takes pipes, sockets and terminals; it refuses regular files, and so do the streams.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import errno
import fcntl
import os
import select
import stat
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import anyio.abc
import anyio.lowlevel

CHUNK = 1 << 16
"""Bytes of one read: the default capacity of a pipe in Linux. A larger buffer costs more than a read of a few bytes."""

LARGE_CHUNK = 1 << 18
"""Bytes of one read from a pipe kept full, the capacity of such a pipe, and the default maximum of `receive()`."""

LINE_LIMIT = 1 << 20
"""Default maximum of a line of `lines()`, in bytes; longer lines come in pieces."""

TURN = 16
"""Number of reads or writes in a row before other tasks get a turn.

A turn of the loop costs as much as the read of a full pipe; this many large reads take a millisecond at most.
"""


class Descriptor:
    """A non-blocking descriptor owned by this object, with its waits in the running event loop."""

    _fd = -1

    def __init__(self, fd: int) -> None:
        """Take over `fd`, the descriptor of a pipe, socket or terminal, and make it non-blocking.

        Raises:
            ValueError: If `fd` is a regular file or directory, which can't be waited for. The caller keeps it then.
            OSError: If `fd` is no open descriptor.
        """
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            raise ValueError(f"descriptor {fd} is a file or directory, not a pipe, socket or terminal")
        os.set_blocking(fd, False)
        self._fd = fd
        self._waits: dict[asyncio.Future[None], Callable[[int], object]] = {}
        self._turn = 0

    def fileno(self) -> int:
        """Return the descriptor, for `fcntl` and the like; -1 once closed. The stream keeps ownership."""
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return self._fd < 0

    @property
    def waiting(self) -> bool:
        """Whether a task is waiting to read or write."""
        return bool(self._waits)

    def close(self) -> None:
        """Close the descriptor; a waiting task gets `anyio.ClosedResourceError`. Idempotent."""
        if self._fd < 0:
            return
        # As soon as a descriptor is closed, its number may be reused for another file. So the loop forgets it first.
        for wait, forget in self._waits.items():
            forget(self._fd)
            _wake(wait)
        self._waits.clear()
        os.close(self._fd)
        self._fd = -1

    async def aclose(self) -> None:
        """Close the descriptor; a waiting task gets `anyio.ClosedResourceError`. Idempotent.

        Closing never waits, so a cancelled task can close too.
        """
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else f'open, fd {self._fd}'}>"

    def __del__(self) -> None:
        if self._fd >= 0:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def _open_fd(self) -> int:
        """Return the descriptor, or raise `anyio.ClosedResourceError`."""
        if self._fd < 0:
            raise anyio.ClosedResourceError
        return self._fd

    async def _give_way(self) -> None:
        """Let other tasks run, and a cancellation arrive."""
        self._turn = 0
        await anyio.lowlevel.checkpoint()

    def _is_hung_up(self) -> bool:
        """Return whether the other end is closed."""
        # The master of a pty whose last user is gone takes bytes until its buffer is full, and is never writable after
        # that. There is no error: only poll(2) reports it.
        poll = select.poll()
        poll.register(self._open_fd(), 0)
        return bool(poll.poll(0))

    async def _readable(self) -> None:
        """Wait until a read won't block."""
        loop = asyncio.get_running_loop()
        await self._wait(loop, loop.add_reader, loop.remove_reader)

    async def _writable(self) -> None:
        """Wait until a write won't block."""
        loop = asyncio.get_running_loop()
        await self._wait(loop, loop.add_writer, loop.remove_writer)

    async def _wait(
        self,
        loop: asyncio.AbstractEventLoop,
        watch: Callable[..., object],
        forget: Callable[[int], object],
    ) -> None:
        """Wait until the loop reports the descriptor as ready, or the descriptor is closed."""
        self._turn = 0
        wait: asyncio.Future[None] = loop.create_future()
        watch(self._fd, _wake, wait)
        self._waits[wait] = forget
        try:
            await wait
        finally:
            # `close` may have emptied the waits, and the number of the descriptor may belong to another file by now.
            if self._waits.pop(wait, None) is not None:
                forget(self._fd)


def _wake(wait: asyncio.Future[None]) -> None:
    """End a wait, unless it was cancelled or has ended already."""
    if not wait.done():
        wait.set_result(None)


class ReadingMixin(Descriptor):
    """The receiving half of a stream, with text lines on top.

    Attributes:
        reads: Number of reads of the descriptor begun.
    """

    reads: int = 0

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._size = CHUNK
        self._grown = False
        self._reading = anyio.ResourceGuard("reading from")
        self._ahead = bytearray()
        self._abandoned = False

    def end_when_empty(self) -> None:
        """End the stream as soon as it is empty, even if other processes hold the other end."""
        self._abandoned = True
        for wait in self._waits:
            _wake(wait)

    def keep(self, data: bytes) -> None:
        """Take in what was read from the descriptor by other means, while no task was waiting for it."""
        self._ahead += data

    @property
    def kept(self) -> int:
        """How many bytes were read from the descriptor that no task has received yet."""
        return len(self._ahead)

    async def receive(self, max_bytes: int = LARGE_CHUNK) -> bytes:
        """Receive at least one byte and at most `max_bytes`; wait if there is nothing to read.

        A cancelled call has read nothing.

        Raises:
            anyio.EndOfStream: If all other ends are closed and everything has been read.
            anyio.ClosedResourceError: If this end is closed, before the call or during the wait.
            anyio.BusyResourceError: If another task is receiving.
            anyio.BrokenResourceError: If the kernel reports any other error.
            ValueError: If `max_bytes` isn't positive.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be positive, not {max_bytes}")
        if not self._ahead:
            return await self._receive(max_bytes)
        self._open_fd()
        return self._take(max_bytes)

    def lines(
        self,
        encoding: str = "utf-8",
        errors: str = "replace",
        *,
        keepends: bool = False,
        max_length: int = LINE_LIMIT,
    ) -> AsyncIterator[str]:
        r"""Iterate over the text lines of the stream, including a last line without an end.

        A line ends with `\n` or `\r\n` only. A line longer than `max_length` comes in pieces of `max_length` bytes:
        nothing is lost and memory stays bounded, whatever a container writes. With `keepends=True` a piece can be told
        from a line.

        Iteration may stop and continue later, with the same or another iterator or with `receive()`: bytes read ahead
        stay in the stream. It raises the exceptions of `receive()`, but stops at the end of the stream.

        Args:
            encoding: Any encoding in which a line feed is the byte 10, so not UTF-16 or UTF-32.
            errors: The treatment of invalid bytes, as in `bytes.decode`.
            keepends: Keep the line's end in the text.
            max_length: Largest number of bytes of a line, without its end.

        Raises:
            LookupError: If the encoding is unknown.
            ValueError: If `max_length` isn't positive.
        """
        if max_length < 1:
            raise ValueError(f"max_length must be positive, not {max_length}")
        return _Lines(self._take_line, codecs.getincrementaldecoder(encoding)(errors), keepends, max_length)

    async def _receive(self, max_bytes: int) -> bytes:
        """Receive from the descriptor, ignoring bytes read ahead."""
        with self._reading:
            self._turn += 1
            self.reads += 1
            if self._turn > TURN:
                await self._give_way()
            while True:
                try:
                    data = os.read(self._open_fd(), min(max_bytes, self._size))
                except BlockingIOError:
                    if self._abandoned:
                        raise anyio.EndOfStream from None
                    await self._readable()
                except OSError as exc:
                    # EIO is how a pty's master learns that its last user is gone.
                    if exc.errno == errno.EIO:
                        raise anyio.EndOfStream from None
                    raise anyio.BrokenResourceError from exc
                else:
                    if not data:
                        raise anyio.EndOfStream
                    self._adapt(len(data))
                    return data

    def _adapt(self, received: int) -> None:
        """Use larger reads, and a larger pipe, while the writer keeps the pipe full; an idle pipe stays small."""
        if received < CHUNK:
            self._size = CHUNK
        elif self._size < LARGE_CHUNK:
            self._size = LARGE_CHUNK
            if not self._grown:
                self._grown = True
                with contextlib.suppress(OSError):  # it is no pipe, or the user has as much as he may
                    fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, LARGE_CHUNK)

    def _take(self, size: int) -> bytes:
        """Take the first bytes of the bytes read ahead."""
        data = bytes(self._ahead[:size])
        del self._ahead[:size]
        return data

    async def _take_line(self, limit: int) -> bytes:
        """Take a line with its end, or a piece without an end: `limit` bytes, or the rest of the stream."""
        self._open_fd()
        seen = 0
        while True:
            end = self._ahead.find(b"\n", seen, limit + 1)
            if end >= 0:
                return self._take(end + 1)
            # A line of exactly `limit` bytes is whole: its end is looked for one byte further.
            if len(self._ahead) > limit:
                return self._take(limit)
            # Bytes without an end aren't searched again: a long line would take quadratic time otherwise.
            seen = len(self._ahead)
            try:
                self._ahead += await self._receive(LARGE_CHUNK)
            except anyio.EndOfStream:
                if not self._ahead:
                    raise
                return self._take(limit)


class _Lines(AsyncIterator[str]):
    """The text lines of one stream; the bytes read ahead stay in the stream."""

    def __init__(
        self,
        take_line: Callable[[int], Awaitable[bytes]],
        decoder: codecs.IncrementalDecoder,
        keepends: bool,  # noqa: FBT001  (passed on from lines(), where it is keyword-only)
        limit: int,
    ) -> None:
        self._take_line = take_line
        self._decoder = decoder
        self._keepends = keepends
        self._limit = limit

    async def __anext__(self) -> str:
        try:
            data = await self._take_line(self._limit)
        except anyio.EndOfStream:
            raise StopAsyncIteration from None
        ended = data.endswith(b"\n")
        # A piece may end inside a character: then its first bytes wait in the decoder for the next piece.
        text = self._decoder.decode(data, final=ended or len(data) < self._limit)
        if ended and not self._keepends:
            return text.removesuffix("\n").removesuffix("\r")
        return text


class WritingMixin(Descriptor):
    """The sending half of a stream."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._writing = anyio.ResourceGuard("writing to")

    async def send(self, item: bytes) -> None:
        """Send all of `item`, waiting while the other end is slow.

        A cancelled call may have sent the first part of `item`.

        Raises:
            anyio.BrokenResourceError: If the other end is closed, or the kernel reports another error.
            anyio.ClosedResourceError: If this end is closed, before the call or during the wait.
            anyio.BusyResourceError: If another task is sending.
        """
        with self._writing:
            self._turn += 1
            if self._turn > TURN:
                await self._give_way()
            rest = memoryview(item)
            self._open_fd()
            while rest:
                try:
                    rest = rest[os.write(self._open_fd(), rest) :]
                except BlockingIOError:
                    # EAGAIN for ever: see `_is_hung_up`.
                    if self._is_hung_up():
                        raise anyio.BrokenResourceError from None
                    await self._writable()
                except OSError as exc:
                    raise anyio.BrokenResourceError from exc


class PipeReader(ReadingMixin, anyio.abc.ByteReceiveStream):
    """The reading end of a pipe, as anyio's `ByteReceiveStream`, with `lines()` for text.

    `ContainerProcess.stdout` and `ContainerProcess.stderr` are such streams. One task reads at a time.
    """


class PipeWriter(WritingMixin, anyio.abc.ByteSendStream):
    """The writing end of a pipe, as anyio's `ByteSendStream`; closing it is the reader's end of file.

    `ContainerProcess.stdin` is such a stream. One task writes at a time.
    """
