"""Processes that are not our children: which one a number means, and what the kernel tells about it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import time
from collections.abc import Iterable
from typing import NamedTuple

_PROC = "/proc"

# ioctl_pidfd(2): struct pidfd_info in its first published size of 64 bytes. The kernel takes any larger one too.
_INFO = struct.Struct("=QQ11Ii")
_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes)
_INFO_EXIT = 1 << 3

_EXIT_CODE = 49  # field 52 of proc_pid_stat(5), counted as `_stat` does
# Before Linux 5.17 the field is that of the leader thread, and 0 if that had ended before another one called exit(3).
TELLS_PROCESS = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (5, 17)


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
        return cls(pid, _stat(pid, 19))

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


def open_pidfd(process: ProcessIdentity) -> int:
    """Open a pidfd of exactly this process: non-inheritable, and the caller's.

    Signal through it with `signal.pidfd_send_signal`, which never hits another process.

    Raises:
        ProcessLookupError: If it is gone, even if its number is in use again.
        OSError: If no descriptor is left.
    """
    pidfd = os.pidfd_open(process.pid)
    # The number may have changed hands before the call, but not between the call and this check unnoticed: whoever
    # has it now started later.
    try:
        exists = process.exists()
    except OSError:
        os.close(pidfd)
        raise
    if exists:
        return pidfd
    os.close(pidfd)
    raise ProcessLookupError(f"process {process.pid} is gone")


def open_child(pid: int, parent: int) -> int:
    """Open a pidfd of the process that has this number now and is a child of `parent`; see `open_pidfd`.

    Raises:
        ProcessLookupError: If it is gone, or is another's child: its number, or that of its parent, is used again.
        OSError: If no descriptor is left.
    """
    pidfd = os.pidfd_open(pid)
    try:
        if _stat(pid, 1) != parent:
            raise ProcessLookupError(f"process {pid} is no child of process {parent}")
    except OSError:
        os.close(pidfd)
        raise
    return pidfd


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
            with open(f"{_PROC}/{pid}/status", "rb", buffering=0) as file:
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


def pidfd_pid(pidfd: int) -> int:
    """Tell the number of the process that a pidfd is of.

    Raises:
        ProcessLookupError: If it has ended and was reaped, or is invisible from here.
        ValueError: If `pidfd` is no pidfd.
    """
    if numbers := pidfd_numbers(pidfd):
        return numbers[0]
    raise ProcessLookupError(f"the process of pidfd {pidfd} is gone")


def pidfd_numbers(pidfd: int) -> list[int]:
    """Tell the numbers that the process of a pidfd has: here, and in each pid namespace below, down to its own.

    Returns:
        The numbers; none if it has ended and was reaped, or is invisible from here.

    Raises:
        ValueError: If `pidfd` is no pidfd.
    """
    with open(f"{_PROC}/self/fdinfo/{pidfd}", encoding="ascii") as file:
        fields = {name: value for name, _, value in (line.partition(":") for line in file)}
    if "Pid" not in fields:
        raise ValueError(f"descriptor {pidfd} is no pidfd")
    numbers = [int(number) for number in fields.get("NSpid", fields["Pid"]).split()]
    return numbers if numbers[0] > 0 else []


def has_exited(pidfd: int) -> bool:
    """Say whether all threads of the process have ended; it may be a zombie still."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def kept_status(pidfd: int) -> int | None:
    """Ask the kernel for the wait status that it keeps for a pidfd after the process was reaped.

    Returns:
        The status as wait(2) has it, or None as long as the process has not been reaped.

    Raises:
        ProcessLookupError: If the process was reaped and its status is not kept: before Linux 6.15.
        OSError: If the kernel has no such call: before Linux 6.13.
    """
    info = bytearray(_INFO.size)
    struct.pack_into("=Q", info, 0, _INFO_EXIT)
    fcntl.ioctl(pidfd, _GET_INFO, info)
    mask, *_, status = _INFO.unpack(info)
    return status if mask & _INFO_EXIT else None


def zombie_status(pidfd: int) -> int | None:
    """Read the wait status of a process that has ended and wasn't reaped: proc_pid_stat(5), `exit_code`.

    Unlike the kernel's memory, it needs no parent that reaps, and no new kernel.

    Returns:
        The status as wait(2) has it. None if the process runs or was reaped, or if it isn't ours to look into.

    Raises:
        OSError: If no descriptor is left.
    """
    if not has_exited(pidfd):  # a leader thread that has ended looks like a zombie while its process lives
        return None
    try:
        pid = pidfd_pid(pidfd)
        # Without the permission the field reads 0, and there is no error. The link needs the same permission:
        # ptrace(2), "Ptrace access mode checking", PTRACE_MODE_READ_FSCREDS.
        os.readlink(f"{_PROC}/{pid}/ns/user")
        status = _stat(pid, _EXIT_CODE)
        pidfd_pid(pidfd)  # raises if it was reaped meanwhile: the number may have been another process's by then
    except OSError as exc:
        if exc.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
            raise
        return None
    return status if status or TELLS_PROCESS else None


def told_status(pidfd: int) -> int | None:
    """Return the wait status of a process that has ended, if the zombie or the kernel's memory tells it now."""
    try:
        status = zombie_status(pidfd)
        return kept_status(pidfd) if status is None else status
    except OSError:
        return None


def is_reaped(pidfd: int) -> bool:
    """Say whether a process has ended and was reaped, or is invisible from here."""
    return not pidfd_numbers(pidfd)


def descends_from(pid: int, ancestor: int) -> bool | None:
    """Say whether a process is `ancestor`, or its child, or a child's child; None if it is gone."""
    seen: set[int] = set()
    while pid > 0 and pid not in seen:  # in a circle only if numbers changed hands meanwhile
        if pid == ancestor:
            return True
        seen.add(pid)
        try:
            pid = _stat(pid, 1)
        except ProcessLookupError:
            return None
    return False


def parent_of(pid: int) -> int:
    """Return the parent of the process that has this number now; 0 if it is outside of our pid namespace.

    Raises:
        ProcessLookupError: If there is none.
    """
    return _stat(pid, 1)


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
        for thread in os.listdir(f"{_PROC}/{pid}/task"):
            with open(f"{_PROC}/{pid}/task/{thread}/stat", "rb", buffering=0) as file:
                states.add(file.read().rpartition(b") ")[2][:1])
    return states <= {b"T", b"t", b"Z", b"X"}


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
        with open(f"{_PROC}/{pid}/comm", "rb", buffering=0) as file:
            return file.read().rstrip(b"\n")
    except (FileNotFoundError, ProcessLookupError):
        return b""


def is_forsaken(pid: int, name: bytes) -> bool:
    """Say whether a process has this name, and is in a session whose leader is gone: so do processes fork to detach.

    What was started and not forked twice is in our own session, or leads one of its own.
    """
    try:
        named = name_of(pid) == name
        session = _stat(pid, 3)
    except OSError:
        return False
    return named and session not in {0, pid, os.getsid(0)} and not os.path.exists(f"{_PROC}/{session}")


def _stat(pid: int, field: int) -> int:
    """Read a number of proc_pid_stat(5), counted from the third on: the second, a name, may hold blanks and brackets.

    Raises:
        ProcessLookupError: If there is no such process.
    """
    try:
        with open(f"{_PROC}/{pid}/stat", "rb", buffering=0) as file:
            content = file.read()
        return int(content.rpartition(b")")[2].split()[field])
    except (OSError, ValueError, IndexError) as exc:  # an impossible pid makes an impossible path
        if isinstance(exc, OSError) and exc.errno not in {errno.ENOENT, errno.ESRCH, errno.ENAMETOOLONG}:
            raise
        raise ProcessLookupError(f"process {pid} is gone") from None
