"""Exit statuses of processes other than children of the current process.

Four sources, in this order: waitid(2), if orphans come to the current process (`subreaper()`, or process 1); the
zombie, if the current process may read the zombie; the status kept by the kernel for a pidfd (Linux 6.15 and later);
otherwise the status is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import select
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import anyio

from ..exitstatus import ExitStatus, from_wait_status
from .cgroup import read_oom_kills
from .libc import orphans_come_to_us
from .pidfd import has_exited, is_reaped, kept_status, pidfd_pid, zombie_status
from .procfs import descends_from, parent_of

if TYPE_CHECKING:
    from pathlib import Path

REAP_TIMEOUT = 10.0
"""Seconds that a dead process's parent may take to reap it, before its status counts as unknown."""


async def wait_pidfd(
    pidfd: int,
    *,
    reap: bool = True,
    memory_cgroup: Path | None = None,
    oom_kills_before: int | Callable[[], int] = 0,
    reap_timeout: float = REAP_TIMEOUT,
) -> ExitStatus:
    """Wait until the process of a pidfd has ended, and return the exit status.

    A reader on the event loop serves all waits: no thread, no polling, and children of other libraries are not
    touched. Cancelling has no effect. The pidfd stays the caller's, and has to stay open until the wait has ended.

    A process can be reaped once, and older kernels report the status only to the reaper: ask once and keep the result.

    Args:
        pidfd: The process.
        reap: Reap the process if it is a child. False for children of asyncio or `subprocess`: the status is only read.
        memory_cgroup: The directory of the memory cgroup, read as soon as the process has ended, for `oom_killed`.
        oom_kills_before: The value of `read_oom_kills` before the process started, or a callable for the value after
            the process has ended.
        reap_timeout: Seconds after the end for the parent to reap the process. The kernel reports the status of an
            unreadable zombie only after the reaping, and process 1 of many containers never reaps.

    Returns:
        The status, or an unknown status.

    Raises:
        OSError: If `pidfd` can't be waited for, or no descriptor is left.
    """
    exited_at = None
    status = None
    changed = asyncio.Event()
    with watching(pidfd, changed.set):
        while not has_exited(pidfd):
            await _next(changed)
            # Noted only here: for a process that had ended before the wait, the time is unknown.
            exited_at = dt.datetime.now(dt.UTC)
        # At once: the deletion of the container removes the cgroup, and may be under way already.
        kills = None if memory_cgroup is None else read_oom_kills(memory_cgroup)
        with anyio.move_on_after(reap_timeout):
            status = await _status(pidfd, changed, reap=reap)
        if status is None:
            status = zombie_status(pidfd)  # its parent, which was to leave it to us, is still there
    before = oom_kills_before() if callable(oom_kills_before) else oom_kills_before
    oom_killed = None if kills is None else kills > before
    if status is None:
        return ExitStatus(oom_killed=oom_killed, exited_at=exited_at)
    return from_wait_status(status, oom_killed=oom_killed, exited_at=exited_at)


async def wait_exited(pidfd: int) -> None:
    """Wait until the process of a pidfd has ended, reaped or not; see `wait_pidfd`."""
    changed = asyncio.Event()
    with watching(pidfd, changed.set):
        while not has_exited(pidfd):
            await _next(changed)


async def wait_reaped(pidfd: int) -> None:
    """Wait until the process of a pidfd has ended and was reaped; Linux reports the reaping from 6.15 on."""
    changed = asyncio.Event()
    with watching(pidfd, changed.set):
        while not is_reaped(pidfd):
            await _next(changed)


async def _status(pidfd: int, changed: asyncio.Event, *, reap: bool) -> int | None:
    """Wait until the wait status of a dead process is known; return None if the status stays unknown."""
    while True:
        status = child_status(os.P_PIDFD, pidfd, reap=reap)
        if status is not None:
            return status
        # Read, but not reaped. A zombie that is about to become our child is left for waitid(2), which reaps it too.
        if not (reap and _may_become_ours(pidfd)):
            status = zombie_status(pidfd)
            if status is not None:
                return status
        try:
            status = kept_status(pidfd)
        except ProcessLookupError:
            return None
        except OSError:
            # The kernel has no such call. But the zombie's parent may be a runc process that is about to exit, and
            # then this process becomes the parent.
            if not _may_become_ours(pidfd):
                return None
        if status is not None:
            return status
        await _next(changed)


def child_status(kind: int, number: int, *, reap: bool) -> int | None:
    """Return the wait status of an ended child; None if the process runs, or is not a child."""
    try:
        result = os.waitid(kind, number, os.WEXITED | os.WNOHANG | (0 if reap else os.WNOWAIT))
    except ChildProcessError:
        return None
    if result is None:
        return None
    # In the form of wait(2): the exit code in the second byte, or the signal in the first.
    return result.si_status << 8 if result.si_code == os.CLD_EXITED else result.si_status


def _may_become_ours(pidfd: int) -> bool:
    """Return whether a zombie becomes a child of the current process when the parent, such as a runc process, exits."""
    if not orphans_come_to_us():
        return False
    try:
        return descends_from(parent_of(pidfd_pid(pidfd)), os.getpid()) is not False  # None: it has just ended
    except ProcessLookupError:
        return False


class _Watch:
    """An epoll descriptor, and a reader, for all waits of an event loop."""

    # A pidfd stays readable from the end of its process on, so a reader of the loop would be called without end. An
    # edge-triggered epoll reports each change once: the end, a new parent of the zombie, the reaping.
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waits: dict[int, list[Callable[[], object]]] = {}
        self._epoll = select.epoll()
        self._loop = loop
        loop.add_reader(self._epoll.fileno(), self._report)

    def add(self, pidfd: int, changed: Callable[[], object]) -> None:
        """Call `changed` whenever the state of the process changes."""
        if pidfd not in self.waits:
            self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLET)
        self.waits.setdefault(pidfd, []).append(changed)

    def remove(self, pidfd: int, changed: Callable[[], object]) -> None:
        """Undo `add`."""
        self.waits[pidfd].remove(changed)
        if not self.waits[pidfd]:
            del self.waits[pidfd]
            # Already removed: a pidfd that its owner closed too early, and all pidfds of a closed loop's epoll.
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(pidfd)

    def pids(self) -> Iterator[int]:
        """Yield the processes waited for. Also called by other threads, while waits begin and end here."""
        for pidfd in list(self.waits):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):  # the wait has ended meanwhile
                yield pidfd_pid(pidfd)

    def close(self) -> None:
        """Close the descriptor; the loop may be closed already."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _report(self) -> None:
        """Notify all waits for the changed processes."""
        for pidfd, _ in self._epoll.poll(0):
            # A copy: a call may end a wait, and so change the list.
            for changed in tuple(self.waits.get(pidfd, ())):
                changed()


watches: dict[asyncio.AbstractEventLoop, _Watch] = {}


@contextlib.contextmanager
def watching(pidfd: int, changed: Callable[[], object]) -> Generator[None]:
    """Call `changed` at every change of a process. On exit of the last block, closes the loop's watch."""
    loop = asyncio.get_running_loop()
    if loop not in watches:
        _close_stale_watches()
        watches[loop] = _Watch(loop)
    watch = watches[loop]
    try:
        watch.add(pidfd, changed)
        try:
            yield
        finally:
            watch.remove(pidfd, changed)
    finally:
        if not watch.waits and watches.pop(loop, None) is not None:
            watch.close()


def _close_stale_watches() -> None:
    """Close the watches of event loops closed while tasks were waiting."""
    for loop in [loop for loop in list(watches) if loop.is_closed()]:
        watches.pop(loop).close()


async def _next(changed: asyncio.Event) -> None:
    """Wait for the next change."""
    await changed.wait()
    changed.clear()
