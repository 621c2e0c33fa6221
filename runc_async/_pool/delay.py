"""The delay before the next attempt, growing with each failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

FIRST: Final = 0.1
LAST: Final = 30.0
"""Seconds of the first and the longest delay; the delay doubles with each failure."""

FORGIVEN_AFTER: Final = 60.0
"""Seconds without a failure after which the delay starts again with the first one."""


class Delay:
    """Counts failures, and calls back when the next attempt is due.

    Attributes:
        seconds: The last delay; 0.0 if there was none since the last success.
    """

    def __init__(self, due: Callable[[], object]) -> None:
        """Start without a failure; `due` is called at the end of a delay."""
        self.seconds = 0.0
        self._due = due
        self._failed_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> bool:
        """Whether the next attempt isn't due yet."""
        return self._timer is not None

    def failed(self) -> None:
        """Start a delay, twice as long as the last delay."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        # A rare failure shouldn't count as a series.
        if now - self._failed_at > FORGIVEN_AFTER:
            self.seconds = 0.0
        self._failed_at = now
        self.seconds = min(max(FIRST, 2 * self.seconds), LAST)
        self.stop()
        self._timer = loop.call_later(self.seconds, self._end)

    def succeeded(self) -> None:
        """End a delay, and start again with the first delay."""
        self.seconds = 0.0
        self.stop()

    def stop(self) -> None:
        """End a delay without the callback. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        self._due()
