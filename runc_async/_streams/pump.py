"""Copy bytes from and to a child's pipes with callbacks of the event loop: no task and no thread for each pipe.

Why not asyncio's own `PIPE`: `Process.wait()` would return only after all holders of the pipes are gone, in several
supported Python versions (cpython#119710), and a container holds runc's pipes as long as it lives.
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
"""Reads of a pipe before it is closed, while other processes hold it: all data of a pipe of default size limit."""


class Drain:
    """Reads a pipe as fast as it fills, and keeps `limit` bytes: the last, or the first."""

    __slots__ = ("_dropped", "_ended", "_fd", "_keeps_first", "_kept", "_limit", "_loop", "came", "when_dropped")

    def __init__(self, fd: int, limit: int, *, keep: Literal["last", "first"] = "last") -> None:
        """Take over `fd`, a non-blocking descriptor, in any case, and start to read in the running loop."""
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
        """Done when the pipe's last writer is gone, or the drain was closed."""
        return self._ended

    @property
    def data(self) -> bytes:
        """The bytes kept so far."""
        return bytes(self._kept[-self._limit :])

    @property
    def dropped(self) -> bool:
        """Whether bytes were dropped, or could not be read at the end."""
        return self._dropped

    def close(self) -> bool:
        """Read the rest, and close the pipe; return whether the output is complete. Idempotent."""
        for _ in range(LAST_READS):
            if not self._read():
                break
        else:
            self._dropped = True  # others write on, faster than this
        complete = self._fd < 0
        self._end()
        return complete

    def _read(self) -> bool:
        """Read once: the loop calls again for more, and other callbacks run in between.

        Returns:
            Whether there was data.
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
        """Append data, and drop bytes beyond the limit."""
        self.came += 1
        if len(self._kept) + len(data) > self._limit:
            self._dropped = True
            if self.when_dropped is not None:
                self.when_dropped()
        if self._keeps_first:
            self._kept += data[: self._limit - len(self._kept)]
            return
        self._kept += data
        # At twice the limit half is dropped at once, because the rest is moved each time. A list of pieces would cost
        # more than the bytes inside: a child may write single bytes.
        if len(self._kept) > 2 * self._limit:
            del self._kept[: len(self._kept) - self._limit]

    def _end(self) -> None:
        """Close the descriptor and complete `ended`."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if not self._ended.done():
            self._ended.set_result(None)


READER_TIME = 0.05
"""Seconds without a read after which a stream with data counts as unread."""


READ_AHEAD = 16 << 20
"""Maximal bytes of a stream kept in memory until a task reads them: 16 MiB."""


class Discard:
    """Reads and drops the data of a stream that no task reads, so that a full pipe doesn't block the writer.

    A reading task has priority: its data has no gaps as long as it reads often enough.
    """

    __slots__ = ("_fd", "_loop", "_reads", "_stream", "_timer", "_unread")

    def __init__(self, stream: ReadingMixin) -> None:
        """Start to watch a stream in the running loop.

        Raises:
            OSError: If no descriptor is left: a reader may already watch the stream's own descriptor.
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
        """Leave data to a reader for a moment; without a reader, drop it."""
        if self._stream.reads != self._reads or not self._unread:
            self._unread = False
            self._reads = self._stream.reads
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_later(READER_TIME, self._look_again)
        elif not self._take():
            self.close()

    def _look_again(self) -> None:
        """Continue, and note whether a reader has come."""
        self._unread = self._stream.reads == self._reads
        self._loop.add_reader(self._fd, self._look)

    def _take(self) -> bool:
        """Read once; return whether more may follow."""
        return self._read() != b""

    def _read(self) -> bytes | None:
        """Return the available data; None if there is none yet, and no bytes at the end."""
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
    """Reads a stream that no task reads, and keeps up to `READ_AHEAD` bytes for a later reader."""

    __slots__ = ()

    def _take(self) -> bool:
        """Read once; return whether more can be kept."""
        data = self._read()
        self._stream.keep(data or b"")
        return data != b"" and self._stream.kept < READ_AHEAD


@contextlib.contextmanager
def discarding(*streams: ReadingMixin | None, way: type[Discard] = Discard) -> Generator[None]:
    """Drop unread data of streams during the block, as far as there are descriptors."""
    with contextlib.ExitStack() as stack:
        for stream in streams:
            if stream is not None and not stream.closed:
                with contextlib.suppress(OSError):
                    stack.callback(way(stream).close)
        yield


def reading_ahead(*streams: ReadingMixin | None) -> contextlib.AbstractContextManager[None]:
    """Keep unread data of streams in memory during the block, as far as there are descriptors."""
    return discarding(*streams, way=ReadAhead)


class Feed:
    """Writes bytes to a pipe as fast as they are read, then closes the pipe."""

    __slots__ = ("_fd", "_loop", "_rest")

    def __init__(self, fd: int, data: bytes) -> None:
        """Take over `fd`, a non-blocking descriptor, in any case, and start to write in the running loop."""
        self._fd = fd
        self._rest = memoryview(data)
        self._loop = asyncio.get_running_loop()
        with _closed_on_failure(fd):
            self._loop.add_writer(fd, self._write)

    def _write(self) -> None:
        """Write once. A closed reading end ends the writing: a child need not read its input."""
        with contextlib.suppress(BlockingIOError):
            try:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
            except BrokenPipeError:
                self._rest = self._rest[:0]
            if not self._rest:
                self.close()

    def close(self) -> None:
        """Close the pipe, even if data is left. Idempotent."""
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


@contextlib.contextmanager
def _closed_on_failure(fd: int) -> Generator[None]:
    """Close a descriptor if the block raises: epoll_ctl(2) can fail for lack of memory or watches."""
    try:
        yield
    except BaseException:
        os.close(fd)
        raise
