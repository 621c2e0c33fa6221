"""`Pool` with real containers: each take gets one that lives, and nothing is left of any."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import anyio
import leaks
import pytest
from waiting import until

from runc_async import (
    Bundle,
    CommandError,
    ContainerNotRunning,
    PipedIO,
    Pool,
    PtyIO,
    Runc,
    Status,
    spec,
)
from runc_async.rootfs import Overlay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from containers import MakeBundle
    from runtime import Runtime

    from runc_async.container import Container

pytestmark = pytest.mark.runc

ECHO = ["sh", "-c", "echo ready; while read line; do echo $line; done"]


async def line(container: Container) -> str:
    """Read one line of what a container prints."""
    assert container.stdout is not None
    return await anext(container.stdout.lines())


async def starts(container: Container) -> None:
    """Wait until the program of `ECHO` runs."""
    assert await line(container) == "ready"


async def fail_in(pool: Pool, moment: asyncio.Event) -> None:
    """Raise an exception in the block of a pool, at some moment."""
    async with pool:
        await moment.wait()
        raise ZeroDivisionError


async def nothing_left(client: Runc, name: str) -> None:
    """See that there is no container, and nothing of one."""
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


# states


@pytest.mark.any_loop
@pytest.mark.parametrize("state", ["created", "running", "paused"])
async def test_a_life(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], state: str) -> None:
    """In each state containers wait, run when they are taken, are replaced afterwards, and are gone in the end."""
    name = container_id()
    wanted = {"created": Status.CREATED, "running": Status.RUNNING, "paused": Status.PAUSED}[state]
    ready = None if state == "created" else starts
    bundle = make_bundle(ECHO)
    async with Pool(client, bundle, size=2, state=state, io=PipedIO(), ready=ready, name=name, grace=0) as pool:  # type: ignore[arg-type]
        await pool.filled()
        assert [found.status for found in await client.list()] == [wanted, wanted]
        used: set[str] = set()
        for number in range(3):
            async with pool.take() as container:
                assert container.stdin is not None
                if state == "created":
                    await starts(container)
                await container.stdin.send(b"%d\n" % number)
                assert await line(container) == str(number)
                assert (await container.state()).status == Status.RUNNING
                used.add(container.id)
            await pool.filled()
        assert len(used) == 3
        assert (pool.stats().hits, pool.stats().misses) == (3, 0)
        await until(lambda: not used & set(os.listdir(client._calls.state_directory())))
    await nothing_left(client, name)


async def test_a_miss(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """More takes at once than containers are ready all get one of their own."""
    name = container_id()
    async with Pool(client, make_bundle(ECHO), size=1, io=PipedIO(), name=name, grace=0) as pool:
        seen: set[str] = set()

        async def take() -> None:
            async with pool.take() as container:
                await starts(container)
                seen.add(container.id)

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(take())
        assert len(seen) == 4
        assert pool.stats().misses == 4
    await nothing_left(client, name)


async def test_a_terminal(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Containers of a pool can have a terminal each."""
    name = container_id()
    bundle = make_bundle(["cat"], process={"terminal": True})
    async with (
        Pool(client, bundle, size=1, state="running", io=PtyIO(), name=name) as pool,
        pool.take() as container,
    ):
        assert container.pty is not None
        await container.pty.send(b"hello\n")
        assert await anext(container.pty.lines()) == "hello"
    await nothing_left(client, name)


@pytest.mark.root
async def test_one_root_filesystem_for_all(
    client: Runc, rootfs: Path, scratch: Path, container_id: Callable[[], str]
) -> None:
    """Containers share a root filesystem, and none sees what another one writes."""
    name = container_id()
    own = spec.Spec.default().set_args("sh", "-c", "ls /root; touch /root/file").set_terminal(enabled=False)
    own.set_root("rootfs", readonly=False)

    def bundle() -> contextlib.AbstractAsyncContextManager[Bundle]:
        return Bundle.temporary(rootfs=Overlay([rootfs]), spec=own, directory=scratch)

    async with Pool(client, bundle, size=2, io=PipedIO(), name=name, grace=0) as pool:
        for _ in range(3):
            async with pool.take() as container:
                assert container.stdout is not None
                assert [line async for line in container.stdout.lines()] == []
    assert not (rootfs / "root" / "file").exists()
    assert leaks.left_on_host(str(scratch)) == []
    await nothing_left(client, name)


@pytest.mark.needs("cpuacct controller")
async def test_usage_counts_from_the_take(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """What a container has used before it was taken isn't counted."""
    program = ["sh", "-c", "n=0; while [ $n -lt 30000 ]; do n=$((n+1)); done; echo ready; exec sleep 1000"]
    pipes = PipedIO(stdin=False, stderr=False)

    async def used_before(container: Container) -> None:
        await starts(container)
        before.append((await container.usage()).cpu_seconds or 0.0)

    before: list[float] = []
    bundle = make_bundle(program)
    async with Pool(
        client, bundle, size=1, state="running", io=pipes, ready=used_before, name=container_id(), grace=0
    ) as pool:
        await pool.filled()
        async with pool.take() as container:
            usage = await container.usage()
            assert usage.cpu_seconds is not None
            assert usage.cpu_seconds < before[0]
            assert usage.wall_seconds is not None
            assert usage.wall_seconds < 30


# what goes wrong


@pytest.mark.parametrize("state", ["created", "running", "paused"])
async def test_a_container_that_dies(
    client: Runc, runtime: Runtime, make_bundle: MakeBundle, container_id: Callable[[], str], state: str
) -> None:
    """One that ends while it waits is noticed, deleted, and replaced."""
    name = container_id()
    bundle = make_bundle(["sleep", "1000"])
    async with Pool(client, bundle, size=1, state=state, name=name) as pool:  # type: ignore[arg-type]
        await pool.filled()
        (victim,) = await client.list()
        os.kill(victim.pid, signal.SIGKILL)
        if state == "paused" and not runtime.is_sandbox:  # whose process on the host isn't frozen
            await client.resume(victim.id)
        await until(lambda: pool.stats().died == 1)
        await pool.filled()
        async with pool.take() as container:
            assert container.id != victim.id
            assert (await container.state()).status == Status.RUNNING
    await nothing_left(client, name)


async def test_one_that_has_just_died(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """One that has ended in the very moment before the take isn't handed out."""
    name = container_id()
    async with Pool(client, make_bundle(["sleep", "1000"]), size=2, state="running", name=name) as pool:
        await pool.filled()
        victim = pool._ready[0].container
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        while not victim._has_ended():
            pass  # the event loop gets no chance to notice
        async with pool.take() as container:
            assert container.id != victim.id
        assert (pool.stats().hits, pool.stats().died) == (1, 1)
    await nothing_left(client, name)


async def test_a_program_that_ends_at_once(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A pool of programs that end at once makes a few, and not as many as it can; a take gets an error or the end."""
    name = container_id()
    async with Pool(client, make_bundle(["true"]), size=2, state="running", name=name) as pool:
        await asyncio.sleep(1.5)
        await until(lambda: pool.stats().died + pool.stats().failed > 1)
        assert pool.stats().died + pool.stats().failed < 15
        with contextlib.suppress(ContainerNotRunning):
            async with pool.take():
                pass
    await nothing_left(client, name)


async def test_a_test_whose_container_ends(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A test that waits for a program that has ended is cut short."""
    name = container_id()

    async def test(_: Container) -> None:
        await anyio.sleep_forever()

    async with Pool(client, make_bundle(["sleep", "0.2"]), size=1, state="running", ready=test, name=name) as pool:
        with pytest.raises(ContainerNotRunning):
            async with pool.take():
                pass
    await nothing_left(client, name)


async def test_a_program_that_is_not_there(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """The take fails with the error that `open_container` would raise."""
    name = container_id()
    async with Pool(client, make_bundle(["nonesuch"]), size=2, name=name) as pool:
        with pytest.raises(CommandError):
            async with pool.take():
                pass
    await nothing_left(client, name)


async def test_an_exception_in_the_block(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """An exception passes unchanged, and everything is ended, also what another task still uses."""
    name = container_id()
    left: list[Container] = []
    taken = asyncio.Event()

    async def use() -> None:
        await until(lambda: pool.stats().ready)
        async with pool.take() as container:
            left.append(container)
            taken.set()
            await container.ended()

    pool = Pool(client, make_bundle(["sleep", "1000"]), size=2, name=name, grace=0)
    using = asyncio.create_task(use())
    with pytest.raises(ZeroDivisionError):
        await fail_in(pool, taken)
    await using
    assert (await left[0].wait()).code is None
    await nothing_left(client, name)


async def test_left_while_it_is_filled(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A pool that is left while containers are being made leaves nothing of them."""
    name = container_id()
    for moment in (0, 0.01, 0.03, 0.06):
        async with Pool(client, make_bundle(["sleep", "1000"]), size=4, state="running", name=name):
            await asyncio.sleep(moment)
        await nothing_left(client, name)
