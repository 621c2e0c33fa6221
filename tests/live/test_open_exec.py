"""`open_exec`: a process with live streams, of which nothing is left when its block ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import descriptors
import leaks
import proof
import pytest
from containers import ended
from interruptions import INTERRUPTIONS

from runc_async.errors import (
    CommandError,
    ContainerNotFound,
    ContainerNotRunning,
    ContainerPaused,
    ExecutableNotFound,
    InvalidSignal,
)
from runc_async.spec import Process, User
from runc_async.state import Status
from runc_async.stdio import NullIO, PipedIO, PtyIO

if TYPE_CHECKING:
    from containers import MakeContainer

    from runc_async.client import Runc
    from runc_async.containerprocess import ContainerProcess
    from runc_async.stdio import StdIO

pytestmark = pytest.mark.runc

MOMENTS = [0, 0.002, 0.004, 0.008, 0.012, 0.016, 0.02, 0.025, 0.03, 0.04]
"""Seconds after which the way in is cut short; it takes about 0.03."""

OBEDIENT = ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"]
STUBBORN = ["sh", "-c", "trap 'echo stubborn' TERM; echo ready; while :; do sleep 0.05; done"]


async def line(process: ContainerProcess) -> str:
    """Read one line of what a process says."""
    assert process.stdout is not None
    return await anext(process.stdout.lines())


async def only_the_first(client: Runc, name: str) -> None:
    """See that a container runs its first process and no other."""
    state = await client.state(name)
    assert state.status == Status.RUNNING
    async with asyncio.timeout(5):
        # What a shell has started lives a moment longer, and nobody sets an event for its end.
        while set(await client.ps(name)) not in ({state.pid}, {1}):  # noqa: ASYNC110 - 1 in a sandbox
            await asyncio.sleep(0.02)


@pytest.mark.any_loop
@pytest.mark.needs("host pids")
async def test_a_life(client: Runc, make_container: MakeContainer) -> None:
    """The process runs in its block, can be signalled, and tells how it ended as often as it is asked."""
    name = await make_container()
    async with client.container(name).open_exec(OBEDIENT, io=PipedIO(stdin=False)) as process:
        assert await line(process) == "ready"
        assert process.pid in await client.ps(name)
        assert repr(process) == f"<ContainerProcess {process.pid} in {name!r}>"
        process.send_signal("TERM")
        statuses = await asyncio.gather(*(process.wait() for _ in range(5)))
        assert {status.code for status in statuses} == {3}
        assert await line(process) == "bye"
        process.kill()  # nobody is there to hear it
    assert (await process.wait()).code == 3
    await only_the_first(client, name)


@pytest.mark.any_loop
@pytest.mark.parametrize(
    "args",
    [
        pytest.param(OBEDIENT, id="obedient"),
        # What it leaves to process 1 of a sandbox stays a zombie there, which `ps` lists: tests/live/test_runsc.py.
        pytest.param(STUBBORN, id="stubborn", marks=pytest.mark.needs("host pids")),
    ],
)
async def test_the_way_out(client: Runc, make_container: MakeContainer, args: list[str]) -> None:
    """A process that runs still is ended, by SIGTERM or at last by SIGKILL, and the container goes on."""
    name = await make_container()
    async with client.open_exec(name, args, io=PipedIO(), grace=0.3) as process:
        assert await line(process) == "ready"
    assert process.stdin is not None
    assert process.stdin.closed
    status = await process.wait()
    assert (status.code, status.signal) == ((3, None) if args is OBEDIENT else (None, signal.SIGKILL))
    await only_the_first(client, name)


async def test_short_processes(client: Runc, make_container: MakeContainer) -> None:
    """Processes that end at once are told right too."""
    name = await make_container()

    async def short(code: int) -> int | None:
        async with client.open_exec(name, ["sh", "-c", f"exit {code}"]) as process:
            assert process.pid
            return (await process.wait()).code

    codes = list(range(0, 120, 5))
    assert await asyncio.gather(*map(short, codes)) == codes


async def test_a_document(client: Runc, make_container: MakeContainer) -> None:
    """A whole process document is run as it is."""
    name = await make_container()
    document = Process(args=["sh", "-c", "id -u; pwd"], cwd="/tmp", env=["PATH=/bin"], user=User(uid=7, gid=7))
    async with client.open_exec(name, document, io=PipedIO()) as process:
        assert process.stdout is not None
        assert b"".join([chunk async for chunk in process.stdout]) == b"7\n/tmp\n"


@pytest.mark.needs("process details")
async def test_a_document_with_a_terminal(client: Runc, make_container: MakeContainer) -> None:
    """A document says itself whether there is a terminal."""
    name = await make_container()
    document = Process(args=["tty"], cwd="/", env=["PATH=/bin"], terminal=True)
    async with client.open_exec(name, document, io=PtyIO()) as process:
        assert process.pty is not None
        assert b"/dev/pts/0" in b"".join([chunk async for chunk in process.pty])


@pytest.mark.parametrize("error", [ValueError("mine"), ExceptionGroup("mine", [KeyError(1), OSError(2)])])
async def test_exceptions_of_the_block(client: Runc, make_container: MakeContainer, error: Exception) -> None:
    """An exception of the block comes out as it is, and the process is gone."""
    name = await make_container()
    with pytest.raises(type(error)) as caught:
        async with client.open_exec(name, ["sleep", "600"]):
            raise error
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (None, None)
    await only_the_first(client, name)


# what doesn't begin


async def test_what_cannot_be_run(client: Runc, make_container: MakeContainer) -> None:
    """What the runtime refuses is an exception of its own class, before the block."""
    running, paused, stopped = [await make_container(s) for s in (Status.RUNNING, Status.PAUSED, Status.STOPPED)]
    refused: list[tuple[str, list[str], type[CommandError]]] = [
        (running, ["/nonesuch"], ExecutableNotFound),
        (paused, ["true"], ContainerPaused),
        (stopped, ["true"], ContainerNotRunning),
        (running + "-not", ["true"], ContainerNotFound),
    ]
    for name, args, error in refused:
        with pytest.raises(error):
            await entered(client, name, args)


async def test_no_such_signal(client: Runc, make_container: MakeContainer) -> None:
    """A signal that doesn't exist is an error, and nothing is sent."""
    async with client.open_exec(await make_container(), ["sleep", "600"]) as process:
        with pytest.raises(InvalidSignal):
            process.send_signal("NONESUCH")
        process.terminate()
        assert (await process.wait()).signal == signal.SIGTERM


@pytest.mark.needs("host pids")
async def test_a_runtime_that_is_killed(client: Runc, make_container: MakeContainer) -> None:
    """Where the runtime is killed, only the kernel can tell how the process ended; nobody takes that for a code."""
    name = await make_container()
    async with client.open_exec(name, ["sleep", "600"], grace=0.2) as process:
        assert process.pid is not None
        parent = int(Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        await ended(parent)
        with pytest.raises(CommandError):
            await process.wait()
        process.kill()
        await ended(process.pid)


# cut short


async def entered(client: Runc, name: str, args: list[str], **options: Any) -> None:
    """Enter the block, and stay there."""
    async with client.open_exec(name, args, **options):
        await asyncio.sleep(600)


@pytest.mark.proof(every=3)
@pytest.mark.any_loop
@pytest.mark.parametrize("how", INTERRUPTIONS)
async def test_cut_short_in_the_block(client: Runc, make_container: MakeContainer, how: str) -> None:
    """Cut short in the block, or on the way out of it, it leaves nothing, and the process had its grace."""
    name = await make_container()
    inside = asyncio.Event()
    processes: list[ContainerProcess] = []

    async def work() -> None:
        async with client.open_exec(name, OBEDIENT, io=PipedIO(stdin=False)) as process:
            await line(process)
            processes.append(process)
            inside.set()
            await asyncio.sleep(600)

    await INTERRUPTIONS[how](work, inside.wait())
    assert (await processes[0].wait()).code == 3
    await only_the_first(client, name)


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("seconds", MOMENTS)
@pytest.mark.parametrize("io", [NullIO(), PtyIO()], ids=["null", "pty"])
async def test_cut_short_at_any_moment(client: Runc, make_container: MakeContainer, io: StdIO, seconds: float) -> None:
    """Cut short at any moment, it leaves nothing."""
    name = await make_container()
    with anyio.move_on_after(seconds) as scope:
        await entered(client, name, ["sleep", "600"], io=io, grace=0.3)
    assert scope.cancelled_caught
    await only_the_first(client, name)


@pytest.mark.parametrize("io", [NullIO(), PipedIO(), PtyIO()], ids=["null", "piped", "pty"])
@pytest.mark.needs("host pids")
async def test_no_descriptor_is_left(client: Runc, make_container: MakeContainer, io: StdIO) -> None:
    """Wherever descriptors run out, it is an OSError, all of ours are closed again, and no process is left."""
    name = await make_container()

    async def attempt() -> None:
        async with client.open_exec(name, ["sleep", "600"], io=io, grace=0.2) as process:
            process.kill()
            assert (await process.wait()).signal == signal.SIGKILL

    before = leaks.footprint()
    failures = await descriptors.sweep(attempt)
    assert len(failures) > 4
    assert {type(error) for error in failures} == {OSError}
    assert await leaks.left_in_loop(before) == []
    await only_the_first(client, name)


@pytest.mark.parametrize("args", [["sleep", "600"], OBEDIENT], ids=["sleep", "obedient"])
async def test_no_descriptor_is_left_for_the_process(
    client: Runc, make_container: MakeContainer, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    """A process that we can't get hold of, because other tasks have taken the last descriptors, is ended."""

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    name = await make_container()
    monkeypatch.setattr("runc_async._linux.pidfd.HeldPidfd.open", refuse)
    monkeypatch.setattr("runc_async._linux.fdsocket.FDSocket.receive_nowait", refuse)  # a newer runc sends a pidfd
    with pytest.raises(OSError, match="Too many open files"):
        await entered(client, name, args, io=PipedIO(), grace=0.3)
    await only_the_first(client, name)


async def test_exec_goes_on_without_a_pidfd(
    client: Runc, make_container: MakeContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`exec`, which needs no hold of the process, waits for the runtime instead, and ends nothing too early."""

    def refuse(_: int) -> None:
        raise OSError(24, "Too many open files")

    name = await make_container()
    monkeypatch.setattr("runc_async._linux.pidfd.HeldPidfd.open", refuse)
    response = await client.exec(name, ["sh", "-c", "sleep 0.8; echo out; exit 4"], drain_timeout=0.1)
    assert (response.exit_code, response.stdout) == (4, b"out\n")


@pytest.mark.needs("cheap containers")
async def test_many_at_once(client: Runc, make_container: MakeContainer) -> None:
    """Fifty processes, twenty in a sample, talk at once, and none is left."""
    name = await make_container()

    async def talk(number: int) -> None:
        async with client.open_exec(name, ["cat"], io=PipedIO(stderr=False)) as process:
            assert process.stdin is not None
            await process.stdin.send(f"{number}\n".encode())
            assert await line(process) == str(number)
            with contextlib.suppress(anyio.EndOfStream):
                await process.stdin.aclose()
            assert (await process.wait()).code == 0

    async with asyncio.TaskGroup() as group:
        for number in range(proof.amount(50, 20)):
            group.create_task(talk(number))
    await only_the_first(client, name)
