"""The client's side of one node: calls, and the node's events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio

from .errors import NodeLost
from .node import OP
from .values import NodeInfo, Order

if TYPE_CHECKING:
    from distributed.core import ConnectionPool

    from .session import Kind

_PAUSE = 0.1  # seconds between two attempts to reach a node


class Link:
    """One node, as seen by a fleet.

    Attributes:
        address: The address of Dask's worker.
        name: The name of the node; the address until the node has answered.
        host: The node's machine.
        place: The same for nodes that see each other's processes and containers; empty until the node has answered.
        worker: The address of the node's worker, its pid, and its start in clock ticks.
        running: The number of sandboxes of this fleet on the node.
        runs: The number of orders taken by the node.
        lost: The error, if the node is lost.
        answered: Set once the node has answered, or is lost.
        closed_until: No order is sent before this moment (`time.monotonic()`), because the node had no room.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        address: str,
        *,
        capacity: int,
        lease: float,
        patience: float,
        changed: Callable[[], None],
    ) -> None:
        self.address = address
        self.name: str = address
        self.host: str = ""
        self.place: str = ""
        self.worker: tuple[str, int, int] = "", 0, 0
        self.running: int = 0
        self.runs: int = 0
        self.closed_until: float = 0.0
        self.lost: NodeLost | None = None
        self.answered: asyncio.Event = asyncio.Event()
        self._fleet = os.urandom(8).hex()
        self._rpc = pool(address)
        self._capacity = capacity
        self._lease = lease
        self._patience = patience
        self._changed = changed
        self._load: dict[str, Any] = {"running": 0, "capacity": capacity, "problem": "it has not answered yet"}
        self._queues: dict[str, asyncio.Queue[tuple[Kind, Any] | NodeLost]] = {}

    @property
    def usable(self) -> bool:
        """Whether an order may be sent now."""
        return (
            self.lost is None
            and not self._load["problem"]
            and self.running < self._capacity
            and time.monotonic() >= self.closed_until
        )

    def info(self) -> NodeInfo:
        """Return the node as `Fleet.nodes` shows it."""
        problem = self.lost.reason if self.lost else self._load["problem"]
        return NodeInfo(
            name=self.name,
            address=self.address,
            host=self.host,
            state="lost" if self.lost else "unusable" if problem else "ready",
            problem=problem,
            capacity=self._load["capacity"] or self._capacity,
            running=self._load["running"],
            runs=self.runs,
        )

    async def call(self, method: str, timeout: float | None = None, /, **arguments: Any) -> Any:
        """Call the node, and repeat the call while the node can't be reached: every call may arrive twice.

        Args:
            method: The call.
            timeout: Seconds for the node's answer, in addition to the fleet's patience.
            arguments: The arguments.

        Raises:
            NodeLost: If the node isn't reached within the fleet's patience, or is lost.
            Exception: The node's own.
        """
        # The node answers a long call late on purpose: only the time beyond that counts as silence.
        deadline = time.monotonic() + self._patience + (timeout or 0.0)
        data = pickle.dumps(arguments)
        while True:
            if self.lost is not None:
                raise NodeLost(self.name, self.lost.reason)
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    answer = await getattr(self._rpc, OP)(method=method, fleet=self._fleet, arguments=data)
                if answer is not None:
                    return pickle.loads(answer)  # noqa: S301 - a worker of our own cluster
                problem = "the worker isn't a node yet"
            except (OSError, TimeoutError) as exc:
                problem = repr(exc)
            if time.monotonic() >= deadline:
                raise NodeLost(self.name, f"no answer for {self._patience:g} seconds: {problem}")
            await asyncio.sleep(_PAUSE)

    async def follow(self) -> None:
        """Start a session, and distribute events until the node is lost: the body of a task."""
        try:
            hello = await self.call("hello", capacity=self._capacity, lease=self._lease)
            self.name = str(hello["name"])
            self.host = str(hello["host"])
            self.place = hello["place"]
            self.worker = hello["worker"]
            self._load = hello
            self.answered.set()
            self._changed()
            seen, wait = 0, min(self._lease / 3, 2.0)
            while True:
                answer = await self.call("events", wait, seen=seen, wait=wait)
                if answer is None:
                    self.lose(NodeLost(self.name, "its lease for this fleet is over"))
                    return
                events, self._load = answer
                # `seen` confirms these events with the next call. If the next answer is lost, the node sends the same
                # events again; events without a queue belong to sandboxes that this fleet has already let go of.
                for number, name, kind, value in events:
                    seen = number
                    if name in self._queues:
                        self._queues[name].put_nowait((kind, value))
                if events or self._load["problem"]:
                    self._changed()
        except NodeLost as exc:
            self.lose(exc)

    def lose(self, error: NodeLost) -> None:
        """Give the node up: all calls that wait for events of the node fail."""
        self.lost = error
        self.answered.set()
        for queue in self._queues.values():
            # As the last item: events that arrived before the loss are still read first.
            queue.put_nowait(error)
        self._changed()

    async def begin(self, order: Order) -> str:
        """Send an order; return the node's answer: "taken", "full" or "never".

        Raises:
            NodeLost: If the node is lost; the order may have arrived.
            RecipeRefused: If the node refuses the recipe.
        """
        answer: str = await self.call("begin", order=order)
        if answer == "taken":
            self.runs += 1
        elif answer == "full":
            self.closed_until = time.monotonic() + _PAUSE
        return answer

    def expect(self, name: str) -> asyncio.Queue[tuple[Kind, Any] | NodeLost]:
        """Return the queue for events of a sandbox or call; `forget` removes the queue."""
        return self._queues.setdefault(name, asyncio.Queue())

    def forget(self, name: str) -> None:
        """Drop the events of a sandbox or call."""
        self._queues.pop(name, None)

    async def event(self, name: str) -> tuple[Kind, Any]:
        """Wait for the next event of a sandbox or call.

        Raises:
            NodeLost: If the node is lost.
        """
        item = await self._queues[name].get()
        if isinstance(item, NodeLost):
            raise NodeLost(item.node, item.reason)
        return item

    async def end(self, name: str) -> None:
        """End a sandbox or a call, and wait for the end. A silent node ends the sandbox when the lease is over."""
        with contextlib.suppress(NodeLost), anyio.CancelScope(shield=True), anyio.move_on_after(self._patience):
            await self.call("end", self._patience, name=name)

    async def leave(self) -> None:
        """End the session with all sandboxes."""
        with contextlib.suppress(NodeLost), anyio.CancelScope(shield=True), anyio.move_on_after(self._patience):
            await self.call("leave")
