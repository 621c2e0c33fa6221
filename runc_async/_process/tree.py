"""All that an `exec` has started, wherever it stands in the process tree by now: how it gets signals, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Collection, Iterator

import anyio

from .._containers.workload import Workload
from .._linux.inherited_mark import InheritedMark
from .._linux.leaf_cgroup import LeafCgroup
from .._linux.procfs import ancestors, await_halt
from ..runner import Invocation
from .child import Child

KILL_TIME = 2.0
"""Seconds for all of a tree to end after SIGKILL."""

ROUNDS = 100
"""Lists, at most, of a tree that is killed; each new one has what was forked during the last, and that gets less."""

GLANCE = 0.05
"""Seconds, at most, between two looks at a tree that is ending."""


class Tree:
    """The processes that an `exec` has started; of another command none.

    They are known by a leaf cgroup, which no process leaves that isn't allowed to change cgroups. Where there is none,
    they are known by a mark that they inherit. A process that takes its mark off is missed.

    Args:
        invocation: What is started.
        child: The runtime process.
        workload: The process that it starts; None if it isn't known.
        leaf: The cgroup; None if there is none.
    """

    def __init__(
        self, invocation: Invocation, child: Child, workload: Workload | None, leaf: LeafCgroup | None
    ) -> None:
        self._known: LeafCgroup | InheritedMark = InheritedMark() if leaf is None else leaf
        self._child = child
        self._workload = workload
        self._is_exec = invocation.stop.waits_for_process and invocation.command == "exec"
        self._ends_whole = self._is_exec and invocation.stop.tree
        self._is_cut_short = False

    def spawned(self) -> None:
        """Mark the runtime process before it has started anything; and what it reports, if it has been faster."""
        if isinstance(mark := self._known, InheritedMark) and self._is_exec:
            mark.put(self._child.pid)
            if (workload := self._workload) is not None:
                workload.started.add_done_callback(lambda _: mark.put_late(workload.pid) if workload.pid else None)

    def cut_short(self, *, lost: bool = False) -> None:
        """Note that the first process is ended by us: `kill` and `end` end all of the others from now on.

        A process that has ended by itself leaves them alone.

        Args:
            lost: The runtime had ended before the process did.
        """
        ended = self._workload is None or self._workload.exited.done()
        self._is_cut_short |= self._ends_whole and (lost or not ended)

    def kill(self) -> None:
        """Kill all of them, if they were cut short, and don't wait for their end."""
        if self._is_cut_short:
            self._kill()

    async def end(self) -> None:
        """Kill all of them, if they were cut short, and wait for their end, for `KILL_TIME` at most.

        Cancelling it leaves them killed.
        """
        if self._is_cut_short:
            with anyio.move_on_after(KILL_TIME):
                while found := self._members(self._runtime()):
                    self._kill()
                    await _ended(found[-1])

    def signal(self, signum: int) -> None:
        """Send all of them a signal; SIGKILL reaches those, too, that are being forked just then."""
        if not self._is_exec:
            return
        if signum == signal.SIGKILL:
            self._kill()
        else:
            self._signal(self._members(self._runtime()), signum)

    def _kill(self) -> None:
        """Kill all of them."""
        if isinstance(self._known, LeafCgroup):
            if not self._known.seal():
                for found in self._found(()):
                    self._signal(found, signal.SIGKILL)
            return
        stopped: list[int] = []
        for found in self._found(self._runtime()):
            self._signal(found, signal.SIGSTOP)  # otherwise one of them could fork before it gets its SIGKILL
            await_halt(found)
            stopped += found
        self._signal(stopped, signal.SIGKILL)

    def _runtime(self) -> set[int]:
        """Return the processes that have the mark and are the runtime's: those between us and the first process."""
        process = None if self._workload is None else self._workload.process
        return {self._child.pid, *([] if process is None else ancestors(process.pid, self._child.pid))}

    def _found(self, spared: Collection[int]) -> Iterator[list[int]]:
        """List the processes again and again, each once, until there is no new one."""
        seen = set(spared)
        for _ in range(ROUNDS):
            found = self._members(seen)
            if not found:
                return
            yield found
            seen.update(found)

    def _members(self, spared: Collection[int]) -> list[int]:
        """List the processes, without zombies."""
        return [pid for pid in self._known.members() if pid not in spared]

    def _signal(self, pids: Collection[int], signum: int) -> None:
        """Send a signal to each process, through a pidfd: it is theirs if the number is still a member's after that."""
        for pid in pids:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
                try:
                    if self._known.is_member(pid):
                        signal.pidfd_send_signal(pidfd, signum)
                finally:
                    os.close(pidfd)


async def _ended(pid: int) -> None:
    """Wait for the end of the process that has this number now, for `GLANCE` at most."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        await asyncio.sleep(0)
        return
    try:
        with anyio.move_on_after(GLANCE):
            await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)
