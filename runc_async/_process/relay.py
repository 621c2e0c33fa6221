"""What a runc still has to copy: between the pipes of an exec's process and ours it puts pipes of its own."""

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
"""Seconds in which nothing has come, after the end of a process, until its output counts as complete."""


class Relay(NamedTuple):
    """The pipes from which a runc copies.

    Attributes:
        held: Whether a process holds the other end of one, so that runc waits for more.
        idle: Whether nothing is in them, and nothing on its way from them to us.
    """

    held: bool
    idle: bool


def look_at_relay(pid: int) -> Relay | None:
    """Look which pipes a runc copies from, and what is in them.

    A copy that is about to be written is in the memory of a thread of runc's, which is running then, or would be if it
    had a processor: proc_pid_stat(5), state R.

    Args:
        pid: runc, a child of ours that hasn't been reaped.

    Returns:
        None if it copies from none, or that can't be seen, as where another command stands in front of runc.
    """
    held, idle, found = False, True, False
    try:
        for fd in _sources(pid):
            found = True
            events = _polled(f"/proc/{pid}/fd/{fd}")
            held |= not events & select.POLLHUP
            idle &= not events & select.POLLIN
        return Relay(held, idle and not _is_running(pid)) if found else None
    except OSError:
        return None


def _sources(pid: int) -> Iterator[int]:
    """Yield the descriptors of the pipes that a process reads, and doesn't write itself, as Go's runtime does one."""
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
    """Return how a descriptor of a process was opened: proc_pid_fdinfo(5), in octal."""
    with open(f"/proc/{pid}/fdinfo/{fd}", "rb", buffering=0) as file:
        flags = next(line for line in file.read().splitlines() if line.startswith(b"flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE


def _polled(path: str) -> int:
    """Return what poll(2) reports of the reading end of a pipe."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return next((events for _, events in poll.poll(0)), 0)
    finally:
        os.close(fd)


def _is_running(pid: int) -> bool:
    """Say whether a thread of a process has something to do."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/task/{thread}/stat", "rb", buffering=0) as file,
        ):
            if file.read().rpartition(b")")[2].split()[0] == b"R":
                return True
    return False


async def outlive(child: Child, plumbing: Plumbing, executed: Workload, seconds: float) -> bool | None:
    """Wait for a runc whose process has ended, for as long as it has output to copy that may be the process's.

    Where a stream is live, what it holds was not read yet, and runc may be waiting for its reader instead. Where it
    can't be seen for what runc waits, or only runc knows the exit code, runc has the whole time.

    Args:
        child: runc.
        plumbing: Its streams.
        executed: The process.
        seconds: The time for a runc that can't be looked at, or goes on copying.

    Returns:
        None if runc has ended; else whether output is lost if it is ended now.
    """
    loop = asyncio.get_running_loop()
    begun, came = loop.time(), plumbing.came
    while await child.wait(QUIET) is None:
        before, came = came, plumbing.came
        relay = look_at_relay(child.pid)
        still = came == before and (relay is None or relay.idle)
        needless = still and relay is not None and relay.held and executed.wait_status is not None
        late = loop.time() - begun >= seconds
        if (needless and not plumbing.handed_out) or (late and plumbing.quiet):
            return not still
    return None
