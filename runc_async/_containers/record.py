"""What the runtime's own record says of a container that has neither a process nor a cgroup to look at."""

from __future__ import annotations

import os

from .._runtimes.known import read_record


def has_no_cgroup(state_directory: str, container_id: str) -> bool:
    """Tell whether the runtime's own record says that the container got no cgroup, as without root.

    On cgroup v1 the record then names none, on v2 one that isn't there. False if it can't be read.
    """
    try:
        record = read_record(state_directory, container_id)
    except OSError:
        return False
    return record is not None and not any(map(os.path.isdir, record.cgroups.values()))
