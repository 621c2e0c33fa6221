"""The number of OOM kills during a call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._linux.cgroup import memory_cgroup, read_oom_kills
from ..runner import Invocation, OwnCgroup
from .argument_files import ArgumentFiles

if TYPE_CHECKING:
    from pathlib import Path


class OOMKills:
    """Counts the OOM kills in the container's cgroup between the start and the end of a process."""

    def __init__(self, invocation: Invocation, files: ArgumentFiles) -> None:
        self._workload = files.workload
        self._directory: str | Path | None = None
        self._before: int | None = None
        self._number: int | None = None
        if self._workload is None or not invocation.stop.waits_for_process:
            return
        # The cgroup of a `run` is new, so that its counter starts at 0. The runtime removes the cgroup right after the
        # end of the process, so the counter is read at that moment. An `exec` shares the cgroup with its container.
        if invocation.command == "run":
            self._before = 0
            self._workload.started.add_done_callback(lambda _: self._find())
            self._workload.exited.add_done_callback(lambda _: self.number)
        elif path := next((word.memory for word in invocation.argv if isinstance(word, OwnCgroup)), ""):
            self._directory = path
            self._before = read_oom_kills(path)

    def _find(self) -> None:
        """Find the cgroup of a new container while its process lives."""
        if self._workload is not None and self._workload.pid:
            self._directory = memory_cgroup(self._workload.pid)

    @property
    def number(self) -> int | None:
        """The number so far: the last one that could be read, None if none could."""
        if self._directory is not None and self._before is not None:
            now = read_oom_kills(self._directory)
            self._number = self._number if now is None else now - self._before
        return self._number
