"""What some runtimes have and others don't, in one table, and the question to the runtime at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import UnsupportedError
from ..features import Version

# crun was looked at in 1.8.1, 1.21 and 1.28: what only 1.8.1 lacks counts as there from 1.8.2 on, and a crun that still
# lacks it says so itself.
AFTER_DEBIAN_12 = (1, 8, 2)

CREATE_PIDFD_SOCKET: Final = "create --pidfd-socket"

SINCE: Final[Mapping[str, Mapping[str, tuple[int, ...] | None]]] = {
    "features": {"runc": (1, 1), "crun": AFTER_DEBIAN_12},
    "files": {"runsc": None},
    "events": {"crun": None},
    "checkpoint": {"crun": AFTER_DEBIAN_12},
    "restore": {"crun": AFTER_DEBIAN_12},
    CREATE_PIDFD_SOCKET: {"runc": (1, 2), "crun": None},
    "run --pidfd-socket": {"runc": (1, 2), "crun": None},
    "run --keep": {"runc": (1, 1), "crun": AFTER_DEBIAN_12},
    "exec --pidfd-socket": {"runc": (1, 2), "crun": None},
    "exec --cgroup": {"runc": (1, 1)},
    "exec --ignore-paused": {"runc": (1, 1), "crun": None},
    "exec --additional-gids": {"crun": None},
    "update --cpu-burst": {"runc": (1, 2)},
    "update --cpu-idle": {"runc": (1, 2)},
    "update --l3-cache-schema": {"crun": AFTER_DEBIAN_12},
    "update --mem-bw-schema": {"crun": AFTER_DEBIAN_12},
    "checkpoint --lazy-pages": {"crun": None},
    "checkpoint --status-fd": {"crun": None},
    "checkpoint --page-server": {"crun": None},
    "checkpoint --empty-ns": {"crun": None},
    "checkpoint --auto-dedup": {"crun": None},
    "checkpoint --tcp-skip-in-flight": {"runc": (1, 3), "crun": None},
    "checkpoint --link-remap": {"runc": (1, 3), "crun": None},
    "checkpoint --manage-cgroups-mode ignore": {"runc": (1, 2)},
    "restore --lazy-pages": {"crun": None},
    "restore --empty-ns": {"crun": None},
    "restore --auto-dedup": {"crun": None},
    "restore --no-pivot": {"crun": None},
    "restore --no-subreaper": {"crun": None},
    "restore --lsm-mount-context": {"runc": (1, 1), "crun": AFTER_DEBIAN_12},
    "restore --manage-cgroups-mode ignore": {"runc": (1, 2)},
}
"""A command, `files`, or a command with an option: for each runtime the first version that has it, None for none.

A runtime that isn't named has it in all versions, or isn't known.
"""


UNKNOWN: Final = Version(runtime="", version="")


def supported(feature: str, version: Version) -> bool:
    """Tell whether a version has a feature of the table; one that isn't known has all."""
    since = SINCE[feature]
    if version.runtime not in since:
        return True
    first = since[version.runtime]
    return first is not None and (version.number >= first or not version.number)


def check_feature(feature: str, version: Version) -> None:
    """Raise if a version lacks a feature of the table.

    Raises:
        UnsupportedError: If it has no such feature.
    """
    if not supported(feature, version):
        raise UnsupportedError(feature, f"{version.runtime} {version.version}")


def sends_pidfd(version: Version) -> bool:
    """Tell whether a version is known to send a pidfd of the process that it creates."""
    known = version.runtime in SINCE[CREATE_PIDFD_SOCKET] and bool(version.number)
    return known and supported(CREATE_PIDFD_SOCKET, version)
