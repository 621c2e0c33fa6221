"""Runtimes of a killed keeper that still run, and may still create containers."""

from __future__ import annotations

import contextlib
import os
import signal

import anyio

from .._client.calls import LET_FINISH
from .errors import KeeperError

VARIABLE = "RUNC_ASYNC_KEEPER"
"""Environment variable of a keeper's runtimes, with the keeper's directory.

Processes of containers don't have the variable.
"""


def mark(path: str) -> None:
    """Mark all future children of this keeper."""
    os.environ[VARIABLE] = path


def found(path: str) -> list[int]:
    """Return pidfds of the runtimes of an earlier keeper at a place. Call before the first start of a runtime.

    Raises:
        OSError: If no descriptor is left.
    """
    variable = f"{VARIABLE}={path}".encode(errors="surrogateescape")
    pidfds: list[int] = []
    try:
        for name in filter(str.isdecimal, os.listdir("/proc")):
            # After an upgrade, execve(2) of the new program in this process, the keeper has the variable itself.
            if int(name) != os.getpid() and (pidfd := _open_marked(name, variable)) is not None:
                pidfds.append(pidfd)  # noqa: PERF401 - each is closed if a later one fails
    except BaseException:
        for pidfd in pidfds:
            os.close(pidfd)
        raise
    return pidfds


def _open_marked(pid: str, variable: bytes) -> int | None:
    """Return a pidfd of a process if it has the variable."""
    if not _is_marked(pid, variable):
        return None
    try:
        pidfd = os.pidfd_open(int(pid))
    except ProcessLookupError:
        return None
    # Another process may have got the pid between the look and the opening. The second look is at the process behind
    # the pidfd, unless that one has ended, and then no signal reaches anything.
    if _is_marked(pid, variable):
        return pidfd
    os.close(pidfd)
    return None


def _is_marked(pid: str, variable: bytes) -> bool:
    """Return whether a process has the variable; False if it has ended, or belongs to another user."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            return variable in file.read().split(b"\0")
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return False


async def ended(pidfds: list[int]) -> None:
    """Wait for the end of processes, and kill those that still run after ten seconds; close the pidfds.

    Raises:
        KeeperError: If a process is still there after SIGKILL.
    """
    # Otherwise a start could be undone too early, before the runtime creates the container.
    try:
        for pidfd in pidfds:
            await _ended(pidfd)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


async def _ended(pidfd: int) -> None:
    """Wait for the end of a process, and kill it if necessary."""
    for seconds in (LET_FINISH.patience, LET_FINISH.grace):
        with anyio.move_on_after(seconds):
            await anyio.wait_readable(pidfd)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    raise KeeperError("a runtime of the keeper before is still there after SIGKILL")
