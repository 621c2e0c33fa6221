"""The worker's side of a fleet: a plugin of Dask distributed that makes sandboxes on its machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pickle
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

from dask import config as dask_config
from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from .._linux.procfs import ProcessIdentity
from .._shield import shielded
from ..client import Runc
from ..container import Container
from ..errors import RootfsError, RuncError
from ..stdio import PipedIO
from .buffers import OutputBuffer
from .errors import RecipeRefused
from .metrics import NodeCollector
from .session import Session
from .storage import Storage
from .values import Demand, NodeResponse, Order, demand_of

OP = "runc_async"
"""The name of the node's handler among the worker's own."""

Answer: TypeAlias = Literal["taken", "full", "never"]
"""A node's answer to an order: it has begun; there is no room now; there never will be."""

_ENDED = 10_000  # ids of ended sandboxes that are remembered, so that an order that arrives late isn't begun
_REST = 10.0  # seconds for which a node with a full disk takes no orders
_LOOK = 0.25  # share of the shortest lease after which leases are looked at


class NodePlugin(WorkerPlugin):
    """Turns each worker of a cluster into a node; registered by `Fleet`, once for each cluster.

    A worker reads Dask's configuration below ``runc-async``: ``command`` (runc), ``root`` (the runtime's root
    directory), ``directory`` (the cache of archives), ``rootfs`` (directories by name), ``recipes`` (digests of the
    permitted recipes; all recipes if the setting is absent).
    """

    name = "runc_async"
    idempotent = True  # a second fleet finds the nodes there

    async def setup(self, worker: Worker) -> None:
        """Create the node, and remove the leftovers of dead workers of this machine."""
        self.node: Node = Node(worker.name, worker.address)
        _handlers(worker)[OP] = self.node.handle
        await self.node.start()

    async def teardown(self, worker: Worker) -> None:
        """End all sandboxes."""
        _handlers(worker).pop(OP, None)
        await self.node.close()

    def __getstate__(self) -> dict[str, object]:
        """Pickle without the node, which belongs to one worker."""
        return {}


def _handlers(worker: Worker) -> dict[str, Any]:
    """Return the worker's table of handlers by name; Dask doesn't annotate the attribute in full."""
    handlers: dict[str, Any] = vars(worker)["handlers"]
    return handlers


def _host() -> str:
    """Return a name of this machine that is the same until it is booted again."""
    return f"{socket.gethostname()}:{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"


class Node:
    """The sandboxes of one worker.

    Attributes:
        counts: Numbers of ended sandboxes, by kind of end.
    """

    def __init__(self, name: object, address: str) -> None:
        setting: Callable[..., Any] = vars(dask_config)["get"]  # Dask doesn't annotate it in full
        default = "/run/runc_async-fleet" if os.geteuid() == 0 else None
        self.name: str = str(name)
        self.counts: dict[str, int] = {}
        root: str | None = setting("runc-async.root", default)
        self._runc = Runc(setting("runc-async.command", "runc"), root=root)
        directory = setting("runc-async.directory", "/var/cache/runc_async")
        self._storage = Storage(Path(directory), setting("runc-async.rootfs", {}))
        self._allowed: list[str] | None = setting("runc-async.recipes", None)
        self._total = Demand(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), float(len(os.sched_getaffinity(0)))
        )
        self._used = Demand(0, 0.0)
        self._problem: str | None = "it is starting"
        self._rest_until = 0.0
        self._sessions: dict[str, Session] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._boxes: dict[str, LiveBox] = {}
        self._sandboxes: set[str] = set()
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._leases: asyncio.Task[None] | None = None
        self._process = ProcessIdentity.of(os.getpid())
        # The same for workers that see each other's processes, and list the same containers: each of them can confirm
        # that the sandboxes of a lost one have ended.
        self._place = f"{_host()}:{os.readlink('/proc/self/ns/pid')}:{os.geteuid()}:{root}"
        self._collector = NodeCollector(self)
        self._address = address

    @property
    def running(self) -> int:
        """The current number of sandboxes."""
        return len(self._sandboxes)

    @property
    def capacity(self) -> int:
        """The maximum number of sandboxes: the lowest number requested by a client."""
        return min((session.capacity for session in self._sessions.values()), default=0)

    async def start(self) -> None:
        """Check whether containers can run here, and sweep leftovers of dead workers."""
        self._collector.register()
        try:
            await self._runc.version()
            await self._runc.sweep()
            self._problem = None
        except (RuncError, OSError) as exc:
            self._problem = str(exc)
        self._leases = asyncio.create_task(self._watch_leases())

    async def close(self) -> None:
        """Cancel all sandboxes, and wait until they have ended."""
        self._problem = "it is closing"
        self._collector.unregister()
        if self._leases is not None:
            self._leases.cancel()
        await shielded(self._end(list(self._tasks)))

    async def handle(self, method: str, fleet: str, arguments: bytes) -> bytes:
        """Answer a call of a client; `Link` is the other side.

        Arguments and results are pickled. Pickle adds no risk: a client of a Dask worker can run any code there
        already.
        """
        calls: dict[str, Callable[..., Awaitable[Any]]] = {
            "hello": self._hello,
            "begin": self._begin,
            "events": self._events,
            "end": self._end_of,
            "read": self._read,
            "write": self._write,
            "call": self._call,
            "leave": self._leave,
            "confirm": self._confirm,
        }
        return pickle.dumps(await calls[method](fleet, **pickle.loads(arguments)))  # noqa: S301 - see above

    # --- clients

    async def _hello(self, fleet: str, *, capacity: int, lease: float) -> dict[str, Any]:
        """Start a new session of a client, after ending the client's previous session."""
        await self._leave(fleet)
        self._sessions[fleet] = Session(lease, capacity)
        worker = (self._address, *self._process)
        return {"name": self.name, "host": _host(), "place": self._place, "worker": worker, **self._load()}

    def _load(self) -> dict[str, Any]:
        """Return the state of the node."""
        resting = "the disk is full" if time.monotonic() < self._rest_until else None
        return {"running": self.running, "capacity": self.capacity, "problem": self._problem or resting}

    async def _events(self, fleet: str, *, seen: int, wait: float) -> tuple[list[Any], dict[str, Any]] | None:
        """Return a client's new events; None without a session, such as after the end of the lease."""
        session = self._sessions.get(fleet)
        return None if session is None else (await session.events(seen, wait), self._load())

    async def _leave(self, fleet: str) -> None:
        """End a client's session with all sandboxes of the session."""
        session = self._sessions.pop(fleet, None)
        if session is not None:
            await self._end(list(session.ids))

    async def _watch_leases(self) -> None:
        """End the sessions of clients whose lease has run out."""
        while True:
            shortest = min((session.lease for session in self._sessions.values()), default=4.0)
            await asyncio.sleep(shortest * _LOOK)
            for fleet in [fleet for fleet, session in self._sessions.items() if session.lapsed]:
                await self._leave(fleet)

    # --- sandboxes

    async def _begin(self, fleet: str, *, order: Order) -> Answer:
        """Start a sandbox. An order that arrives again gets the same answer, and starts nothing.

        Raises:
            RecipeRefused: If the recipe isn't in this node's list.
        """
        session = self._sessions.get(fleet)
        if order.id in self._tasks:
            return "taken"
        if session is None or order.id in self._ended:
            return "full"
        if self._allowed is not None and order.recipe.digest not in self._allowed:
            raise RecipeRefused(f"recipe {order.recipe.digest} isn't in the node's list")
        demand = demand_of(order.recipe)
        if not demand.fits(self._total):
            return "never"
        if self._load()["problem"] or self.running >= self.capacity or not (self._used + demand).fits(self._total):
            return "full"
        # No await between the look above and here: two orders that arrive together can't both take the last place.
        self._used += demand
        self._sandboxes.add(order.id)
        self._add(session, order.id, self._sandbox(session, order))
        self._tasks[order.id].add_done_callback(lambda _: self._free(order.id, demand))
        return "taken"

    def _add(self, session: Session, name: str, work: Any) -> None:
        """Start a task under a name; the client ends the task by the name."""
        task = self._tasks[name] = asyncio.create_task(work)
        session.ids.add(name)

        def forget(_: asyncio.Task[None]) -> None:
            del self._tasks[name]
            session.ids.discard(name)
            self._ended[name] = None
            if len(self._ended) > _ENDED:
                self._ended.popitem(last=False)

        task.add_done_callback(forget)

    def _free(self, name: str, demand: Demand) -> None:
        """Release the resources of a sandbox."""
        self._sandboxes.discard(name)
        self._used = Demand(self._used.memory - demand.memory, self._used.cpus - demand.cpus)

    async def _sandbox(self, session: Session, order: Order) -> None:
        """Make a sandbox, and report the end: the body of a task."""
        started = False
        how = "failed"
        try:
            async with self._storage.bundle(order.recipe) as bundle:
                started = True
                if order.live:
                    await self._live(session, order, bundle)
                else:
                    response = await self._runc.run(order.id, bundle, **order.options)
                    fields = {name: getattr(response, name) for name in response.__struct_fields__}
                    session.report(order.id, "done", NodeResponse(**fields, node=self.name))
            how = "done"
        except asyncio.CancelledError:
            how = "cancelled"
            session.report(order.id, "ended")
            raise
        except (RootfsError, OSError) as exc:
            # Before its start nothing of the program has run, so another node may take the order.
            if isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT}:
                self._rest_until = time.monotonic() + _REST
            session.report(order.id, "failed" if started else "unstarted", exc)
        except Exception as exc:  # noqa: BLE001 - it is the client's
            session.report(order.id, "failed", exc)
        finally:
            self.counts[how] = self.counts.get(how, 0) + 1

    async def _live(self, session: Session, order: Order, bundle: Any) -> None:
        """Hold a live sandbox until the client closes it."""
        async with self._runc.open_container(order.id, bundle, io=PipedIO(), **order.options) as container:
            box = self._boxes[order.id] = LiveBox(container)
            try:
                async with asyncio.TaskGroup() as group:
                    # The pipes are read even while the client reads nothing: a full pipe would stop the program.
                    for buffer in box.outputs.values():
                        group.create_task(buffer.fill())
                    session.report(order.id, "open", container.pid)
                    session.report(order.id, "done", await container.wait())
                    await asyncio.Event().wait()  # the client still reads; it ends the box, or its lease does
            finally:
                del self._boxes[order.id]
                await self._end([name for name in self._tasks if name.startswith(f"{order.id}.")])

    async def _end_of(self, fleet: str, *, name: str) -> None:
        """End a sandbox or a call; an order with the name that arrives later starts nothing."""
        del fleet
        self._ended[name] = None
        await self._end([name])

    async def _end(self, names: list[str]) -> None:
        """Cancel tasks and wait for them."""
        tasks = [self._tasks[name] for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            # Only the ends count: results and errors are reported as events.
            await asyncio.wait(tasks)

    async def _confirm(self, fleet: str, *, name: str, worker: tuple[str, int, int]) -> bool:
        """Return whether a sandbox of a worker of this machine has certainly ended, and won't start."""
        address, *process = worker
        # A stopped or slow worker may have taken the order, and not have begun it yet.
        if address != self._address and ProcessIdentity(*process).exists():
            return False
        await self._end_of(fleet, name=name)
        await self._runc.sweep()
        # After the sweep a container of a killed worker is gone, or still listed.
        return name not in {state.id for state in await self._runc.list()}

    # --- live boxes

    async def _read(self, fleet: str, *, name: str, stream: str, offset: int, limit: int, wait: float) -> Any:
        """Return output of a box; None if the box has ended."""
        del fleet
        box = self._boxes.get(name)
        return None if box is None else await box.outputs[stream].read(offset, limit, wait)

    async def _write(self, fleet: str, *, name: str, offset: int, data: bytes | None) -> bool:
        """Write to a box's stdin, or close stdin if `data` is None; False if the box has ended."""
        del fleet
        box = self._boxes.get(name)
        if box is None:
            return False
        await box.write(offset, data)
        return True

    async def _call(self, fleet: str, *, name: str, call: str, **invocation: Any) -> bool:
        """Start an `exec` or `kill` of a box, under its own name; the result is an event."""
        session = self._sessions.get(fleet)
        box = self._boxes.get(name)
        if session is None or box is None:
            return False
        if call not in self._tasks and call not in self._ended:
            self._add(session, call, self._calling(session, box.container, call, **invocation))
        return True

    async def _calling(
        self, session: Session, container: Container, call: str, *, method: str, arguments: Any, options: Any
    ) -> None:
        """Run a call and report the result: the body of a task."""
        try:
            session.report(call, "done", await getattr(container, method)(*arguments, **options))
        except asyncio.CancelledError:
            session.report(call, "ended")
            raise
        except Exception as exc:  # noqa: BLE001 - it is the client's
            session.report(call, "failed", exc)


class LiveBox:
    """A live container; the client reads and writes the streams by offset."""

    def __init__(self, container: Container) -> None:
        self.container = container
        streams = {"stdout": container.stdout, "stderr": container.stderr}
        self.outputs: dict[str, OutputBuffer] = {
            name: OutputBuffer(stream) for name, stream in streams.items() if stream is not None
        }
        self._written = 0
        self._writing = asyncio.Lock()

    async def write(self, offset: int, data: bytes | None) -> None:
        """Write bytes that begin at an offset, without the bytes that were written before.

        Raises:
            anyio.BrokenResourceError: If the program has closed stdin.
        """
        stdin = self.container.stdin
        if stdin is None:
            return
        async with self._writing:
            if data is None:
                with contextlib.suppress(OSError):
                    await stdin.aclose()
                return
            # A cancelled write may have arrived in part, or not at all: the client goes on behind it in any case.
            self._written = max(self._written, offset)
            rest = memoryview(data)[self._written - offset :]
            while rest:
                piece = bytes(rest[:4096])
                await stdin.send(piece)
                self._written += len(piece)
                rest = rest[len(piece) :]
