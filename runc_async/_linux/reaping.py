"""The time of orphans as zombies: measures the reaping process, process 1 or the nearest subreaper."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Generator

import msgspec

from .exits import child_status, wait_exited
from .pidfd import is_reaped
from .procfs import parent_of

LIMIT = 3.0
"""Seconds that an orphan is watched after its end."""

GLANCE = 0.005
"""Seconds between two looks at the orphan: only Linux 6.15 and later report the reaping."""

# The child starts an orphan-to-be, prints its pid and ends. The orphan ends when its stdin does.
_ORPHAN = """\
import os
pid = os.fork()
if pid:
    os.write(1, str(pid).encode())
else:
    os.close(1)
    os.read(0, 1)
"""


class Reaping(msgspec.Struct, frozen=True, kw_only=True):
    """How orphans of the current process are reaped.

    Attributes:
        reaper: The process that adopts orphans: 1, a subreaper, or the current process itself.
        seconds: Seconds from the end of an orphan to the reaping; None if the orphan was still a zombie at the limit.
    """

    reaper: int
    seconds: float | None


async def measure_reaping(limit: float = LIMIT) -> Reaping | None:
    """Create an orphan, end the orphan, and measure the time as a zombie.

    Cancelled, no process and no descriptor is left behind.

    Args:
        limit: The maximum wait in seconds after the end of the orphan.

    Returns:
        The measurement; None without a free process, descriptor or pidfd.
    """
    try:
        with _orphan() as (pid, end):
            pidfd = os.pidfd_open(pid)
            try:
                reaper = parent_of(pid)
                # The descriptor is opened before the end, so that it can't belong to a later process with this pid.
                end()
                await wait_exited(pidfd)
                if reaper == os.getpid():
                    child_status(os.P_PIDFD, pidfd, reap=True)
                return Reaping(reaper=reaper, seconds=await _seconds(pidfd, limit))
            finally:
                os.close(pidfd)
    except OSError:
        return None


async def _seconds(pidfd: int, limit: float) -> float | None:
    """Measure the time of an ended process as a zombie; None for longer than `limit`."""
    begun = time.monotonic()
    while not is_reaped(pidfd):
        if time.monotonic() - begun > limit:
            return None
        await asyncio.sleep(GLANCE)
    return time.monotonic() - begun


@contextlib.contextmanager
def _orphan() -> Generator[tuple[int, Callable[[], None]]]:
    """Start a process without a living parent; yield the pid, and a function to end the process.

    The process ends with the block at the latest.

    Raises:
        OSError: If no process or no descriptor is left.
    """
    with contextlib.ExitStack() as stack:
        reading, leash = _pipe(stack)
        answer, writing = _pipe(stack)
        argv = [sys.executable, "-ISc", _ORPHAN]
        redirected = [(os.POSIX_SPAWN_DUP2, reading.fileno(), 0), (os.POSIX_SPAWN_DUP2, writing.fileno(), 1)]
        parent = os.posix_spawn(sys.executable, argv, os.environ, file_actions=redirected)
        # Our copy: otherwise the read below would never see the end of the file.
        writing.close()
        try:
            told = answer.read()
        finally:
            # The parent has exited after its answer; from here on the process is an orphan.
            os.waitpid(parent, 0)
        if not told:
            raise ChildProcessError("there is no process to be had")
        yield int(told), leash.close


def _pipe(stack: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    """Open a pipe that is closed with the stack, and on exec."""
    ends = os.pipe2(os.O_CLOEXEC)
    return stack.enter_context(io.FileIO(ends[0], "r")), stack.enter_context(io.FileIO(ends[1], "w"))
