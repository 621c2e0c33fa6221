"""The exit status of a process that isn't our child, at the moment of its end, without waiting for its reaping."""

from __future__ import annotations

import os

from .._linux.exits import child_status
from .._linux.pidfd import kept_status, pidfd_pid


def status_now(pidfd: int) -> int | None:
    """Return the wait status of an ended process, as in wait(2); None if it can't be known now.

    Doesn't reap a child of the current process.

    Args:
        pidfd: The ended process.
    """
    # The status of our own child comes from waitid(2), that of a zombie from proc_pid_stat(5), and that of a reaped
    # process from the kernel's memory for pidfds (Linux 6.15).
    try:
        if (status := child_status(os.P_PIDFD, pidfd, reap=False)) is not None:
            return status
        if (status := _zombie_status(pidfd)) is not None:
            return status
        return kept_status(pidfd)
    except OSError:
        return None


def _zombie_status(pidfd: int) -> int | None:
    """Return the wait status of a zombie; None if the current process has no permission."""
    try:
        pid = pidfd_pid(pidfd)
        # The kernel shows the status only with the permission to trace (ptrace(2)), and otherwise 0. The links in
        # /proc/PID/ns need the same permission, but fail without it.
        os.readlink(f"/proc/{pid}/ns/user")
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            status = int(file.read().split()[-1])
        pidfd_pid(pidfd)  # raises if it has been reaped meanwhile: then the number may be another process's
    except (OSError, ValueError):
        return None
    return status
