"""Operations of the library for the cancellation sweep: each public coroutine is in at least one of them.

Each can be run any number of times, on a `Stage`, which has a client and a container. What they begin they end, but for
those that are there to make something.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import anyio
import archives
import children
import criu
import host_operations
import msgspec
import pytest
import sweep
from runtime import Runtime, has_controller

from runc_async import Bundle, Limits, Pool, Runc, RuncTimeout, merge_events, spec, subreaper, testing
from runc_async._client import identity
from runc_async._linux import owner
from runc_async._process.running import ProcessRunner
from runc_async._streams.pipes import PipeReader, PipeWriter
from runc_async.console import Pty, open_pty
from runc_async.errors import ContainerNotPaused, ContainerPaused
from runc_async.rootfs import Busybox, Overlay, Tar
from runc_async.stdio import CapturedIO, PipedIO, PtyIO

Status: TypeAlias = Literal["none", "created", "running", "stopped"]

Leaves: TypeAlias = Literal["nothing", "result", "anything"]
"""What an operation may leave: nothing; what it makes, unless it is cut short; what it makes, also then."""

INTERVAL = 0.01

GRACE = 1.0
"""Seconds for `exec`: a runc 1.1 that is killed before the process runs leaves a copy of itself with the container."""


class Stage:
    """A client, bundles, and the container that an operation acts on.

    Attributes:
        make_client: Makes one more client.
        client: The client.
        long: A bundle whose process sleeps, and ends with SIGTERM.
        short: A bundle whose process copies its input, and ends.
        terminal: The same on a terminal.
        directory: Where all of it is.
        place: A directory for what operations make.
        images: A directory for checkpoints.
        name: The container.
    """

    def __init__(
        self, make_client: Callable[..., Runc], mark: str, place: Path, *, long: Path, short: Path, terminal: Path
    ) -> None:
        self.make_client = make_client
        self.client = make_client()
        self.long = long
        self.short = short
        self.terminal = terminal
        self.directory = place
        self.place = place / "place"
        self.images = place / "images"
        self.name = ""
        self._ids = (f"{mark}{number}" for number in itertools.count())
        for directory in (self.place, self.images, place / "base"):
            directory.mkdir()
        self.base = place / "base"
        self.archive = place / "archive"
        self.archive.write_bytes(archives.HONEST)

    async def ready(self, operation: Operation) -> None:
        """Have the container that an operation needs; a new one if each attempt does."""
        if (not self.name or operation.fresh) and not operation.is_local:
            await self.discard()
            self.name = next(self._ids)
            if operation.status != "none":
                await self.client.create(self.name, self.long)
            if operation.status in {"running", "stopped"}:
                await self.client.start(self.name)
            if operation.status == "stopped":
                await self.client.kill(self.name, "KILL")
        if operation.before is not None:
            await operation.before(self)

    async def done(self, operation: Operation, *, cut_short: bool) -> None:
        """Take away what an operation has made."""
        if operation.leaves == "anything" or (operation.leaves == "result" and not cut_short):
            if operation.after is not None:
                await operation.after(self)
            await self.discard()
            for path in self.place.iterdir():
                shutil.rmtree(path)

    async def discard(self) -> None:
        """Delete the container, if there is one."""
        if self.name:
            await self.client.delete(self.name, force=True)
            self.name = ""

    async def works(self) -> None:
        """See that the client works."""
        assert (await self.client.version()).version

    async def sweep(self, operation: Operation, place: sweep.Place, number: int, ways: Sequence[str]) -> sweep.Sweep:
        """Cut an operation short at each point of a short one, else so many times, in each of these ways."""
        sweeping = sweep.Sweep(
            lambda: operation.work(self),
            place,
            ready=lambda: self.ready(operation),
            done=lambda cut_short: self.done(operation, cut_short=cut_short),
        )
        try:
            points = await sweeping.points()
            await sweeping.over(sweep.plan(points, number, ways), self.works)
        finally:
            await self.end()
        return sweeping

    async def end(self) -> None:
        """Delete the container, and end the keeper, if they are there."""
        await self.discard()
        await host_operations.end_keeper(self)

    def another(self) -> str:
        """Return an id for one more container."""
        return next(self._ids)


Act: TypeAlias = Callable[[Stage], Coroutine[Any, Any, object]]


class Operation(NamedTuple):
    """Something to be cut short.

    Attributes:
        name: Its name.
        work: What it does.
        status: What the container is when it begins.
        fresh: Whether each attempt needs a container of its own.
        leaves: What may be there afterwards.
        before: What else is done before each attempt.
        after: What else takes away what may be there afterwards.
        weight: How many points of a long one are tried, for one that tries 1.
        needs: What it can't do without: `criu`, `root`, `files` (a container that no script can play), or a command or
            option of the runtime.
        is_local: Whether it has nothing to do with a runtime.
    """

    name: str
    work: Act
    status: Status = "running"
    fresh: bool = False
    leaves: Leaves = "nothing"
    before: Act | None = None
    after: Act | None = None
    weight: float = 1
    needs: str = ""
    is_local: bool = False

    def missing(self, runtime: Runtime) -> str | None:
        """Say what is missing here for it, on a real runtime."""
        match self.needs:
            case "criu":
                return criu.missing() or (None if runtime.has("restore --no-subreaper") else f"{runtime} can't restore")
            case "root":
                return None if os.geteuid() == 0 else "needs root"
            case "events" if not has_controller("memory"):
                return "needs a memory controller"
            case needs:
                return f"{runtime} has no {needs}" if needs and not runtime.has(needs) else None

    def __str__(self) -> str:
        """Show the name."""
        return self.name


# commands


async def create(stage: Stage) -> None:
    """Create a container."""
    await stage.client.create(stage.name, stage.long)


async def start(stage: Stage) -> None:
    """Start it."""
    await stage.client.start(stage.name)


async def run(stage: Stage) -> None:
    """Run a container in the foreground, feed and capture it."""
    response = await stage.client.run(stage.name, stage.short, io=CapturedIO(), input=b"x\n" * 40_000, grace=0.05)
    assert response.stdout == b"x\n" * 40_000


async def run_on_a_terminal(stage: Stage) -> None:
    """Run a container on a terminal."""
    with contextlib.suppress(RuncTimeout):  # nobody ends its input
        await stage.client.run(stage.name, stage.terminal, io=PtyIO(), grace=0.05, timeout=0.1)


async def run_detached(stage: Stage) -> None:
    """Run a container that stays."""
    await stage.client.run(stage.name, stage.long, detach=True)


async def run_kept(stage: Stage) -> None:
    """Run a container, and keep it."""
    await stage.client.run(stage.name, stage.short, keep=True, grace=0.05)


async def run_too_long(stage: Stage) -> None:
    """Run a container until its time is up."""
    with contextlib.suppress(RuncTimeout):
        await stage.client.run(stage.name, stage.long, timeout=0.1, grace=0.05)


async def run_in_a_group(stage: Stage) -> None:
    """Run a container in a task group that waits for its start."""
    async with anyio.create_task_group() as group:

        async def running(*, task_status: anyio.abc.TaskStatus[int]) -> None:
            await stage.client.run(stage.name, stage.short, grace=0.05, task_status=task_status)

        assert await group.start(running)


async def exec_captured(stage: Stage) -> None:
    """Run a process in a container, feed and capture it."""
    response = await stage.client.exec(stage.name, ["cat"], io=CapturedIO(), input=b"x", grace=GRACE)
    assert response.stdout == b"x"


async def exec_document(stage: Stage) -> None:
    """Run a process that a document describes."""
    await stage.client.exec(stage.name, spec.Process(args=["true"], cwd="/", env=["PATH=/bin:/usr/bin"]), grace=GRACE)


async def exec_detached(stage: Stage) -> None:
    """Run a process that stays."""
    await stage.client.exec(stage.name, ["true"], detach=True)


async def exec_on_a_terminal(stage: Stage) -> None:
    """Run a process on a terminal."""
    await stage.client.exec(stage.name, ["true"], io=PtyIO(), tty=True, grace=GRACE)


async def exec_joined(stage: Stage) -> None:
    """Run a process with both streams in one pipe."""
    # It outlives its runtime: a runtime that is a shell would reap it, and runc doesn't.
    await stage.client.exec(stage.name, ["sleep", "0.2"], io=CapturedIO(stderr="stdout"), grace=GRACE)


async def exec_with_descriptors(stage: Stage) -> None:
    """Run a process that gets a descriptor."""
    await stage.client.exec(stage.name, ["true"], preserve_fds=[0], grace=GRACE)


async def exec_too_long(stage: Stage) -> None:
    """Run a process until its time is up."""
    with contextlib.suppress(RuncTimeout):
        await stage.client.exec(stage.name, ["sleep", "60"], timeout=0.06, grace=GRACE)


async def exec_limited(stage: Stage) -> None:
    """Run a process until it reaches a limit."""
    limits = Limits(wall=0.06, output=1000)
    response = await stage.client.exec(stage.name, ["sleep", "60"], limits=limits, grace=GRACE)
    assert response.reason == "wall"


async def run_limited(stage: Stage) -> None:
    """Run a container until its process reaches a limit."""
    response = await stage.client.run(stage.name, stage.long, limits=Limits(wall=0.06), grace=0.05)
    assert response.reason == "wall"


async def run_joined(stage: Stage) -> None:
    """Run a container with both streams in one pipe, until its process reaches a limit."""
    # It outlives its runtime, as in `exec_joined`.
    io = CapturedIO(stderr="stdout")
    response = await stage.client.run(stage.name, stage.long, io=io, limits=Limits(wall=0.2), grace=0.05)
    assert response.reason == "wall"


async def kill(stage: Stage) -> None:
    """Send a signal that does nothing."""
    await stage.client.kill(stage.name, "CONT")


async def delete(stage: Stage) -> None:
    """Delete a container."""
    await stage.client.delete(stage.name, force=True)


async def pause(stage: Stage) -> None:
    """Pause a container."""
    await stage.client.pause(stage.name)


async def resume(stage: Stage) -> None:
    """Resume a container."""
    await stage.client.resume(stage.name)


async def thawed(stage: Stage) -> None:
    """See that the container isn't paused."""
    with contextlib.suppress(ContainerNotPaused):
        await stage.client.resume(stage.name)


async def frozen(stage: Stage) -> None:
    """See that the container is paused."""
    with contextlib.suppress(ContainerPaused):
        await stage.client.pause(stage.name)


async def update(stage: Stage) -> None:
    """Change a limit."""
    await stage.client.update(stage.name, spec.LinuxResources(pids=spec.LinuxPids(limit=1000)))


async def take_turns(stage: Stage) -> None:
    """Ask more than may be asked at once."""
    client = stage.make_client(max_concurrency=1)
    async with anyio.create_task_group() as group:
        group.start_soon(client.state, stage.name)
        group.start_soon(client.list)
        await client.version()


async def forget_versions(_: Stage) -> None:
    """Forget the versions of all runtimes, which the clients of a process share."""
    identity._versions.clear()  # pyright: ignore[reportPrivateUsage]


async def supports(stage: Stage) -> None:
    """Ask a client that knows nothing yet, three times at once."""
    client = stage.make_client()
    asking = client.supports("create --pidfd-socket"), client.supports("features"), client.check(spec.Spec.default())
    await asyncio.gather(*asking)


async def have_a_dead_owner(stage: Stage) -> None:
    """Have the record of an owner that is dead, with the container in it: a file without a lock."""
    (stage.place / "owners").mkdir(exist_ok=True)
    root = stage.client._calls.state_directory()  # pyright: ignore[reportPrivateUsage]
    held = owner.HeldContainer(os.fsencode(root), stage.name, os.fsencode(stage.long))
    line = msgspec.json.encode(owner.Line(1, held))
    (stage.place / "owners" / f"{owner.PREFIX}1").write_bytes(b"\n" + line)


async def sweep_after_it(stage: Stage) -> None:
    """Remove what it has left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "MEMORY", str(stage.place / "owners"))
        await stage.client.sweep()


# streams of events


async def watch(stage: Stage) -> None:
    """Watch a container."""
    async with stage.client.events(stage.name, interval=INTERVAL) as events:
        await anext(events)
        await anext(events)


async def watch_the_latest(stage: Stage) -> None:
    """Watch a container, and take only the latest."""
    events = stage.client.events(stage.name, interval=INTERVAL, on_lag="latest")
    try:
        await anext(events)
        await anext(events)
    finally:
        await events.aclose()


async def watch_two(stage: Stage) -> None:
    """Watch two streams as one."""
    streams = [stage.client.events(stage.name, interval=INTERVAL) for _ in range(2)]
    async with merge_events(streams) as events:
        await anext(events)
        await anext(events)


# handles


async def open_container(stage: Stage) -> None:
    """Open a container, and wait a moment for its end."""
    async with stage.client.open_container(stage.name, stage.long, grace=0) as container:
        with anyio.move_on_after(0.02):
            await container.wait()


async def open_container_with_pipes(stage: Stage) -> None:
    """Open a container, and talk with it."""
    async with stage.client.open_container(stage.name, stage.short, io=PipedIO(), grace=0) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        await container.stdin.send(b"hello\n")
        assert await anext(container.stdout.lines()) == "hello"
        await container.stdin.aclose()
        assert [line async for line in container.stdout.lines()] == []


async def open_container_on_a_terminal(stage: Stage) -> None:
    """Open a container, and type."""
    async with stage.client.open_container(stage.name, stage.terminal, io=PtyIO(), grace=0) as container:
        assert container.pty is not None
        await container.pty.send(b"hello\n")
        assert await container.pty.receive()
        await container.pty.send_eof()
        assert all([chunk async for chunk in container.pty])


async def open_container_of_our_own(stage: Stage) -> None:
    """Open a container whose process comes to us when its parent ends, and wait for its end."""
    with subreaper():
        async with stage.client.open_container(stage.name, stage.short, grace=0) as container:
            await container.wait()


async def open_exec(stage: Stage) -> None:
    """Open a process in a container, and talk with it."""
    async with stage.client.open_exec(stage.name, ["cat"], io=PipedIO(), grace=GRACE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        await process.stdin.send(b"hello\n")
        assert await anext(process.stdout.lines()) == "hello"
        await process.stdin.aclose()
        await process.wait()


async def open_exec_on_a_terminal(stage: Stage) -> None:
    """Open a process on a terminal, and leave it."""
    async with stage.client.open_exec(stage.name, ["cat"], io=PtyIO(), grace=GRACE) as process:
        assert process.pty is not None
        await process.pty.send(b"hello\n")
        assert await process.pty.receive()


async def ask_the_handle(stage: Stage) -> None:
    """Ask a handle everything."""
    container = stage.client.container(stage.name)
    await container.state()
    await container.ps()
    await container.top()
    await container.stats()
    await container.exec(["true"], grace=GRACE)
    async with container.open_exec(["true"], grace=GRACE) as process:
        await process.wait()
    async with container.events(interval=INTERVAL) as events:
        await anext(events)


async def change_by_the_handle(stage: Stage) -> None:
    """Change a container by a handle in each way, and close it."""
    container = stage.client.container(stage.name)
    await container.start()
    await container.update(spec.LinuxResources(pids=spec.LinuxPids(limit=1000)))
    await container.pause()
    await container.resume()
    await container.kill("CONT")
    with anyio.move_on_after(0.02):
        await container.wait()
    await container.delete(force=True)
    await container.aclose()


async def stop(stage: Stage) -> None:
    """Stop a container, in another one's hands and in our own."""
    await stage.client.container(stage.name).stop(grace=0.05)


async def run_and_measure(stage: Stage) -> None:
    """Run a container within limits, and read what it has used."""
    response = await stage.client.run(stage.name, stage.short, usage=True, limits=Limits(wall=60), grace=0.05)
    assert response.usage is not None


async def usage(stage: Stage) -> None:
    """Start a container by a handle, and read what it has used, before and after its deletion."""
    container = stage.client.container(stage.name)
    await container.start()
    assert (await container.usage()).includes_runtime is False
    await container.delete(force=True)
    await container.usage()


async def stop_with_streams(stage: Stage) -> None:
    """Stop a container, and read what it has printed."""
    async with stage.client.open_container(stage.name, stage.short, io=PipedIO(), grace=0) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        await container.stdin.send(b"hello\n")
        async with anyio.create_task_group() as group:
            group.start_soon(container.ended)
            await container.stop(grace=0.05)
        assert b"".join([chunk async for chunk in container.stdout]) in {b"hello\n", b""}


# files


async def files(stage: Stage) -> None:
    """Write a file into a container, read it, and copy its directory as an archive."""
    container = stage.client.container(stage.name)
    await container.write_file("/dev/shm/from/file", bytes(100_000), parents=True)
    assert await container.read_file("/dev/shm/from/file") == bytes(100_000)
    async with container.get_archive("/dev/shm/from") as stream:
        archive = b"".join([chunk async for chunk in stream])
    await container.put_archive("/dev/shm", archive)


# pools


async def pool(stage: Stage) -> None:
    """Take a container that is ready, and one that isn't."""
    name = stage.another()
    async with Pool(stage.client, stage.short, size=1, io=PipedIO(), name=name, grace=0) as containers:
        await containers.filled()
        async with containers.take() as first, containers.take():
            assert first.stdin is not None
            assert first.stdout is not None
            await first.stdin.send(b"hello\n")
            assert await anext(first.stdout.lines()) == "hello"


async def pool_of_paused(stage: Stage) -> None:
    """Take a container that is paused."""
    name = stage.another()
    async with Pool(stage.client, stage.long, size=1, state="paused", name=name, grace=0) as containers:
        await containers.filled()
        async with containers.take():
            pass


# checkpoints


async def checkpoint(stage: Stage) -> None:
    """Write a container into files, and let it run on."""
    await stage.client.checkpoint(stage.name, stage.images / "more", leave_running=True)


async def checkpoint_by_the_handle(stage: Stage) -> None:
    """The same by a handle."""
    await stage.client.container(stage.name).checkpoint(stage.images / "more", leave_running=True)


async def have_images(stage: Stage) -> None:
    """See that there are images of a container, and no container."""
    if not (stage.images / "all").exists():
        name = stage.another()
        await stage.client.run(name, stage.long, detach=True)
        await stage.client.checkpoint(name, stage.images / "all")
        await stage.client.delete(name, force=True)


async def restore(stage: Stage) -> None:
    """Run a container from files until its time is up."""
    with contextlib.suppress(RuncTimeout):
        await stage.client.restore(stage.name, stage.long, stage.images / "all", timeout=0.3, grace=0.05)


async def restore_detached(stage: Stage) -> None:
    """Make a container from files."""
    await stage.client.restore(stage.name, stage.long, stage.images / "all", detach=True)


async def open_restored(stage: Stage) -> None:
    """Open a container from files."""
    async with stage.client.open_restored(stage.name, stage.long, stage.images / "all", grace=0) as container:
        with anyio.move_on_after(0.02):
            await container.wait()


# bundles


async def create_bundle(stage: Stage) -> None:
    """Make a bundle that stays."""
    await Bundle.create(stage.place / "bundle", rootfs=Tar(stage.archive))


async def save_bundle(stage: Stage) -> None:
    """Open a bundle, and write it."""
    async with await Bundle.open(stage.short) as bundle:
        await bundle.save()


async def temporary_bundle(stage: Stage) -> None:
    """Make a bundle from an archive."""
    async with Bundle.temporary(rootfs=Tar(stage.archive), directory=stage.place):
        pass


async def busybox_bundle(stage: Stage) -> None:
    """Make a bundle of busybox."""
    async with Bundle.busybox(directory=stage.place):
        pass


async def overlay_bundle(stage: Stage) -> None:
    """Make a bundle with an overlay."""
    for memory in (None, 1 << 20):
        async with Bundle.temporary(rootfs=Overlay([stage.base], memory=memory), directory=stage.place) as bundle:
            (bundle.rootfs / "file").touch()


async def busybox_bundle_that_stays(stage: Stage) -> None:
    """Make a bundle of busybox that stays."""
    await Bundle.create(stage.place / "bundle", rootfs=Busybox())


# streams


async def pipes(_: Stage) -> None:
    """Send more than a pipe holds, and receive it in each way."""
    reading, writing = os.pipe()
    async with PipeReader(reading) as reader, PipeWriter(writing) as writer, anyio.create_task_group() as group:
        group.start_soon(send_and_close, writer)
        assert await reader.receive(1)
        assert await anext(reader.lines()) == "b"
        assert await anext(reader)
        assert b"".join([chunk async for chunk in reader])[-1] == 0


async def send_and_close(writer: PipeWriter) -> None:
    """Send more than a pipe holds."""
    await writer.send(b"ab\n" + bytes(200_000))
    await writer.aclose()


@contextlib.asynccontextmanager
async def terminal() -> AsyncGenerator[tuple[Pty, Pty]]:
    """Give both ends of a terminal."""
    ours, theirs = open_pty(24, 80)
    async with Pty(ours) as pty, Pty(theirs) as other:
        yield pty, other


async def ptys(_: Stage) -> None:
    """Type, read, and end the input."""
    async with terminal() as (pty, other):
        await pty.send(b"one\n")
        assert await other.receive() == b"one\n"
        assert await anext(pty.lines()) == "one"
        await pty.send_eof()
        await other.send(b"two\n")
        assert b"two" in await anext(pty)
        async with anyio.create_task_group() as group:
            group.start_soon(pty.receive)
            await other.send(b"three\n")


async def attach(_: Stage) -> None:
    """Attach pipes to a terminal."""
    fds: list[int] = []
    try:
        fds += os.pipe()
        fds += os.pipe()
        typed, typing, seen, seeing = fds
        async with terminal() as (pty, other), anyio.create_task_group() as group:
            group.start_soon(lambda: pty.attach(stdin=typed, stdout=seeing))
            os.write(typing, b"hello\n")
            assert await other.receive() == b"hello\n"
            await other.send(b"you\n")
            await anyio.wait_readable(seen)
            await other.aclose()
    finally:
        for fd in fds:
            os.close(fd)


# runners


async def runner(_: Stage) -> None:
    """Run a program, and open one."""
    runner = ProcessRunner()
    assert (await runner.run(children.shell("cat", streams=CapturedIO(), input=b"x"))).stdout == b"x"
    process = await runner.open(children.shell("sleep 0.01", streams=PipedIO()))
    try:
        await process.started()
        await process.ended()
        await process.finish()
        await process.wait()
    finally:
        await process.aclose()


async def fake_runner(_: Stage) -> None:
    """Do the same with nothing."""
    runner = testing.FakeRunner()
    await runner.run(children.shell("true"))
    process = await runner.open(children.shell("true"))
    try:
        await process.started()
        await process.ended()
        await process.finish()
        await process.wait()
    finally:
        await process.aclose()


def asks(name: str) -> Operation:
    """Make the operation that calls a method which takes nothing but the container."""
    takes_none = name in {"list", "spec", "features", "version"}

    async def ask(stage: Stage) -> None:
        await getattr(stage.client, name)(*(() if takes_none else (stage.name,)))

    return Operation(name, ask, needs={"features": "features", "stats": "events"}.get(name, ""))


def _makes(name: str, work: Act, **settings: Any) -> Operation:
    """Make an operation that begins without a container, and needs an id that nobody has used."""
    return Operation(name, work, status="none", fresh=True, **settings)


OPERATIONS: tuple[Operation, ...] = (
    _makes("create", create, leaves="result"),
    Operation("start", start, status="created", fresh=True),
    _makes("run", run, weight=2),
    _makes("run on a terminal", run_on_a_terminal),
    _makes("run detached", run_detached, leaves="result"),
    _makes("run and keep", run_kept, leaves="anything", needs="run --keep"),
    _makes("run too long", run_too_long),
    _makes("run limited", run_limited),
    _makes("run with joined streams", run_joined),
    _makes("run in a group", run_in_a_group),
    Operation("exec", exec_captured, weight=2),
    Operation("exec a document", exec_document),
    Operation("exec detached", exec_detached),
    Operation("exec on a terminal", exec_on_a_terminal),
    Operation("exec with joined streams", exec_joined),
    Operation("exec with descriptors", exec_with_descriptors),
    Operation("exec too long", exec_too_long),
    Operation("exec limited", exec_limited),
    Operation("kill", kill),
    Operation("delete", delete, status="stopped", fresh=True),
    Operation("pause", pause, before=thawed),
    Operation("resume", resume, before=frozen),
    *map(asks, ("state", "list", "ps", "top", "stats", "spec", "features", "version")),
    Operation("update", update),
    Operation("taking turns", take_turns),
    Operation("supports", supports, before=forget_versions),
    Operation("sweep", sweep_after_it, fresh=True, before=have_a_dead_owner, leaves="anything"),
    Operation("watching the host", host_operations.watch_the_host),
    Operation("reading the host", host_operations.read_the_host),
    Operation(
        "keeper, being started",
        host_operations.start_keeper,
        leaves="anything",
        after=host_operations.end_keeper,
        weight=0.25,
        is_local=True,
    ),
    _makes(
        "keeper, starting a container",
        host_operations.start_kept,
        before=host_operations.have_a_keeper,
        leaves="result",
        after=host_operations.delete_kept,
    ),
    _makes(
        "keeper, using a container",
        host_operations.use_kept,
        before=host_operations.have_it_kept,
        leaves="anything",
        after=host_operations.delete_kept,
        weight=2,
    ),
    Operation("events", watch, needs="events"),
    Operation("latest events", watch_the_latest, needs="events"),
    Operation("merged events", watch_two, needs="events"),
    _makes("open_container", open_container, weight=2),
    _makes("open_container with pipes", open_container_with_pipes),
    _makes("open_container on a terminal", open_container_on_a_terminal),
    _makes("open_container as a subreaper", open_container_of_our_own),
    Operation("open_exec", open_exec, weight=2),
    Operation("open_exec on a terminal", open_exec_on_a_terminal),
    Operation("asking a handle", ask_the_handle, weight=2, needs="events"),
    Operation("changing by a handle", change_by_the_handle, status="created", fresh=True),
    Operation("pool", pool, status="none", weight=2),
    Operation("pool of paused ones", pool_of_paused, status="none"),
    _makes("run and measure", run_and_measure, needs="run --keep"),
    Operation("usage", usage, status="created", fresh=True),
    Operation("stop", stop, fresh=True),
    Operation("files", files, needs="files"),
    _makes("stop with streams", stop_with_streams),
    Operation("checkpoint", checkpoint, needs="criu", weight=0.5),
    Operation("checkpoint by a handle", checkpoint_by_the_handle, needs="criu", weight=0.5),
    _makes("restore", restore, before=have_images, needs="criu", weight=0.5),
    _makes("restore detached", restore_detached, before=have_images, leaves="result", needs="criu", weight=0.5),
    _makes("open_restored", open_restored, before=have_images, needs="criu", weight=0.5),
    Operation("create a bundle", create_bundle, leaves="result", is_local=True),
    Operation("create a bundle of busybox", busybox_bundle_that_stays, leaves="result", is_local=True, weight=0.5),
    Operation("save a bundle", save_bundle, is_local=True),
    Operation("temporary bundle", temporary_bundle, is_local=True),
    Operation("bundle of busybox", busybox_bundle, is_local=True, weight=0.5),
    Operation("overlay", overlay_bundle, is_local=True, needs="root"),
    Operation("pipes", pipes, is_local=True),
    Operation("terminals", ptys, is_local=True),
    Operation("attach", attach, is_local=True),
    Operation("runner", runner, is_local=True),
    Operation("fake runner", fake_runner, is_local=True),
)
