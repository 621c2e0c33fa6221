"""The processes that a runc has started to help it, such as criu: when runc is ended, they have to end too."""

from __future__ import annotations

import contextlib
import os
import signal

import anyio

from .._linux.pidfd import open_child
from .._linux.procfs import SignalView, children, descendants

KILL_TIME = 2.0
"""Seconds for a process to end after SIGKILL."""


class Descendants:
    """The descendants of a child of ours, held by pidfds: after its end they are nobody's, and can't be found.

    Args:
        pid: The child, not reaped yet.
    """

    def __init__(self, pid: int) -> None:
        self._pidfds: list[int] = []
        for descendant, parent in descendants(pid):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                self._pidfds.append(open_child(descendant, parent))

    async def end(self, seconds: float) -> None:
        """Wait for their end, for `seconds` at most, and kill those that are left. Can't be called again."""
        try:
            if not await self._gone(seconds):
                self._kill()
                await self._gone(KILL_TIME)
        finally:
            while self._pidfds:
                os.close(self._pidfds.pop())

    def _kill(self) -> None:
        """Kill those that are left."""
        for pidfd in self._pidfds:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)

    async def _gone(self, seconds: float) -> bool:
        """Wait until all have ended; return whether they have."""
        with anyio.move_on_after(seconds) as scope:
            for pidfd in self._pidfds:
                await anyio.wait_readable(pidfd)
        return not scope.cancelled_caught


def kill_descendants(pid: int) -> None:
    """Kill all descendants of `pid`, a child of ours that hasn't been reaped, but not itself: runc reports the end.

    Each is signalled through a pidfd that is checked against its parent, since process ids are used again.
    """
    for descendant, parent in descendants(pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            pidfd = open_child(descendant, parent)
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def drops_sigterm(pid: int) -> bool:
    """Tell whether the first process of the container that a runc waits for never gets a SIGTERM.

    Args:
        pid: runc, or what has started runc.
    """
    seen = {pid}
    waiting = [pid]
    while waiting:
        for child in children(waiting.pop()):
            try:
                view = SignalView.of(child)
            except OSError:
                continue
            if view.namespace_init:
                return view.drops(signal.SIGTERM)
            if child not in seen:
                seen.add(child)
                waiting.append(child)
    return False
