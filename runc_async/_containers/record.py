"""The runtime's own record of a container."""

from __future__ import annotations

import os

import msgspec

from .._answers.decode import UNDECODABLE
from .._linux.procfs import ProcessIdentity


class _Record(msgspec.Struct):
    """What runc keeps in its state.json about the first process; the same from runc 1.0 on."""

    init_process_pid: int
    init_process_start: int


def recorded_init(state_directory: str, container_id: str) -> ProcessIdentity | None:
    """Read in runc's own record which process a container's first one is; None if there is no such record.

    It costs a few microseconds and `runc state` a few milliseconds, and it has the start time, which tells the process
    from a later one of the same number.

    Raises:
        OSError: If the record may not be read.
    """
    try:
        with open(os.path.join(state_directory, container_id, "state.json"), "rb") as file:
            record = msgspec.json.decode(file.read(), type=_Record)
    except (FileNotFoundError, NotADirectoryError, *UNDECODABLE):
        return None
    return ProcessIdentity(record.init_process_pid, record.init_process_start)
