"""Output of a live sandbox, kept on the node until the client has read it."""

from __future__ import annotations

import asyncio

import anyio

from .._streams.pipes import PipeReader

LIMIT = 1 << 18
"""Bytes that are kept; beyond that the container's pipe fills, and then its program waits."""


class OutputBuffer:
    """The output of one stream, by offsets from the beginning.

    Asking for an offset confirms all bytes before the offset, so these are dropped. After a lost answer the client asks
    for the same offset again: no byte is missing or doubled.
    """

    def __init__(self, stream: PipeReader) -> None:
        self._stream = stream
        self._data = bytearray()
        self._start = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def fill(self) -> None:
        """Read the stream to the end, as far as there is room."""
        try:
            while True:
                # Back-pressure: the pipe fills, and the program waits, as with a local pipe.
                while len(self._data) >= LIMIT:
                    await self._next()
                self._data += await self._stream.receive(LIMIT - len(self._data))
                self._changed.set()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
        finally:
            self._ended = True
            self._changed.set()

    async def read(self, offset: int, limit: int, wait: float) -> tuple[bytes, bool]:
        """Return bytes from an offset on, and whether the stream ends behind them.

        Waits for output for at most `wait` seconds, and returns no bytes after a timeout.

        Raises:
            ValueError: If the offset isn't within the kept bytes.
        """
        if not self._start <= offset <= self._start + len(self._data):
            raise ValueError(f"offset {offset} isn't between {self._start} and {self._start + len(self._data)}")
        del self._data[: offset - self._start]
        self._start = offset
        self._changed.set()
        with anyio.move_on_after(wait):
            while not self._data and not self._ended:
                await self._next()
        return bytes(self._data[:limit]), self._ended and len(self._data) <= limit

    async def _next(self) -> None:
        """Wait for a change."""
        # Reader and filler wait on one event, so either may clear the other's change: both check their own condition in
        # a loop, and no await stands between the check and the clear.
        self._changed.clear()
        await self._changed.wait()
