"""Unfinished copies of an attached runc, which puts its own pipes between an exec's process and our pipes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Iterator
from typing import NamedTuple

from .._containers.workload import Workload
from .child import Child
from .plumbing import Plumbing

_FIRST_OWN = 3  # behind stdin, stdout and stderr, which are ours or the caller's


QUIET = 0.05
"""Seconds without data, after the end of a process, after which its output counts as complete."""


class Relay(NamedTuple):
    """The pipes from which runc copies.

    Attributes:
        held: Whether another process holds the other end of a pipe, so that runc waits for more.
        idle: Whether no data is in the pipes or on the way from runc to us.
    """

    held: bool
    idle: bool


def look_at_relay(pid: int) -> Relay | None:
    """Return the state of the pipes from which runc copies.

    Args:
        pid: runc, an unreaped child of ours.

    Returns:
        None if there are no such pipes, or none visible, as with another command in front of runc.
    """
    held, idle, found = False, True, False
    try:
        for fd in _sources(pid):
            found = True
            events = _polled(f"/proc/{pid}/fd/{fd}")
            held |= not events & select.POLLHUP
            idle &= not events & select.POLLIN
        # Data read but not yet written is in the memory of a thread of runc. Such a thread is running or waiting for a
        # processor: proc_pid_stat(5), state R.
        return Relay(held, idle and not _is_running(pid)) if found else None
    except OSError:
        return None


def _sources(pid: int) -> Iterator[int]:
    """Yield the descriptors of pipes only read by a process.

    The pipe of Go's runtime is excluded: the process writes to it too.
    """
    readable: dict[int, str] = {}
    written: set[str] = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{entry}")
        if target.startswith("pipe:"):
            if _access(pid, entry) == os.O_RDONLY:
                readable[int(entry)] = target
            else:
                written.add(target)
    yield from (fd for fd, target in readable.items() if fd >= _FIRST_OWN and target not in written)


def _access(pid: int, fd: str) -> int:
    """Return the access mode of a descriptor: proc_pid_fdinfo(5), in octal."""
    with open(f"/proc/{pid}/fdinfo/{fd}", "rb", buffering=0) as file:
        flags = next(line for line in file.read().splitlines() if line.startswith(b"flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE


def _polled(path: str) -> int:
    """Return the poll(2) events of the reading end of a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return next((events for _, events in poll.poll(0)), 0)
    finally:
        os.close(fd)


def _is_running(pid: int) -> bool:
    """Return whether a thread of a process is runnable."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/task/{thread}/stat", "rb", buffering=0) as file,
        ):
            if file.read().rpartition(b")")[2].split()[0] == b"R":
                return True
    return False


async def outlive(child: Child, plumbing: Plumbing, executed: Workload, seconds: float) -> bool | None:
    """Wait for runc after the end of the process, as long as runc may have output of the process to copy.

    Args:
        child: runc.
        plumbing: The streams of runc.
        executed: The container's process.
        seconds: The limit if runc's pipes can't be seen, or runc goes on copying.

    Returns:
        None if runc has ended; else whether output is lost if runc is ended now.
    """
    loop = asyncio.get_running_loop()
    begun, came = loop.time(), plumbing.came
    while await child.wait(QUIET) is None:
        before, came = came, plumbing.came
        relay = look_at_relay(child.pid)
        still = came == before and (relay is None or relay.idle)
        # Live streams hold unread data, and runc may wait for their reader. If the pipes can't be seen, or only runc
        # knows the exit code, runc has the whole time.
        needless = still and relay is not None and relay.held and executed.wait_status is not None
        late = loop.time() - begun >= seconds
        if (needless and not plumbing.handed_out) or (late and plumbing.quiet):
            return not still
    return None
