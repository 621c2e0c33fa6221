"""How a process that is not our child tells its exit status.

Four ways, in this order: we are its parent after all, because orphans come to us (`subreaper()`, or we are process 1);
it is a zombie that we may look into; the kernel keeps the status for its pidfd (Linux 6.15 and later); else the status
is unknown.
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
    """Wait until the process of a pidfd has ended, and tell how.

    One reader on the event loop serves all waits: no thread, no polling, and no other library's child is touched.
    Waiting can be cancelled at any time, and changes nothing then. The pidfd stays the caller's, and has to stay open
    until the wait has ended.

    Only one wait can reap a process, and older kernels tell nothing to the others: ask once and keep the result.

    Args:
        pidfd: The process.
        reap: Reap it if it is our child. False for what asyncio or `subprocess` started: its status is only looked at.
        memory_cgroup: The directory of its memory cgroup, read as soon as the process has ended, for `oom_killed`.
        oom_kills_before: What `read_oom_kills` said before there was any process whose end matters; or what tells that
            once the process has ended.
        reap_timeout: Seconds that its parent may take, after its end, to reap it. Only then does the kernel tell the
            status of a zombie that isn't ours to look into, and many a process 1 of a container never reaps.

    Returns:
        The status; an unknown one if it can't be known.

    Raises:
        OSError: If `pidfd` can't be waited for, or no descriptor is left.
    """
    exited_at = None
    status = None
    changed = asyncio.Event()
    with watching(pidfd, changed.set):
        while not has_exited(pidfd):
            await _next(changed)
            exited_at = dt.datetime.now(dt.UTC)
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
    """Wait until the process of a pidfd has ended, whether or not it is reaped; see `wait_pidfd`."""
    changed = asyncio.Event()
    with watching(pidfd, changed.set):
        while not has_exited(pidfd):
            await _next(changed)


async def wait_reaped(pidfd: int) -> None:
    """Wait until the process of a pidfd has ended and was reaped, which Linux reports from 6.15 on."""
    changed = asyncio.Event()
    with watching(pidfd, changed.set):
        while not is_reaped(pidfd):
            await _next(changed)


async def _status(pidfd: int, changed: asyncio.Event, *, reap: bool) -> int | None:
    """Wait until the wait status of a dead process can be known; None if it never will be."""
    while True:
        status = child_status(os.P_PIDFD, pidfd, reap=reap)
        if status is not None:
            return status
        if not (reap and _may_become_ours(pidfd)):
            status = zombie_status(pidfd)
            if status is not None:
                return status
        try:
            status = kept_status(pidfd)
        except ProcessLookupError:
            return None
        except OSError:
            # No such call in this kernel. But a runc that is about to exit may be the zombie's parent still.
            if not _may_become_ours(pidfd):
                return None
        if status is not None:
            return status
        await _next(changed)


def child_status(kind: int, number: int, *, reap: bool) -> int | None:
    """Tell the wait status of a child of ours that has ended; None if it runs, or is not our child."""
    try:
        result = os.waitid(kind, number, os.WEXITED | os.WNOHANG | (0 if reap else os.WNOWAIT))
    except ChildProcessError:
        return None
    if result is None:
        return None
    return result.si_status << 8 if result.si_code == os.CLD_EXITED else result.si_status


def _may_become_ours(pidfd: int) -> bool:
    """Say whether a zombie comes to us, to be reaped, when its parent ends, such as a runc that is about to."""
    if not orphans_come_to_us():
        return False
    try:
        return descends_from(parent_of(pidfd_pid(pidfd)), os.getpid()) is not False  # None: it has just ended
    except ProcessLookupError:
        return False


class _Watch:
    """One epoll descriptor, and one reader, for all waits in one event loop.

    A pidfd is ready from the end of its process on and stays so; a reader of the loop would be called without end. An
    edge-triggered epoll reports each change once: the end, the change of a zombie's parent, the reaping.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.waits: dict[int, list[Callable[[], object]]] = {}
        self._epoll = select.epoll()
        self._loop = loop
        loop.add_reader(self._epoll.fileno(), self._report)

    def add(self, pidfd: int, changed: Callable[[], object]) -> None:
        """Call `changed` whenever the process changes."""
        if pidfd not in self.waits:
            self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLET)
        self.waits.setdefault(pidfd, []).append(changed)

    def remove(self, pidfd: int, changed: Callable[[], object]) -> None:
        """Undo `add`."""
        self.waits[pidfd].remove(changed)
        if not self.waits[pidfd]:
            del self.waits[pidfd]
            # A pidfd that its owner has closed too early is out already; so are all with the epoll of a closed loop.
            with contextlib.suppress(OSError, ValueError):
                self._epoll.unregister(pidfd)

    def pids(self) -> Iterator[int]:
        """Yield the processes that are waited for; asked in other threads too, while waits begin and end here."""
        for pidfd in list(self.waits):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):  # the wait has ended meanwhile
                yield pidfd_pid(pidfd)

    def close(self) -> None:
        """Close the descriptor; the loop may be closed already."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _report(self) -> None:
        """Tell all waits for the processes that have changed."""
        for pidfd, _ in self._epoll.poll(0):
            for changed in tuple(self.waits.get(pidfd, ())):
                changed()


watches: dict[asyncio.AbstractEventLoop, _Watch] = {}


@contextlib.contextmanager
def watching(pidfd: int, changed: Callable[[], object]) -> Generator[None]:
    """Have the event loop call `changed` at every change of a process; who leaves last closes the loop's watch."""
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
    """Close the watches of loops that were closed without an end of their tasks."""
    for loop in [loop for loop in list(watches) if loop.is_closed()]:
        watches.pop(loop).close()


async def _next(changed: asyncio.Event) -> None:
    """Wait for the next change."""
    await changed.wait()
    changed.clear()
