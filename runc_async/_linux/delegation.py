"""Cgroup controllers absent, or not delegated to the current user, so that containers can't be limited."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

LIMITING = (("cpu",), ("cpuset",), ("io", "blkio"), ("memory",), ("pids",))
"""The controllers that limit containers; where cgroup v1 has another name, that too."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Obstacles to limiting containers by cgroups.

    Attributes:
        absent: Controllers missing here.
        unwritable: Controllers without permission for the current user to create a cgroup at the runtime's
            default place.
        systemd: Whether systemd runs, for `Runc(systemd_cgroup=True)`.
    """

    absent: tuple[str, ...] = ()
    unwritable: tuple[str, ...] = ()
    systemd: bool = True


def limits(
    controllers: Sequence[str],
    mounts: str = "/proc/self/mounts",
    own: str = "/proc/self/cgroup",
    systemd: str = "/run/systemd/system",
) -> Limits:
    """Return the controllers that the current user can't set limits with, seen from the cgroup of the current process.

    Args:
        controllers: The controllers that exist.
        mounts: The table of mounts.
        own: The cgroups of the current process.
        systemd: A directory that exists if systemd runs: sd_booted(3).
    """
    unwritable = {
        name for directory, name in _hierarchies(mounts, own) if not os.access(directory, os.W_OK) and _limits(name)
    }
    return Limits(
        absent=tuple(names[0] for names in LIMITING if not set(controllers) & set(names)),
        unwritable=tuple(sorted(unwritable)),
        systemd=os.path.isdir(systemd),
    )


def _limits(name: str) -> bool:
    """Return whether a controller limits containers."""
    return any(name in names for names in LIMITING)


def _hierarchies(mounts: str, own: str) -> Iterator[tuple[str, str]]:
    """Yield each controller with the directory of the cgroup that the current process is in; cgroups(7)."""
    lines = [line.split(":", 2) for line in Path(own).read_text().splitlines()]
    paths = {name: path for _, names, path in lines for name in names.split(",")}  # v2 has no names, but one empty
    for _, mounted, kind, options, *_ in map(str.split, Path(mounts).read_text().splitlines()):
        names: list[str] = []
        if kind == "cgroup":
            names = [name for name in options.split(",") if name in paths]
        elif kind == "cgroup2" and os.path.exists(f"{mounted}/cgroup.controllers"):
            names = Path(mounted, "cgroup.controllers").read_text().split()
        for name in names:
            cgroup = mounted + paths[name if kind == "cgroup" else ""]
            # In a container without a cgroup namespace, the path is the host's and isn't there: the mount shows our own
            # cgroup.
            yield (cgroup if os.path.isdir(cgroup) else mounted), name
