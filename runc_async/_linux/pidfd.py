"""Process descriptors (pidfds): open, identify and ask for exit statuses."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
from collections.abc import Generator

from .files import read_whole
from .procfs import PROC, ProcessIdentity, stat_field, status_field

# ioctl_pidfd(2): struct pidfd_info in its first published size of 64 bytes. The kernel takes any larger one too.
_INFO = struct.Struct("=QQ11Ii")
_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, 64 bytes)
_INFO_EXIT = 1 << 3

_EXIT_CODE = 49  # field 52 of proc_pid_stat(5), counted as `_stat` does
# Before Linux 5.17 the field is the leader thread's, and 0 if the leader ended before another thread called exit(3).
TELLS_PROCESS = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) >= (5, 17)


def open_pidfd(process: ProcessIdentity) -> int:
    """Open a pidfd of exactly the identified process, non-inheritable and owned by the caller.

    `signal.pidfd_send_signal` with the pidfd never hits another process.

    Raises:
        ProcessLookupError: If the process is gone, even if the pid is in use again.
        OSError: If no descriptor is left.
    """
    pidfd = os.pidfd_open(process.pid)
    # The pid may have been reused before the call. The check finds it: the new process has a later start time.
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
    """Open a pidfd of the process with the pid, now a child of `parent`; see `open_pidfd`.

    Raises:
        ProcessLookupError: If the process is gone, or has another parent, because a pid was reused.
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
    """Return the pid of the process of a pidfd.

    Raises:
        ProcessLookupError: If the process has ended and was reaped, or is invisible from here.
        ValueError: If `pidfd` is no pidfd.
    """
    if numbers := pidfd_numbers(pidfd):
        return numbers[0]
    raise ProcessLookupError(f"the process of pidfd {pidfd} is gone")


def pidfd_numbers(pidfd: int) -> list[int]:
    """Return the pids of the process of a pidfd: here, and in each pid namespace below, down to the innermost.

    Returns:
        The pids; empty if the process has ended and was reaped, or is invisible from here.

    Raises:
        ValueError: If `pidfd` is no pidfd.
    """
    fields = read_whole(f"{PROC}/self/fdinfo/{pidfd}")
    pid = status_field(fields, b"Pid")
    if not pid:
        raise ValueError(f"descriptor {pidfd} is no pidfd")
    numbers = [int(number) for number in (status_field(fields, b"NSpid") or pid).split()]
    return numbers if numbers[0] > 0 else []


def has_ended(pid: int) -> bool:
    """Return whether a process has ended and waits for the parent's reaping; False if there is no such process."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        return has_exited(pidfd)
    finally:
        os.close(pidfd)


def has_exited(pidfd: int) -> bool:
    """Return whether all threads of the process have ended; the process may still be a zombie."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def kept_status(pidfd: int) -> int | None:
    """Read the wait status kept by the kernel for a pidfd after the process was reaped.

    Returns:
        The status as in wait(2), or None while the process has not been reaped.

    Raises:
        ProcessLookupError: If the process was reaped and the status is not kept: before Linux 6.15.
        OSError: If the kernel has no such call: before Linux 6.13.
    """
    info = bytearray(_INFO.size)
    struct.pack_into("=Q", info, 0, _INFO_EXIT)
    fcntl.ioctl(pidfd, _GET_INFO, info)
    mask, *_, status = _INFO.unpack(info)
    return status if mask & _INFO_EXIT else None


def zombie_status(pidfd: int) -> int | None:
    """Read the wait status of an ended and unreaped process: proc_pid_stat(5), `exit_code`.

    Needs no reaping parent, and works on every kernel.

    Returns:
        The status as in wait(2). None if the process runs or was reaped, or without permission.

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
    """Return the wait status of an ended process, if the zombie or the kernel reports the status now."""
    try:
        status = zombie_status(pidfd)
        return kept_status(pidfd) if status is None else status
    except OSError:
        return None


def is_reaped(pidfd: int) -> bool:
    """Return whether a process has ended and was reaped, or is invisible from here."""
    return not pidfd_numbers(pidfd)


class HeldPidfd:
    """A pidfd with an owner and any number of waits. The last release closes the descriptor."""

    # As soon as a descriptor is closed, its number may be reused for another file, and a wait that began before
    # would look at that file. So `close` ends only the owner's hold.
    def __init__(self, fd: int) -> None:
        """Take over `fd`."""
        self._fd = fd
        self._holds = 1
        self._owned = True

    @classmethod
    def open(cls, pid: int) -> HeldPidfd:
        """Open a pidfd of the process with the pid.

        Raises:
            ProcessLookupError: If there is no such process.
            OSError: If no descriptor is left.
        """
        return cls(os.pidfd_open(pid))

    @property
    def fd(self) -> int:
        """The descriptor; -1 after `close`."""
        return self._fd if self._owned else -1

    @contextlib.contextmanager
    def held(self) -> Generator[int]:
        """Keep the descriptor open while the block runs."""
        self._holds += 1
        try:
            yield self._fd
        finally:
            self._release()

    def detach(self) -> int:
        """Return the descriptor and give up ownership; no wait may be in progress."""
        self._owned = False
        return self._fd

    def close(self) -> None:
        """Release the descriptor as the owner. Idempotent."""
        if self._owned:
            self._owned = False
            self._release()

    def _release(self) -> None:
        """Release a hold; the last release closes the descriptor."""
        self._holds -= 1
        if not self._holds:
            os.close(self._fd)
