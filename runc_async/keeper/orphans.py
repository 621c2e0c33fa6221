"""The runtimes that a killed keeper has left running: they go on with what they were making."""

from __future__ import annotations

import contextlib
import os
import signal

import anyio

from .._client.calls import LET_FINISH
from .errors import KeeperError

VARIABLE = "RUNC_ASYNC_KEEPER"
"""What a keeper's runtimes have in their environment: the keeper's directory. A container's own processes have not."""


def mark(path: str) -> None:
    """Mark what this keeper will start."""
    os.environ[VARIABLE] = path


def found(path: str) -> list[int]:
    """Find the runtimes of an earlier keeper at a place, before this one has started any; return a pidfd of each.

    Raises:
        OSError: If no descriptor is left.
    """
    variable = f"{VARIABLE}={path}".encode(errors="surrogateescape")
    pidfds: list[int] = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(
            FileNotFoundError, PermissionError, ProcessLookupError
        ):  # it has ended, or is another user's
            with open(f"/proc/{name}/environ", "rb", buffering=0) as file:
                marked = variable in file.read().split(b"\0")
            if marked and int(name) != os.getpid():
                pidfds.append(os.pidfd_open(int(name)))
    return pidfds


async def ended(pidfds: list[int]) -> None:
    """Wait until processes have ended, and kill those that go on for ten seconds; the pidfds are closed.

    Without this, a start could be undone before the runtime has made anything, and then the runtime would make it.

    Raises:
        KeeperError: If a process is still there after SIGKILL.
    """
    try:
        for pidfd in pidfds:
            await _ended(pidfd)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


async def _ended(pidfd: int) -> None:
    """Wait for the end of a process, and see to it."""
    for seconds in (LET_FINISH.patience, LET_FINISH.grace):
        with anyio.move_on_after(seconds):
            await anyio.wait_readable(pidfd)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    raise KeeperError("a runtime of the keeper before is still there after SIGKILL")
