"""Processes in /proc: identity, parents, names and signals."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

from .files import read_whole

PROC = "/proc"


class ProcessIdentity(NamedTuple):
    """A process, distinct from a later process with the same pid.

    Attributes:
        pid: The pid, reused by the kernel.
        start_time: The start, in clock ticks since boot: field 22 of proc_pid_stat(5).
    """

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Identify the process with the pid; a zombie counts.

        Raises:
            ProcessLookupError: If there is no such process.
        """
        return cls(pid, stat_field(pid, 19))

    @classmethod
    def told(cls, pid: int) -> ProcessIdentity | None:
        """Identify the process with the pid just reported by runc; return None if the process is gone."""
        # The process that has this pid now, and started before runc answered, is the process that runc saw.
        now = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
        if pid <= 0:
            return None
        try:
            process = cls.of(pid)
        except ProcessLookupError:
            return None
        return process if process.start_time <= now else None

    def exists(self) -> bool:
        """Return whether exactly the identified process runs, or is a zombie."""
        try:
            return self == ProcessIdentity.of(self.pid)
        except ProcessLookupError:
            return False


class SignalView(NamedTuple):
    """How a process handles signals: proc_pid_status(5).

    Attributes:
        namespace_init: Whether the process is the first process of a pid namespace below ours.
        regarded: Bits, from 1 for signal 1, of the caught, ignored and blocked signals.
        fetching: Whether the process waits in sigtimedwait(2), as an init often does: until the call returns, the
            kernel shows the signals of the call as not blocked.
    """

    namespace_init: bool
    regarded: int
    fetching: bool = False

    @classmethod
    def of(cls, pid: int) -> SignalView:
        """Look at the process with the pid.

        Raises:
            ProcessLookupError: If there is no such process.
        """
        try:
            status = read_whole(f"{PROC}/{pid}/status")
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError(f"process {pid} is gone") from None
        numbers = status_field(status, b"NSpid").split()  # in our own pid namespace first
        blocked, ignored, caught = (int(status_field(status, name), 16) for name in (b"SigBlk", b"SigIgn", b"SigCgt"))
        namespace_init = len(numbers) > 1 and numbers[-1] == b"1"
        return cls(namespace_init, blocked | ignored | caught, namespace_init and _fetches_signals(pid))

    def drops(self, signum: int) -> bool:
        """Return whether the kernel drops this signal, other than SIGKILL and SIGSTOP: pid_namespaces(7).

        The first process of a pid namespace gets only signals with a handler.
        """
        return self.namespace_init and not self.fetching and not self.regarded >> (signum - 1) & 1


def _fetches_signals(pid: int) -> bool:
    """Return whether a process waits in sigtimedwait(2): proc_pid_wchan(5); False if unknown."""
    try:
        return b"sigtimedwait" in read_whole(f"{PROC}/{pid}/wchan")
    except OSError:
        return False


def status_field(status: bytes, name: bytes) -> bytes:
    """Return a field of proc_pid_status(5), or of another file of the same form; empty without such a field.

    Args:
        status: The contents of the file.
        name: The name of any field but the first.
    """
    return status.partition(b"\n%s:" % name)[2].partition(b"\n")[0].strip()


def descends_from(pid: int, ancestor: int) -> bool | None:
    """Return whether a process is `ancestor` or a descendant; None if the process is gone."""
    seen: set[int] = set()
    while pid > 0 and pid not in seen:  # in a circle only if numbers changed hands meanwhile
        if pid == ancestor:
            return True
        seen.add(pid)
        try:
            pid = stat_field(pid, 1)
        except ProcessLookupError:
            return None
    return False


def began_since(pid: int, moment: float) -> bool:
    """Return whether the process with the pid started at or after a moment; False if there is no such process.

    Args:
        pid: The pid.
        moment: The moment, in seconds of CLOCK_BOOTTIME.
    """
    try:
        return ProcessIdentity.of(pid).start_time >= int(moment * os.sysconf("SC_CLK_TCK"))
    except ProcessLookupError:
        return False


def name_of(pid: int) -> bytes:
    """Return the name of a process, at most 15 bytes: proc_pid_comm(5); empty if the process is gone."""
    try:
        return read_whole(f"{PROC}/{pid}/comm").rstrip(b"\n")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def is_forsaken(pid: int, name: bytes) -> bool:
    """Return whether a process has the name and its session leader is gone, as after the double fork of a daemon.

    Processes without a double fork are in the session of the current process, or lead a separate session.
    """
    try:
        named = name_of(pid) == name
        session = stat_field(pid, 3)
    except OSError:
        return False
    return named and session not in {0, pid, os.getsid(0)} and not os.path.exists(f"{PROC}/{session}")


def stat_field(pid: int, field: int) -> int:
    """Read a number of proc_pid_stat(5), counted from the third field on.

    Raises:
        ProcessLookupError: If there is no such process.
    """
    try:
        return int(read_whole(f"{PROC}/{pid}/stat").rpartition(b")")[2].split(None, field + 1)[field])
    except (OSError, ValueError, IndexError) as exc:  # an impossible pid makes an impossible path
        if isinstance(exc, OSError) and exc.errno not in {errno.ENOENT, errno.ESRCH, errno.ENAMETOOLONG}:
            raise
        raise ProcessLookupError(f"process {pid} is gone") from None


def descendants(pid: int) -> list[tuple[int, int]]:
    """List each descendant with the parent; children come before parents."""
    # A container decides how many processes there are, and how deep: a chain of a thousand is too deep to recurse.
    found: list[tuple[int, int]] = []
    seen = {pid}
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        new = [child for child in children(parent) if child not in seen]  # again only if a number changes hands
        seen.update(new)
        waiting += new
        found += ((child, parent) for child in new)
    return found[::-1]


def children(pid: int) -> list[int]:
    """List the children of a process; empty if the process is gone: proc(5), `/proc/PID/task/TID/children`."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, read_whole(f"/proc/{pid}/task/{thread}/children").split())  # a runc has ten threads
    return found


def parent_of(pid: int) -> int:
    """Return the parent of the process with the pid; 0 if the parent is outside of the current pid namespace.

    Raises:
        ProcessLookupError: If there is no such process.
    """
    return stat_field(pid, 1)


def ancestors(pid: int, last: int) -> list[int]:
    """Return the parents of a process up to `last`; fewer if a process is gone."""
    found: list[int] = []
    with contextlib.suppress(ProcessLookupError):
        while pid > 0 and pid != last and pid not in found[:-1]:
            pid = parent_of(pid)
            found.append(pid)
    return found


def await_halt(pids: Iterable[int], seconds: float = 0.05) -> None:
    """Wait until all threads of some processes have stopped or ended; blocks the event loop.

    After a SIGSTOP the wait takes microseconds: a thread inside fork(2) creates the child first.

    Args:
        pids: The processes.
        seconds: The limit, because a thread may be in an uninterruptible sleep.
    """
    deadline = time.monotonic() + seconds
    for pid in pids:
        while not _has_halted(pid) and time.monotonic() < deadline:
            time.sleep(seconds / 100)


def _has_halted(pid: int) -> bool:
    """Return whether each thread of a process has stopped, is a zombie, or is gone: proc_pid_stat(5)."""
    states: set[bytes] = set()
    with contextlib.suppress(OSError):  # it is gone, or there is no descriptor to look with
        for thread in os.listdir(f"{PROC}/{pid}/task"):
            states.add(read_whole(f"{PROC}/{pid}/task/{thread}/stat").rpartition(b") ")[2][:1])
    return states <= {b"T", b"t", b"Z", b"X"}
