"""What a runc that was killed half-way leaves, and no `delete` knows of: cgroups without a process, criu's mounts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .._linux.cgroup import unescape
from .._linux.libc import detach

RESTORED_ROOT: Final = "criu-root"
"""Where runc mounts a container's root filesystem for criu."""


OWN_COPY: Final = "runc."
"""How the file is named, with six letters more, over which runc 1.1 mounts itself: `try_bindfd` of its nsexec."""

PATIENCE = 1.0
"""Seconds for the processes of a half-made container to end: each does when it finds its runc gone."""

_CGROUPS = Path("/sys/fs/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")
_OWN = Path("/proc/self/cgroup")


async def remove_cgroups(container_id: str, top: Path = _CGROUPS, own: Path = _OWN) -> list[Path]:
    """Remove the cgroups that a container has by default, as far as they are empty; return those that are not.

    A runc that is killed after it has made the cgroups, and before it has written its record of the container, leaves
    them: runc(8) has no command for that. The kernel removes no cgroup in which there is a process.

    Args:
        container_id: The container, which isn't there any more.
        top: Where the hierarchies are mounted.
        own: In which cgroups this process is.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    busy = list(_places(container_id, top, own))
    while (busy := [path for path in busy if not _removed(path)]) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # cgroup v1 tells nobody when the last process is gone
    return busy


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


def unmount(directory: str) -> None:
    """Take away what is left mounted in the directory of a container that is to be deleted.

    Raises:
        OSError: If a deletion might reach the container's root filesystem.
    """
    try:
        names = os.listdir(directory)
    except OSError:  # there is none, or it isn't ours to look into
        return
    for name in names:
        if name == RESTORED_ROOT:
            spare_root(os.path.join(directory, name))
        elif name.startswith(OWN_COPY):
            forget_copy(os.path.join(directory, name))


def spare_root(place: str) -> None:
    """Take away the root filesystem that runc has mounted for criu in the container's own directory.

    A runc that is killed leaves it there, without a record of the container. runc-delete(8) then empties that
    directory, and would delete all files of the root filesystem.

    Args:
        place: Where it is mounted.

    Raises:
        OSError: If it is still there.
    """
    while os.path.lexists(place):
        try:
            detach(place)
        except OSError as exc:
            if exc.errno == errno.EINVAL:  # nothing is mounted there any more
                return
            raise


def forget_copy(place: str) -> None:
    """Take away what runc 1.1 mounts in the container's own directory for a moment: itself, to start from there.

    A runc that is killed in that moment leaves it. Then runc-delete(8) can't remove the directory, tells nobody who
    looks at its exit code, and no container of that id can be made any more. What can't be taken away, as by a user who
    may not unmount, stays.

    Args:
        place: Where it is mounted, or was.
    """
    with contextlib.suppress(OSError):
        spare_root(place)
