"""The processes that a runc has started, such as criu and hooks: when runc is ended, they have to end too."""

from __future__ import annotations

import contextlib
import os
import signal

import anyio

from ._pidfd import has_exited, open_child
from ._workload import descendants, kill_workload

KILL_TIME = 2.0
"""Seconds for a process to end after SIGKILL."""


class Helpers:
    """The descendants of a child of ours, held by pidfds: after its end they have another parent, and can't be found.

    Args:
        pid: The child, not reaped yet.
    """

    def __init__(self, pid: int) -> None:
        self._pidfds: dict[int, int] = {}
        self.look(pid)

    def look(self, pid: int) -> None:
        """Hold those descendants, too, that the child has by now."""
        for descendant, parent in descendants(pid):
            if descendant not in self._pidfds or has_exited(self._pidfds[descendant]):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    pidfd = open_child(descendant, parent)
                    if descendant in self._pidfds:
                        os.close(self._pidfds[descendant])
                    self._pidfds[descendant] = pidfd

    async def end(self, seconds: float) -> None:
        """Wait for their end, for `seconds` at most, and kill those that are left. Can't be called again."""
        try:
            if not await self._gone(seconds):
                self._kill()
                await self._gone(KILL_TIME)
        finally:
            while self._pidfds:
                os.close(self._pidfds.popitem()[1])

    def _kill(self) -> None:
        """Kill those that are left, and what they have started since."""
        for pid, pidfd in self._pidfds.items():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)  # it keeps its number, and its children, until the end
                if not has_exited(pidfd):
                    kill_workload(pid)
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def _gone(self, seconds: float) -> bool:
        """Wait until all have ended; return whether they have."""
        with anyio.move_on_after(seconds) as scope:
            for pidfd in self._pidfds.values():
                await anyio.wait_readable(pidfd)
        return not scope.cancelled_caught
