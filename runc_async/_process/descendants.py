"""Helper processes of runc, such as criu and hooks, which have to end together with runc."""

from __future__ import annotations

import contextlib
import os
import signal

import anyio

from .._containers.workload import KILL_ROUNDS, signal_child
from .._linux.pidfd import has_exited, open_child
from .._linux.procfs import SignalView, await_halt, children, descendants

KILL_TIME = 2.0
"""Seconds for a process to end after SIGKILL."""


class Descendants:
    """The descendants of a child, held by pidfds: after the child's end they have another parent and can't be found.

    Args:
        pid: The child, not reaped yet.
    """

    def __init__(self, pid: int) -> None:
        self._pidfds: dict[int, int] = {}
        self.look(pid)

    def look(self, pid: int) -> None:
        """Hold new descendants of the child too."""
        for descendant, parent in descendants(pid):
            if descendant not in self._pidfds or has_exited(self._pidfds[descendant]):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    pidfd = open_child(descendant, parent)
                    if descendant in self._pidfds:
                        os.close(self._pidfds[descendant])
                    self._pidfds[descendant] = pidfd

    async def end(self, seconds: float) -> None:
        """Wait at most `seconds` for the end of all descendants, then kill the rest. Can be called once."""
        try:
            if not await self._gone(seconds):
                self._kill()
                await self._gone(KILL_TIME)
        finally:
            while self._pidfds:
                os.close(self._pidfds.popitem()[1])

    def _kill(self) -> None:
        """Kill the remaining processes and all descendants."""
        for pid, pidfd in self._pidfds.items():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)  # it keeps its number, and its children, until the end
                if not has_exited(pidfd):
                    kill_descendants(pid)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def _gone(self, seconds: float) -> bool:
        """Wait for the end of all processes; return whether all have ended."""
        with anyio.move_on_after(seconds) as scope:
            for pidfd in self._pidfds.values():
                await anyio.wait_readable(pidfd)
        return not scope.cancelled_caught


def kill_descendants(pid: int) -> None:
    """Kill all descendants of `pid`, an unreaped child of ours, but not `pid` itself, which reports the end."""
    # A child that is forked after the listing gets another parent when its own is killed, and would be missed. So each
    # process is stopped first, parents before their children, and they are listed again until there is no new one. Each
    # signal goes through a pidfd that is checked against the parent.
    stopped: set[tuple[int, int]] = set()
    found: list[tuple[int, int]] = []
    for _ in range(KILL_ROUNDS):
        found = descendants(pid)
        if stopped.issuperset(found):
            break
        for descendant in (family for family in reversed(found) if family not in stopped):
            signal_child(*descendant, signal.SIGSTOP)
        await_halt(pid for pid, _ in found)
        stopped.update(found)
    for descendant in found:
        signal_child(*descendant, signal.SIGKILL)


def drops_sigterm(pid: int) -> bool:
    """Return whether the first process of runc's container ignores SIGTERM.

    Args:
        pid: runc, or the process that started runc.
    """
    seen = {pid}
    waiting = [pid]
    while waiting:
        for child in children(waiting.pop()):
            try:
                # signal(7): the first process of a pid namespace gets only signals for which it has installed a
                # handler.
                view = SignalView.of(child)
            except OSError:
                continue
            if view.namespace_init:
                return view.drops(signal.SIGTERM)
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    return False
