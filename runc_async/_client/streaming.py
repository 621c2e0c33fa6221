"""`events`: the command with continuous output."""

from __future__ import annotations

import math

from .._answers.decode import decode_state
from .._commands import argv
from .._commands.options import DEFAULT
from .._containers.first_process import InitWatch
from .._events.reader import EventReader, Source
from .._linux.procfs import ProcessIdentity
from .._runtimes.known import read_record
from ..events import EventStream, OnLag
from ..runner import StreamedOutput
from .calls import KILL, Calls
from .requirements import Requirements
from .undo import Undo

LINE_LIMIT = 4 << 20
"""Maximal bytes of one event: some hundred times the size on the largest hosts."""

ASK_TIMEOUT = 10.0
"""Seconds for runc to report why there are no metrics."""

_LONGEST = (1 << 63) // 1_000_000_000
"""Maximal seconds of Go's time.Duration: 292 years."""


class Streaming:
    """The command with continuous output."""

    _calls: Calls
    _undo: Undo
    _requirements: Requirements

    def events(
        self, container_id: str, *, interval: float = 5.0, on_lag: OnLag = "block", line_limit: int = LINE_LIMIT
    ) -> EventStream:
        """Stream a container's metrics in each interval, and OOM events at once: runc-events(8).

        Nothing is started before the stream is entered or iterated. The first metrics arrive after the first interval.
        The stream ends together with the container, deleted or not; runc alone would end only with cgroup v2. Metrics
        that runc can't read are reported at once as a `StatsFailedEvent` with the reason; after three such intervals in
        a row the stream ends with this error. If the first process was killed for memory, an `OOMEvent` precedes the
        end also where runc reports none (cgroup v2), unless the cgroup has already been removed.

        Args:
            container_id: The container's id.
            interval: Seconds between two metrics, at least 0.001; rounded to milliseconds.
            on_lag: The behaviour if events arrive faster than they are read. "block": 256 KiB are read ahead, then runc
                waits, so that no event is lost and metrics may be old. "latest": newer metrics replace unread ones,
                counted in `EventStream.skipped`; no other event is lost.
            line_limit: Maximal bytes of an event as JSON; a longer event is a `DecodeError`.

        Raises:
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid.
        """
        if on_lag not in {"block", "latest"}:
            raise ValueError(f"on_lag must be 'block' or 'latest', not {on_lag!r}")
        if line_limit < 1:
            raise ValueError(f"line_limit must be at least 1, not {line_limit}")
        command = argv.events(container_id, milliseconds(interval))

        async def start() -> EventReader:
            await self._requirements.require(command)
            self._requirements.require_sandbox(container_id)
            source = Source(
                runner=self._calls.runner,
                invocation=self._calls.invocation(command, StreamedOutput(), stop=KILL),
                interval=interval,
                line_limit=line_limit,
                find=lambda: self._watch(container_id),
                ask=lambda: self._calls.request(argv.stats(container_id), timeout=ASK_TIMEOUT, stop=KILL),
            )
            return await EventReader.start(source)

        return EventStream(container_id, self._calls.state_directory(), start, on_lag=on_lag, line_limit=line_limit)

    async def _watch(self, container_id: str) -> InitWatch | None:
        """Watch the container's first process; None without a record of the process.

        Raises:
            ProcessLookupError: If the process has ended.
        """
        try:
            record = read_record(self._calls.state_directory(), container_id)
            process = None if record is None else record.process
        except PermissionError:  # as under a runner that goes through sudo
            process = await self._reported_init(container_id)
        return None if process is None else InitWatch(process)

    async def _reported_init(self, container_id: str) -> ProcessIdentity:
        """Ask runc for the first process."""
        response = await self._calls.request(argv.state(container_id), timeout=DEFAULT, stop=KILL)
        process = ProcessIdentity.told(decode_state(response.stdout).pid)
        if process is None:
            raise ProcessLookupError(f"the first process of container {container_id!r} has ended")
        return process


def milliseconds(interval: float) -> int:
    """Convert an interval to milliseconds for runc.

    Raises:
        ValueError: If the interval is below a millisecond, too long for runc, or not a number.
    """
    if not 0.001 <= interval < _LONGEST or not math.isfinite(interval):  # noqa: PLR2004 - a millisecond
        raise ValueError(f"interval must be at least a millisecond, in seconds, and below 292 years, not {interval!r}")
    return round(interval * 1000)
