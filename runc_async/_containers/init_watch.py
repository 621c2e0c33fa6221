"""What `runc events` may not tell: the end of a container's first process, and what was killed there for memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from .._linux.cgroup import memory_cgroup, read_oom_kills
from .._linux.pidfd import has_exited, open_pidfd
from .._linux.procfs import ProcessIdentity


class InitWatch:
    """Calls back once when a container's first process has ended, and compares events with the kernel's counter.

    Args:
        process: The container's first process.

    Raises:
        ProcessLookupError: If it has ended.
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

    def start(self, on_end: Callable[[], object]) -> None:
        """Call back at the end of the process."""
        self._loop.add_reader(self._pidfd, self._end, on_end)

    def _end(self, on_end: Callable[[], object]) -> None:
        """Note the end. Who deletes the container removes the cgroup with its counter, so that is read at once."""
        self.ended = True
        self._look()
        self.close()
        on_end()

    def _look(self) -> None:
        """Read the counter, if it is there still."""
        kills = None if self._cgroup is None else read_oom_kills(self._cgroup)
        if kills is not None:
            self._kills = kills

    def told(self) -> None:
        """Note that runc has told of a kill."""
        self._look()
        self._told = max(self._kills, self._told + self._reported_first)

    @property
    def untold(self) -> bool:
        """Whether the kernel has killed more than runc has told of."""
        self._look()
        return self._kills > self._told

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._pidfd >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
