"""Processes that are not our children: which one a number means, and what the kernel tells about it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
from collections.abc import Generator

from .procfs import PROC, ProcessIdentity, stat_field

# ioctl_pidfd(2): struct pidfd_info in its first published size of 64 bytes. The kernel takes any larger one too.
_INFO = struct.Struct("=QQ11Ii")
_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes)
_INFO_EXIT = 1 << 3

_EXIT_CODE = 49  # field 52 of proc_pid_stat(5), counted as `_stat` does
# Before Linux 5.17 the field is that of the leader thread, and 0 if that had ended before another one called exit(3).
TELLS_PROCESS = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (5, 17)


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
        if stat_field(pid, 1) != parent:
            raise ProcessLookupError(f"process {pid} is no child of process {parent}")
    except OSError:
        os.close(pidfd)
        raise
    return pidfd


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
    with open(f"{PROC}/self/fdinfo/{pidfd}", encoding="ascii") as file:
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
        os.readlink(f"{PROC}/{pid}/ns/user")
        status = stat_field(pid, _EXIT_CODE)
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


class HeldPidfd:
    """A pidfd with one owner and any number of waits.

    Its number may belong to another file as soon as it is closed, and a wait that began before would look at that. So
    `close` ends the owner's hold, and the last one to let go closes the descriptor.
    """

    def __init__(self, fd: int) -> None:
        """Take over `fd`."""
        self._fd = fd
        self._holds = 1
        self._owned = True

    @classmethod
    def open(cls, pid: int) -> HeldPidfd:
        """Open one of the process that has this number now.

        Raises:
            ProcessLookupError: If there is none.
            OSError: If no descriptor is left.
        """
        return cls(os.pidfd_open(pid))

    @property
    def fd(self) -> int:
        """The descriptor; -1 once its owner has closed it."""
        return self._fd if self._owned else -1

    @contextlib.contextmanager
    def held(self) -> Generator[int]:
        """Keep the descriptor open for the time of the block."""
        self._holds += 1
        try:
            yield self._fd
        finally:
            self._release()

    def detach(self) -> int:
        """Give the descriptor away; nobody may be waiting."""
        self._owned = False
        return self._fd

    def close(self) -> None:
        """Let go of it as its owner. Idempotent."""
        if self._owned:
            self._owned = False
            self._release()

    def _release(self) -> None:
        """Let go of it; the last one closes it."""
        self._holds -= 1
        if not self._holds:
            os.close(self._fd)
