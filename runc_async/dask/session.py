"""The state that a node keeps for one client: the lease, and events not yet taken by the client."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal, TypeAlias

import anyio

Kind: TypeAlias = Literal["open", "done", "failed", "unstarted", "ended"]
"""The kinds of events: a box is open; a run or call has a result, or has failed; it never began; it is gone."""

Event: TypeAlias = tuple[int, str, Kind, Any]
"""An event: its number, the id of the sandbox or call, its kind, and the result or exception."""


class Session:
    """The state of one client on a node.

    Attributes:
        lease: Seconds of silence after which the client's sandboxes are ended.
        capacity: The capacity requested by the client.
        ids: The client's sandboxes.
    """

    def __init__(self, lease: float, capacity: int) -> None:
        self.lease = lease
        self.capacity = capacity
        self.ids: set[str] = set()
        self._deadline = time.monotonic() + lease
        self._events: list[Event] = []
        self._number = 0
        self._news = asyncio.Event()

    @property
    def lapsed(self) -> bool:
        """Whether the lease is over."""
        return time.monotonic() > self._deadline

    def renew(self) -> None:
        """Restart the lease."""
        self._deadline = time.monotonic() + self.lease

    def report(self, name: str, kind: Kind, value: object = None) -> None:
        """Add an event for the client."""
        self._number += 1
        self._events.append((self._number, name, kind, value))
        self._news.set()

    async def events(self, seen: int, wait: float) -> list[Event]:
        """Return the events after number `seen`; wait at most `wait` seconds for the first.

        Events up to `seen` are forgotten. Cancelling changes nothing: an event is kept until the client confirms it.
        """
        self._events = [event for event in self._events if event[0] > seen]
        if not self._events:
            self._news.clear()
            with anyio.move_on_after(wait):
                await self._news.wait()
        # At the end: the client was connected during the wait.
        self.renew()
        return list(self._events)
