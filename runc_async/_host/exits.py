"""How a process ended that isn't our child, at the moment of its end: without waiting until it is reaped."""

from __future__ import annotations

import os

from .._linux.exits import child_status
from .._linux.pidfd import kept_status, pidfd_pid


def status_now(pidfd: int) -> int | None:
    """Return the wait status of a process that has ended, as wait(2) has it; None if it can't be known now.

    A zombie's is in proc_pid_stat(5), a reaped process's in the kernel's memory for pidfds (Linux 6.15), and that of a
    child of ours is looked at by waitid(2). It isn't reaped here.

    Args:
        pidfd: The process, which has ended.
    """
    try:
        if (status := child_status(os.P_PIDFD, pidfd, reap=False)) is not None:
            return status
        if (status := _zombie_status(pidfd)) is not None:
            return status
        return kept_status(pidfd)
    except OSError:
        return None


def _zombie_status(pidfd: int) -> int | None:
    """Read the wait status of a zombie, which the kernel shows to a process that may trace it (ptrace(2)).

    To others it shows 0. The same permission is asked for by the links of /proc/PID/ns, which say so.
    """
    try:
        pid = pidfd_pid(pidfd)
        os.readlink(f"/proc/{pid}/ns/user")
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            status = int(file.read().split()[-1])
        pidfd_pid(pidfd)  # raises if it has been reaped meanwhile: then the number may be another process's
    except (OSError, ValueError):
        return None
    return status
