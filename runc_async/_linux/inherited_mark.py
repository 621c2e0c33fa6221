"""A mark that a process and all that it starts carry: for what has no cgroup of its own.

RLIMIT_LOCKS limits nothing since Linux 2.4.25, but is inherited through fork(2) and execve(2) like any other limit, and
another process can set and read it: getrlimit(2), prlimit(2). A process that changes it itself loses its mark.
"""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
from collections.abc import Iterator

from .pidfd import has_exited
from .procfs import PROC, descendants, stat_field

_RLIMIT_LOCKS = 10
_BITS = 56


class InheritedMark:
    """A mark that no other process has."""

    def __init__(self) -> None:
        mark = secrets.randbits(_BITS) | 1 << _BITS
        self._limits = mark, mark

    def put(self, pid: int) -> None:
        """Mark a process; nothing happens if it is gone, or isn't ours to mark."""
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, _RLIMIT_LOCKS, self._limits)

    def put_late(self, pid: int) -> None:
        """Mark a process that may have begun without the mark, and what it has started by then.

        That is its descendants, and all of its session, which a process that is forked twice doesn't leave. They are
        listed again until there is no new one, for those that have no mark yet fork without it. Nothing happens if the
        process is gone.

        Args:
            pid: The process, which leads a session.
        """
        if self._is_on(pid) or not os.path.exists(f"{PROC}/{pid}"):
            return
        seen: set[int] = set()
        while True:
            unmarked = {each for each in {pid, *_family(pid)} - seen if not self._is_on(each)}
            if not unmarked:
                return
            for each in unmarked:
                self.put(each)
            seen |= unmarked

    def members(self) -> list[int]:
        """List the processes that carry it, without zombies."""
        pids = [int(name) for name in os.listdir(PROC) if name.isdecimal()]
        return [pid for pid in pids if self.is_member(pid)]

    def is_member(self, pid: int) -> bool:
        """Return whether the process that has this number now carries it, and runs."""
        if not self._is_on(pid):
            return False
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            return not has_exited(pidfd)
        finally:
            os.close(pidfd)

    def _is_on(self, pid: int) -> bool:
        """Return whether a process carries it; a zombie does."""
        try:
            return resource.prlimit(pid, _RLIMIT_LOCKS) == self._limits
        except OSError:
            return False


def _family(pid: int) -> Iterator[int]:
    """Yield the descendants of a process, and all of the session that it leads."""
    yield from (descendant for descendant, _ in descendants(pid))
    for name in filter(str.isdecimal, os.listdir(PROC)):
        with contextlib.suppress(ProcessLookupError):
            if stat_field(int(name), 3) == pid:
                yield int(name)
