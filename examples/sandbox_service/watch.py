"""Follows one container: its output, its figures, its end, and whichever limit it breaks."""

from __future__ import annotations

import codecs
import logging
import time
from typing import Literal, TypeAlias

import anyio

from runc_async import Container, ExitStatus, RuncError, Stats, StatsEvent
from runc_async.figures import cpu_percent, memory_working_set

from .limits import Limits
from .messages import Ended, Figures, Outcome, Output, Started, Tell

log = logging.getLogger(__name__)

INTERVAL = 0.2
"""Seconds between two figures."""

LAST_LOOK = 2.0
"""Seconds to see how a container ended while no service was there, although its time is over by now."""

CHUNK = 16 << 10
"""Bytes of output that a client is told at once, at most."""

Broken: TypeAlias = Literal["out of time", "too much output"]


class Watch:
    """Follows one container.

    Attributes:
        printed: Bytes that it has printed, and the client was told.
    """

    def __init__(
        self, container: Container, limits: Limits, tell: Tell, *, seconds: float | None = None, printed: int = 0
    ) -> None:
        """Follow a container from its start, or on, after so many seconds, and bytes that the client was told."""
        self.printed = printed
        self._resumed = seconds is not None
        self._container = container
        self._limits = limits
        self._tell = tell
        self._began = time.monotonic() - (seconds or 0.0)

    async def follow(self) -> Broken | None:
        """Tell of all that it prints and uses until it ends, or breaks a limit; return which.

        Telling waits for a slow client, then nobody reads the container's pipes, and its next write waits. The time
        runs on meanwhile.
        """
        left = self._limits.seconds - (time.monotonic() - self._began)
        with anyio.move_on_after(max(left, LAST_LOOK) if self._resumed else left) as clock:
            if not self._resumed:
                await self._tell(Started(self._container.id))
            async with anyio.create_task_group() as group:
                group.start_soon(self._forward, "stdout", group.cancel_scope)
                group.start_soon(self._forward, "stderr", group.cancel_scope)
                group.start_soon(self._measure)
                await self._container.wait()  # the three end by themselves then
        if clock.cancelled_caught:
            return "out of time"
        return "too much output" if self.printed >= self._limits.output else None

    def end(self, broken: Broken | None, status: ExitStatus) -> Ended:
        """Say how it ended: by the limit that it broke, if any, else as the kernel tells."""
        outcome: Outcome = "exited" if status.signal is None else "killed"
        if status.oom_killed and status.code != 0:
            outcome = "out of memory"
        return Ended(
            outcome=broken or outcome,
            seconds=round(time.monotonic() - self._began, 3),
            code=None if broken else status.code,
            signal=None if broken else status.signal,
            oom_killed=bool(status.oom_killed),
        )

    async def _forward(self, name: Literal["stdout", "stderr"], group: anyio.CancelScope) -> None:
        """Tell what comes by one of its streams; end the group when there was too much."""
        stream = self._container.stdout if name == "stdout" else self._container.stderr
        assert stream is not None, "PipedIO gives both"
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while self.printed < self._limits.output:
            try:
                data = await stream.receive(min(CHUNK, self._limits.output - self.printed))
            except anyio.EndOfStream:
                return
            self.printed += len(data)
            if text := decoder.decode(data):  # a piece of a character waits for the rest
                await self._tell(Output(name, text))
        group.cancel()

    async def _measure(self) -> None:
        """Tell what it uses, again and again."""
        before: tuple[float, Stats] | None = None
        try:
            async with self._container.events(interval=INTERVAL, on_lag="latest") as events:
                async for event in events:
                    if isinstance(event, StatsEvent):
                        now = time.monotonic()
                        await self._tell(self._figures(now, event.data, before))
                        before = now, event.data
        except RuncError as error:  # it may have ended before there was anything to measure
            log.debug("no figures of %s: %s", self._container.id, error)

    def _figures(self, now: float, stats: Stats, before: tuple[float, Stats] | None) -> Figures:
        """Compute what it uses from two readings."""
        return Figures(
            seconds=round(now - self._began, 3),
            cpu=None if before is None else cpu_percent(before[1], stats, now - before[0]),
            memory=memory_working_set(stats),
            pids=stats.pids.current,
        )
