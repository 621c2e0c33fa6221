"""`on_lag="latest"`: events are taken from runc as they come, and stats that nobody took make way for newer ones."""

from __future__ import annotations

import io
from collections import OrderedDict
from itertools import count

from ..event import StatsFailedEvent
from .backlog import Backlog
from .reader import STATS, EventReader, Lines


class Latest(Backlog):
    """Reads on, and keeps the line of the latest stats, and all others.

    That the runtime couldn't read the figures is news of them too: it takes the place of older ones, and newer ones
    take its place.

    Args:
        reader: Where lines come from.
        limit: Bytes that may be kept of lines other than stats; beyond it reading pauses.
    """

    def __init__(self, reader: EventReader, *, limit: int) -> None:
        self._skipped = 0
        self._latest: OrderedDict[int, Lines | StatsFailedEvent] = OrderedDict()
        self._numbers = count()
        self._stats = -1  # the number of those that are kept
        super().__init__(reader, bound=limit)

    @property
    def skipped(self) -> int:
        """How many stats were replaced."""
        return self._skipped

    @property
    def _empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._latest

    def take(self) -> Lines | StatsFailedEvent | None:
        """Return the line that stands first; None if there is none."""
        if not self._latest:
            return None
        number, entry = self._latest.popitem(last=False)
        if number != self._stats and isinstance(entry, Lines):
            self._freed(len(entry.block))
        return entry

    def keep(self, lines: Lines) -> None:
        """Put each line behind the others; stats take the place of older ones."""
        for line in io.BytesIO(lines.block):
            entry = lines._replace(block=line)
            if line.startswith(STATS):
                self._replace_stats(entry)
            else:
                self._latest[next(self._numbers)] = entry
                self._size += len(line)

    def keep_failure(self, failure: StatsFailedEvent) -> None:
        """Put a failure in the place of the stats."""
        self._replace_stats(failure)
        self._arrived.set()

    def _replace_stats(self, entry: Lines | StatsFailedEvent) -> None:
        """Put what is new of the figures behind all else, and drop what was there of them."""
        number = next(self._numbers)
        if isinstance(self._latest.pop(self._stats, None), Lines):
            self._skipped += 1
        self._latest[number] = entry
        self._stats = number
