"""The command that goes on telling: `events`."""

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
"""Bytes of a line that is taken for an event: some hundred times what runc prints on the largest hosts."""

ASK_TIMEOUT = 10.0
"""Seconds for runc to say why it gives no figures."""

_LONGEST = (1 << 63) // 1_000_000_000
"""Seconds that Go's time.Duration holds: 292 years."""


class Streaming:
    """The command that goes on telling."""

    _calls: Calls
    _undo: Undo
    _requirements: Requirements

    def events(
        self, container_id: str, *, interval: float = 5.0, on_lag: OnLag = "block", line_limit: int = LINE_LIMIT
    ) -> EventStream:
        """Watch a container: its figures in each interval, and when it runs out of memory, at once: runc-events(8).

        Nothing is started before the stream is entered or iterated. The first figures come after the first interval.
        The stream ends when the container has ended, whether or not it is deleted; runc itself ends only with
        cgroup v2. Figures that runc can't read are a `StatsFailedEvent` with the reason, at once; a stream that has
        none for three intervals in a row ends with that error. If the first process was killed for memory, an
        `OOMEvent` comes before the end also where runc tells of none (cgroup v2), unless the cgroup is gone before it
        can be looked at.

        Args:
            container_id: Its id.
            interval: Seconds between two figures, at least 0.001; whole milliseconds count.
            on_lag: What happens if events come faster than they are taken. "block": 256 KiB are read ahead, then runc
                waits, so that none is lost and they may be old. "latest": figures that were not taken in time make way
                for newer ones, counted in `EventStream.skipped`; no other event is lost.
            line_limit: Bytes that an event may have as JSON; a longer one is a `DecodeError`.

        Raises:
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right.
        """
        if on_lag not in {"block", "latest"}:
            raise ValueError(f"on_lag must be 'block' or 'latest', not {on_lag!r}")
        if line_limit < 1:
            raise ValueError(f"line_limit must be at least 1, not {line_limit}")
        command = argv.events(container_id, milliseconds(interval))

        async def start() -> EventReader:
            await self._requirements.require(command)
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
        """Watch the container's first process; None if there is no record of it.

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
        """Ask runc which process it is."""
        response = await self._calls.request(argv.state(container_id), timeout=DEFAULT, stop=KILL)
        process = ProcessIdentity.told(decode_state(response.stdout).pid)
        if process is None:
            raise ProcessLookupError(f"the first process of container {container_id!r} has ended")
        return process


def milliseconds(interval: float) -> int:
    """Turn an interval into what runc takes.

    Raises:
        ValueError: If it is below a millisecond, too long for runc, or no number.
    """
    if not 0.001 <= interval < _LONGEST or not math.isfinite(interval):  # noqa: PLR2004 - a millisecond
        raise ValueError(f"interval must be at least a millisecond, in seconds, and below 292 years, not {interval!r}")
    return round(interval * 1000)
