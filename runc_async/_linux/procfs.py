"""What /proc tells of a process: its identity, parents, name and signals."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable
from typing import NamedTuple

PROC = "/proc"


class ProcessIdentity(NamedTuple):
    """A process, and no other one that gets the same number later.

    Attributes:
        pid: Its number, which the kernel reuses.
        start_time: When it started, in clock ticks since boot: field 22 of proc_pid_stat(5).
    """

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """Identify the process that has this number now; a zombie has it still.

        Raises:
            ProcessLookupError: If there is none.
        """
        return cls(pid, stat_field(pid, 19))

    @classmethod
    def told(cls, pid: int) -> ProcessIdentity | None:
        """Identify the process whose number runc has just told, having looked at it itself; None if it is gone.

        Who has the number now, and was there by then already, is the same process.
        """
        now = time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")
        if pid <= 0:
            return None
        try:
            process = cls.of(pid)
        except ProcessLookupError:
            return None
        return process if process.start_time <= now else None

    def exists(self) -> bool:
        """Say whether this very process runs, or is a zombie."""
        try:
            return self == ProcessIdentity.of(self.pid)
        except ProcessLookupError:
            return False


class SignalView(NamedTuple):
    """How a process stands to signals: proc_pid_status(5).

    Attributes:
        namespace_init: It is the first process of a pid namespace below ours.
        regarded: Bits, from 1 for signal 1, of the signals that it catches, ignores on purpose, or blocks, perhaps to
            fetch them.
    """

    namespace_init: bool
    regarded: int

    @classmethod
    def of(cls, pid: int) -> SignalView:
        """Look at the process that has this number now.

        Raises:
            ProcessLookupError: If there is none.
        """
        try:
            with open(f"{PROC}/{pid}/status", "rb", buffering=0) as file:
                fields = dict(line.split(b":", 1) for line in file.read().splitlines())
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessLookupError(f"process {pid} is gone") from None
        numbers = fields.get(b"NSpid", b"").split()  # in our own pid namespace first
        blocked, ignored, caught = (int(fields[name], 16) for name in (b"SigBlk", b"SigIgn", b"SigCgt"))
        return cls(len(numbers) > 1 and numbers[-1] == b"1", blocked | ignored | caught)

    def drops(self, signum: int) -> bool:
        """Tell whether the kernel drops this signal, other than SIGKILL and SIGSTOP: pid_namespaces(7).

        The first process of a pid namespace gets only what it has a handler for.
        """
        return self.namespace_init and not self.regarded >> (signum - 1) & 1


def descends_from(pid: int, ancestor: int) -> bool | None:
    """Say whether a process is `ancestor`, or its child, or a child's child; None if it is gone."""
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
    """Tell whether the process of this number is no older than a moment; False if there is none.

    Args:
        pid: The number.
        moment: As `clock_gettime(CLOCK_BOOTTIME)` tells it.
    """
    try:
        return ProcessIdentity.of(pid).start_time >= int(moment * os.sysconf("SC_CLK_TCK"))
    except ProcessLookupError:
        return False


def name_of(pid: int) -> bytes:
    """Tell the name of a process, of 15 bytes at most: proc_pid_comm(5); empty if it is gone."""
    try:
        with open(f"{PROC}/{pid}/comm", "rb", buffering=0) as file:
            return file.read().rstrip(b"\n")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def is_forsaken(pid: int, name: bytes) -> bool:
    """Say whether a process has this name, and is in a session whose leader is gone: so do processes fork to detach.

    What was started and not forked twice is in our own session, or leads one of its own.
    """
    try:
        named = name_of(pid) == name
        session = stat_field(pid, 3)
    except OSError:
        return False
    return named and session not in {0, pid, os.getsid(0)} and not os.path.exists(f"{PROC}/{session}")


def stat_field(pid: int, field: int) -> int:
    """Read a number of proc_pid_stat(5), counted from the third on: the second, a name, may hold blanks and brackets.

    Raises:
        ProcessLookupError: If there is no such process.
    """
    try:
        with open(f"{PROC}/{pid}/stat", "rb", buffering=0) as file:
            content = file.read()
        return int(content.rpartition(b")")[2].split()[field])
    except (OSError, ValueError, IndexError) as exc:  # an impossible pid makes an impossible path
        if isinstance(exc, OSError) and exc.errno not in {errno.ENOENT, errno.ESRCH, errno.ENAMETOOLONG}:
            raise
        raise ProcessLookupError(f"process {pid} is gone") from None


def descendants(pid: int) -> list[tuple[int, int]]:
    """Tell each descendant with its parent, none before its own children.

    A container decides how many there are, and how long a line they make: a chain of a thousand is no depth to recurse.
    """
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
    """Tell the children of `pid`, empty if it is gone: proc(5), `/proc/PID/task/TID/children`."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:  # a runc has ten threads
                found += map(int, file.read().split())
    return found


def parent_of(pid: int) -> int:
    """Return the parent of the process that has this number now; 0 if it is outside of our pid namespace.

    Raises:
        ProcessLookupError: If there is none.
    """
    return stat_field(pid, 1)


def await_halt(pids: Iterable[int], seconds: float = 0.05) -> None:
    """Wait until all threads of some processes have stopped or ended, and keep the event loop waiting meanwhile.

    After a SIGSTOP that takes microseconds: a thread that is in fork(2) makes its child first.

    Args:
        pids: The processes.
        seconds: The limit: a thread may be in an uninterruptible sleep.
    """
    deadline = time.monotonic() + seconds
    for pid in pids:
        while not _has_halted(pid) and time.monotonic() < deadline:
            time.sleep(seconds / 100)


def _has_halted(pid: int) -> bool:
    """Return whether each thread of a process has stopped, or is a zombie, or is gone: proc_pid_stat(5)."""
    states: set[bytes] = set()
    with contextlib.suppress(OSError):  # it is gone, or there is no descriptor to look with
        for thread in os.listdir(f"{PROC}/{pid}/task"):
            with open(f"{PROC}/{pid}/task/{thread}/stat", "rb", buffering=0) as file:
                states.add(file.read().rpartition(b") ")[2][:1])
    return states <= {b"T", b"t", b"Z", b"X"}
