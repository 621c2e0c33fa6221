"""What the runtime's own record says of a container that has neither a process nor a cgroup to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .._runtimes.known import DIALECTS, read_record


def has_no_cgroup(state_directory: str, container_id: str) -> bool:
    """Tell whether the runtime's own record says that the container got no cgroup, as without root.

    On cgroup v1 the record then names none, on v2 one that isn't there. False if it can't be read.
    """
    try:
        record = read_record(state_directory, container_id)
    except OSError:
        return False
    return record is not None and not any(map(os.path.isdir, record.cgroups.values()))


def own_cgroup_parents(
    state_directory: str, container_id: str, controllers: Sequence[str]
) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return below which cgroups of a container's `exec` can have one of its own: see `OwnCgroup`.

    Controllers that share a hierarchy have one directory, and all of them are named: for each that isn't, the runtime
    would enter the container's own.

    Args:
        state_directory: Where the runtime keeps its records.
        container_id: The container.
        controllers: Those of cgroup v1 that are wanted, `pids` first. On v2 one cgroup has all that are there.

    Returns:
        The controllers and the directory, for each hierarchy, and the directory of the cgroup that counts the memory.
        None at all if the runtime can't enter them, or if there is no record that can be read.
    """
    try:
        record = read_record(state_directory, container_id)
    except OSError:
        return (), ""
    if record is None or not DIALECTS[record.runtime].enters_own_cgroups:
        return (), ""
    cgroups = record.cgroups
    memory = cgroups.get("memory", record.unified or "")
    if "pids" not in cgroups:
        return () if record.unified is None else (("", record.unified),), memory
    directories = dict.fromkeys(cgroups[name] for name in controllers if name in cgroups)
    return tuple((",".join(name for name in cgroups if cgroups[name] == path), path) for path in directories), memory
