"""Changes of containers: the values yielded by `Runc.watch`."""

from __future__ import annotations

import datetime as dt
import enum

import msgspec

from .exitstatus import ExitStatus
from .state import State


class ChangeKind(enum.StrEnum):
    """The kind of a change.

    Attributes:
        CREATED: The container was created.
        STARTED: The program was started, or a restored container continues.
        PAUSED: The processes were frozen.
        RESUMED: The processes were thawed.
        OOM: The kernel has killed one or more processes, because the memory of the cgroup was used up.
        EXITED: The first process has ended.
        DELETED: The container was deleted.
    """

    CREATED = "created"
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    OOM = "oom"
    EXITED = "exited"
    DELETED = "deleted"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a container.

    Attributes:
        id: The container's id.
        kind: The kind of the change.
        state: The state after the change, as in `Runc.list`; the last one for "deleted". None if the container was
            gone before its state could be read.
        status: The exit status of the first process, only for "exited". An unknown status has neither code nor signal.
        time: The time when the change was noticed, aware, in UTC. For a container that existed before, the start of the
            watch.
    """

    id: str
    kind: ChangeKind
    state: State | None
    status: ExitStatus | None = None
    time: dt.datetime
