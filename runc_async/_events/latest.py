"""`on_lag="latest"`: events are taken from runc as they come, and stats that nobody took make way for newer ones."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from itertools import count

import anyio

from .reader import EventReader

_STATS = b'{"type":"stats"'
"""How all versions of runc begin such a line. Should a newer one begin it otherwise, reading pauses at the limit."""


class Latest:
    """Reads on in a task of its own, and keeps the line of the latest stats, and all others.

    Args:
        reader: Where lines come from.
        limit: Bytes that may be kept of lines other than stats; beyond it reading pauses.

    Attributes:
        skipped: How many stats were replaced.
    """

    def __init__(self, reader: EventReader, *, limit: int) -> None:
        self.skipped = 0
        self._reader = reader
        self._limit = limit
        self._lines: OrderedDict[int, bytes] = OrderedDict()
        self._numbers = count()
        self._stats = -1  # the number of those that are kept
        self._size = 0
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._task = asyncio.create_task(self._pump())

    async def read(self) -> tuple[bytes] | None:
        """Wait for the next line, and return it; None at the end. Cancelling loses nothing.

        Raises:
            anyio.ClosedResourceError: If it is closed.
        """
        while not self._lines:
            if self._task.cancelled():
                raise anyio.ClosedResourceError
            if self._task.done():
                self._task.result()
                return None
            self._arrived.clear()
            await self._arrived.wait()
        number, line = self._lines.popitem(last=False)
        if number != self._stats:
            self._size -= len(line)
            self._taken.set()
        return (line,)

    async def aclose(self) -> None:
        """End the task."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _pump(self) -> None:
        """Read until the end, or until the reader is closed: the body of the task."""
        try:
            while (lines := await self._reader.read()) is not None:
                for line in lines:
                    self._keep(line)
                self._arrived.set()
                while self._size > self._limit:
                    self._taken.clear()
                    await self._taken.wait()
        except anyio.ClosedResourceError:
            pass
        finally:
            self._arrived.set()

    def _keep(self, line: bytes) -> None:
        """Put a line behind the others; stats take the place of older ones."""
        number = next(self._numbers)
        self._lines[number] = line
        if not line.startswith(_STATS):
            self._size += len(line)
            return
        if self._lines.pop(self._stats, None) is not None:
            self.skipped += 1
        self._stats = number
