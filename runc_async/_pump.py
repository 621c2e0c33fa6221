"""Bytes into and out of a child's pipes by callbacks of the loop: no task and no thread for each pipe.

asyncio's own `PIPE` isn't used: with it `Process.wait()` returns only when every holder of the pipes is gone, on
several supported Pythons (cpython#119710), and a container holds runc's pipes for as long as it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque

CHUNK = 1 << 16
"""Bytes of one read: a pipe's default capacity in Linux."""


class Drain:
    """Reads a pipe as fast as it fills, and keeps the last `limit` bytes.

    Always reading matters: a full pipe blocks runc itself.
    """

    __slots__ = ("_chunks", "_dropped", "_ended", "_fd", "_limit", "_loop", "_size")

    def __init__(self, fd: int, limit: int) -> None:
        """Take over `fd`, a non-blocking descriptor, and begin to read in the running loop."""
        self._fd = fd
        self._limit = limit
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._dropped = False
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._loop.add_reader(fd, self._read)

    @property
    def ended(self) -> asyncio.Future[None]:
        """Done as soon as the pipe's last writer is gone, or the drain was closed."""
        return self._ended

    @property
    def data(self) -> bytes:
        """What was read and kept so far."""
        return b"".join(self._chunks)[-self._limit :] if self._limit else b""

    @property
    def dropped(self) -> bool:
        """Whether there was more than is kept."""
        return self._dropped

    def close(self) -> None:
        """Read what is there, and close the pipe. Idempotent."""
        if self._fd >= 0:
            self._read()
        self._end()

    def _read(self) -> None:
        """Read once: the loop calls again while there is more, and others have their turn between."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last holder of a terminal is gone
            data = b""
        if data:
            self._keep(data)
        else:
            self._end()

    def _keep(self, data: bytes) -> None:
        """Append, and let go of whole chunks that are no longer among the last `limit` bytes."""
        self._chunks.append(data)
        self._size += len(data)
        self._dropped = self._dropped or self._size > self._limit
        while self._chunks and self._size - len(self._chunks[0]) >= self._limit:
            self._size -= len(self._chunks.popleft())

    def _end(self) -> None:
        """Close the descriptor and say so."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if not self._ended.done():
            self._ended.set_result(None)


class Feed:
    """Writes given bytes into a pipe as fast as they are taken, then closes it."""

    __slots__ = ("_fd", "_loop", "_rest")

    def __init__(self, fd: int, data: bytes) -> None:
        """Take over `fd`, a non-blocking descriptor, and begin to write in the running loop."""
        self._fd = fd
        self._rest = memoryview(data)
        self._loop = asyncio.get_running_loop()
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
