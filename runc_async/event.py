"""What `events` tells of a container: a tagged union, `Event`."""

from __future__ import annotations

import datetime as dt
from time import monotonic as clock
from typing import NamedTuple, TypeAlias

import msgspec

from .errors import CommandError
from .stats import Stats


class Arrival(NamedTuple):
    """When bytes were read from the pipe, by both clocks.

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
    """Return the time of an event that is made by hand."""
    return dt.datetime.now(dt.UTC)


class StatsEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="stats"):
    """The container's figures at one moment: one in each interval (runc-events(8)).

    runc prints no time with its figures. The times are those at which the line was read from runc's pipe; see "Slow
    consumers" in docs/topics/events.md for when that is later than runc printed it. Two events are equal if they have
    the same container and the same figures, whenever they came.

    Attributes:
        id: The container.
        data: Its figures.
        time: When the line was read, an aware time in UTC. The host's clock can be set: take intervals from
            `monotonic`.
        monotonic: The same moment by `time.monotonic()`, in seconds.
        raw: The line as runc printed it, with all that a newer runc adds; empty if the event wasn't read from a runc.
    """

    id: str
    data: Stats
    time: dt.datetime = msgspec.field(default_factory=_utc_now)
    monotonic: float = msgspec.field(default_factory=clock)
    raw: bytes = b""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StatsEvent):
            return NotImplemented
        return self.id == other.id and self.data == other.data

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        """Show the container, the figures and the time, and not the line again."""
        return f"StatsEvent(id={self.id!r}, data={self.data!r}, time={self.time.isoformat()!r})"


class StatsFailedEvent(msgspec.Struct, frozen=True, gc=False):
    """The runtime couldn't read the container's figures, so that one interval has none.

    It comes as soon as runc says so. The third interval in a row without figures ends the stream with the error.

    Attributes:
        id: The container.
        error: What runc said: the error that `Runc.stats` would raise.
    """

    id: str
    error: CommandError


class OOMEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="oom"):
    """The container ran out of memory: the kernel has killed, or is about to kill, one of its processes.

    runc may print two for one kill on cgroup v2, and one for two kills that are close together on v1. Which process it
    was isn't told; the container may go on.

    Attributes:
        id: The container.
    """

    id: str


class UnknownEvent(msgspec.Struct, frozen=True, gc=False):
    """An event of a type that this version of the library doesn't know.

    Attributes:
        id: The container; empty if the event names none.
        type: The type.
        raw: The whole event: JSON, as it was printed.
    """

    id: str
    type: str
    raw: bytes


Event: TypeAlias = StatsEvent | StatsFailedEvent | OOMEvent | UnknownEvent
"""What an `EventStream` gives; `match` tells which it is."""
