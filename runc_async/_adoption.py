"""Under `subreaper()`: the processes of a container that become our children, and are ours to reap."""

from __future__ import annotations

import os

import msgspec

from ._decode import UNDECODABLE
from ._exit import adopt, orphans_come_to_us


class _Record(msgspec.Struct):
    """What a runtime keeps about processes: runc in its state.json, from 1.0 on, and crun (`pid`) in its status."""

    init_process_pid: int = 0
    pid: int = 0
    cgroup_paths: dict[str, str] = {}


def adopt_processes(state_directory: str, container_id: str) -> None:
    """Note the processes of a container that is about to be deleted.

    That is its first one; and without a pid namespace of its own, where the first one doesn't take the others with it,
    all that are in its cgroup. What runc doesn't tell is nobody's.
    """
    if not orphans_come_to_us():
        return
    for name in ("state.json", "status"):
        try:
            with open(os.path.join(state_directory, container_id, name), "rb") as file:
                record = msgspec.json.decode(file.read(), type=_Record)
        except (OSError, *UNDECODABLE):
            continue
        for pid in (record.init_process_pid, record.pid, *_members(record.cgroup_paths)):
            adopt(pid)


def _members(paths: dict[str, str]) -> list[int]:
    """Read which processes are in a cgroup; in version 1 each of its controllers has the same."""
    for path in paths.values():
        try:
            with open(os.path.join(path, "cgroup.procs"), "rb") as file:
                return [int(line) for line in file]
        except (OSError, ValueError):  # a path, or a number, that can't be one
            continue
    return []
