"""A running `runc events`: its lines, its failures, and its end."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio
import msgspec

from .._answers.decode import OOMLine
from .._answers.outcome import command_error
from .._containers.first_process import InitWatch, watches_memory
from .._process.argument_files import LOG_LIMIT
from .._process.running import RunningProcess
from ..errors import ContainerNotFound, ContainerNotRunning, LogRecord, RuncError
from ..event import Arrival, StatsFailedEvent
from ..runner import Completed, Invocation, Process, Runner
from .lines import LineFramer

CHUNK = 1 << 18
"""Bytes per read: the capacity of a pipe on Linux."""

STATS = b'{"type":"stats"'
"""The start of such a line in all versions of runc. If a newer version differs, no metrics are skipped as outdated."""

PATIENCE = 3
"""Consecutive intervals without metrics that end the stream."""

LEAST_SILENCE = 1.0
"""Least seconds of silence before runc is asked for the reason: a short interval passes quickly on a busy host."""

_FAILURES = ("unable to get container ", "unable to get network stats", "getting container stats")
"""Prefixes of runc's messages about unreadable metrics; the last one is runc 1.0's. runc continues afterwards."""


class Lines(NamedTuple):
    """Lines that were read together.

    Attributes:
        block: The lines, with their ends.
        arrival: The time of the read.
    """

    block: bytes
    arrival: Arrival


class Source(NamedTuple):
    """The start of a `runc events`, and questions about its container.

    Attributes:
        runner: The runner.
        invocation: The invocation.
        interval: Seconds between two metrics.
        line_limit: Maximal bytes of a line; see `LineFramer`.
        find: Returns a watch of the container's first process, or None if unknown; raises ProcessLookupError if the
            process has ended.
        ask: Requests metrics from runc at once, and raises runc's error.
    """

    runner: Runner
    invocation: Invocation
    interval: float
    line_limit: int
    find: Callable[[], Awaitable[InitWatch | None]]
    ask: Callable[[], Awaitable[object]]


class EventReader:
    """Reads the output of a running `runc events`, and ends runc together with the container.

    Args:
        source: The start of the process.
        process: The process.
        watch: Notices the container's end; None if there was no process to watch yet.

    Attributes:
        error: The error of runc, if it has failed, once `read` has returned None.
        on_failure: Called as soon as runc couldn't read metrics.
    """

    error: RuncError | None = None

    def __init__(self, source: Source, process: Process, watch: InitWatch | None) -> None:
        self.on_failure: Callable[[StatsFailedEvent], object] = lambda _: None
        self._source = source
        self._process = process
        self._watch = watch
        self._framer = LineFramer(source.line_limit)
        self._log = _Log()
        self._at_end = False
        self._found = watch is not None  # or looked for once more
        self._ended = False  # the container, as far as we have seen
        self._ended_early = False  # one that was there before runc had looked at it
        self._reads = 0
        self._waiting = False
        self._failures = 0
        self._asking: asyncio.Task[None] | None = None
        self._logging = None if process.stderr is None else asyncio.create_task(self._read_log())
        self._silence = max(PATIENCE * source.interval, LEAST_SILENCE)
        self._timer = asyncio.get_running_loop().call_later(self._silence, self._look_for_silence, 0)
        if watch is not None:
            watch.start(self._init_ended)

    @classmethod
    async def start(cls, source: Source) -> EventReader:
        """Watch the container, and start runc.

        Raises:
            RuncNotFound: If the program doesn't exist.
            OSError: If the start fails.
        """
        try:
            watch = await source.find()
        except ProcessLookupError:  # of which runc itself will tell, unless there is another container by then
            watch = None
        try:
            process = await source.runner.open(source.invocation)
        except BaseException:
            if watch is not None:
                watch.close()
            raise
        return cls(source, process, watch)

    async def read(self) -> Lines | None:
        """Wait for the next lines, and return them; None at the end. Cancelling loses nothing.

        Raises:
            anyio.ClosedResourceError: If the reader is closed, before or during the call.
        """
        if self._at_end:
            return None
        if self._process.stdout is None:
            raise TypeError(f"the runner has opened {self._source.invocation.streams} without a stdout")
        self._waiting = True
        try:
            chunk = await self._process.stdout.receive(CHUNK)
        except anyio.EndOfStream:
            return await self._end()
        finally:
            self._waiting = False
        lines = Lines(self._framer.feed(chunk), Arrival.stamp())
        self._reads += 1
        if STATS in lines.block:
            self._failures = 0
        if not self._found:
            await self._find_again()
        return lines

    async def _find_again(self) -> None:
        """Watch the container found by runc, if the container was being created, or recreated, before."""
        self._found = True
        try:
            watch = await self._source.find()
        except ProcessLookupError:
            self._container_ended()
        except (RuncError, OSError):
            pass  # it was deleted, of which runc tells, or there is no descriptor left
        else:
            if watch is not None and not self._at_end and not self._ended:
                self._watch = watch
                watch.start(self._init_ended)
            elif watch is not None:
                watch.close()

    def _init_ended(self) -> None:
        """End runc together with the container that runc watches."""
        # In the order of time: 1. The stream starts; container A exists, and is watched. 2. A ends, and container B
        # gets its id. 3. runc has started up, and finds B. So the end of A means nothing before runc has looked at a
        # container.
        if self._reads or self._failures or watches_memory(self._process.pid):
            self._container_ended()
        elif self._watch is not None:
            self._watch.close()
            self._watch = None
            self._found = False
            self._ended_early = True

    def _container_ended(self) -> None:
        """End runc. Its output so far stays in the pipe."""
        self._ended = True
        self._process.send_signal(signal.SIGKILL)

    async def _end(self) -> Lines:
        """Wait for runc's exit, and store its error; return the last line if the line has no end."""
        nothing = Lines(b"", Arrival.stamp())
        completed = await self._process.wait()
        if self._logging is not None:
            await asyncio.wait((self._logging,))
        self._at_end = True
        self._timer.cancel()
        # We have ended runc ourselves, so its exit code means nothing.
        if self._ended or self.error is not None:
            return nothing
        if completed.returncode != 0:
            error = command_error(self._source.invocation, self._log.added_to(completed))
            ended_before = self._ended_early and isinstance(error, ContainerNotFound | ContainerNotRunning)
            self.error = None if ended_before else error
            return nothing
        # Only for a regular exit: the last output of a killed runc is the beginning of a line, and no event.
        return nothing._replace(block=self._framer.end())

    async def _read_log(self) -> None:
        """Read runc's log, and other output on stderr, until the end: the body of a task."""
        stderr = self._process.stderr
        while stderr is not None:
            try:
                records = self._log.feed(await stderr.receive(CHUNK))
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                return
            for record in records:
                if record.is_error and record.msg.startswith(_FAILURES):
                    await self._figures_failed(record)

    async def _figures_failed(self, record: LogRecord) -> None:
        """Report that runc couldn't read metrics, unless the container has ended."""
        if not self._found:
            await self._find_again()
        if self._ended or self._at_end or (self._watch is not None and self._watch.has_ended):
            return
        self._failures += 1
        invocation = self._source.invocation
        error = command_error(invocation, Completed(pid=self._process.pid, returncode=None, log=_as_json(record)))
        if self._failures < PATIENCE:
            self.on_failure(StatsFailedEvent(invocation.container_id or "", error))
        else:
            self._give_up(error)

    def _give_up(self, error: RuncError) -> None:
        """End runc, and the stream with an error."""
        if self.error is None and not self._at_end:
            self.error = error
            self._process.send_signal(signal.SIGKILL)

    def _look_for_silence(self, reads: int) -> None:
        """Ask for the reason if nothing has arrived for some intervals, although a caller was waiting."""
        if self._at_end or self._ended:
            return
        if self._waiting and reads == self._reads and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask())
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._silence, self._look_for_silence, self._reads)

    async def _ask(self) -> None:
        """Request metrics from runc, and end the stream if runc fails: the body of a task."""
        reads = self._reads
        try:
            await self._source.ask()
        except RuncError as error:
            gone = self._ended or (self._watch is not None and self._watch.has_ended)
            if reads == self._reads and not gone:
                self._give_up(error)
        except OSError:
            pass  # no process can be started now; the next time it may

    def told_of_oom(self) -> None:
        """Count an OOM event."""
        if self._watch is not None:
            self._watch.report_oom()

    def untold_oom(self) -> bytes | None:
        """Return the missing OOM line, if runc should have printed an OOM line before the container's end."""
        # On cgroup v2 runc ends as soon as the cgroup is empty, often before it has looked at the counter.
        if self._watch is None or not self._watch.unreported_oom:
            return None
        return msgspec.json.encode(OOMLine(self._source.invocation.container_id or ""))

    async def aclose(self) -> None:
        """Stop a running runc, reap it, and close everything. Can't be cancelled."""
        self._stop_watching()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
        await self._process.aclose()
        if self._logging is not None:
            await asyncio.wait((self._logging,))

    def kill(self) -> None:
        """Kill runc and close everything at once, for a finalizer; the event loop reaps runc later."""
        self._stop_watching()
        if isinstance(self._process, RunningProcess):
            self._process.drop()
        else:
            self._process.send_signal(signal.SIGKILL)

    def _stop_watching(self) -> None:
        """Release the container's first process, and the timer."""
        self._at_end = True
        self._timer.cancel()
        if self._watch is not None:
            self._watch.close()


class _Log:
    """The end of runc's stderr, split into the log and other output."""

    def __init__(self) -> None:
        self._framer = LineFramer(LOG_LIMIT)
        self._log = bytearray()
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> tuple[LogRecord, ...]:
        """Add a chunk, and return the completed records of the log."""
        from .._answers.log import parse_log  # noqa: PLC0415  (it takes milliseconds to load, and most streams log nothing)

        log = bytearray()
        for line in io.BytesIO(self._framer.feed(chunk)):
            if line.startswith(b"{"):
                log += line
            else:
                self._rest += line
        self._log += log
        for kept in (self._log, self._rest):
            del kept[:-LOG_LIMIT]
        return parse_log(bytes(log))

    def added_to(self, completed: Completed) -> Completed:
        """Return the result of runc, with this log and output."""
        rest = bytes(self._rest) + self._framer.end()
        return msgspec.structs.replace(completed, log=completed.log + bytes(self._log), stderr=completed.stderr + rest)


def _as_json(record: LogRecord) -> bytes:
    """Return a record in the form that runc has written."""
    return msgspec.json.encode({"level": record.level, "msg": record.msg, "time": record.time}) + os.linesep.encode()
