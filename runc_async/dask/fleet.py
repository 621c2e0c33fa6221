"""Sandboxes on all machines of a Dask cluster: `Fleet`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any, Self, Unpack, cast

import anyio
from distributed import Client
from distributed.core import ConnectionPool

from .._commands.options import CreateOptions
from .._shield import shielded
from ..limits import Limits
from ..stdio import PipedIO
from .box import Box, follow
from .errors import NodeLost, NoNode, RecipeRefused
from .link import Link
from .node import NodePlugin
from .values import NodeInfo, NodeResponse, Order, Recipe

_LOOK = 0.5  # seconds between two looks at the workers of the cluster
_AGAIN = 0.05  # seconds after which a full node is asked once more, if no sandbox of this fleet ends before
_CONNECTIONS = 4096
_TRIES = 10  # how often the workers are told once more, when one of them has ended meanwhile


class _Request:
    """A caller that waits for a node.

    Attributes:
        order: The order: one with another id after a node that couldn't begin it.
        node: The node that it was last sent to.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.node: Link | None = None
        self.link: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.excluded: dict[str, str] = {}
        self.was_placed = False


class Fleet:
    """Sandboxes on all machines of a Dask cluster.

    On enter, each worker of the cluster becomes a node; later workers do too. Any number of fleets share the nodes of a
    cluster. Sandboxes are spread evenly over the nodes: at most `capacity` on each, and within the memory and CPUs of
    the node, according to the recipes' limits. Waiting callers are served in order, where there is room.

    On exit of the block all sandboxes of the fleet are ended.

    No program is run twice, unless `retries` allows it: an order has an id, a node starts the order once, and a node
    that was given up ends the sandbox before it takes new orders.

    Args:
        client: A client of the cluster, made with ``asynchronous=True``, which must reach the workers' addresses
            itself.
        capacity: The maximum number of sandboxes on each node. With several fleets the lowest number counts.
        lease: Seconds after which a node ends the sandboxes of a client that has vanished.
        patience: Seconds without an answer after which a node counts as lost.

    Raises:
        ValueError: If `capacity` is below 1, a time is not more than 0, or the client isn't asynchronous.
    """

    def __init__(self, client: Client, *, capacity: int = 8, lease: float = 30.0, patience: float = 10.0) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1: {capacity!r}")
        for name, seconds in (("lease", lease), ("patience", patience)):
            if not 0 < seconds < float("inf"):
                raise ValueError(f"{name} must be a number of seconds above 0: {seconds!r}")
        if not client.asynchronous:
            raise ValueError("the client must be made with asynchronous=True")
        self._client = client
        self._capacity = capacity
        self._lease = lease
        self._patience = patience
        self._links: dict[str, Link] = {}
        self._waiting: deque[_Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pool: ConnectionPool | None = None
        self._again: asyncio.TimerHandle | None = None
        self._scheduler: str | None = None

    def __repr__(self) -> str:
        """Show the number of nodes and of waiting callers."""
        return f"<Fleet of {len(self._links)} nodes, {len(self._waiting)} waiting>"

    async def __aenter__(self) -> Self:
        """Turn the cluster's workers into nodes, and wait for the nodes' answers, at most `patience` seconds.

        Raises:
            OSError: If the scheduler can't be reached.
        """
        client: Any = self._client
        arguments: dict[str, object] = client.connection_args
        self._pool = ConnectionPool(limit=_CONNECTIONS, deserialize=True, connection_args=arguments)
        await self._pool.start()
        try:
            await self._look()
        except BaseException:
            await shielded(self._pool.close())
            raise
        self._start(self._look_often())
        with anyio.move_on_after(self._patience):
            for link in list(self._links.values()):
                await link.answered.wait()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End all sandboxes of this fleet."""
        await shielded(self._close())

    async def _close(self) -> None:
        """End the tasks, leave the nodes, and close the connections."""
        for request in self._waiting:
            if not request.link.done():
                request.link.set_exception(anyio.ClosedResourceError())
        self._waiting.clear()
        for task in self._tasks:
            task.cancel()
        if self._again is not None:
            self._again.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # After the tasks: a task that is cancelled ends its own sandbox first.
        await asyncio.gather(*(link.leave() for link in self._links.values()))
        for link in self._links.values():
            link.lose(NodeLost(link.name, "the fleet is closed"))
        if self._pool is not None:
            await self._pool.close()

    async def run(
        self,
        recipe: Recipe,
        *,
        input: bytes | None = None,  # noqa: A002 - as `Runc.run` has it
        limits: Limits | None = None,
        usage: bool = False,
        retries: int = 0,
        **options: Any,
    ) -> NodeResponse:
        """Run a program in a container on some node, as `Runc.run`, and wait for the end.

        Cancelled, the container is ended on the node, and deleted, before the call returns; an unreachable node does so
        when the fleet's lease is over.

        Args:
            recipe: The bundle.
            input: Bytes for the program's stdin.
            limits: Limits on time and output of the program.
            usage: Whether to measure the resource usage.
            retries: The maximum number of new runs after the loss of a node. A new run starts only after a node of the
                same machine has confirmed the end of the previous run.
            options: Options of `Runc.run`.

        Returns:
            The response, with the node's name.

        Raises:
            NodeLost: If the node is lost, and no retry is left, or the end of the run isn't confirmed within the lease.
            NoNode: If no node can ever run the recipe.
            RecipeRefused: If a node refuses the recipe.
            RuncError: As `Runc.run`.
            ValueError: If `retries` is negative.
        """
        if retries < 0:
            raise ValueError(f"retries can't be negative: {retries!r}")
        named = {"input": input, "limits": limits, "usage": usage or None}
        options |= {name: value for name, value in named.items() if value is not None}
        while True:
            request = _Request(Order(id=f"fleet-{os.urandom(12).hex()}", recipe=recipe, live=False, options=options))
            try:
                async with self._placed(request) as (link, kind, value):
                    del link
                    return cast("NodeResponse", _result(kind, value))
            except NodeLost:
                if retries == 0 or request.node is None or not await self._confirmed(request.node, request.order.id):
                    raise
                retries -= 1

    @contextlib.asynccontextmanager
    async def open(
        self, recipe: Recipe, *, io: PipedIO | None = None, lease: float | None = None, **options: Unpack[CreateOptions]
    ) -> AsyncGenerator[Box]:
        """Open a live container on some node for the time of the block, as `Runc.open_container`.

        On exit of the block the container is ended on the node, and deleted.

        Args:
            recipe: The bundle.
            io: `PipedIO()`: streams to stdin, stdout and stderr. Other kinds don't work across machines.
            lease: At most the fleet's lease, which counts for all sandboxes of the fleet.
            options: Options of `Runc.open_container`.

        Raises:
            NodeLost: If the node is lost before the container is open.
            NoNode: If no node can ever run the recipe.
            RecipeRefused: If a node refuses the recipe.
            RuncError: As `Runc.open_container`.
            ValueError: If `io` is of another kind, or `lease` is longer than the fleet's.
        """
        if io is not None and io != PipedIO():
            raise ValueError("a box has PipedIO() and no other streams")
        if lease is not None and not 0 < lease <= self._lease:
            raise ValueError(f"lease must be above 0 and at most the fleet's own {self._lease:g} seconds: {lease!r}")
        request = _Request(Order(id=f"fleet-{os.urandom(12).hex()}", recipe=recipe, live=True, options=dict(options)))
        async with self._placed(request) as (link, kind, value):
            box = Box(link, request.order.id, _result(kind, value))
            task = asyncio.create_task(follow(box))
            try:
                yield box
            finally:
                task.cancel()
                box.close()

    def nodes(self) -> list[NodeInfo]:
        """Return the nodes as seen by this fleet, including lost nodes until their worker has left the cluster."""
        return [link.info() for link in self._links.values()]

    # --- placing

    @contextlib.asynccontextmanager
    async def _placed(self, request: _Request) -> AsyncGenerator[tuple[Link, str, Any]]:
        """Place an order on a node, and yield the first event. On exit of the block the order has ended on the node."""
        while True:
            order = request.order
            link = request.node = await self._place(request)
            # Before the order is sent: its first event may arrive before the answer.
            link.expect(order.id)
            # Not over until the node says so: it may have the order, however the call below ends.
            over = False
            try:
                answer = await self._begin(link, request)
                over = answer != "taken"
                if not over:
                    kind, value = await link.event(order.id)
                    over = not order.live or kind != "open"
                    if kind != "unstarted":
                        yield link, kind, value
                        return
                    request.excluded[link.address] = str(value)
                    request.order = _renewed(order)
            finally:
                if not over and link.lost is None:
                    await link.end(order.id)
                link.forget(order.id)
                link.running -= 1
                self._dispatch()

    async def _begin(self, link: Link, request: _Request) -> str:
        """Send an order to a node."""
        try:
            answer = await link.begin(request.order)
        except RecipeRefused as exc:
            answer, request.excluded[link.address] = "refused", str(exc)
            if all(address in request.excluded for address in self._links):
                raise
        if answer == "never":
            request.excluded[link.address] = "it has less memory or fewer CPUs than the recipe's limits"
        return answer

    async def _place(self, request: _Request) -> Link:
        """Wait for a node with room. A request sent back by a node goes to the head of the queue."""
        request.link = asyncio.get_running_loop().create_future()
        # It has waited its turn already.
        if request.was_placed:
            self._waiting.appendleft(request)
        else:
            self._waiting.append(request)
        request.was_placed = True
        self._dispatch()
        try:
            return await request.link
        except asyncio.CancelledError:
            # The cancel can arrive after `_dispatch` has reserved a place, and before this task runs: give the place
            # back.
            if request.link.done() and not request.link.cancelled() and request.link.exception() is None:
                request.link.result().running -= 1
                self._dispatch()
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(request)
            raise

    def _dispatch(self) -> None:
        """Give nodes with room to the callers that have waited longest."""
        while self._waiting:
            request = self._waiting[0]
            if request.link.done():
                self._waiting.popleft()
                continue
            usable = [link for link in self._links.values() if link.usable and link.address not in request.excluded]
            if not usable:
                self._wait_for_room(request)
                return
            # The emptiest node; of several, the one that this fleet has used least.
            link = min(usable, key=lambda link: (link.running, link.runs))
            self._waiting.popleft()
            # Counted here and not when the task runs: the loop goes on, and the next request must see the place as
            # taken.
            link.running += 1
            request.link.set_result(link)

    def _wait_for_room(self, request: _Request) -> None:
        """Look again a little later; fail a request that no node can ever take."""
        able = [link for link in self._links.values() if link.lost is None]
        if able and all(link.address in request.excluded for link in able):
            self._waiting.popleft()
            reasons = {link.name: request.excluded[link.address] for link in able}
            request.link.set_exception(NoNode(reasons))
        if self._again is None:
            loop = asyncio.get_running_loop()
            self._again = loop.call_later(_AGAIN, self._dispatch_again)

    def _dispatch_again(self) -> None:
        """Dispatch by the timer."""
        self._again = None
        self._dispatch()

    # --- nodes

    async def _confirmed(self, lost: Link, name: str) -> bool:
        """Wait until a node beside a lost one has confirmed the end of a run; False after lease and `patience`.

        The lost worker itself can do so when it is back, which is another link to the same process.
        """
        with anyio.move_on_after(self._lease + self._patience):
            while lost.place:
                for link in [link for link in self._links.values() if link.place == lost.place and link.lost is None]:
                    with contextlib.suppress(NodeLost):
                        if await link.call("confirm", self._patience, name=name, worker=lost.worker):
                            return True
                await asyncio.sleep(_LOOK)
        return False

    async def _look_often(self) -> None:
        """Follow the workers of the cluster: the body of a task."""
        while True:
            await asyncio.sleep(_LOOK)
            with contextlib.suppress(OSError, TimeoutError, anyio.BrokenResourceError):
                await self._look()

    async def _look(self) -> None:
        """Make links to new workers, and drop those of workers that are gone."""
        scheduler: Any = self._client.scheduler
        identity = await scheduler.identity(n_workers=-1)
        if identity["id"] != self._scheduler:
            # A scheduler that was restarted knows no plugin, and its workers are no nodes yet.
            await _register(self._client)
            self._scheduler = identity["id"]
        workers = set(identity["workers"])
        for address, link in list(self._links.items()):
            if link.lost is not None:  # it may be back: a new link is a new session, which ends what the old one had
                del self._links[address]
        for address in workers - self._links.keys():
            link = Link(
                cast("ConnectionPool", self._pool),
                address,
                capacity=self._capacity,
                lease=self._lease,
                patience=self._patience,
                changed=self._dispatch,
            )
            self._links[address] = link
            self._start(link.follow())

    def _start(self, work: Any) -> None:
        """Start a task that ends with the fleet."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _renewed(order: Order) -> Order:
    """Return the order under a new id: the order never started, and the node won't start the old id."""
    return Order(id=f"fleet-{os.urandom(12).hex()}", recipe=order.recipe, live=order.live, options=order.options)


def _result(kind: str, value: Any) -> Any:
    """Return the value of an event, or raise its error."""
    if kind in {"done", "open"}:
        return value
    raise value if isinstance(value, Exception) else NodeLost("", "the sandbox was ended")


async def _register(client: Any) -> None:
    """Turn the workers into nodes: those that are there, and by the scheduler those that come later.

    Raises:
        OSError: If the scheduler can't be reached.
    """
    for tries in range(_TRIES, -1, -1):
        try:
            # The scheduler keeps the plugin, and passes it to workers that come later.
            await client.register_plugin(NodePlugin())
        except OSError:
            # A worker that ends meanwhile breaks the call off for all of them, until the scheduler has noticed its end.
            if not tries:
                raise
            await asyncio.sleep(_LOOK)
        else:
            return
