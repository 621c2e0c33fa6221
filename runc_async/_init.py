"""The first process of a container, which is not our child: known by a pidfd."""

from __future__ import annotations

import contextlib
import signal as signals
from typing import TYPE_CHECKING

import anyio

from ._cgroup import memory_cgroup, read_oom_kills
from ._exit import REAP_TIMEOUT, wait_exited, wait_pidfd
from ._held_pidfd import HeldPidfd
from ._pidfd import SignalView, has_exited
from ._subreaper import adopt, claimed
from .exitstatus import ExitStatus

if TYPE_CHECKING:
    from pathlib import Path

KILL_WAIT = 2.0
"""Seconds for a container's process to end after SIGKILL; one that is frozen ends when runc has thawed it."""


class Init:
    """The first process of a container, known by its pidfd; how it ended is told once, and kept."""

    def __init__(self, pid: int, pidfd: int) -> None:
        """Take over the pidfd, in every case.

        Raises:
            OSError: If no descriptor is left to read its cgroup with.
        """
        self.pid = pid
        claimed[pid] += 1
        self.status: ExitStatus | None = None
        self._pidfd = HeldPidfd(pidfd)
        try:
            adopt(pid)
            self._memory: Path | None = memory_cgroup(pid)
            self._oom_kills = 0 if self._memory is None else read_oom_kills(self._memory) or 0
        except BaseException:
            self.close()
            raise

    async def wait(self, *, reap_timeout: float = REAP_TIMEOUT) -> ExitStatus:
        """Wait for its end; several tasks may, each as long as it wants, and also while another one closes this."""
        if self._pidfd.fd >= 0 and (self.status is None or not self.status.known):
            with self._pidfd.held() as pidfd:
                status = await wait_pidfd(
                    pidfd,
                    memory_cgroup=self._memory,
                    oom_kills_before=lambda: self._oom_kills,
                    reap_timeout=reap_timeout,
                )
                self.status = merged(self.status, status)
        return self.status or ExitStatus()

    async def ended(self) -> None:
        """Wait for its end, and not for its status; at once if this was closed."""
        if self._pidfd.fd >= 0:
            with self._pidfd.held() as pidfd:
                await wait_exited(pidfd)

    @property
    def exited(self) -> bool:
        """Whether it has ended, as far as is known."""
        return self._pidfd.fd < 0 or has_exited(self._pidfd.fd)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._pidfd.fd < 0

    def send_signal(self, signum: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if signum == signals.SIGKILL:
            self.before_kill()
        if self._pidfd.fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signals.pidfd_send_signal(self._pidfd.fd, signum)

    def before_kill(self) -> None:
        """Note that a SIGKILL of ours comes: what was killed for memory before, such as an exec, isn't this end."""
        if not self.exited and self._memory is not None:
            self._oom_kills = read_oom_kills(self._memory) or self._oom_kills

    async def end(self, grace: float) -> None:
        """End it: SIGTERM, `grace` seconds, SIGKILL; at once SIGKILL if the kernel would drop the other."""
        for signum, seconds in ((signals.SIGTERM, grace), (signals.SIGKILL, KILL_WAIT)):
            if seconds > 0 and not self.exited and not (signum == signals.SIGTERM and self._is_deaf()):
                self.send_signal(signum)
                with anyio.move_on_after(seconds):
                    await self.wait(reap_timeout=0)

    def _is_deaf(self) -> bool:
        """Tell whether SIGTERM never arrives."""
        try:
            return SignalView.of(self.pid).drops(signals.SIGTERM)
        except OSError:
            return False

    def close(self) -> None:
        """Close the pidfd, or leave that to those who wait. Idempotent."""
        if not self.closed:
            self._pidfd.close()
            claimed[self.pid] -= 1
            if not claimed[self.pid]:
                del claimed[self.pid]


def merged(before: ExitStatus | None, after: ExitStatus) -> ExitStatus:
    """Put together what two waits have learned: one may have reaped it, or read the cgroup before it was gone."""
    if before is None:
        return after
    known = before if before.known else after
    return ExitStatus(
        code=known.code,
        signal=known.signal,
        oom_killed=before.oom_killed if after.oom_killed is None else after.oom_killed,
        exited_at=before.exited_at or after.exited_at,
    )
