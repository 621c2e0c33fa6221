"""Under `subreaper()`: the processes of a container that become our children, and are ours to reap."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import msgspec

from ._cgroup import cgroup_directories
from ._decode import UNDECODABLE
from ._exit import adopt, orphans_come_to_us
from ._pidfd import is_forsaken
from ._workload import children

_CRUN = b"crun"


class _Record(msgspec.Struct):
    """What a runtime keeps about processes: runc in its state.json, from 1.0 on, and crun in its status."""

    init_process_pid: int = 0
    cgroup_paths: dict[str, str] = {}
    # crun's
    pid: int = 0
    cgroup_path: str = msgspec.field(name="cgroup-path", default="")

    def directories(self) -> Iterator[str]:
        """Tell where the container's cgroup is; in version 1 each controller has one, with the same processes."""
        yield from self.cgroup_paths.values()
        if self.cgroup_path:
            yield from map(str, cgroup_directories(self.cgroup_path))


def adopt_processes(state_directory: str, container_id: str) -> None:
    """Note the processes of a container that is about to be deleted.

    That is its first one; and without a pid namespace of its own, where the first one doesn't take the others with it,
    all that are in its cgroup. What runc doesn't tell is nobody's.

    crun leaves one more behind: a detached `run` forks twice, and what made the container ends after its own parent.
    crun tells its number to nobody.
    """
    if not orphans_come_to_us():
        return
    for name in ("state.json", "status"):
        try:
            with open(os.path.join(state_directory, container_id, name), "rb") as file:
                record = msgspec.json.decode(file.read(), type=_Record)
        except (OSError, *UNDECODABLE):
            continue
        for pid in (record.init_process_pid, record.pid, *_members(record.directories())):
            adopt(pid)
        if record.pid:
            for pid in children(os.getpid()):
                if is_forsaken(pid, _CRUN):
                    adopt(pid)


def _members(paths: Iterable[str]) -> list[int]:
    """Read which processes are in a cgroup."""
    for path in paths:
        try:
            with open(os.path.join(path, "cgroup.procs"), "rb") as file:
                return [int(line) for line in file]
        except (OSError, ValueError):  # a path, or a number, that can't be one
            continue
    return []
