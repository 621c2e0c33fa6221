"""The CPU time used by a cgroup: `cpuacct.usage` of cgroup v1, `cpu.stat` of v2."""

from __future__ import annotations

import re

_V1 = "cpuacct.usage"
_V2 = "cpu.stat"
_USAGE = re.compile(rb"^usage_usec ([0-9]{1,20})$", re.MULTILINE)


def read_cpu_seconds(directory: str) -> float | None:
    """Read the CPU time of a cgroup and all descendants, in seconds since the creation of the cgroup.

    Args:
        directory: In the `cpuacct` hierarchy of cgroup v1, or of v2, where all cgroups have the file.

    Returns:
        The time; None if unreadable, for example because the cgroup is gone.
    """
    try:
        with open(f"{directory}/{_V1}", "rb", buffering=0) as file:
            return int(file.read()) / 1e9
    except (OSError, ValueError):
        pass
    try:
        with open(f"{directory}/{_V2}", "rb", buffering=0) as file:
            found = _USAGE.search(file.read())
    except OSError:
        return None
    return None if found is None else int(found[1]) / 1e6
