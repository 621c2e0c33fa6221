"""The first process of a container, not our child, held by a pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal as signals
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING

import anyio
from msgspec.structs import replace

from .._linux.cgroup import memory_cgroup, read_oom_kills
from .._linux.exits import REAP_TIMEOUT, wait_exited, wait_pidfd, watching
from .._linux.pidfd import HeldPidfd, has_ended, has_exited, open_pidfd
from .._linux.procfs import ProcessIdentity, SignalView, descendants, name_of
from .._linux.subreaper import adopt, claimed
from ..exitstatus import ExitStatus
from .adoption import COPIES

if TYPE_CHECKING:
    from pathlib import Path


EXEC_TIME = 2.0
"""Maximal seconds for a copy of runc to become the container's program after `start`; usually a millisecond."""

LOOK_TIME = 0.002
"""Seconds between two looks at the copy."""

KILL_WAIT = 2.0
"""Seconds for a container's process to end after SIGKILL; a frozen process ends after runc has thawed the cgroup."""


class Init:
    """The first process of a container, held by a pidfd. The exit status is read once and kept."""

    def __init__(self, pid: int, pidfd: int) -> None:
        """Take over the pidfd, even if the call fails.

        Raises:
            OSError: If no descriptor is left to read the cgroup.
        """
        self.pid = pid
        # Before anything can fail: a claimed process isn't reaped by `reap_adopted`, which would lose its status.
        claimed[pid] += 1
        self.status: ExitStatus | None = None
        self._pidfd = HeldPidfd(pidfd)
        self._watch = contextlib.ExitStack()
        self._ended_at: dt.datetime | None = None
        try:
            adopt(pid)
            # Looked up while the process runs: on cgroup v1, /proc/PID/cgroup of a zombie names the root of the
            # hierarchy.
            self._memory: Path | None = memory_cgroup(pid)
            self._oom_kills = 0 if self._memory is None else read_oom_kills(self._memory) or 0
        except BaseException:
            self.close()
            raise

    async def wait(self, *, reap_timeout: float = REAP_TIMEOUT) -> ExitStatus:
        """Wait for the end. Several tasks may wait, even while another task closes the object."""
        if self._pidfd.fd >= 0 and (self.status is None or not self.status.known):
            with self._pidfd.held() as pidfd:
                status = await wait_pidfd(
                    pidfd,
                    memory_cgroup=self._memory,
                    oom_kills_before=lambda: self._oom_kills,
                    reap_timeout=reap_timeout,
                )
                # Several waits may end together. Only one of them can have reaped the process: the others add what they
                # know.
                self.status = merged(self.status, replace(status, exited_at=status.exited_at or self._ended_at))
        return self.status or ExitStatus()

    async def ended(self) -> None:
        """Wait for the end without reading the status; return at once if closed."""
        if self._pidfd.fd >= 0:
            with self._pidfd.held() as pidfd:
                await wait_exited(pidfd)

    @contextlib.contextmanager
    def watched(self, changed: Callable[[], object]) -> Generator[None]:
        """Call `changed` after the end, and possibly again after the process was reaped, while the block runs."""
        with self._pidfd.held() as pidfd, watching(pidfd, changed):
            yield

    def notify(self, ended: Callable[[], object]) -> None:
        """Record the time of the end even if no task waits, and call `ended` then; at once if the process has ended.

        Raises:
            OSError: If no descriptor is left.
        """

        def look() -> None:
            if self.exited and self._ended_at is None:
                self._ended_at = dt.datetime.now(dt.UTC)
                self._watch.close()
                ended()

        if not self.closed:
            # Watch first, then look: a process that ends in between is noticed by either.
            self._watch.enter_context(watching(self._pidfd.fd, look))
        look()

    @property
    def exited(self) -> bool:
        """Whether the process has ended, as far as known."""
        return self._pidfd.fd < 0 or has_exited(self._pidfd.fd)

    @property
    def closed(self) -> bool:
        """Whether the object is closed."""
        return self._pidfd.fd < 0

    def send_signal(self, signum: int) -> None:
        """Send a signal. No effect if the process has ended."""
        if signum == signals.SIGKILL:
            self.before_kill()
        if self._pidfd.fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signals.pidfd_send_signal(self._pidfd.fd, signum)

    def before_kill(self) -> None:
        """Note the OOM counter before our own SIGKILL: earlier OOM kills aren't the cause of this end."""
        if not self.exited and self._memory is not None:
            self._oom_kills = read_oom_kills(self._memory) or self._oom_kills

    async def end(self, grace: float) -> None:
        """End the process: SIGTERM, `grace` seconds, SIGKILL; SIGKILL at once if the kernel would drop SIGTERM."""
        for signum, seconds in ((signals.SIGTERM, grace), (signals.SIGKILL, KILL_WAIT)):
            if seconds <= 0 or self.exited or (signum == signals.SIGTERM and await self.drops(signum)):
                continue
            self.send_signal(signum)
            with anyio.move_on_after(seconds):
                await self.wait(reap_timeout=0)

    async def drops(self, signum: int) -> bool:
        """Return whether a signal, other than SIGKILL, is never delivered: see `SignalView.drops`."""
        await become_program(self.pid)
        try:
            return SignalView.of(self.pid).drops(signum)
        except OSError:
            return False

    def close(self) -> None:
        """Close the pidfd, or leave closing to the waiting tasks. Idempotent."""
        if not self.closed:
            self._watch.close()
            self._pidfd.close()
            claimed[self.pid] -= 1
            if not claimed[self.pid]:
                del claimed[self.pid]


async def become_program(pid: int) -> None:
    """Wait until the runtime's own process has become the container's program, at most `EXEC_TIME` (2.0 seconds)."""
    # The start is reported before that. The runtime's process catches each signal and does nothing.
    with anyio.move_on_after(EXEC_TIME):
        while name_of(pid).startswith(COPIES) and not has_ended(pid):  # noqa: ASYNC110 - no event reports it
            await anyio.sleep(LOOK_TIME)


def merged(before: ExitStatus | None, after: ExitStatus) -> ExitStatus:
    """Combine the results of two waits: either may have reaped the process, or read the cgroup before the removal."""
    if before is None:
        return after
    known = before if before.known else after
    return ExitStatus(
        code=known.code,
        signal=known.signal,
        oom_killed=before.oom_killed if after.oom_killed is None else after.oom_killed,
        exited_at=before.exited_at or after.exited_at,
    )


def watches_memory(runc: int) -> bool:
    """Return whether a `runc events` has found its container, and so watches the container's memory cgroup.

    Args:
        runc: The pid of runc, or of a command in front of runc.

    Returns:
        True also if the process can't be inspected.
    """
    try:
        os.scandir(f"/proc/{runc}/fd").close()
    except OSError:
        return True
    return any(
        _is_memory_watch(link) for pid in (runc, *(pid for pid, _ in descendants(runc))) for link in _files_of(pid)
    )


def _is_memory_watch(link: str) -> bool:
    """Return whether an open file is the memory watch of a `runc events`."""
    # An inotify instance on cgroup v2; on v1 a file of the cgroup, open together with an eventfd.
    return link.endswith(("/memory.oom_control", "anon_inode:inotify"))


def _files_of(pid: int) -> Iterator[str]:
    """Yield the open files of a process, as far as visible: files are opened and closed meanwhile."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                yield os.readlink(entry)


class InitWatch:
    """Calls back once after the end of a container's first process, and compares events with the kernel's OOM counter.

    Args:
        process: The container's first process.

    Raises:
        ProcessLookupError: If the process has ended.
        OSError: If no descriptor is left.
    """

    def __init__(self, process: ProcessIdentity) -> None:
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._pidfd = open_pidfd(process)
        if has_exited(self._pidfd):
            os.close(self._pidfd)
            raise ProcessLookupError(f"process {process.pid} has ended")
        try:
            self._cgroup = memory_cgroup(process.pid)
            # On cgroup v1 the kernel reports the lack of memory first, and then kills and counts.
            self._reported_first = self._cgroup is not None and not (self._cgroup / "memory.events").exists()
            self._kills = 0
            self._look()
        except BaseException:
            os.close(self._pidfd)
            raise
        self._told = self._kills

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, even before the callback."""
        return self.ended or (self._pidfd >= 0 and has_exited(self._pidfd))

    def start(self, on_end: Callable[[], object]) -> None:
        """Call back at the end of the process."""
        self._loop.add_reader(self._pidfd, self._end, on_end)

    def _end(self, on_end: Callable[[], object]) -> None:
        """Note the end."""
        self.ended = True
        # At once: deleting the container removes the cgroup with its counter.
        self._look()
        self.close()
        on_end()

    def _look(self) -> None:
        """Read the counter if the cgroup still exists."""
        kills = None if self._cgroup is None else read_oom_kills(self._cgroup)
        if kills is not None:
            self._kills = kills

    def report_oom(self) -> None:
        """Count an OOM kill reported by runc."""
        self._look()
        self._told = max(self._kills, self._told + self._reported_first)

    @property
    def unreported_oom(self) -> bool:
        """Whether the kernel has killed more often than runc has reported."""
        self._look()
        return self._kills > self._told

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._pidfd >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
