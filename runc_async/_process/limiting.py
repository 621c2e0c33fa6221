"""Enforcement of a call's `Limits` while the process runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from .._containers.workload import Workload
from .._linux.cgroup import cgroup_of
from .._linux.cpu_time import read_cpu_seconds
from ..endreason import EndReason
from ..errors import UnsupportedError
from ..limits import Limits
from .argument_files import ArgumentFiles
from .child import Child
from .plumbing import Plumbing
from .tree import Tree

CPUS = os.cpu_count() or 1

EARLIEST = 0.01
"""Least seconds between two looks at the CPU time: a program on one CPU can exceed its limit by this much."""

REPORT_TIME = 0.5
"""Seconds, at most, for the runtime to report that a process has been started, and how it has ended."""

TRIES = 100
"""Number of looks for the cgroup of a process before it counts as missing."""


async def within_limits(
    limits: Limits | None, files: ArgumentFiles, plumbing: Plumbing, ended: Callable[[], Coroutine[Any, Any, None]]
) -> EndReason | None:
    """Wait for the end, or until the process reaches a limit. Return the limit; the caller ends the process.

    Args:
        limits: The limits.
        files: The process and its cgroup.
        plumbing: The streams of the process.
        ended: Waits for the end.

    Raises:
        UnsupportedError: If the CPU time can't be limited.
    """
    if limits is None:
        await ended()
        return None
    watch = LimitWatch(limits, files, plumbing)
    ending = asyncio.ensure_future(ended())
    try:
        await asyncio.wait((ending, watch.exceeded), return_when=asyncio.FIRST_COMPLETED)
        return watch.exceeded.result() if watch.exceeded.done() else None
    finally:
        watch.close()
        ending.cancel()
        await asyncio.wait((ending,))


async def kill_first(child: Child, process: Workload, tree: Tree) -> None:
    """Kill the process of an `exec` and all descendants; the runtime isn't killed, and reports the end."""
    await child.wait(REPORT_TIME, or_for=process.started)  # its output can come before the runtime has reported it
    with contextlib.suppress(PermissionError):
        process.send_signal(signal.SIGKILL)
    tree.kill()
    await child.wait(REPORT_TIME)


class LimitWatch:
    """Watches a process from the runtime's report of the start until `close`.

    Attributes:
        exceeded: Done with the reason when a limit is reached. Fails if the CPU time can't be read.
    """

    def __init__(self, limits: Limits, files: ArgumentFiles, plumbing: Plumbing) -> None:
        self._loop = asyncio.get_running_loop()
        self.exceeded: asyncio.Future[EndReason] = self._loop.create_future()
        self._limits = limits
        self._workload = files.workload
        self._directory = "" if files.leaf is None else files.leaf.directories[-1]
        self._before = 0.0
        self._wall: asyncio.TimerHandle | None = None
        self._next: asyncio.TimerHandle | None = None
        if limits.output is not None:
            plumbing.when_dropped(lambda: self._end(EndReason.OUTPUT))
            if plumbing.dropped:  # before the spawn had returned
                self._end(EndReason.OUTPUT)
        if self._workload is not None:
            self._workload.started.add_done_callback(lambda _: self._begin())

    def close(self) -> None:
        """Stop watching. Idempotent."""
        for timer in (self._wall, self._next):
            if timer is not None:
                timer.cancel()
        if not self.exceeded.cancel():
            self.exceeded.exception()  # it counts as seen: the end may have come at the same time

    def _begin(self) -> None:
        """Start the clocks."""
        if self.exceeded.done():
            return
        if self._limits.wall is not None:
            self._wall = self._loop.call_later(self._limits.wall, self._end, EndReason.WALL)
        if self._limits.cpu is not None:
            self._find(self._limits.cpu, TRIES)

    def _find(self, limit: float, tries: int) -> None:
        """Find the cgroup, and start to read its CPU time."""
        if self._workload is None or self.exceeded.done():
            return
        if not self._directory:
            self._directory = str(cgroup_of(self._workload.pid, "cpuacct") or "")
        used = read_cpu_seconds(self._directory)
        if used is not None:
            self._before = used
            self._look(limit)
        # A first process that is ending has left its cgroup, but exists until its pid namespace is empty. So a process
        # without a cgroup is looked at again for a while.
        elif self._workload.runs and not tries:
            problem = "cgroup of the container's own that can be read, which a limit of CPU time needs"
            self.exceeded.set_exception(UnsupportedError(problem))
        elif self._workload.runs:
            self._next = self._loop.call_later(EARLIEST, self._find, limit, tries - 1)

    def _look(self, limit: float) -> None:
        """Compare the CPU time with the limit, and schedule the next look."""
        used = read_cpu_seconds(self._directory)
        if used is None or self.exceeded.done():
            return
        left = limit - (used - self._before)
        if left <= 0:
            self._end(EndReason.CPU)
        else:
            # All CPUs may work for the program until the next look, so it comes before they could use up the rest.
            self._next = self._loop.call_later(max(EARLIEST, left / CPUS), self._look, limit)

    def _end(self, reason: EndReason) -> None:
        """Report the first reached limit."""
        if not self.exceeded.done():
            self.exceeded.set_result(reason)
