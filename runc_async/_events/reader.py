"""One running `runc events`: its lines as they come, and its end."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterable

import anyio
import msgspec

from .._answers.outcome import command_error
from .._containers.first_process import InitWatch
from .._process.running import RunningProcess
from ..errors import CommandError
from ..event import OOMEvent
from ..runner import Invocation, Process, Runner
from .lines import LineFramer

CHUNK = 1 << 16
"""Bytes that are read at once: all that a pipe of Linux holds."""


class EventReader:
    """Reads what a running `runc events` prints, and ends it when the container ends.

    Args:
        invocation: How it was started.
        process: The process.
        watch: What notices the container's end, or None where nothing can.
        line_limit: Bytes that a line may have; see `LineFramer`.

    Attributes:
        error: How runc has failed, if it has, once `read` has returned None.
    """

    error: CommandError | None = None

    def __init__(self, invocation: Invocation, process: Process, watch: InitWatch | None, *, line_limit: int) -> None:
        self._invocation = invocation
        self._process = process
        self._watch = watch
        self._framer = LineFramer(line_limit)
        self._at_end = False
        if watch is not None:
            watch.start(self._container_ended)

    @classmethod
    async def start(
        cls, runner: Runner, invocation: Invocation, watch: InitWatch | None, *, line_limit: int
    ) -> EventReader:
        """Start runc, and take over the watch.

        Raises:
            RuncNotFound: If the program doesn't exist.
            OSError: If it can't be started.
        """
        try:
            process = await runner.open(invocation)
        except BaseException:
            if watch is not None:
                watch.close()
            raise
        return cls(invocation, process, watch, line_limit=line_limit)

    async def read(self) -> Iterable[bytes] | None:
        """Wait for the next lines, and return them with their ends; None at the end. Cancelling loses nothing.

        Raises:
            anyio.ClosedResourceError: If the reader is closed, before the call or while it waits.
        """
        if self._at_end:
            return None
        if self._process.stdout is None:
            raise TypeError(f"the runner has opened {self._invocation.streams} without a stdout")
        try:
            chunk = await self._process.stdout.receive(CHUNK)
        except anyio.EndOfStream:
            return await self._end()
        return io.BytesIO(self._framer.feed(chunk))  # finds lines a good deal faster than bytes.split

    async def _end(self) -> Iterable[bytes]:
        """Wait for runc's exit, and note a failure; return the last line if that has no end.

        What a runc that was killed leaves without an end is the beginning of a line, and no event.
        """
        completed = await self._process.wait()
        self._at_end = True
        if self._watch is not None and self._watch.ended:
            return ()
        if completed.returncode != 0:
            self.error = command_error(self._invocation, completed)
            return ()
        return (self._framer.end(),)

    def _container_ended(self) -> None:
        """End runc. What it has printed until now stays in the pipe."""
        self._process.send_signal(signal.SIGKILL)

    def told_of_oom(self) -> None:
        """Note that an event has told of a kill."""
        if self._watch is not None:
            self._watch.report_oom()

    def untold_oom(self) -> bytes | None:
        """Return the line that runc should have printed before the container's end, if it hasn't.

        On cgroup v2 runc ends as soon as the cgroup is empty, and has often not looked at the counter by then.
        """
        if self._watch is None or not self._watch.unreported_oom:
            return None
        return msgspec.json.encode(OOMEvent(self._invocation.container_id or ""))

    async def aclose(self) -> None:
        """End runc if it runs, reap it, and close everything. Can't be cancelled."""
        if self._watch is not None:
            self._watch.close()
        await self._process.aclose()

    def kill(self) -> None:
        """Kill runc and close everything at once, for a finalizer; the event loop reaps it later."""
        if self._watch is not None:
            self._watch.close()
        if isinstance(self._process, RunningProcess):
            self._process.drop()
        else:
            self._process.send_signal(signal.SIGKILL)
