"""A leaf cgroup: made below a container's for one process, it holds all that the process starts, wherever that goes.

setsid(2) and double forks leave the process tree, and not the cgroup. On cgroup v1 a leaf in the `pids` hierarchy alone
is enough to know them all, and leaves the container's limits where they are. On v2 it has no controllers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

MOVE_ROUNDS = 20
"""Lists, at most, of processes that are moved out of a leaf: what forks meanwhile is in the next one."""


class LeafCgroup:
    """A cgroup of one name in one or several hierarchies.

    Args:
        parents: The directories of the container's cgroup; the first is that of the `pids` hierarchy, or of v2.
        name: A name that no other cgroup has.

    Attributes:
        directories: Where it is, in the order of the parents.

    Raises:
        OSError: If it can't be made: the container has no such cgroup any more, or this user may not change it.
    """

    def __init__(self, parents: Sequence[str], name: str) -> None:
        self.name = name
        self.directories: list[str] = []
        try:
            for parent in parents:
                directory = f"{parent}/{name}"
                os.mkdir(directory)
                self.directories.append(directory)
        except OSError:
            self.remove()
            raise

    @property
    def path(self) -> str:
        """The directory in which its processes are listed."""
        return self.directories[0]

    def members(self) -> list[int]:
        """List its processes, without zombies; those that are invisible from this pid namespace are left out."""
        return [pid for group in _below(self.path) for pid in _processes(group) if pid]

    def is_member(self, pid: int) -> bool:
        """Return whether the process that has this number now is in it."""
        try:
            with open(f"/proc/{pid}/cgroup", "rb", buffering=0) as file:
                return f"/{self.name}".encode() in file.read()
        except OSError:
            return False

    def seal(self) -> bool:
        """Kill all of it at once where the kernel can (v2, Linux 5.14), else keep it from growing.

        Without cgroup.kill, a process that forks faster than it is listed would escape: on v1 a `pids.max` of 0 makes
        its fork(2) fail, on v2 it is frozen, in which state SIGKILL still works.

        Returns:
            Whether all of it was killed.
        """
        if _write(f"{self.path}/cgroup.kill", "1"):
            return True
        for group in _below(self.path):
            _ = _write(f"{group}/pids.max", "0") or _write(f"{group}/cgroup.freeze", "1")
        return False

    def remove(self) -> bool:
        """Remove it. Processes that are left in it go on, in the container's cgroup. Idempotent.

        Returns:
            Whether it is gone. If not, it goes with the container's.
        """
        gone = [_removed(directory) for directory in self.directories]
        return all(gone)


def _removed(directory: str) -> bool:
    """Remove a cgroup, having moved its processes to its parent; return whether it is gone."""
    for _ in range(MOVE_ROUNDS):
        if _rmdir(directory):
            return True
        for group in reversed([*_below(directory)]):
            for pid in _processes(group):
                _write(f"{os.path.dirname(directory)}/cgroup.procs", str(pid))
            if group != directory:
                _rmdir(group)
    return _rmdir(directory)


def _rmdir(directory: str) -> bool:
    """Remove an empty cgroup; return whether it is gone."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:  # there is something in it
        return False
    return True


def _below(directory: str) -> Iterator[str]:
    """Yield a cgroup, and the cgroups that were made below it, parents first."""
    yield directory
    with contextlib.suppress(OSError):
        if os.stat(directory).st_nlink > 2:  # noqa: PLR2004 - one for each directory in it, beside its own two
            for entry in list(os.scandir(directory)):
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)


def _processes(group: str) -> list[int]:
    """List the processes of one cgroup; none if it is gone, or is one of threads."""
    try:
        with open(f"{group}/cgroup.procs", "rb", buffering=0) as file:
            return [int(pid) for pid in file.readall().split()]
    except OSError:
        return []


def _write(path: str, text: str) -> bool:
    """Write to a file of a cgroup; return whether there was one that took it."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
