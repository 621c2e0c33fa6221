"""What `runc events` may not tell: the end of a container's first process, and what was killed there for memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator

import msgspec

from ._cgroup import memory_cgroup, read_oom_kills
from ._decode import UNDECODABLE
from ._pidfd import ProcessIdentity, has_exited, open_pidfd
from ._workload import descendants


class _Record(msgspec.Struct):
    """What runc keeps in its state.json about the first process; the same from runc 1.0 on."""

    init_process_pid: int
    init_process_start: int
    cgroup_paths: msgspec.Raw = msgspec.Raw(b"null")  # decoded when it is asked for: the others matter without it


_PATHS: msgspec.json.Decoder[dict[str, str] | None] = msgspec.json.Decoder(dict[str, str] | None)


def recorded_init(state_directory: str, container_id: str) -> ProcessIdentity | None:
    """Read in runc's own record which process a container's first one is; None if there is no such record.

    It costs a few microseconds and `runc state` a few milliseconds, and it has the start time, which tells the process
    from a later one of the same number.

    Raises:
        OSError: If the record may not be read.
    """
    record = _read_record(state_directory, container_id)
    return None if record is None else ProcessIdentity(record.init_process_pid, record.init_process_start)


def has_no_cgroup(state_directory: str, container_id: str) -> bool:
    """Tell whether runc's own record says that the container got no cgroup, as without root; False if it can't be read.

    On cgroup v1 the record then names none, on v2 one that isn't there.
    """
    try:
        record = _read_record(state_directory, container_id)
    except OSError:
        return False
    if record is None:
        return False
    try:
        paths = _PATHS.decode(record.cgroup_paths) or {}
    except UNDECODABLE:
        return False
    return not any(map(os.path.isdir, paths.values()))


def _read_record(state_directory: str, container_id: str) -> _Record | None:
    """Read runc's own record of a container; None if there is none that can be understood.

    Raises:
        OSError: If it may not be read.
    """
    try:
        with open(os.path.join(state_directory, container_id, "state.json"), "rb") as file:
            return msgspec.json.decode(file.read(), type=_Record)
    except (FileNotFoundError, NotADirectoryError, *UNDECODABLE):
        return None


def watches_memory(runc: int) -> bool:
    """Tell whether a `runc events` has found its container: it watches the container's memory cgroup from then on.

    That is an inotify instance on cgroup v2, and on v1 a file of the cgroup that is open together with an eventfd.

    Args:
        runc: The pid of runc, or of what was put in front of it.

    Returns:
        True also if it can't be looked at.
    """
    try:
        os.scandir(f"/proc/{runc}/fd").close()
    except OSError:
        return True
    return any(
        _is_memory_watch(link) for pid in (runc, *(pid for pid, _ in descendants(runc))) for link in _files_of(pid)
    )


def _is_memory_watch(link: str) -> bool:
    """Tell whether an open file is what a `runc events` waits for."""
    return link.endswith(("/memory.oom_control", "anon_inode:inotify"))


def _files_of(pid: int) -> Iterator[str]:
    """Yield what a process has open, as far as it can be seen: it opens and closes meanwhile."""
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                yield os.readlink(entry)


class InitWatch:
    """Calls back once when a container's first process has ended, and compares events with the kernel's counter.

    Args:
        process: The container's first process.

    Raises:
        ProcessLookupError: If it has ended.
        OSError: If no descriptor is left.
    """

    def __init__(self, process: ProcessIdentity) -> None:
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._pidfd = open_pidfd(process)
        if has_exited(self._pidfd):
            os.close(self._pidfd)
            raise ProcessLookupError(f"process {process.pid} has ended")
        try:
            self._cgroup = memory_cgroup(process.pid)
            # On cgroup v1 the kernel reports the lack of memory first, and then kills and counts.
            self._reported_first = self._cgroup is not None and not (self._cgroup / "memory.events").exists()
            self._kills = 0
            self._look()
        except BaseException:
            os.close(self._pidfd)
            raise
        self._told = self._kills

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, also if nothing has been called back yet."""
        return self.ended or (self._pidfd >= 0 and has_exited(self._pidfd))

    def start(self, on_end: Callable[[], object]) -> None:
        """Call back at the end of the process."""
        self._loop.add_reader(self._pidfd, self._end, on_end)

    def _end(self, on_end: Callable[[], object]) -> None:
        """Note the end. Who deletes the container removes the cgroup with its counter, so that is read at once."""
        self.ended = True
        self._look()
        self.close()
        on_end()

    def _look(self) -> None:
        """Read the counter, if it is there still."""
        kills = None if self._cgroup is None else read_oom_kills(self._cgroup)
        if kills is not None:
            self._kills = kills

    def told(self) -> None:
        """Note that runc has told of a kill."""
        self._look()
        self._told = max(self._kills, self._told + self._reported_first)

    @property
    def untold(self) -> bool:
        """Whether the kernel has killed more than runc has told of."""
        self._look()
        return self._kills > self._told

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._pidfd >= 0:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
