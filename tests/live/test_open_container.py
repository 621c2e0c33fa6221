"""`open_container`: nothing is left of a container when its block ends, however that comes about."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import descriptors
import leaks
import proof
import pytest
from containers import ended
from interruptions import INTERRUPTIONS

from runc_async._containers.workload import Workload
from runc_async._linux.fdsocket import FDSocket
from runc_async.client import Runc
from runc_async.container import Container
from runc_async.errors import (
    CleanupWarning,
    ContainerExists,
    ContainerNotRunning,
    ExecutableNotFound,
    RuncTimeout,
)
from runc_async.state import Status
from runc_async.stdio import NullIO, PipedIO, PtyIO

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.stdio import StdIO

pytestmark = pytest.mark.runc

MOMENTS = [0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08]
"""Seconds after which the way in is cut short; it takes about 0.06."""

MANY = proof.amount(200, 25)
WAITS = 5

OBEDIENT = ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"]
STUBBORN = ["sh", "-c", "trap 'echo stubborn' TERM; echo ready; while :; do sleep 0.05; done"]


@pytest.fixture
def folder(scratch: Path) -> Generator[Path]:
    """Return an empty directory."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        yield Path(directory)


@pytest.fixture
def fifo(folder: Path) -> Path:
    """Return a FIFO: who writes to it waits until somebody reads, and the reverse."""
    path = folder / "fifo"
    os.mkfifo(path)
    return path


async def nothing_left(client: Runc, name: str) -> None:
    """See that there is no container, and nothing of one."""
    assert name not in [state.id for state in await client.list()]
    assert leaks.left_on_host(name) == []


async def line(container: Container) -> str:
    """Read one line of what a container says."""
    assert container.stdout is not None
    return await anext(container.stdout.lines())


# a life


@pytest.mark.any_loop
@pytest.mark.needs("host pids")
async def test_a_life(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """In its block the container runs, with its streams; afterwards it is gone, and how it ended is known."""
    name = container_id()
    async with client.open_container(name, make_bundle(OBEDIENT), io=PipedIO(stdin=False)) as container:
        assert await line(container) == "ready"
        state = await container.state()
        assert (state.id, state.status, state.pid) == (name, Status.RUNNING, container.pid)
        assert repr(container) == f"<Container {name!r} pid {container.pid}>"
        assert container.pid in await container.ps()
    await nothing_left(client, name)
    assert container.stdout is not None
    assert container.stdout.closed
    assert (await container.wait()).code in {3, None}


@pytest.mark.parametrize("paused", [False, True])
async def test_the_way_out(
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    paused: bool,  # noqa: FBT001 - a parameter
) -> None:
    """A process that doesn't listen to SIGTERM is killed after the grace; so is one that is paused."""
    name = container_id()
    loop = asyncio.get_running_loop()
    async with client.open_container(name, make_bundle(STUBBORN), io=PipedIO(), grace=0.3) as container:
        assert await line(container) == "ready"
        if paused:
            await container.pause()
        begun = loop.time()
    assert loop.time() - begun < 5
    await nothing_left(client, name)


async def test_a_process_that_does_not_hear_sigterm(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """The first process of a container without a handler for SIGTERM never gets one, so the grace isn't waited for."""
    name, bundle = container_id(), make_bundle(["sh", "-c", "echo ready; sleep 600; exit 1"])
    loop = asyncio.get_running_loop()
    async with client.open_container(name, bundle, io=PipedIO(), grace=600) as container:
        assert await line(container) == "ready"
        begun = loop.time()
    assert loop.time() - begun < 20
    await nothing_left(client, name)
    with pytest.raises(RuncTimeout) as caught:
        await client.run(name, bundle, timeout=1, grace=600)
    assert caught.value.stdout == b"ready\n"
    await nothing_left(client, name)


async def test_a_process_that_has_ended(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """The end of its process ends no block, and what it has written can still be read."""
    bundle = make_bundle(["sh", "-c", "echo out; exit 5"])
    async with client.open_container(container_id(), bundle, io=PipedIO()) as container:
        await container.wait()
        assert (await container.state()).status == Status.STOPPED
        assert await line(container) == "out"


async def test_a_block_that_deletes_its_container(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A container that its block has deleted is no error, and no warning."""
    for force in True, False:
        name = container_id()
        async with client.open_container(name, make_bundle(["sleep", "600"])) as container:
            if not force:
                await container.kill("KILL")
                await container.wait()
            await container.delete(force=force)
        await nothing_left(client, name)


async def test_an_ended_container_is_deleted_by_one_command(
    *,
    client: Runc,
    runtime: Runtime,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Once the first process has ended, by itself or by the end of the block, one deletion does: not by force."""
    # By force, runc 1.2 and later sleep for 100 ms. An ended sandbox of runsc can be deleted by force alone.
    caplog.set_level(logging.DEBUG, "runc_async")
    for args in ["true"], ["sleep", "600"]:
        name = container_id()
        async with client.open_container(name, make_bundle(args)) as container:
            if args == ["true"]:
                await container.wait()
        assert ["--force" in text for text in deletions(caplog, name)] == [runtime.is_sandbox]
        await nothing_left(client, name)


async def test_a_plain_deletion_that_is_refused(
    *,
    runtime: Runtime,
    root: Path,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the runtime refuses the plain deletion, the container is deleted by force."""
    name, program = container_id(), folder / "runtime"
    program.write_text(
        f"""#!/bin/sh
case " $* " in *" --force "*) ;; *" delete "*) exit 1 ;; esac
exec {runtime.command} "$@"
"""
    )
    program.chmod(0o755)
    caplog.set_level(logging.DEBUG, "runc_async")
    client = Runc(program, root=root)
    async with client.open_container(name, make_bundle(["true"])) as container:
        await container.wait()
    expected = [True] if runtime.is_sandbox else [False, True]
    assert ["--force" in text for text in deletions(caplog, name)] == expected
    await nothing_left(client, name)


def deletions(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    """Return what was logged of the start of each deletion of a container."""
    messages = [record.getMessage() for record in caplog.records if getattr(record, "container_id", None) == name]
    return [text for text in messages if "delete (pid" in text and "started: " in text]


# closing


async def test_closing_by_hand(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """`aclose` ends and deletes at once; the handle's next one leaves a later container of that id alone."""
    name, bundle = container_id(), make_bundle(["sleep", "600"])
    async with client.open_container(name, bundle, io=PipedIO()) as container:
        await asyncio.gather(container.aclose(), container.aclose())
        assert container.stdin is not None
        assert container.stdin.closed
        await nothing_left(client, name)
        await client.create(name, bundle)
    assert (await client.state(name)).status == Status.CREATED


async def test_closing_what_others_have_made(client: Runc, make_container: MakeContainer) -> None:
    """A handle on a container that exists can end it too."""
    name = await make_container()
    await client.container(name).aclose()
    await nothing_left(client, name)


async def test_closing_twice_waits_twice(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Leaving the block waits for an `aclose` that is on its way, also if that was cancelled."""
    name = container_id()
    async with client.open_container(name, make_bundle(STUBBORN), io=PipedIO()) as container:
        await line(container)
        closing = asyncio.create_task(container.aclose(grace=0.3))
        await line(container)
        closing.cancel()
    await nothing_left(client, name)
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_a_container_that_cannot_be_deleted(
    *, runtime: Runtime, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str], folder: Path
) -> None:
    """What is left behind is named in a warning; it is no exception, and the streams are closed."""
    name, program = container_id(), folder / "runtime"
    program.symlink_to(shutil.which(runtime.command) or runtime.command)
    client = Runc(program, root=root)
    with pytest.warns(CleanupWarning, match=f"container '{name}' may be left behind: .*{program}"):
        async with client.open_container(name, make_bundle(["sleep", "600"]), io=PipedIO(), grace=0) as container:
            program.unlink()
    assert container.stdin is not None
    assert container.stdin.closed
    assert (await Runc(runtime.command, root=root).state(name)).status == Status.STOPPED


@pytest.mark.parametrize(
    "error", [ValueError("mine"), ExceptionGroup("mine", [KeyError(1), OSError(2)]), SystemExit(3)]
)
async def test_exceptions_of_the_block(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], error: BaseException
) -> None:
    """An exception of the block comes out as it is, and the container is gone."""
    name = container_id()
    with pytest.raises(type(error)) as caught:
        async with client.open_container(name, make_bundle(["sleep", "600"]), grace=0):
            raise error
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    await nothing_left(client, name)


# what doesn't begin


async def test_a_program_that_is_not_there(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A container that can't be started is an error of its own class, and deleted."""
    name = container_id()
    with pytest.raises(ExecutableNotFound):
        async with client.open_container(name, make_bundle(["/nonesuch"]), io=PipedIO()):
            pass
    await nothing_left(client, name)


async def test_an_id_that_is_taken(client: Runc, make_bundle: MakeBundle, make_container: MakeContainer) -> None:
    """Somebody else's container of that id is left alone."""
    name = await make_container()
    before = await client.state(name)
    with pytest.raises(ContainerExists):
        async with client.open_container(name, make_bundle(["true"])):
            pass
    assert await client.state(name) == before


async def test_out_of_time(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Time that runs out in `create`, or in `start`, is an error, and nothing is left."""
    for stage in "createRuntime", "poststart":
        hooks = {stage: [{"path": "/bin/sleep", "args": ["sleep", "0.7"]}]}
        name = container_id()
        with pytest.raises(RuncTimeout):
            async with client.open_container(name, make_bundle(["sleep", "600"], hooks=hooks), timeout=0.4, grace=0):
                pass
        await nothing_left(client, name)


async def test_a_stranger_at_the_console_socket(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that isn't from our runtime is not taken for the terminal, though it comes first."""
    strangers: list[socket.socket] = []
    enter = FDSocket.__aenter__

    async def entered_by_a_stranger(self: FDSocket) -> FDSocket:
        made = await enter(self)
        stranger = socket.socket(socket.AF_UNIX)
        stranger.connect(made.path)
        with open(os.devnull, "rb") as null:
            socket.send_fds(stranger, [b"/dev/ptmx"], [null.fileno()])
        strangers.append(stranger)
        return made

    monkeypatch.setattr(FDSocket, "__aenter__", entered_by_a_stranger)
    # The stranger is this process itself: the parent of the runtime that it has started, and not its child.
    bundle = make_bundle(["sh", "-c", "echo terminal"], process={"terminal": True})
    async with client.open_container(container_id(), bundle, io=PtyIO()) as container:
        assert container.pty is not None
        assert b"".join([chunk async for chunk in container.pty]) == b"terminal\r\n"
    for stranger in strangers:
        with stranger, pytest.raises(ConnectionResetError):
            stranger.recv(1)


@pytest.mark.needs("create --pidfd-socket")
async def test_the_first_process_is_not_looked_up(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that sends a pidfd is asked for one; then nobody is looked up by a number, which may change hands."""

    def look_up(*_: object) -> NoReturn:
        raise AssertionError("a process is looked up by its number")

    for place in (
        "_linux.pidfd.HeldPidfd.open",
        "_containers.workload.open_child",
        "_linux.pidfd.open_pidfd",
        "_containers.workload.children",
    ):
        monkeypatch.setattr(f"runc_async.{place}", look_up)
    async with client.open_container(container_id(), make_bundle(["sleep", "600"]), grace=0) as container:
        assert container.pid == (await container.state()).pid
        await container.kill("KILL")
        assert (await container.wait()).signal in {signal.SIGKILL, None}


# cut short


async def entered(client: Runc, name: str, bundle: Path, **options: Any) -> None:
    """Enter the block, and stay there."""
    async with client.open_container(name, bundle, **options):
        await asyncio.sleep(600)


@pytest.mark.proof(every=4)
@pytest.mark.any_loop
@pytest.mark.parametrize("how", INTERRUPTIONS)
@pytest.mark.parametrize("stage", ["create", "start"])
async def test_cut_short_on_the_way_in(  # noqa: PLR0917 - the fixtures
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], fifo: Path, stage: str, how: str
) -> None:
    """Cut short in the middle of `create` or `start`, it leaves nothing."""
    hook = {"create": "createRuntime", "start": "poststart"}[stage]
    hooks = {hook: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo half-way >{fifo}; sleep 0.1"]}]}
    name, bundle = container_id(), make_bundle(["sleep", "600"], hooks=hooks)
    await INTERRUPTIONS[how](lambda: entered(client, name, bundle, grace=0), asyncio.to_thread(fifo.read_text))
    await nothing_left(client, name)


@pytest.mark.any_loop
@pytest.mark.parametrize("how", INTERRUPTIONS)
async def test_cut_short_in_the_block(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], how: str
) -> None:
    """Cut short in the block, or on the way out of it, it leaves nothing, and the process had its grace."""
    name, bundle = container_id(), make_bundle(OBEDIENT)
    inside = asyncio.Event()
    said: list[str] = []

    async def work() -> None:
        async with client.open_container(name, bundle, io=PipedIO(stdin=False)) as container:
            assert container.stdout is not None
            said.append(await line(container))
            reading = os.dup(container.stdout.fileno())
            inside.set()
            try:
                await asyncio.sleep(600)
            finally:
                said.append(str(reading))

    await INTERRUPTIONS[how](work, inside.wait())
    await nothing_left(client, name)
    assert said[0] == "ready"
    assert os.read(int(said[1]), 100) == b"bye\n"
    os.close(int(said[1]))


@pytest.mark.proof(every=4)
@pytest.mark.needs("cgroup removal")
@pytest.mark.parametrize("seconds", MOMENTS)
@pytest.mark.parametrize("io", [NullIO(), PtyIO()], ids=["null", "pty"])
async def test_cut_short_at_any_moment(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], io: StdIO, seconds: float
) -> None:
    """Cut short at any moment, it leaves nothing."""
    name = container_id()
    bundle = make_bundle(["sleep", "600"], process={"terminal": isinstance(io, PtyIO)})
    with anyio.move_on_after(seconds) as scope:
        await entered(client, name, bundle, io=io, grace=0)
    assert scope.cancelled_caught
    await nothing_left(client, name)


@pytest.mark.needs("cgroup removal")
def test_the_end_of_the_loop(
    client: Runc, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A loop that ends takes the containers with it that its tasks have open, wherever they are."""
    names = [container_id() for _ in range(8)]

    async def main() -> None:
        tasks = [
            asyncio.create_task(entered(client, name, make_bundle(STUBBORN), io=PipedIO(), grace=0.4)) for name in names
        ]
        await asyncio.sleep(0.12)  # some are half-way in by now, and some inside
        for task in tasks[:3]:
            task.cancel()  # and these on the way out
        await asyncio.sleep(0.1)

    before = leaks.footprint()
    asyncio.run(main(), debug=True)
    assert list(leaks.containers(root)) == []
    for name in names:
        assert leaks.left_on_host(name) == []
    assert leaks.left_since(before) == []


# many


@pytest.mark.timeout(120)
@pytest.mark.needs("cheap containers")
async def test_many_at_once(client: Runc, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Many containers are open at once, each waited for by five tasks: no thread for that, and nothing left."""
    names = [container_id() for _ in range(MANY)]
    bundle = make_bundle(["sh", "-c", "echo up; exec sleep 600"])
    before, threads = leaks.footprint(), threading.active_count()
    up: list[Container] = []
    everybody = asyncio.Event()

    async def hold(name: str) -> None:
        async with client.open_container(name, bundle, io=PipedIO(stdin=False, stderr=False), grace=0) as container:
            assert await line(container) == "up"
            up.append(container)
            if len(up) == MANY:
                everybody.set()
            await asyncio.sleep(600)

    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(hold, name)
        await everybody.wait()
        held = leaks.footprint()
        assert held.children <= before.children
        for container in up * WAITS:
            group.start_soon(container.wait)
        await anyio.wait_all_tasks_blocked()
        assert threading.active_count() <= threads + 1  # asyncio's own for children, before Python 3.12
        assert len(leaks.footprint().descriptors) <= len(held.descriptors) + 1
        assert len(held.descriptors - before.descriptors) <= 2 * MANY + 8
        group.cancel_scope.cancel()
    assert await leaks.left_in_loop(before) == []
    assert list(leaks.containers(root)) == []
    assert leaks.left_on_host(names[0][: names[0].rindex("-") + 1]) == []


# no descriptor left


@pytest.mark.parametrize("io", [NullIO(), PipedIO(), PtyIO()], ids=["null", "piped", "pty"])
async def test_no_descriptor_is_left(
    *, client: Runc, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str], io: StdIO
) -> None:
    """Wherever descriptors run out, it is an OSError, all of ours are closed again, and no container is left."""
    bundle = make_bundle(["sleep", "600"], process={"terminal": isinstance(io, PtyIO)})

    async def attempt() -> None:
        name = container_id()
        async with client.open_container(name, bundle, io=io, grace=0) as container:
            await container.state()

    before = leaks.footprint()
    failures = await descriptors.sweep(attempt)
    assert len(failures) > 4
    assert {type(error) for error in failures} == {OSError}
    assert list(leaks.containers(root)) == []
    assert await leaks.left_in_loop(before) == []


def refuse(*_: object) -> NoReturn:
    """Fail as what needs a descriptor fails when there is none."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.needs("cgroup removal")
@pytest.mark.parametrize(
    "places",
    [
        ["_containers.first_process.memory_cgroup"],
        pytest.param(["_containers.first_process.read_oom_kills"], marks=pytest.mark.needs("memory controller")),
        ["client.Pty"],
        ["_linux.pidfd.HeldPidfd.open", "_containers.workload.FDSocket.receive_nowait"],
    ],
    ids=lambda places: places[-1],
)
async def test_no_descriptor_is_left_after_create(
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    places: list[str],
) -> None:
    """The same holds if other tasks have taken the last descriptors while the runtime was at work."""
    name, bundle = container_id(), make_bundle(["sleep", "600"], process={"terminal": True})
    for place in places:
        monkeypatch.setattr(f"runc_async.{place}", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        await entered(client, name, bundle, io=PtyIO())
    await nothing_left(client, name)


async def test_a_process_that_is_killed_after_create(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container whose first process somebody kills before `start` can't be started, and is deleted."""
    name, start = container_id(), Container.start

    async def late(self: Container, **options: Any) -> None:
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        await ended(self.pid)
        await start(self, **options)

    monkeypatch.setattr(Container, "start", late)
    with pytest.raises(ContainerNotRunning):
        await entered(client, name, make_bundle(["sleep", "600"]))
    await nothing_left(client, name)


async def test_a_process_that_is_gone_after_create(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is if the process is gone before we have got hold of it."""
    name, take = container_id(), Workload.take

    def gone(self: Workload) -> tuple[int, int]:
        pid, pidfd = take(self)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        leaks.persisting(lambda: list(leaks.processes(name)), 5)
        raise ProcessLookupError(pid)

    monkeypatch.setattr(Workload, "take", gone)
    with pytest.raises(ContainerNotRunning):
        await entered(client, name, make_bundle(["sleep", "600"]))
    await nothing_left(client, name)
