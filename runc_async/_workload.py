"""The process of a container's that a foreground runc waits for: how it is found and killed.

SIGKILL for runc alone would orphan it: the container goes on, and nobody holds it any more. It is runc's child, because
runc starts it with CLONE_PARENT; a command in front of runc adds generations, so the whole tree counts.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator


def kill_workload(pid: int) -> None:
    """Kill all descendants of `pid`, a child of ours that hasn't been reaped, but not itself: runc reports the end.

    Each is signalled through a pidfd that is checked against its parent, since process ids are used again.
    """
    for descendant, parent in list(_descendants(pid)):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            pidfd = os.pidfd_open(descendant)
            try:
                if descendant in children(parent):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _descendants(pid: int) -> Iterator[tuple[int, int]]:
    """Yield each descendant with its parent, the deepest first."""
    for child in children(pid):
        yield from _descendants(child)
        yield child, pid


def children(pid: int) -> list[int]:
    """Tell the children of `pid`, empty if it is gone: proc(5), `/proc/PID/task/TID/children`."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    return found
