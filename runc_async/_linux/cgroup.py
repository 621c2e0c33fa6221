"""The memory cgroup of a container: the directory, and the number of OOM kills."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from .files import read_whole

if TYPE_CHECKING:
    from pathlib import Path

_PROC = "/proc"
_USUAL = "/sys/fs/cgroup"
# Blanks and line feeds in a name are escaped, and nothing else that Python takes for one. Optional fields, as many as
# there are, end with a lone hyphen.
_MOUNT = re.compile(r"[^ ]+ [^ ]+ [^ ]+ (/[^ ]*) (/[^ ]*) .*? - ([^ ]+) [^ ]* ([^ ]*)$", re.DOTALL)
_known_mounts: dict[tuple[int, str], list[tuple[str, str]]] = {}
"""The mounts of each hierarchy at the last look, by version and controller."""

_EVENTS = 1 << 12
"""Bytes of a file of counters, at most: the kernel writes some 100."""

_OOM_KILL = re.compile(rb"^oom_kill ([0-9]{1,20})$", re.MULTILINE)


def memory_cgroup(pid: int, proc: str | Path = _PROC) -> Path | None:
    """Find the directory of the memory cgroup of a process, as mounted here: cgroups(7).

    With cgroup v1 and the hybrid layout the directory is in the v1 memory hierarchy, otherwise in the v2 hierarchy. Ask
    while the process lives: a dead process has no cgroup.

    Args:
        pid: The process.
        proc: The directory of procfs.

    Returns:
        The directory. None if the process is gone, if the cgroup is shared with the current process and so counts more
        than the process, or if the hierarchy isn't mounted here.
    """
    return cgroup_of(pid, "memory", proc)


def cgroup_of(pid: int, controller: str, proc: str | Path = _PROC) -> Path | None:
    """Find the directory of the cgroup of a process in the hierarchy of a controller: see `memory_cgroup`.

    Args:
        pid: The process.
        controller: The controller's name in cgroup v1.
        proc: The directory of procfs.
    """
    theirs = _cgroup_path(f"{proc}/{pid}", controller)
    if theirs is None or theirs == _cgroup_path(f"{proc}/self", controller):
        return None
    version, path = theirs
    if proc != _PROC:
        return _mounted(path, _mounts(f"{proc}/self", version, controller))
    # Mounts hardly ever change, and the kernel takes long to list them: the last list is right if the place is there.
    for fresh in (False, True):
        if fresh or (version, controller) not in _known_mounts:
            _known_mounts[version, controller] = _mounts(f"{proc}/self", version, controller)
        found = _mounted(path, _known_mounts[version, controller])
        if found is not None and (fresh or os.path.isdir(found)):
            return found
    return None


def read_oom_kills(directory: str | Path) -> int | None:
    """Read the number of processes killed by the kernel in a memory cgroup for lack of memory.

    Returns:
        The number since the cgroup was created; None if unreadable, for example because the cgroup is gone.
    """
    # The counter is `oom_kill`; `oom` counts failed allocations. In v2 it includes the cgroups below, in v1 it doesn't.
    for name in ("memory.events", "memory.oom_control"):
        try:
            fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)  # half of the time of open()
        except OSError:
            continue
        try:
            content = os.read(fd, _EVENTS)
        except OSError:
            continue
        finally:
            os.close(fd)
        if match := _OOM_KILL.search(content):
            return int(match[1])
    return None


def _cgroup_path(process: str, controller: str) -> tuple[int, str] | None:
    """Return the cgroup version of a controller for a process, and the path of the process's cgroup there."""
    try:
        content = _read(f"{process}/cgroup")
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = None
    for line in content.split("\n"):  # only there: the name of a cgroup may hold what Python takes for a line's end
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if path.startswith("/"):
            if controller in controllers.split(","):
                return 1, path
            if hierarchy == "0":
                found = 2, path
    return found


def _mounted(path: str, mounts: list[tuple[str, str]]) -> Path | None:
    """Return the directory of a cgroup path, as mounted here; None if not mounted."""
    from pathlib import Path  # noqa: PLC0415  (it takes milliseconds to load, and a mere query doesn't need it)

    for root, mount_point in mounts:
        above = root.rstrip("/")
        if path == root or path.startswith(f"{above}/"):
            return Path(mount_point + path[len(above) :])
    return None


def _mounts(process: str, version: int, controller: str) -> list[tuple[str, str]]:
    """List the mounts of a controller's hierarchy as pairs of root and mount point: proc_pid_mountinfo(5).

    The usual mount point comes first.
    """
    mounts: list[tuple[str, str]] = []
    for line in _read(f"{process}/mountinfo").split("\n"):
        if match := _MOUNT.match(line):
            root, mount_point, file_system, options = match.groups()
            if file_system == "cgroup2" if version == 2 else controller in options.split(","):  # noqa: PLR2004
                mounts.append((unescape(root), unescape(mount_point)))
    # criu mounts the hierarchies once more while it restores, in a place that is gone soon.
    return sorted(mounts, key=lambda mount: not f"{mount[1]}/".startswith(f"{_USUAL}/"))


def _read(path: str) -> str:
    """Read a file of names."""
    return os.fsdecode(read_whole(path))


def unescape(field: str) -> str:
    """Decode the octal escapes of blanks, line feeds and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
