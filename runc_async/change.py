"""What happens to a container: the values that `Runc.watch` yields."""

from __future__ import annotations

import datetime as dt
import enum

import msgspec

from .exitstatus import ExitStatus
from .state import State


class ChangeKind(enum.StrEnum):
    """What has happened to a container.

    Attributes:
        CREATED: It was created.
        STARTED: Its program was started; of a restored container, it goes on.
        PAUSED: Its processes were frozen.
        RESUMED: Its processes were thawed.
        OOM: The kernel has killed one or more of its processes, because the memory of its cgroup was used up.
        EXITED: Its first process has ended.
        DELETED: It was deleted.
    """

    CREATED = "created"
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    OOM = "oom"
    EXITED = "exited"
    DELETED = "deleted"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change in the life of a container.

    Attributes:
        id: The container's id.
        kind: What has happened.
        state: The container's state after it, as `Runc.list` reports it; after "deleted" the last one. None if the
            container was gone before its state could be read.
        status: How its first process ended, with "exited" alone. A status that can't be known has neither code nor
            signal.
        time: When the change was seen, an aware time in UTC. For a container that was there before the watch, that is
            the beginning of the watch.
    """

    id: str
    kind: ChangeKind
    state: State | None
    status: ExitStatus | None = None
    time: dt.datetime
