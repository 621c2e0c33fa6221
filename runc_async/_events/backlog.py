"""`Backlog`: lines read ahead of the consumer, up to a limit, with their arrival times."""

from __future__ import annotations

import asyncio
from collections import deque

import anyio

from ..event import StatsFailedEvent
from .reader import EventReader, Lines

BOUND = 1 << 18
"""Bytes read ahead of a slow consumer: some 150 events with metrics. Then runc waits, once its pipe is full too."""


class Backlog:
    """Reads in a separate task, and keeps all unread lines, up to a limit.

    Args:
        reader: The source of lines.
        bound: Maximal bytes to keep; reading pauses at the limit.
    """

    def __init__(self, reader: EventReader, *, bound: int = BOUND) -> None:
        self._reader = reader
        self._bound = bound
        self._size = 0
        self._entries: deque[Lines | StatsFailedEvent] = deque()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        reader.on_failure = self.keep_failure
        self._task = asyncio.create_task(self._pump())
        self._task.add_done_callback(lambda _: self._arrived.set())

    @property
    def skipped(self) -> int:
        """The number of metrics replaced by newer ones: none here."""
        return 0

    @property
    def _empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._entries

    async def wait(self) -> bool:
        """Wait until there is an entry, and return True; False at the end. Cancelling loses nothing.

        Raises:
            anyio.ClosedResourceError: If the backlog is closed.
        """
        while self._empty:
            if self._task.cancelled():
                raise anyio.ClosedResourceError
            if self._task.done():
                self._task.result()
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return True

    def take(self) -> Lines | StatsFailedEvent | None:
        """Return the oldest entry; None if there is none."""
        if not self._entries:
            return None
        entry = self._entries.popleft()
        if isinstance(entry, Lines):
            self._freed(len(entry.block))
        return entry

    def _freed(self, size: int) -> None:
        """Continue reading after a pause."""
        self._size -= size
        self._taken.set()

    def keep(self, lines: Lines) -> None:
        """Append lines."""
        self._entries.append(lines)
        self._size += len(lines.block)

    def keep_failure(self, failure: StatsFailedEvent) -> None:
        """Append a failure."""
        # Consecutive failures are merged: unlike lines, their number isn't limited by the pipe.
        if self._entries and isinstance(self._entries[-1], StatsFailedEvent):
            self._entries.pop()
        self._entries.append(failure)
        self._arrived.set()

    async def aclose(self) -> None:
        """End the task."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        if not self._task.cancelled():
            self._task.exception()  # which was raised by `wait`, or comes too late

    async def _pump(self) -> None:
        """Read until the end, or until the reader is closed: the body of the task."""
        try:
            while (lines := await self._reader.read()) is not None:
                if lines.block:
                    self.keep(lines)
                    self._arrived.set()
                while self._size > self._bound:
                    self._taken.clear()
                    await self._taken.wait()
        except anyio.ClosedResourceError:
            pass
