"""A leaf cgroup for a process below a container's cgroup, with all descendants of the process.

setsid(2) and double forks leave the process tree, but not the cgroup. On cgroup v1 a leaf in the `pids` hierarchy alone
suffices to find all descendants, and leaves the container's limits unchanged. On v2 the leaf has no controllers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

MOVE_ROUNDS = 20
"""Maximal number of listings of processes moved out of a leaf: each lists the forks since the last one."""

EXITING = tuple(0.001 * 2**number for number in range(13))
"""Seconds between attempts to remove a leaf, 8 in all: the kernel frees a process's memory first, 50 ms for 200 MB."""


class LeafCgroup:
    """A cgroup with the same name in one or several hierarchies.

    Args:
        parents: The directories of the container's cgroup; the first is in the `pids` hierarchy, or in v2.
        name: A unique name.

    Attributes:
        directories: The directories, in the order of the parents.

    Raises:
        OSError: If the cgroup can't be created: the container's is gone, or the current user has no permission.
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
        """The directory with the list of processes."""
        return self.directories[0]

    def members(self) -> list[int]:
        """List the processes without zombies; processes invisible from the current pid namespace are left out."""
        return [pid for group in _below(self.path) for pid in _processes(group) if pid]

    def is_member(self, pid: int) -> bool:
        """Return whether the process with the pid is in the cgroup now."""
        try:
            with open(f"/proc/{pid}/cgroup", "rb", buffering=0) as file:
                return f"/{self.name}".encode() in file.read()
        except OSError:
            return False

    def seal(self) -> bool:
        """Kill all processes at once if the kernel can (v2, Linux 5.14); otherwise stop the cgroup's growth.

        Returns:
            Whether all processes were killed.
        """
        if _write(f"{self.path}/cgroup.kill", "1"):
            return True
        for group in _below(self.path):
            # Without cgroup.kill, a process that forks faster than it is listed would escape. On v1 a `pids.max` of 0
            # makes fork(2) fail; on v2 the processes are frozen, a state in which SIGKILL still works.
            _ = _write(f"{group}/pids.max", "0") or _write(f"{group}/cgroup.freeze", "1")
        return False

    def remove(self) -> bool:
        """Remove the cgroup. Remaining processes continue in the container's cgroup. Idempotent.

        Returns:
            Whether the cgroup is gone. A process that is exiting keeps the cgroup for the moment, and can't be moved.
        """
        gone = [_removed(directory) for directory in self.directories]
        return all(gone)

    def remove_soon(self, failed: Callable[[str], None], delays: Iterator[float] | None = None) -> None:
        """Remove the cgroup now or later, without waiting.

        Args:
            failed: Called with the path if the cgroup is still there after the last delay. The cgroup goes together
                with the container's.
            delays: Seconds between the attempts. No effect without a running event loop.
        """
        if self.remove():
            return
        delay = next(delays := iter(EXITING) if delays is None else delays, None)
        if delay is not None:
            with contextlib.suppress(RuntimeError):  # at the end of the program there is no loop
                asyncio.get_running_loop().call_later(delay, self.remove_soon, failed, delays)
                return
        failed(self.path)


def _removed(directory: str) -> bool:
    """Move the processes to the parent, and remove the cgroup; return whether the cgroup is gone."""
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
    """Remove an empty cgroup; return whether the cgroup is gone."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:  # there is something in it
        return False
    return True


def _below(directory: str) -> Iterator[str]:
    """Yield a cgroup and the cgroups below, parents first."""
    yield directory
    with contextlib.suppress(OSError):
        if os.stat(directory).st_nlink > 2:  # noqa: PLR2004 - one for each directory in it, beside its own two
            for entry in list(os.scandir(directory)):
                if entry.is_dir(follow_symlinks=False):
                    yield from _below(entry.path)


def _processes(group: str) -> list[int]:
    """List the processes of a cgroup; none if gone or threaded."""
    try:
        with open(f"{group}/cgroup.procs", "rb", buffering=0) as file:
            return [int(pid) for pid in file.readall().split()]
    except OSError:
        return []


def _write(path: str, text: str) -> bool:
    """Write to a file of a cgroup; return whether the write succeeded."""
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
