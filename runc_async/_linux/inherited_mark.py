"""A mark on a process, inherited by later children: finds processes without a separate cgroup.

RLIMIT_LOCKS limits nothing since Linux 2.4.25. Like every limit, RLIMIT_LOCKS is inherited through fork(2) and
execve(2), and other processes can set and read the limit: getrlimit(2), prlimit(2). A process loses the mark by
changing RLIMIT_LOCKS.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import secrets
import shutil
from collections.abc import Iterator

from .pidfd import has_exited
from .procfs import PROC, descendants, stat_field

_RLIMIT_LOCKS = 10
_BITS = 56


class InheritedMark:
    """A random value, unique to a set of processes."""

    def __init__(self) -> None:
        # Bit 56 is always set, so no usual limit is taken for a mark: a small number, or RLIM_INFINITY (all bits set).
        mark = secrets.randbits(_BITS) | 1 << _BITS
        self._limits = mark, mark

    def words(self) -> list[str]:
        """Return the words of a program to put in front of another program, for a mark from the first step.

        Returns:
            The words; empty without such a program, or if the current process may not set the limit.
        """
        program = _prlimit()
        # Without CAP_SYS_RESOURCE a limit can't be raised: setrlimit(2).
        if program is None or resource.getrlimit(_RLIMIT_LOCKS)[1] != resource.RLIM_INFINITY:
            return []
        return [program, f"--locks={self._limits[0]}:{self._limits[1]}"]

    def put(self, pid: int) -> None:
        """Mark a process. No effect if the process is gone, or belongs to another user."""
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, _RLIMIT_LOCKS, self._limits)

    def put_late(self, pid: int) -> None:
        """Mark a process, perhaps started without the mark, with all descendants and the whole session.

        After the exit of its parent a process is no descendant, but still in the session. No effect if the process is
        gone.

        Args:
            pid: The process, a session leader.
        """
        if self._is_on(pid) or not os.path.exists(f"{PROC}/{pid}"):
            return
        # A process forks without the mark until it is marked itself: list again until a look finds no new process.
        seen: set[int] = set()
        while True:
            unmarked = {each for each in {pid, *_family(pid)} - seen if not self._is_on(each)}
            if not unmarked:
                return
            for each in unmarked:
                self.put(each)
            seen |= unmarked

    def members(self) -> list[int]:
        """List the marked processes, without zombies."""
        pids = [int(name) for name in os.listdir(PROC) if name.isdecimal()]
        return [pid for pid in pids if self.is_member(pid)]

    def is_member(self, pid: int) -> bool:
        """Return whether the process with the pid is marked and alive."""
        if not self._is_on(pid):
            return False
        try:
            # A zombie keeps its limits until it is reaped; only the pidfd tells a zombie from a live process.
            pidfd = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            return not has_exited(pidfd)
        finally:
            os.close(pidfd)

    def _is_on(self, pid: int) -> bool:
        """Return whether a process is marked; a zombie keeps the mark."""
        try:
            return resource.prlimit(pid, _RLIMIT_LOCKS) == self._limits
        except OSError:
            return False


@functools.cache
def _prlimit() -> str | None:
    """Return the path of prlimit(1) of util-linux; None if not installed."""
    return shutil.which("prlimit")


def _family(pid: int) -> Iterator[int]:
    """Yield the descendants of a process, and all of the session led by the process."""
    yield from (descendant for descendant, _ in descendants(pid))
    for name in filter(str.isdecimal, os.listdir(PROC)):
        with contextlib.suppress(ProcessLookupError):
            if stat_field(int(name), 3) == pid:
                yield int(name)
