"""The runtime's own record of a container."""

from __future__ import annotations

import os

import msgspec

from .._answers.decode import UNDECODABLE
from .._linux.procfs import ProcessIdentity

_PATHS: msgspec.json.Decoder[dict[str, str] | None] = msgspec.json.Decoder(dict[str, str] | None)


class _Record(msgspec.Struct):
    """What runc keeps in its state.json about the first process; the same from runc 1.0 on."""

    init_process_pid: int
    init_process_start: int
    cgroup_paths: msgspec.Raw = msgspec.Raw(b"null")  # decoded when it is asked for: the others matter without it


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
