"""The events of a container: a tagged union, `Event`."""

from __future__ import annotations

import datetime as dt
from time import monotonic as clock
from typing import NamedTuple, TypeAlias

import msgspec

from .errors import CommandError
from .stats import Stats


class Arrival(NamedTuple):
    """The moment at which bytes were read from the pipe, by both clocks.

    Attributes:
        time: By the host's clock, an aware time in UTC.
        monotonic: By `time.monotonic()`, in seconds.
    """

    time: dt.datetime
    monotonic: float

    @classmethod
    def stamp(cls) -> Arrival:
        """Read both clocks."""
        return cls(dt.datetime.now(dt.UTC), clock())


def _utc_now() -> dt.datetime:
    """Return the time of an event that is not read from a runtime."""
    return dt.datetime.now(dt.UTC)


class StatsEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="stats"):
    """The container's resource usage at one moment: one event in each interval (runc-events(8)).

    runc prints no time. The times are those of reading the line from runc's pipe; "Slow consumers" in
    docs/topics/events.md says when they are later than the printing. Two events are equal if they have the same
    container and the same figures, whatever their times.

    Attributes:
        id: The container.
        data: Its figures.
        time: When the line was read, an aware time in UTC. The host's clock can be set: take intervals from
            `monotonic`.
        monotonic: The same moment by `time.monotonic()`, in seconds.
        raw: The line as printed by runc, with all fields of newer runc versions; empty if the event wasn't read from
            runc.
        root: Root directory of the container, in an event from `merge_events`; else None.
    """

    id: str
    data: Stats
    time: dt.datetime = msgspec.field(default_factory=_utc_now)
    monotonic: float = msgspec.field(default_factory=clock)
    raw: bytes = b""
    root: str | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StatsEvent):
            return NotImplemented
        return self.id == other.id and self.root == other.root and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        """Show the container, the figures and the time, without the line."""
        root = "" if self.root is None else f", root={self.root!r}"
        return f"StatsEvent(id={self.id!r}, data={self.data!r}, time={self.time.isoformat()!r}{root})"


class StatsFailedEvent(msgspec.Struct, frozen=True, gc=False, repr_omit_defaults=True):
    """The runtime couldn't read the container's figures, so one interval has none.

    The event comes as soon as runc reports the failure. The third interval in a row without figures ends the stream
    with the error.

    Attributes:
        id: The container.
        error: The error that `Runc.stats` would raise.
        root: Root directory of the container, in an event from `merge_events`; else None.
    """

    id: str
    error: CommandError
    root: str | None = None


class OOMEvent(msgspec.Struct, frozen=True, gc=False, repr_omit_defaults=True, tag_field="type", tag="oom"):
    """The container ran out of memory: the kernel has killed, or is about to kill, one of its processes.

    runc may print two events for one kill on cgroup v2, and one for two kills in quick succession on v1. The killed
    process is not reported; the container may go on.

    Attributes:
        id: The container.
        root: Root directory of the container, in an event from `merge_events`; else None.
    """

    id: str
    root: str | None = None


class UnknownEvent(msgspec.Struct, frozen=True, gc=False, repr_omit_defaults=True):
    """An event of a type unknown to this version of the library.

    Attributes:
        id: The container; empty if the event names none.
        type: The type.
        raw: The whole event: JSON, as printed.
        root: Root directory of the container, in an event from `merge_events`; else None.
    """

    id: str
    type: str
    raw: bytes
    root: str | None = None


Event: TypeAlias = StatsEvent | StatsFailedEvent | OOMEvent | UnknownEvent
"""The events of an `EventStream`; distinguish them with `match`."""
