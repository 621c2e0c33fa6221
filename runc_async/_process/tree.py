"""The process tree of an `exec`, including re-parented processes: how to signal the tree, and how to end it."""

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
"""Seconds for a whole tree to end after SIGKILL."""

ROUNDS = 100
"""Maximal number of listings of a tree that is killed. Each lists the forks since the last one, which get fewer."""

GLANCE = 0.05
"""Maximal seconds between two looks at a tree that is ending."""


class Tree:
    """All processes started by an `exec`; empty for other commands.

    The processes are found by a leaf cgroup; leaving the cgroup takes the right to change cgroups. Without a leaf
    cgroup the processes are found by an inherited mark. A process that removes the mark is missed.

    Args:
        invocation: The invocation.
        child: The runtime process.
        workload: The container's process; None if unknown.
        leaf: The cgroup; None if there is none.

    Attributes:
        launcher: Words of a program to put in front of the runtime, so the first fork has the mark already.
    """

    def __init__(
        self, invocation: Invocation, child: Child, workload: Workload | None, leaf: LeafCgroup | None
    ) -> None:
        mark = InheritedMark()
        self._known: LeafCgroup | InheritedMark = mark if leaf is None else leaf
        self._child = child
        self._workload = workload
        self._is_exec = invocation.stop.waits_for_process and invocation.command == "exec"
        self._ends_whole = self._is_exec and invocation.stop.tree
        self._is_cut_short = False
        # The processes of a sandbox such as gVisor's don't descend from the runtime.
        self._mark = mark if leaf is None and self._is_exec and invocation.sandbox is None else None
        # The launcher takes some milliseconds; without it a fork in the first one of them may be missed.
        self.launcher = self._mark.words() if self._mark is not None and self._ends_whole else []

    def spawned(self) -> None:
        """Mark the runtime process, and the reported process in case it was faster: there may be no launcher."""
        if (mark := self._mark) is not None:
            mark.put(self._child.pid)
            if (workload := self._workload) is not None:
                workload.started.add_done_callback(lambda _: mark.put_late(workload.pid) if workload.pid else None)

    def cut_short(self, *, lost: bool = False) -> None:
        """Record the caller's end of the first process: from now on `kill` and `end` end all of the other processes.

        Without a call, the other processes are left alone: the first process has ended by itself.

        Args:
            lost: Whether the runtime had ended before the process.
        """
        ended = self._workload is None or self._workload.exited.done()
        self._is_cut_short |= self._ends_whole and (lost or not ended)

    def kill(self) -> None:
        """Kill the whole tree after `cut_short`; don't wait for the end."""
        if self._is_cut_short:
            self._kill()

    async def end(self) -> None:
        """Kill the whole tree after `cut_short`, and wait at most `KILL_TIME` (2.0 seconds) for the end.

        If the call is cancelled, the processes are killed, but perhaps not gone yet.
        """
        if self._is_cut_short:
            with anyio.move_on_after(KILL_TIME):
                while found := self._members(self._runtime()):
                    self._kill()
                    await _ended(found[-1])

    def signal(self, signum: int) -> None:
        """Send a signal to the whole tree. SIGKILL also reaches processes forked at the same time."""
        if not self._is_exec:
            return
        if signum == signal.SIGKILL:
            self._kill()
        else:
            self._signal(self._members(self._runtime()), signum)

    def _kill(self) -> None:
        """Kill the whole tree."""
        if isinstance(self._known, LeafCgroup):
            # cgroup.kill ends members and their new children together. Where the kernel lacks the file, `seal` stops
            # the growth of the cgroup: list and kill until there is no new process.
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
        """Return the marked processes of the runtime: all between the current process and the first process."""
        process = None if self._workload is None else self._workload.process
        return {self._child.pid, *([] if process is None else ancestors(process.pid, self._child.pid))}

    def _found(self, spared: Collection[int]) -> Iterator[list[int]]:
        """Yield lists of new processes, each process once, until there are no new processes."""
        seen = set(spared)
        for _ in range(ROUNDS):
            found = self._members(seen)
            if not found:
                return
            yield found
            seen.update(found)

    def _members(self, spared: Collection[int]) -> list[int]:
        """List the processes without zombies."""
        return [pid for pid in self._known.members() if pid not in spared]

    def _signal(self, pids: Collection[int], signum: int) -> None:
        """Send a signal to each process."""
        for pid in pids:
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
                try:
                    # The pidfd is opened first and the membership checked afterwards: a process that has this pid and
                    # is a member now is the process of the pidfd, or else the signal fails with ESRCH.
                    if self._known.is_member(pid):
                        signal.pidfd_send_signal(pidfd, signum)
                finally:
                    os.close(pidfd)


async def _ended(pid: int) -> None:
    """Wait for the end of the process with the pid, at most `GLANCE` (0.05 seconds)."""
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
