"""Leftovers of a killed runc, not removed by `delete`: cgroups without processes, and mounts of criu."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from .._linux.cgroup import unescape

PATIENCE = 1.0
"""Seconds for the processes of a partially created container to end, after they have lost their runc."""

SANDBOX_PATIENCE = 8.0
"""The same for a sandbox, whose kernel and file server begin before they notice."""

_CGROUPS = Path("/sys/fs/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")


def _anything(_members: Collection[int]) -> bool:
    """Accept each cgroup as the container's."""
    return True


async def remove_cgroups(
    container_id: str,
    top: Path = _CGROUPS,
    own: Path = _OWN,
    *,
    may_hold: Callable[[Collection[int]], bool] = _anything,
    at_root: bool = False,
) -> list[Path]:
    """Remove the empty default cgroups of a container; return the remaining cgroups.

    Args:
        container_id: The deleted container.
        top: The mount point of the hierarchies.
        own: The file with the cgroups of the current process.
        may_hold: Returns whether processes in such a cgroup can be the container's. A container with the same id under
            another root directory has the same cgroups by default: these are neither removed nor returned.
        at_root: Whether the runtime creates them at the root of each hierarchy, not below its own cgroup.
    """
    # A runc killed after the creation of the cgroups, and before writing its record, leaves them behind: runc(8) has no
    # command for such cgroups. The kernel refuses to remove a cgroup with processes.
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (SANDBOX_PATIENCE if at_root else PATIENCE)
    busy = list(_places(container_id, top, own, at_root=at_root))
    while True:
        busy = [path for path in busy if not _removed(path) and may_hold(_members(path))]
        if not busy or loop.time() >= deadline:
            return busy
        await asyncio.sleep(0.01)  # cgroup v1 has no event for the end of the last process


def remove_files(root: str, container_id: str, patterns: Iterable[str]) -> None:
    """Remove files of a container without a record, unknown to the runtime.

    Args:
        root: The runtime's root directory.
        container_id: The container.
        patterns: The paths, relative to the root directory, with `{id}` for the id.
    """
    for pattern in patterns:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(root, pattern.format(id=container_id)))


def mounted_in(directory: str, table: Path = _MOUNTS) -> list[str]:
    """Return the mounts in a directory of criu: `.criu.cgyard.*` with the cgroup hierarchies.

    Args:
        directory: The directory.
        table: The mount table of the current process.
    """
    # criu unmounts them on exit, but not when killed. Another criu may use them, so they aren't removed here.
    points = [line.split(" ", 5)[4] for line in os.fsdecode(table.read_bytes()).splitlines()]
    prefix = os.path.join(os.path.realpath(directory), ".criu.cgyard.")
    yards = {unescape(point) for point in points}
    return sorted(yard for yard in yards if yard.startswith(prefix) and "/" not in yard[len(prefix) :])


def _removed(path: Path) -> bool:
    """Remove a cgroup; return whether the cgroup is gone, or can't be removed."""
    try:
        path.rmdir()
    except OSError as exc:
        return exc.errno != errno.EBUSY
    return True


def _members(path: Path) -> list[int]:
    """Return the processes in a cgroup and below."""
    members: list[int] = []
    for file in path.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):  # it has just been removed
            members += map(int, file.read_bytes().split())
    return members


def _places(container_id: str, top: Path, own: Path, *, at_root: bool = False) -> Iterator[Path]:
    """Yield the paths of a container's cgroups where `linux.cgroupsPath` isn't set."""
    try:
        lines = os.fsdecode(own.read_bytes()).splitlines()
    except OSError:
        return
    # By default runc creates them below its own cgroup in each hierarchy of v1, and beside its own cgroup in v2.
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if at_root:
            path = "/"
        if controllers:
            mounted = controllers.removeprefix("name=")  # together, and perhaps with links for each
            for name in {mounted, *mounted.split(",")}:
                yield top / name / path.lstrip("/") / container_id
        else:
            parent = os.path.dirname(path).lstrip("/")
            yield from (hierarchy / parent / container_id for hierarchy in (top, top / "unified"))
