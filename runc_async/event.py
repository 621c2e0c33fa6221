"""What `events` tells of a container: a tagged union, `Event`."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .stats import Stats


class StatsEvent(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="stats"):
    """The container's figures at one moment: one in each interval (runc-events(8)).

    Attributes:
        id: The container.
        data: Its figures.
    """

    id: str
    data: Stats


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


Event: TypeAlias = StatsEvent | OOMEvent | UnknownEvent
"""What an `EventStream` gives; `match` tells which it is."""
