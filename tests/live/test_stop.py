"""`Container.stop`: an end that leaves a program its time, and all that it prints."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import TYPE_CHECKING

import anyio
import pytest
from containers import ended

from runc_async import Bundle
from runc_async.errors import ContainerNotFound
from runc_async.state import Status
from runc_async.stdio import PipedIO, PtyIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.client import Runc
    from runc_async.container import Container

pytestmark = pytest.mark.runc

LINE = b"x" * 99 + b"\n"
LINES = 3000
LAST = f"trap : TERM; i=0; while [ $i -lt {LINES} ]; do echo {LINE.decode().strip()}; i=$((i + 1)); done; exit 3"
"""Prints 300 kB."""

TALKATIVE = ["sh", "-c", f"trap '{LAST}' TERM; echo ready; while :; do sleep 0.02; done"]
STUBBORN = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"]
DEAF = ["sh", "-c", "echo ready; sleep 600; exit 1"]
JUST_STARTED = ["sleep", "600"]


async def ready(container: Container) -> None:
    """Wait until the program has said that it is there."""
    assert container.stdout is not None
    assert await anext(container.stdout.lines()) == "ready"


async def rest(container: Container) -> bytes:
    """Read what a container prints to its end."""
    assert container.stdout is not None
    return b"".join([chunk async for chunk in container.stdout])


@pytest.mark.any_loop
@pytest.mark.parametrize("paused", [False, True])
async def test_its_last_words_are_read_afterwards(
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    paused: bool,  # noqa: FBT001 - a parameter
) -> None:
    """300 kB that a program prints on SIGTERM are there when no task reads meanwhile, also if it was paused."""
    async with client.open_container(container_id(), make_bundle(TALKATIVE), io=PipedIO(), grace=0) as container:
        await ready(container)
        if paused:
            await container.pause()
        status = await container.stop(grace=60)
        assert status.code in {3, None}
        assert status.signal is None
        assert status.exited_at is not None
        assert await rest(container) == LINE * LINES
        assert (await container.state()).status == Status.STOPPED
        assert await container.stop() == status, "a second stop only reports"
    assert (await container.stop()).code == status.code, "also after the block"


@pytest.mark.parametrize("pause", [0, 0.12])
async def test_its_last_words_are_read_meanwhile(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], pause: float
) -> None:
    """A task that reads during the stop gets all in order, however slowly it reads."""
    got = b""
    async with client.open_container(container_id(), make_bundle(TALKATIVE), io=PipedIO(), grace=0) as container:
        await ready(container)
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(container.stop(grace=60))
            assert container.stdout is not None
            async for chunk in container.stdout:
                got += chunk
                await anyio.sleep(pause)
        assert (await stopping).code in {3, None}
    assert got == LINE * LINES


async def test_the_last_words_on_a_terminal(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """What comes on a terminal is kept too."""
    bundle = make_bundle(TALKATIVE, process={"terminal": True})
    async with client.open_container(container_id(), bundle, io=PtyIO(), grace=0) as container:
        assert container.pty is not None
        assert await anext(container.pty.lines()) == "ready"
        await container.stop(grace=60)
        assert b"".join([chunk async for chunk in container.pty]).count(b"\n") == LINES


@pytest.mark.parametrize(
    ("args", "grace", "paused"),
    [
        (STUBBORN, 0.2, False),
        (STUBBORN, 0, True),
        (DEAF, 600, False),
        (DEAF, 600, True),
        (JUST_STARTED, 600, False),
    ],
)
async def test_a_program_that_does_not_end(
    *,
    client: Runc,
    runtime: Runtime,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    args: list[str],
    grace: float,
    paused: bool,
) -> None:
    """SIGKILL comes after the grace, and at once if SIGTERM can't arrive, also to a paused container."""
    async with client.open_container(container_id(), make_bundle(args), io=PipedIO(), grace=0) as container:
        if args is not JUST_STARTED:
            await ready(container)
        if paused:
            await container.pause()
        async with asyncio.timeout(60):
            status = await container.stop(grace=grace)
        # gVisor's kernel delivers signals to process 1 as to any other.
        heard = runtime.is_sandbox and args is not STUBBORN
        assert status.signal in ({signal.SIGTERM} if heard else {signal.SIGKILL, None})
        assert status.code is None


@pytest.mark.skipif(not shutil.which("tini-static"), reason="needs tini")
async def test_a_program_behind_an_init(client: Runc, container_id: Callable[[], str]) -> None:
    """An init that fetches signals by sigtimedwait(2) gets SIGTERM, and passes it on."""
    async with (
        Bundle.busybox(["cat"], init="tini-static") as bundle,
        client.open_container(container_id(), bundle, io=PipedIO(), grace=0) as container,
    ):
        assert container.stdin is not None
        assert container.stdout is not None
        await container.stdin.send(b"?")
        await container.stdout.receive()
        assert (await container.stop(grace=60)).code in {143, None}


async def test_a_program_that_prints_without_end(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """What is kept of an endless writer is bounded, and it is killed after the grace."""
    bundle = make_bundle(["sh", "-c", "trap 'exec yes' TERM; echo ready; while :; do sleep 0.02; done"])
    async with client.open_container(container_id(), bundle, io=PipedIO(), grace=0) as container:
        await ready(container)
        await container.stop(grace=0.5)
        assert 0 < len(await rest(container)) < 32 << 20


async def test_a_container_of_others(client: Runc, make_container: MakeContainer) -> None:
    """A handle without streams stops a container, and one that has ended is no error."""
    name = await make_container(args=["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.02; done"])
    await anyio.sleep(0.2)  # there is no stream to say that the handler stands; without it the result is a SIGKILL
    status = await client.container(name).stop(grace=60)
    assert status.code in {3, None}
    assert (await client.state(name)).status == Status.STOPPED
    assert not (await client.container(name).stop()).known
    await client.delete(name)
    with pytest.raises(ContainerNotFound):
        await client.container(name).stop()


async def test_a_container_that_was_not_started(client: Runc, make_container: MakeContainer) -> None:
    """Its program has nothing to end in order, so it is killed at once."""
    name = await make_container(Status.CREATED)
    async with asyncio.timeout(60):
        await client.container(name).stop(grace=600)
    assert (await client.state(name)).status == Status.STOPPED


async def test_stopping_twice_at_once(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Two tasks can stop one container, and both get its end."""
    async with client.open_container(container_id(), make_bundle(TALKATIVE), io=PipedIO(), grace=0) as container:
        await ready(container)
        first, second = await asyncio.gather(container.stop(grace=60), container.stop(grace=60))
        assert first == second
        assert await rest(container) == LINE * LINES


async def test_a_stop_that_is_cut_short(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A timeout of the caller's leaves the program alone with its SIGTERM; another stop ends it."""
    async with client.open_container(container_id(), make_bundle(STUBBORN), io=PipedIO(), grace=0) as container:
        await ready(container)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await container.stop(grace=600)
        assert (await container.state()).status == Status.RUNNING
        assert container.pid is not None
        await container.stop(grace=0)
        await ended(container.pid)


@pytest.mark.parametrize("grace", [-1, float("nan"), float("inf")])
async def test_a_grace_that_is_none(client: Runc, grace: float) -> None:
    """A grace that is no time is refused before anything starts."""
    with pytest.raises(ValueError, match="grace must be a number of seconds"):
        await client.container("nonesuch").stop(grace=grace)
