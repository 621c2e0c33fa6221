"""`Keeper`: the service's side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import AsyncGenerator, Sequence
from typing import Any, TypeVar, Unpack

from runc_async.client import Runc
from runc_async.container import Container
from runc_async.errors import CleanupWarning, ContainerNotFound, UnsupportedError
from runc_async.exitstatus import ExitStatus
from runc_async.stdio import StdIO

from .._bundles.check import saves_itself
from .._commands.options import DEFAULT, CreateOptions, Timeout, check_timeout
from .._commands.words import StrPath, absolute, check_container_id
from .._containers.first_process import Init
from .._linux.owner import note_use
from .._shield import shielded
from .channel import Channel, Passed
from .errors import KeeperError, KeeperLost
from .protocol import (
    DESCRIPTOR_LIMIT,
    Answer,
    Attach,
    Attached,
    Close,
    Delete,
    Detach,
    Done,
    Ended,
    Hello,
    Kept,
    List,
    Listing,
    Request,
    Start,
    StreamName,
    Wait,
    Welcome,
    encode,
)
from .reaching import RETRY_TIME, START_TIME, answer_to, checked, reach
from .sending import client_of, options_of, streams_of, to_options
from .streams import LentStream, lent, memory_of

A = TypeVar("A", bound=Answer)

GIVE_BACK_TIME = 10.0
"""Seconds for the keeper to take streams back."""

UNDO_TIME = 45.0
"""Seconds for the keeper to undo a cancelled start: the runtime has ten, and the deletion twenty."""


class AttachedContainer(Container):
    """The handle from `Keeper.attach`, with the exit status from the keeper, which is the parent of the process."""

    def __init__(self, keeper: Keeper, answer: Attached, init: Init | None, streams: dict[str, Any]) -> None:
        super().__init__(Runc(**to_options(answer.client)), answer.id, init=init, **streams)
        self.pid: int | None = answer.pid
        self._keeper = keeper

    async def wait(self) -> ExitStatus:
        """Wait for the end of the first process, and return the exit status: see `Keeper.wait`.

        Without a keeper, return the status that the kernel reports, as in `Container.wait`.
        """
        try:
            return await self._keeper.wait(self.id)
        except (KeeperError, ContainerNotFound, OSError):
            return ExitStatus() if self._init is None else await self._init.wait()

    def release(self) -> None:
        """Release the first process; tasks that wait for it continue."""
        if self._init is not None:
            self._init.close()


class Keeper:
    """A service's connection to its keeper, a small process that holds containers while services come and go.

    A keeper is the parent of its containers' processes, so that it gets every exit status, and holds their streams. If
    a service ends or is killed, neither is lost: the next service attaches to the containers.

    Created by `Keeper.connect`. A `Keeper` holds no open resource: each request is a connection of its own, so that a
    keeper that was restarted or upgraded meanwhile is found again.

    Attributes:
        path: The keeper's directory, as an absolute path.
        pid: The keeper's process id in its own pid namespace.
        release: The version of runc_async in the keeper.
    """

    def __init__(self, path: str, *, start: bool, timeout: float) -> None:
        self.path = path
        self.pid = 0
        self.release = ""
        self._start_it = start
        self._timeout = timeout
        self._known: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show the directory and the pid."""
        return f"<Keeper {self.path!r} pid {self.pid}>"

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls, path: StrPath, *, start: bool = False, timeout: float = START_TIME
    ) -> AsyncGenerator[Keeper]:
        """Find the keeper at a place; with `start`, start a keeper if there is none.

        A keeper started here runs in the background, in a session of its own, and outlives this process; nothing ends
        at the end of the block. For a systemd service, run the keeper in a separate unit, because the service manager
        ends all processes of a unit.

        Cancelled before the block begins, a keeper that is starting ends by itself, and a listening keeper stays.

        Args:
            path: The keeper's directory: of this user, with mode 0700. A keeper creates a missing directory.
            start: Start a keeper if none listens; also later, when a request finds no keeper.
            timeout: Seconds for a keeper to start or come back; 10.0 if left out.

        Raises:
            KeeperError: If no keeper listens there or can be started, or if the directory isn't private.
            ValueError: If an argument is invalid.
            OSError: If the directory or the socket can't be used.
        """
        seconds = check_timeout(timeout)
        if seconds is None:
            raise ValueError("timeout must be a positive number of seconds: None")
        keeper = cls(absolute(path), start=start, timeout=seconds)
        welcome = await keeper._ask(Hello(), Welcome)
        keeper.pid, keeper.release, keeper._known = welcome.pid, welcome.release, welcome.requests
        yield keeper

    async def start(
        self,
        runc: Runc,
        container_id: str,
        bundle: StrPath,
        *,
        io: StdIO | None = None,
        pipe_size: int | None = None,
        timeout: Timeout = DEFAULT,
        **options: Unpack[CreateOptions],
    ) -> None:
        """Create a container and start it, with the keeper as the parent and the holder of the streams.

        The keeper runs the runtime with the options of `runc`, in the keeper's environment and in `/`. While no service
        is attached, output waits in the pipe or terminal; a full one blocks the program.

        Cancelling deletes the container, and returns after the deletion. The keeper does the same if this process is
        killed before the container runs.

        Args:
            runc: A client of the runtime, without a custom runner.
            container_id: The container's id: letters, digits and `_+.-`, at most 254. The id must be unique in the
                keeper, including ended containers that aren't deleted yet.
            bundle: A `Bundle`, which is saved first if its spec has changed, or the path of its directory; the
                directory has to outlive this process.
            io: The streams; `NullIO()` if left out. Pipes and terminals are held by the keeper; a file, FIFO or
                descriptor of `RedirectIO` is the container's own.
            pipe_size: Capacity of each pipe in bytes, at most /proc/sys/fs/pipe-max-size for users other than root; the
                kernel's 65,536 if None.
            timeout: Seconds for `create` and for `start`, or None for no limit; the default of `runc` if left out.
            options: The options of `create`.

        Raises:
            ContainerExists: If the id is in use.
            KeeperError: If the keeper can't be reached, or ends meanwhile.
            UnsupportedError: If the runtime, or an older keeper, has no such option.
            ValueError: If an argument is invalid, such as `CapturedIO`, or a client with a custom runner.
            TypeError: If an argument has a wrong type.
            OSError: If no descriptor is left, here or in the keeper, or no disk space for the record.
            CommandError: If the runtime fails, as for `Runc.open_container`.
        """
        fds: list[int] = []

        def pass_on(fd: int) -> int:
            fds.append(fd)
            return len(fds) - 1

        if pipe_size is not None and pipe_size < 1:
            raise ValueError(f"pipe_size must be a positive number of bytes: {pipe_size}")
        request = Start(
            id=check_container_id(container_id),
            bundle=os.fsencode(absolute(bundle)),
            client=client_of(runc),
            streams=streams_of(io, pipe_size, pass_on),
            options=options_of(options, timeout, pass_on),
        )
        # Recorded before the request: if this process is killed, `sweep` must not remove a bundle that a container
        # uses.
        note_use(os.path.abspath(bundle), runc._calls.state_directory())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if len(fds) > DESCRIPTOR_LIMIT:
            raise ValueError(f"a keeper takes at most {DESCRIPTOR_LIMIT} descriptors at once, not {len(fds)}")
        async with bundle.saved() if saves_itself(bundle) else contextlib.nullcontext():
            channel = await self._send(request, fds)
            try:
                try:
                    await answer_to(channel, Done)
                except asyncio.CancelledError:
                    channel.finish()
                    # The keeper reads the end of the connection, and undoes the start. Without this wait the id could
                    # still be in use when the caller tries again.
                    await shielded(self._undo(channel, container_id))
                    raise
            finally:
                channel.close()

    async def _undo(self, channel: Channel, container_id: str) -> None:
        """Wait until the keeper has undone a start; delete the container if the start had already succeeded."""
        try:
            async with asyncio.timeout(UNDO_TIME):
                with contextlib.suppress(Exception):  # it is undone, or has failed by itself
                    await answer_to(channel, Done)
                    await self.delete(container_id, force=True)
        except TimeoutError:
            _warn(f"the keeper doesn't answer: container {container_id!r} may be left behind")

    @contextlib.asynccontextmanager
    async def attach(self, container_id: str, *, streams: bool = True) -> AsyncGenerator[Container]:
        """Return a handle for a container of the keeper, with its streams, which go back at the end of the block.

        The streams are the container's own pipes or terminal, not copies. Only one connection at a time has the
        streams; any number can attach without them. If a service is killed inside the block, the streams are free for
        the next service at once.

        At the end of the block, bytes that `lines()` has read but not returned go back too, and come first for the next
        service. A stream closed inside the block is closed for good, so that a program gets the end of its input. The
        container lives on, unless deleted. The handle's `wait()` works after the block too.

        The end of the block can't be cancelled and is bounded in time; failures are reported as `CleanupWarning`. If
        the keeper has died meanwhile, the streams end with the block.

        Args:
            container_id: The container's id.
            streams: Whether to take the streams.

        Raises:
            ContainerNotFound: If the keeper has no such container.
            StreamsInUse: If another connection has the streams.
            KeeperError: If the keeper can't be reached.
            InvalidContainerID: If the id is invalid.
            OSError: If no descriptor is left, here or in the keeper.
        """
        request = Attach(id=check_container_id(container_id), streams=streams)
        channel, container, loans = await self._attached(request)
        try:
            for stream in loans:
                stream.when_closed = lambda name: _close_there(channel, name)
            yield container
        finally:
            # The pidfd first: a task in `wait` holds its own reference, and goes on.
            container.release()
            await shielded(_give_back(channel, container_id, loans))

    async def _attached(self, request: Attach) -> tuple[Channel, AttachedContainer, list[LentStream]]:
        """Request a container; the connection stays open."""
        channel = await self._send(request)
        try:
            data, passed = await channel.receive()
            with passed:
                answer = checked(data, Attached)
                container, loans = self._take(answer, passed)
        except BaseException:
            channel.close()
            raise
        return channel, container, loans

    def _take(self, answer: Attached, passed: Passed) -> tuple[AttachedContainer, list[LentStream]]:
        """Create the handle from the received descriptors."""
        index = {name: number for number, name in enumerate(answer.descriptors)}
        # Descriptors are taken out of `passed` one by one, only after a stream owns them: the rest is closed with the
        # block.
        names: tuple[StreamName, ...] = ("stdin", "stdout", "stderr", "pty")
        loans: list[LentStream] = []
        init: Init | None = None
        try:
            if "pidfd" in index:
                init = Init(answer.pid, passed.take(index["pidfd"]))
            for name in names:
                if name in index:
                    places = [index[part] for part in (name, f"{name}.ahead") if part in index]
                    loans.append(lent(name, *map(passed.get, places)))
                    for place in places:
                        passed.take(place)
            return AttachedContainer(self, answer, init, {stream.name: stream for stream in loans}), loans
        except BaseException:
            for stream in loans:
                stream.give_back()
            if init is not None:
                init.close()
            raise

    async def list(self) -> list[Kept]:
        """Return the keeper's containers, including ended ones, sorted by id.

        Cancelling changes nothing.

        Raises:
            KeeperError: If the keeper can't be reached.
        """
        found: list[Kept] = []
        while True:
            listing = await self._ask(List(after=found[-1].id if found else ""), Listing)
            found += listing.containers
            if not (listing.more and listing.containers):
                return found

    async def wait(self, container_id: str) -> ExitStatus:
        """Wait for the end of a container's first process, and return the exit status.

        The keeper is the parent of the process, so the status is exact on every kernel. The status is unknown only if
        the keeper was killed and the process ended before a new keeper was started.

        The wait continues through a restart or upgrade of the keeper. Any number of tasks and processes may wait.
        Cancelling changes nothing.

        Raises:
            ContainerNotFound: If the keeper has no such container.
            KeeperError: If the keeper can't be reached for `timeout` seconds.
            InvalidContainerID: If the id is invalid.
        """
        request = Wait(id=check_container_id(container_id))
        loop = asyncio.get_running_loop()
        lost: float | None = None
        while True:
            try:
                channel = await self._send(request)
                lost = None
                try:
                    return (await answer_to(channel, Ended)).status
                finally:
                    channel.close()
            # The keeper was restarted or upgraded: ask again, for at most `timeout` seconds without a connection.
            except KeeperLost:
                lost = loop.time() if lost is None else lost
            except KeeperError:
                if lost is None or loop.time() - lost > self._timeout:
                    raise
            await asyncio.sleep(RETRY_TIME)

    async def delete(self, container_id: str, *, force: bool = False) -> None:
        """Delete an ended container, including the keeper's record and streams.

        Cancelling lets the keeper finish or ends the deletion; the container may be deleted.

        Args:
            container_id: The container's id.
            force: Kill a running container first.

        Raises:
            ContainerNotFound: If the keeper has no such container.
            ContainerRunning: If the container runs, without `force`.
            KeeperError: If the keeper can't be reached.
            InvalidContainerID: If the id is invalid.
            CommandError: If the runtime fails in another way.
        """
        await self._ask(Delete(id=check_container_id(container_id), force=force), Done)

    async def _ask(self, request: Request, kind: type[A]) -> A:
        """Send a request, and return the answer."""
        channel = await self._send(request)
        try:
            return await answer_to(channel, kind)
        finally:
            channel.close()

    async def _send(self, request: Request, fds: Sequence[int] = ()) -> Channel:
        """Send a request over a new connection, and return the connection.

        Raises:
            UnsupportedError: If the keeper doesn't know the request.
        """
        # A keeper of an older release refuses unknown requests; asking is spared where the answer is known.
        tag = str(request.__struct_config__.tag)
        if self._known and tag not in self._known:
            raise UnsupportedError(f"request {tag!r}", f"the keeper (runc_async {self.release})")
        data = encode(request)
        channel = await reach(self.path, start=self._start_it, seconds=self._timeout)
        try:
            await channel.send(data, fds)
        except BaseException:
            channel.close()
            raise
        return channel


def _close_there(channel: Channel, name: StreamName) -> None:
    """Let the keeper close its own end of a stream."""
    with contextlib.suppress(KeeperError, OSError):  # it is gone, with its ends
        channel.send_nowait(encode(Close(stream=name)))


async def _give_back(channel: Channel, container_id: str, loans: list[LentStream]) -> None:
    """Give the streams back, with bytes that were read and not consumed."""
    ahead: dict[StreamName, bytes] = {}
    for stream in loans:
        closed = stream.closed
        # Before `Detach`, which lets the next service read: two readers of one pipe would share its bytes at random.
        data = stream.give_back()
        if data and not closed:
            ahead[stream.name] = data
    files: list[int] = []
    try:
        for data in ahead.values():
            files.append(memory_of(data))  # noqa: PERF401 - those that were made are closed
        if loans:
            await channel.send(encode(Detach(ahead=tuple(ahead))), files)
            # The answer, not the end of the connection, shows that the keeper has the bytes.
            async with asyncio.timeout(GIVE_BACK_TIME):
                await answer_to(channel, Done)
    except (KeeperError, OSError) as exc:
        _warn(f"the streams of container {container_id!r} can't go back: {exc}")
    finally:
        for fd in files:
            os.close(fd)
        channel.close()


def _warn(text: str) -> None:
    """Warn about leftovers."""
    warnings.warn(text, CleanupWarning, stacklevel=3)
