"""Facts from the runtime's record about containers without a visible process or cgroup."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .._linux.pidfd import has_ended
from .._runtimes.known import DIALECTS, read_record


def has_no_cgroup(state_directory: str, container_id: str) -> bool:
    """Return whether the container has no cgroup according to the runtime's record, as without root.

    False if the record can't be read.
    """
    try:
        record = read_record(state_directory, container_id)
    except OSError:
        return False
    # Without a cgroup the record has no path on v1, and a missing path on v2.
    return record is not None and not any(map(os.path.isdir, record.cgroups.values()))


def has_stopped(state_directory: str, container_id: str) -> bool:
    """Return whether the first process of a container has ended; False without a record.

    Raises:
        OSError: If the record can't be read.
    """
    record = read_record(state_directory, container_id)
    return record is not None and (not record.process.exists() or has_ended(record.process.pid))


def own_cgroup_parents(
    state_directory: str, container_id: str, controllers: Sequence[str]
) -> tuple[tuple[tuple[str, str], ...], str]:
    """Return the cgroups below which a container's `exec` can have a separate cgroup: see `OwnCgroup`.

    Args:
        state_directory: The runtime's directory for containers.
        container_id: The container's id.
        controllers: The requested controllers of cgroup v1, `pids` first. On v2 one cgroup has all controllers.

    Returns:
        Controllers and directory for each hierarchy, and the directory of the cgroup with the memory counters. Empty if
        the runtime can't enter such cgroups, or the record can't be read.
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
    # Controllers that share a hierarchy share a directory. All of them have to be named: for a missing one the runtime
    # would enter the container's own cgroup.
    directories = dict.fromkeys(cgroups[name] for name in controllers if name in cgroups)
    return tuple((",".join(name for name in cgroups if cgroups[name] == path), path) for path in directories), memory
