"""The keeper: starts containers, holds their streams, waits for their ends, and answers requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

from runc_async import __version__
from runc_async.errors import ContainerExists, ContainerNotFound, RuncError
from runc_async.exitstatus import ExitStatus

from .._shield import shielded, start
from . import orphans
from .accepting import Listener
from .channel import Channel, Passed
from .errors import KeeperError, KeeperLost, StreamsInUse
from .failures import failure_of
from .holding import Handle, Holding, client_like, not_kept
from .place import Place
from .protocol import (
    PAGE,
    PROTOCOL,
    REQUESTS,
    Answer,
    AnyRequest,
    Attach,
    Attached,
    Close,
    Delete,
    Detach,
    Done,
    Ended,
    Hello,
    List,
    Listing,
    Record,
    Start,
    StreamName,
    Wait,
    Welcome,
    decode_request,
    encode,
)
from .sending import UNKNOWN, now, to_create_options, to_io
from .systemd import Store

T = TypeVar("T")

REQUEST_TIME = 10.0
"""Seconds for a connected client to send its request."""

END_TIME = 15.0
"""Seconds for the process of a deleted container to end."""

RETRY_TIME = 1.0
"""Seconds before a wait without a free descriptor is repeated."""

CANCEL_TIME = 0.05
"""Seconds between two cancellations of a task that doesn't end."""

log: logging.Logger = logging.getLogger("runc_async.keeper")


class Server:
    """A keeper at its place.

    Attributes:
        holdings: The containers by id, including those that are starting.
        handing_over: Whether the keeper is about to be replaced, so that waiting connections stay untouched.
        unread: Connections without a request yet, while `handing_over`.
    """

    def __init__(self, place: Place, listener: socket.socket, store: Store) -> None:
        """Take over the listening socket."""
        self.holdings: dict[str, Holding] = {}
        self.handing_over: bool = False
        self.unread: list[Channel] = []
        self._place = place
        self._listener = Listener(listener, self.welcome)
        self._store = store
        self._unsaved: set[str] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._changes: set[asyncio.Task[Any]] = set()
        self._changing: set[asyncio.Task[Any]] = set()  # connections that wait for a change, or its answer
        self._watches: dict[Holding, asyncio.Task[None]] = {}

    def fileno(self) -> int:
        """Return the descriptor of the listening socket."""
        return self._listener.fileno()

    async def pause(self) -> None:
        """Finish the changes in progress, and end everything but connections. Lent containers stay lent."""
        self.handing_over = True
        self._listener.pause()
        await self._changed()
        await self._end_tasks()

    def resume(self) -> None:
        """Continue after `pause`, in this program or its successor."""
        self.handing_over = False
        for holding in self.holdings.values():
            self._watch(holding)
            if holding.owner is not None:
                self._begin_connection(self._converse(holding.owner, holding))
        while self.unread:
            self.welcome(self.unread.pop())
        self._listener.resume()

    async def close(self) -> None:
        """Undo starts in progress, and release everything; the containers run on."""
        self._listener.close()
        for task in tuple(self._changes):
            task.cancel()
        await self._changed()
        await self._end_tasks()
        for holding in self.holdings.values():
            holding.close()

    async def _changed(self) -> None:
        """Wait until no change is in progress, and each client has its answer."""
        while tasks := {*self._changes, *self._changing}:
            await asyncio.wait(tasks)

    async def _end_tasks(self) -> None:
        """Cancel the tasks of connections and waits, and wait for their ends."""
        while tasks := {*self._connections, *self._watches.values()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_TIME)  # a task that had not begun drops the first cancel

    def adopt(self, record: Record, descriptors: dict[StreamName, int]) -> Holding | None:
        """Take over a container of an earlier keeper.

        Args:
            record: The container's record.
            descriptors: The descriptors of the streams, which belong to the server from now on.

        Raises:
            OSError: If no descriptor is left.
        """
        holding = Holding(record)
        self.holdings[record.id] = holding
        if not record.pid:  # that keeper was killed in the middle of a start
            change = start(self._undo(holding, orphans.found(self._place.path)))
            self._changes.add(change)
            change.add_done_callback(self._changes.discard)
            return None
        holding.container = Handle.adopted(record, descriptors)
        return holding

    async def _undo(self, holding: Holding, runtimes: list[int]) -> None:
        """Delete the container of an unfinished start, after the runtimes of the earlier keeper have ended."""
        try:
            await orphans.ended(runtimes)
            await client_like(holding.record.client).undo(holding.record)
        except (KeeperError, OSError, ValueError, TypeError) as exc:
            log.warning("container %s: what a killed keeper has begun can't be undone: %s", holding.record.id, exc)
        else:
            self._forget(holding)

    def _watch(self, holding: Holding) -> None:
        """Wait for the end of a container in a separate task."""
        if not holding.ended.is_set() and holding.container is not None:
            task = asyncio.create_task(self._see_end(holding))
            self._watches[holding] = task
            task.add_done_callback(lambda _: self._watches.pop(holding))

    async def _see_end(self, holding: Holding) -> None:
        """Wait for the end of a container, and record it, also on the disk."""
        while True:
            try:
                holding.end(await holding.wait())
                break
            except OSError as exc:
                # No descriptor is free. The process stays our zombie, so its status isn't lost meanwhile.
                log.warning("container %s: no wait for its end: %s", holding.record.id, exc)
                await asyncio.sleep(RETRY_TIME)
        # The status is in memory already: clients are answered even if the disk is full.
        self._unsaved.add(holding.record.id)
        self._save()

    def _save(self) -> None:
        """Write pending records to the disk. A record without disk space is tried again together with the next one."""
        for container_id in sorted(self._unsaved):
            holding = self.holdings.get(container_id)
            try:
                if holding is not None:
                    self._place.write(holding.record)
            except OSError as exc:
                log.warning("container %s: its record can't be written: %s", container_id, exc)
                return
            self._unsaved.discard(container_id)

    def _forget(self, holding: Holding) -> None:
        """Release a deleted container."""
        record = holding.record
        # The id may belong to a new container by now: then only the old holding is released.
        if self.holdings.get(record.id) is holding:
            del self.holdings[record.id]
            self._unsaved.discard(record.id)
            try:
                self._place.remove(record.id)
            except OSError as exc:
                log.warning("container %s: its record can't be removed: %s", record.id, exc)
            self._store.remove(record.id)
        if holding in self._watches:
            self._watches[holding].cancel()
        holding.close()

    def welcome(self, channel: Channel) -> None:
        """Serve a new connection."""
        self._begin_connection(self._serve(channel))

    def _begin_connection(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the work of a connection in a task."""
        task = start(work)
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        task.add_done_callback(self._changing.discard)

    async def _serve(self, channel: Channel) -> None:
        """Read a request, and answer it."""
        try:
            async with asyncio.timeout(REQUEST_TIME):
                await channel.readable()
        except TimeoutError:
            channel.close()
            return
        except asyncio.CancelledError:
            if self.handing_over:
                # Nothing was read from the socket: the successor inherits it, and reads the request.
                self.unread.append(channel)
            else:
                channel.close()
            raise
        await self._converse(channel, None)

    async def _converse(self, channel: Channel, lent: Holding | None) -> None:
        """Serve a connection that has sent a request, or already has streams."""
        try:
            if lent is None:
                data, passed = await channel.receive()
                with passed:
                    lent = await self._answer(channel, data, passed)
            if lent is not None:
                await self._lend(channel, lent)
        except asyncio.CancelledError:
            if self.handing_over and lent is not None and lent.owner is channel:
                return  # the successor goes on with it
            self._hang_up(channel, lent)
            raise
        except KeeperError as exc:
            with contextlib.suppress(KeeperError, OSError):
                await channel.send(encode(failure_of(exc)))
        except OSError as exc:
            log.warning("a connection has failed: %s", exc)
        self._hang_up(channel, lent)

    async def _answer(self, channel: Channel, data: bytes, passed: Passed) -> Holding | None:
        """Answer a request; return the container whose streams are now lent."""
        try:
            request = decode_request(data)
            if isinstance(request, Attach):
                return await self._attach(channel, request)
            changes = isinstance(request, Start | Delete)
            if changes and (task := asyncio.current_task()):
                self._changing.add(task)
            answer = await self._while_connected(channel, self._do(request, passed), changes=changes)
        except (RuncError, OSError, ValueError, TypeError) as exc:
            answer = failure_of(exc)
        except Exception as exc:
            log.exception("a request has failed")
            answer = failure_of(exc)
        await channel.send(encode(answer))
        return None

    async def _while_connected(self, channel: Channel, work: Coroutine[Any, Any, T], *, changes: bool) -> T:
        """Work on a request until the client hangs up; a change is never interrupted by a pause."""
        task = start(work)
        gone = asyncio.create_task(channel.readable())
        if changes:
            self._changes.add(task)
            task.add_done_callback(self._changes.discard)
        try:
            # A client that hangs up was cancelled or killed: `work` is cancelled too, and a start undoes itself.
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            gone.cancel()
            await shielded(asyncio.wait({task, gone}))
        if task.cancelled():
            raise KeeperLost("cut short: the connection, or the keeper, has ended")
        return task.result()

    async def _do(self, request: AnyRequest, passed: Passed) -> Answer:
        """Execute a request."""
        match request:
            case Hello():
                return Welcome(protocol=PROTOCOL, release=__version__, pid=os.getpid(), requests=REQUESTS)
            case Start():
                await self._start(request, passed)
            case List():
                return self._list(request.after)
            case Wait():
                return Ended(status=await self._wait(request.id))
            case Delete():
                await self._delete(request.id, force=request.force)
            case _:
                raise KeeperError("that belongs into the connection of an attach request")
        return Done()

    async def _start(self, request: Start, passed: Passed) -> None:
        """Create a container and start it, or leave nothing behind."""
        # All values are checked before the id is taken, so that a refused request leaves no record.
        runc = client_like(request.client)
        io = to_io(request.streams, passed.get)
        options, timeout = to_create_options(request.options, passed.get)
        if request.id in self.holdings:
            raise ContainerExists(
                (), None, container_id=request.id, message="the keeper has a container of that id already"
            )
        # No await between the look above and the entry below: of two starts with one id, the second is refused.
        holding = Holding(Record(id=request.id, client=request.client, begun=now()))
        self.holdings[request.id] = holding
        try:
            await runc.check_free(request.id)
            self._place.write(holding.record)
            # The record without a pid is written before the runtime starts. If the keeper is killed in between, its
            # successor finds the record, and deletes whatever the runtime has made: see `adopt`.
            holding.container = await runc.begin(
                request.id, os.fsdecode(request.bundle), io, timeout=timeout, options=options
            )
            try:
                # The second record has the pid and the start time; from here on a successor adopts the container.
                holding.set_pipe_size(request.streams.pipe_size)
                holding.identify()
                self._place.write(holding.record)
                self._store.add(request.id, holding.container.streams())
            except BaseException:
                await shielded(holding.container.aclose())
                raise
        except BaseException:
            self._forget(holding)
            raise
        self._watch(holding)

    def _find(self, container_id: str) -> Holding:
        """Return a started container.

        Raises:
            ContainerNotFound: If there is none with this id.
        """
        holding = self.holdings.get(container_id)
        if holding is None or holding.container is None:
            raise not_kept(container_id)
        return holding

    def _list(self, after: str) -> Listing:
        """List the containers after an id, as many as fit into a message."""
        ids = sorted(name for name, held in self.holdings.items() if name > after and held.record.pid)
        return Listing(containers=tuple(self.holdings[name].kept for name in ids[:PAGE]), more=len(ids) > PAGE)

    async def _wait(self, container_id: str) -> ExitStatus:
        """Wait for the end of a container."""
        holding = self._find(container_id)
        await holding.ended.wait()
        return holding.record.status or UNKNOWN

    async def _delete(self, container_id: str, *, force: bool) -> None:
        """Delete a container, and release it."""
        holding = self._find(container_id)
        with contextlib.suppress(ContainerNotFound):
            await client_like(holding.record.client).delete(container_id, force=force)
        if force and not holding.ended.is_set():
            holding.handle().kill_process()
        try:
            async with asyncio.timeout(END_TIME):
                await holding.ended.wait()
        except TimeoutError:
            if not force:
                raise KeeperError(f"container {container_id!r} is gone, and its process runs on") from None
            # Even SIGKILL does not end a process that is stuck in the kernel (state D): no caller waits for ever.
            holding.end(UNKNOWN)
        self._forget(holding)

    async def _attach(self, channel: Channel, request: Attach) -> Holding | None:
        """Hand out a container; return it if the streams are handed out too."""
        holding = self._find(request.id)
        if request.streams:
            # A service that was killed and restarted may be quicker than our task for its old connection.
            await holding.released()
            if holding.owner is not None:
                raise StreamsInUse(request.id)
            # No await between the look and this line: a second connection that asks meanwhile gets StreamsInUse.
            holding.owner = channel
        try:
            await self._hand_out(channel, holding, streams=request.streams)
        except BaseException:
            if request.streams:
                holding.owner = None
            raise
        return holding if request.streams else None

    async def _hand_out(self, channel: Channel, holding: Holding, *, streams: bool) -> None:
        """Send the descriptors of a container."""
        lent: dict[str, int] = {}
        if streams:
            lent.update(holding.handle().streams().items())
            lent |= {f"{name}.ahead": fd for name, fd in holding.ahead.items()}
        record = holding.record
        pidfd = holding.open_pidfd()
        try:
            if pidfd is not None:
                lent["pidfd"] = pidfd
            answer = Attached(id=record.id, pid=record.pid, client=record.client, descriptors=tuple(lent))
            await channel.send(encode(answer), tuple(lent.values()))
        finally:
            if pidfd is not None:
                os.close(pidfd)

    async def _lend(self, channel: Channel, holding: Holding) -> None:
        """Serve the connection with the streams of a container, until they come back or it ends."""
        while True:
            data, passed = await channel.receive()
            with passed:
                match decode_request(data):
                    case Close(stream=name):
                        # A program reads end of file only after the last copy of the other end is closed.
                        holding.handle().close_stream(name)
                        holding.drop_ahead(name)
                        self._store.remove(holding.record.id, (name,))
                    case Detach(ahead=names):
                        for index, name in enumerate(names):
                            holding.keep_ahead(name, passed.take(index))
                        holding.owner = None
                        await channel.send(encode(Done()))
                        return
                    case _:
                        raise KeeperError("this connection has streams, and takes no other request")

    def _hang_up(self, channel: Channel, lent: Holding | None) -> None:
        """Close a connection; its streams are free again."""
        if lent is not None and lent.owner is channel:
            lent.owner = None
        channel.close()
