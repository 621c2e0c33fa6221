"""Bytes into and out of a child's pipes by callbacks of the loop: no task and no thread for each pipe.

asyncio's own `PIPE` isn't used: with it `Process.wait()` returns only when every holder of the pipes is gone, on
several supported Pythons (cpython#119710), and a container holds runc's pipes for as long as it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .pipes import ReadingMixin

CHUNK = 1 << 16
"""Bytes of one read: a pipe's default capacity in Linux."""

LAST_READS = 16
"""Reads of a pipe before it is closed, while others hold it: all that a pipe of the default largest size has."""


class Drain:
    """Reads a pipe as fast as it fills, and keeps `limit` bytes: the last, or the first.

    Always reading matters: a full pipe blocks runc itself.
    """

    __slots__ = ("_dropped", "_ended", "_fd", "_keeps_first", "_kept", "_limit", "_loop", "came", "when_dropped")

    def __init__(self, fd: int, limit: int, *, keep: Literal["last", "first"] = "last") -> None:
        """Take over `fd`, a non-blocking descriptor, in every case, and begin to read in the running loop."""
        self.came = 0  # reads that gave something
        self.when_dropped: Callable[[], object] | None = None  # called when there is more than is kept
        self._fd = fd
        self._limit = limit
        self._keeps_first = keep == "first"
        self._kept = bytearray()
        self._dropped = False
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        with _closed_on_failure(fd):
            self._loop.add_reader(fd, self._read)

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done as soon as the pipe's last writer is gone, or the drain was closed."""
        return self._ended

    @property
    def data(self) -> bytes:
        """What was read and kept so far."""
        return bytes(self._kept[-self._limit :])

    @property
    def dropped(self) -> bool:
        """Whether there was more than is kept, or more than could be read at the end."""
        return self._dropped

    def close(self) -> bool:
        """Read what is there, and close the pipe; return whether that was all, for nobody held it. Idempotent."""
        for _ in range(LAST_READS):
            if not self._read():
                break
        else:
            self._dropped = True  # others write on, faster than this
        complete = self._fd < 0
        self._end()
        return complete

    def _read(self) -> bool:
        """Read once: the loop calls again while there is more, and others have their turn between.

        Returns:
            Whether there was something.
        """
        if self._fd < 0:
            return False
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last holder of a terminal is gone
            data = b""
        if data:
            self._keep(data)
        else:
            self._end()
        return bool(data)

    def _keep(self, data: bytes) -> None:
        """Append, and let go of what isn't among the bytes that are kept.

        Of twice the limit half is let go at once, since each time the rest is moved. Pieces of their own would cost
        more than the bytes in them: a child can write its bytes one by one.
        """
        self.came += 1
        if len(self._kept) + len(data) > self._limit:
            self._dropped = True
            if self.when_dropped is not None:
                self.when_dropped()
        if self._keeps_first:
            self._kept += data[: self._limit - len(self._kept)]
            return
        self._kept += data
        if len(self._kept) > 2 * self._limit:
            del self._kept[: len(self._kept) - self._limit]

    def _end(self) -> None:
        """Close the descriptor and say so."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if not self._ended.done():
            self._ended.set_result(None)


READER_TIME = 0.05
"""Seconds without a read after which a stream that has something to read counts as one that no task reads."""


READ_AHEAD = 16 << 20
"""Bytes of a stream, at most, that are kept in memory until a task reads them: 16 MiB."""


class Discard:
    """Reads a stream that no task reads, and throws it away, so that its writer isn't blocked by a full pipe.

    A task that does read comes first: what it gets has no gaps as long as it comes back in time.
    """

    __slots__ = ("_fd", "_loop", "_reads", "_stream", "_timer", "_unread")

    def __init__(self, stream: ReadingMixin) -> None:
        """Begin to watch a stream in the running loop.

        Raises:
            OSError: If no descriptor is left: the stream's own may be watched by a reader already.
        """
        self._stream = stream
        self._reads = stream.reads
        self._unread = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._fd = os.dup(stream.fileno())
        with _closed_on_failure(self._fd):
            self._loop.add_reader(self._fd, self._look)

    def _look(self) -> None:
        """Leave what is there to a reader for a moment; without one, throw it away."""
        if self._stream.reads != self._reads or not self._unread:
            self._unread = False
            self._reads = self._stream.reads
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_later(READER_TIME, self._look_again)
        elif not self._take():
            self.close()

    def _look_again(self) -> None:
        """Go on, and note whether a reader has come."""
        self._unread = self._stream.reads == self._reads
        self._loop.add_reader(self._fd, self._look)

    def _take(self) -> bool:
        """Read once; return whether there can be more."""
        return self._read() != b""

    def _read(self) -> bytes | None:
        """Return what is there; None if there is nothing yet, and no bytes at the end."""
        try:
            return os.read(self._fd, CHUNK)
        except BlockingIOError:
            return None
        except OSError:  # EIO: the last holder of a terminal is gone
            return b""

    def close(self) -> None:
        """Stop. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class ReadAhead(Discard):
    """Reads a stream that no task reads, and keeps it there for the task that comes later, up to `READ_AHEAD` bytes."""

    __slots__ = ()

    def _take(self) -> bool:
        """Read once; return whether more can be kept."""
        data = self._read()
        self._stream.keep(data or b"")
        return data != b"" and self._stream.kept < READ_AHEAD


@contextlib.contextmanager
def discarding(*streams: ReadingMixin | None, way: type[Discard] = Discard) -> Generator[None]:
    """Throw away during the block what no task reads from some streams, as far as there are descriptors for that."""
    with contextlib.ExitStack() as stack:
        for stream in streams:
            if stream is not None and not stream.closed:
                with contextlib.suppress(OSError):
                    stack.callback(way(stream).close)
        yield


def reading_ahead(*streams: ReadingMixin | None) -> contextlib.AbstractContextManager[None]:
    """Keep in memory during the block what no task reads from some streams, likewise."""
    return discarding(*streams, way=ReadAhead)


class Feed:
    """Writes given bytes into a pipe as fast as they are taken, then closes it."""

    __slots__ = ("_fd", "_loop", "_rest")

    def __init__(self, fd: int, data: bytes) -> None:
        """Take over `fd`, a non-blocking descriptor, in every case, and begin to write in the running loop."""
        self._fd = fd
        self._rest = memoryview(data)
        self._loop = asyncio.get_running_loop()
        with _closed_on_failure(fd):
            self._loop.add_writer(fd, self._write)

    def _write(self) -> None:
        """Write once; a reader that went away ends it: not to read its input is the child's own matter."""
        with contextlib.suppress(BlockingIOError):
            try:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
            except BrokenPipeError:
                self._rest = self._rest[:0]
            if not self._rest:
                self.close()

    def close(self) -> None:
        """Close the pipe, written or not. Idempotent."""
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


@contextlib.contextmanager
def _closed_on_failure(fd: int) -> Generator[None]:
    """Close a descriptor if the block raises: epoll_ctl(2) can fail for want of memory or watches."""
    try:
        yield
    except BaseException:
        os.close(fd)
        raise
