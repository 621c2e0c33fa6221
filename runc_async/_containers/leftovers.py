"""What a runc that was killed half-way leaves, and no `delete` knows of: cgroups without a process, criu's mounts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from .._linux.cgroup import unescape

PATIENCE = 1.0
"""Seconds for the processes of a partially created container to end: each does when it finds its runc gone."""

_CGROUPS = Path("/sys/fs/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")


def _anything(_members: Collection[int]) -> bool:
    """Take each cgroup for the container's."""
    return True


async def remove_cgroups(
    container_id: str,
    top: Path = _CGROUPS,
    own: Path = _OWN,
    *,
    may_hold: Callable[[Collection[int]], bool] = _anything,
) -> list[Path]:
    """Remove the cgroups that a container has by default, as far as they are empty; return those that are not.

    A runc that is killed after it has made the cgroups, and before it has written its record of the container, leaves
    them: runc(8) has no command for that. The kernel removes no cgroup in which there is a process.

    Args:
        container_id: The container, which isn't there any more.
        top: Where the hierarchies are mounted.
        own: In which cgroups this process is.
        may_hold: Tells of the processes in such a cgroup whether it can be the container's. A container of the same id
            under another root directory has the same cgroups by default: they are left alone, and not returned.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    busy = list(_places(container_id, top, own))
    while True:
        busy = [path for path in busy if not _removed(path) and may_hold(_members(path))]
        if not busy or loop.time() >= deadline:
            return busy
        await asyncio.sleep(0.01)  # cgroup v1 has no event for the end of the last process


def mounted_in(directory: str, table: Path = _MOUNTS) -> list[str]:
    """Tell what is mounted in a directory that criu works in: its `.criu.cgyard.` with the hierarchies of cgroups.

    criu takes it away when it ends, but not when it is killed. It may be in use by another criu, so it stays.

    Args:
        directory: The directory.
        table: The mounts of this process.
    """
    points = [line.split(" ", 5)[4] for line in os.fsdecode(table.read_bytes()).splitlines()]
    prefix = os.path.join(os.path.realpath(directory), ".criu.cgyard.")
    yards = {unescape(point) for point in points}
    return sorted(yard for yard in yards if yard.startswith(prefix) and "/" not in yard[len(prefix) :])


def _removed(path: Path) -> bool:
    """Remove a cgroup, and tell whether it isn't there any more, or isn't ours to remove."""
    try:
        path.rmdir()
    except OSError as exc:
        return exc.errno != errno.EBUSY
    return True


def _members(path: Path) -> list[int]:
    """Read which processes are in a cgroup, and in those below it."""
    members: list[int] = []
    for file in path.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):  # it has just been removed
            members += map(int, file.read_bytes().split())
    return members


def _places(container_id: str, top: Path, own: Path) -> Iterator[Path]:
    """Yield where runc, told nothing else by `linux.cgroupsPath`, makes the cgroups of a container.

    That is below its own cgroup in each hierarchy of v1, and beside it in that of v2.
    """
    try:
        lines = os.fsdecode(own.read_bytes()).splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers:
            mounted = controllers.removeprefix("name=")  # together, and perhaps with links for each
            for name in {mounted, *mounted.split(",")}:
                yield top / name / path.lstrip("/") / container_id
        else:
            parent = os.path.dirname(path).lstrip("/")
            yield from (hierarchy / parent / container_id for hierarchy in (top, top / "unified"))
