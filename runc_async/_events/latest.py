"""`on_lag="latest"`: runc's output is read at once, and newer metrics replace unread ones."""

from __future__ import annotations

import io
from collections import OrderedDict
from itertools import count

from ..event import StatsFailedEvent
from .backlog import Backlog
from .reader import STATS, EventReader, Lines


class Latest(Backlog):
    """Keeps the line with the latest metrics, and all other lines.

    A failure to read metrics counts as metrics: a failure replaces older metrics, and newer metrics replace the
    failure.

    Args:
        reader: The source of lines.
        limit: Maximal bytes of other lines to keep; reading pauses at the limit.
    """

    def __init__(self, reader: EventReader, *, limit: int) -> None:
        self._skipped = 0
        self._latest: OrderedDict[int, Lines | StatsFailedEvent] = OrderedDict()
        self._numbers = count()
        self._stats = -1  # the number of those that are kept
        super().__init__(reader, bound=limit)

    @property
    def skipped(self) -> int:
        """The number of replaced metrics."""
        return self._skipped

    @property
    def _empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._latest

    def take(self) -> Lines | StatsFailedEvent | None:
        """Return the first entry; None if there is none."""
        if not self._latest:
            return None
        number, entry = self._latest.popitem(last=False)
        # Metrics don't count towards the limit, since there is never more than one line.
        if number != self._stats and isinstance(entry, Lines):
            self._freed(len(entry.block))
        return entry

    def keep(self, lines: Lines) -> None:
        """Append each line; metrics replace older ones."""
        for line in io.BytesIO(lines.block):
            entry = lines._replace(block=line)
            if line.startswith(STATS):
                self._replace_stats(entry)
            else:
                self._latest[next(self._numbers)] = entry
                self._size += len(line)

    def keep_failure(self, failure: StatsFailedEvent) -> None:
        """Replace the metrics by a failure."""
        self._replace_stats(failure)
        self._arrived.set()

    def _replace_stats(self, entry: Lines | StatsFailedEvent) -> None:
        """Append an entry with metrics or their failure, and drop the previous one."""
        number = next(self._numbers)
        if isinstance(self._latest.pop(self._stats, None), Lines):
            self._skipped += 1
        self._latest[number] = entry
        self._stats = number
