"""The first process of a container, which is not our child: known by a pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
from pathlib import Path

import anyio

from ._cgroup import memory_cgroup, read_oom_kills
from ._exit import REAP_TIMEOUT, wait_pidfd
from ._pidfd import has_exited
from .exitstatus import ExitStatus

KILL_WAIT = 2.0
"""Seconds for a container's process to end after SIGKILL; one that is frozen ends when runc has thawed it."""


class Init:
    """The first process of a container, known by its pidfd; how it ended is told once, and kept."""

    def __init__(self, pid: int, pidfd: int) -> None:
        """Take over the pidfd."""
        self.pid = pid
        self.pidfd = pidfd
        self.status: ExitStatus | None = None
        self._turn = asyncio.Lock()
        self._memory: Path | None = memory_cgroup(pid)
        self._oom_kills = 0 if self._memory is None else read_oom_kills(self._memory) or 0

    async def wait(self, *, reap_timeout: float = REAP_TIMEOUT) -> ExitStatus:
        """Wait for its end; several tasks may."""
        async with self._turn:
            if self.pidfd >= 0 and (self.status is None or not self.status.known):
                status = await wait_pidfd(
                    self.pidfd,
                    memory_cgroup=self._memory,
                    oom_kills_before=self._oom_kills,
                    reap_timeout=reap_timeout,
                )
                self.status = _merged(self.status, status)
            return self.status or ExitStatus()

    @property
    def exited(self) -> bool:
        """Whether it has ended."""
        return has_exited(self.pidfd)

    def send_signal(self, signum: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signals.pidfd_send_signal(self.pidfd, signum)

    async def end(self, grace: float) -> None:
        """End it: SIGTERM, `grace` seconds, SIGKILL."""
        for signum, seconds in ((signals.SIGTERM, grace), (signals.SIGKILL, KILL_WAIT)):
            if seconds > 0 and not self.exited:
                self.send_signal(signum)
                with anyio.move_on_after(seconds):
                    await self.wait(reap_timeout=0)

    def close(self) -> None:
        """Close the pidfd. Idempotent."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def _merged(before: ExitStatus | None, after: ExitStatus) -> ExitStatus:
    """Keep what was read of the cgroup, which may be gone by now, and when the end was seen."""
    if before is None:
        return after
    return ExitStatus(
        code=after.code,
        signal=after.signal,
        oom_killed=before.oom_killed if after.oom_killed is None else after.oom_killed,
        exited_at=before.exited_at or after.exited_at,
    )
