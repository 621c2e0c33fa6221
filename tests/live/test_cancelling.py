"""Cancelled calls, and those out of time, leave nothing behind; the next call works."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import leaks
import pytest
from containers import heard

from runc_async._client.undo import Undo
from runc_async.client import Runc
from runc_async.errors import ContainerExists, RuncTimeout
from runc_async.state import Status
from runc_async.stdio import CapturedIO, RedirectIO

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from typing import Any

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

pytestmark = pytest.mark.runc

MOMENTS = [0, 0.001, 0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.045]
"""Seconds after which a `create` is cancelled; it takes about 0.04."""

STUBBORN = ["sh", "-c", "trap '' TERM; echo so far; while :; do sleep 60; done"]
OBEDIENT = ["sh", "-c", "trap 'echo bye; exit 0' TERM; echo so far; sleep 60 & wait"]


@pytest.fixture
def fifo(scratch: Path) -> Iterator[Path]:
    """Return a FIFO: who writes to it waits until somebody reads, and the reverse."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        path = Path(directory) / "fifo"
        os.mkfifo(path)
        yield path


async def cancelled(call: Coroutine[Any, Any, object]) -> None:
    """Cancel a call that is on its way, and see that it says so."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def hooked(script: str) -> dict[str, object]:
    """Return a configuration's hooks: one that the runtime runs in the middle of `create`."""
    return {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}


# create


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("seconds", MOMENTS)
async def test_a_cancelled_create(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], seconds: float
) -> None:
    """A `create` that is cancelled at any moment leaves no container, and the id can be used again."""
    name, bundle = container_id(), make_bundle(["sleep", "60"])
    with anyio.move_on_after(seconds) as scope:
        await client.create(name, bundle)
    if scope.cancelled_caught:
        assert await client.list() == []
        assert leaks.left_on_host(name) == []
        await client.create(name, bundle)
    assert (await client.state(name)).status == Status.CREATED


async def test_a_create_that_is_cancelled_in_the_middle(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], fifo: Path
) -> None:
    """A runtime that is half-way is let finish, and what it has made is deleted."""
    name = container_id()
    bundle = make_bundle(["sleep", "60"], hooks=hooked(f"echo half-way >{fifo}; sleep 0.2"))
    call = asyncio.create_task(client.create(name, bundle))
    await asyncio.to_thread(fifo.read_text)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


async def test_a_create_out_of_time(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A `create` whose time is up raises, and leaves no container."""
    name, bundle = container_id(), make_bundle(["sleep", "60"], hooks=hooked("sleep 0.5"))
    with pytest.raises(RuncTimeout, match=r"0\.1 seconds"):
        await client.create(name, bundle, timeout=0.1)
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


@pytest.mark.proof(every=3)
@pytest.mark.parametrize("seconds", MOMENTS[:-2])
async def test_a_cancelled_create_of_an_id_that_is_taken(
    client: Runc, make_bundle: MakeBundle, make_container: MakeContainer, seconds: float
) -> None:
    """The container that has the id already isn't ours to delete."""
    name, bundle = await make_container(), make_bundle(["true"])
    before = await client.state(name)
    with anyio.move_on_after(seconds):
        with pytest.raises(ContainerExists):
            await client.create(name, bundle)
    assert await client.state(name) == before


async def test_a_cancelled_create_of_an_id_that_is_taken_meanwhile(  # noqa: PLR0917  (each is a fixture)
    client: Runc,
    runtime: Runtime,
    root: Path,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    fifo: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A container that another call has begun to make after our look for it is not ours to delete."""

    async def not_yet(*_: object) -> bool:
        return False

    monkeypatch.setattr(Undo, "exists", not_yet)
    name, bundle = container_id(), make_bundle(["sleep", "60"], hooks=hooked(f"echo half-way >{fifo}; read _ <{fifo}"))
    first = asyncio.create_task(client.create(name, bundle))
    await asyncio.to_thread(fifo.read_text)
    if runtime.is_sandbox:  # refused before runsc starts, which would delete the record of the first
        with pytest.raises(ContainerExists):
            await client.create(name, bundle)
    else:
        await cancel_slow_create(runtime, root, name, bundle, fifo)
    await asyncio.to_thread(fifo.write_text, "go\n")
    await first
    assert (await client.state(name)).status == Status.CREATED


async def cancel_slow_create(runtime: Runtime, root: Path, name: str, bundle: Path, fifo: Path) -> None:
    """Cancel a `create` whose runtime process begins after the cancel: before it, it might have refused already."""
    gate = fifo.with_name("gate")
    os.mkfifo(gate)
    slow = fifo.with_name("slow")
    # A version is told at once: a cancel would end the process that is asked for it, and nobody would read the gate.
    waits = f'case " $* " in *" create "*) echo begun >{gate}; read _ <{gate} ;; esac'
    slow.write_text(f'#!/bin/sh\n{waits}\nexec {runtime.command} "$@"\n')
    slow.chmod(0o755)
    second = asyncio.create_task(Runc(str(slow), root=root).create(name, bundle))
    await asyncio.to_thread(gate.read_text)
    second.cancel()
    await asyncio.sleep(0)
    await asyncio.to_thread(gate.write_text, "go\n")
    with pytest.raises(asyncio.CancelledError):
        await second


@pytest.mark.parametrize("seconds", MOMENTS[1::2])
async def test_a_cancelled_detached_run(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], seconds: float
) -> None:
    """A detached `run` that is cancelled leaves no container either."""
    name, bundle = container_id(), make_bundle(["sleep", "60"])
    with anyio.move_on_after(seconds) as scope:
        await client.run(name, bundle, detach=True)
    assert len(await client.list()) == (0 if scope.cancelled_caught else 1)


# the others


async def test_cancelled_queries(client: Runc, make_container: MakeContainer) -> None:
    """Commands that only read are ended at once, and the container doesn't care."""
    name = await make_container()
    for call in (client.state(name), client.list(), client.ps(name), client.top(name), client.version(), client.spec()):
        await cancelled(call)
    assert (await client.state(name)).status == Status.RUNNING


async def test_cancelled_changes(client: Runc, make_container: MakeContainer) -> None:
    """Commands that change something are done, or not, and never half."""
    name = await make_container(Status.CREATED)
    await cancelled(client.start(name))
    assert (await client.state(name)).status in {Status.CREATED, Status.RUNNING}
    name = await make_container()
    await cancelled(client.pause(name))
    assert (await client.state(name)).status in {Status.RUNNING, Status.PAUSED}
    await cancelled(client.delete(name, force=True))
    await client.delete(name, force=True)
    assert name not in {state.id for state in await client.list()}


async def test_a_cancelled_turn(client: Runc, make_container: MakeContainer) -> None:
    """A call that is cancelled while it waits for its turn gives the turn to others."""
    name = await make_container()
    calls = [asyncio.create_task(client.state(name)) for _ in range(60)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results[::2]} == {asyncio.CancelledError}
    assert not [result for result in results[1::2] if isinstance(result, BaseException)]


# run and exec


@pytest.mark.needs("forwarded signals")
@pytest.mark.parametrize("way", ["cancelled", "timed-out"])
async def test_run_is_stopped(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str) -> None:
    """The container's process gets SIGTERM and ends in its own way; then the container is gone."""
    name, bundle = container_id(), make_bundle(OBEDIENT)
    reading, writing = os.pipe()
    try:
        if way == "cancelled":
            call = asyncio.create_task(client.run(name, bundle, io=RedirectIO(stdout=writing)))
            await heard(reading)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await heard(reading) == b"bye\n"
        else:
            with pytest.raises(RuncTimeout) as caught:
                await client.run(name, bundle, timeout=2.0)
            assert caught.value.stdout == b"so far\nbye\n"
    finally:
        os.close(reading)
        os.close(writing)
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


@pytest.mark.parametrize("way", ["cancelled", "timed-out"])
@pytest.mark.needs("host pids")
async def test_exec_is_stopped(client: Runc, make_container: MakeContainer, way: str) -> None:
    """The process gets SIGTERM and ends in its own way; the container goes on without it."""
    name = await make_container()
    pid = (await client.state(name)).pid
    reading, writing = os.pipe()
    try:
        if way == "cancelled":
            call = asyncio.create_task(client.exec(name, OBEDIENT, io=RedirectIO(stdout=writing)))
            await heard(reading)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await heard(reading) == b"bye\n"
        else:
            with pytest.raises(RuncTimeout) as caught:
                await client.exec(name, OBEDIENT, timeout=2.0)
            assert caught.value.stdout == b"so far\nbye\n"
    finally:
        os.close(reading)
        os.close(writing)
    assert pid in await client.ps(name)
    assert (await client.exec(name, ["echo", "again"])).stdout == b"again\n"


async def test_what_ignores_sigterm(
    client: Runc, make_bundle: MakeBundle, make_container: MakeContainer, container_id: Callable[[], str]
) -> None:
    """A process that ignores SIGTERM is killed after the grace; the output until then is told."""
    other = await make_container()
    name, bundle = container_id(), make_bundle(STUBBORN)
    async with asyncio.timeout(20):
        of_run, of_exec = await asyncio.gather(
            client.run(name, bundle, timeout=2.0), client.exec(other, STUBBORN, timeout=2.0), return_exceptions=True
        )
    for error in of_run, of_exec:
        assert isinstance(error, RuncTimeout)
        assert error.stdout == b"so far\n"
    assert [state.id for state in await client.list()] == [other]
    assert leaks.left_on_host(name) == []
    assert len(await client.ps(other)) <= 2  # the shell's own child isn't ours to find


@pytest.mark.needs("run --keep")
async def test_keep_what_was_stopped(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """With `keep` a container whose `run` was out of time stays, stopped."""
    name = container_id()
    with pytest.raises(RuncTimeout):
        await client.run(name, make_bundle(OBEDIENT), keep=True, timeout=2.0)
    assert (await client.state(name)).status == Status.STOPPED


@pytest.mark.parametrize("seconds", MOMENTS[::5])
async def test_run_cancelled_at_any_moment(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], seconds: float
) -> None:
    """Cancelled while the runtime still sets the container up, `run` leaves nothing either.

    SIGTERM is lost where it comes before the container's process has a handler for it; then it takes the grace.
    """
    name = container_id()
    with anyio.move_on_after(seconds) as scope:
        await client.run(name, make_bundle(OBEDIENT), io=CapturedIO())
    assert scope.cancelled_caught
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("seconds", MOMENTS)
@pytest.mark.needs("host pids")
async def test_exec_cancelled_at_any_moment(client: Runc, make_container: MakeContainer, seconds: float) -> None:
    """Cancelled while the runtime still starts the process, `exec` leaves the container's own one alone."""
    name = await make_container()
    pid = (await client.state(name)).pid
    with anyio.move_on_after(seconds) as scope:
        await client.exec(name, ["sleep", "60"])
    assert scope.cancelled_caught
    assert await client.ps(name) == [pid]


@pytest.mark.parametrize("grace", [0.0, 0.2])
@pytest.mark.needs("host pids")
async def test_an_exec_that_has_started_others(client: Runc, make_container: MakeContainer, grace: float) -> None:
    """A process that has to be killed goes with all that it has started, try after try; the container stays."""
    name = await make_container()
    script = "trap '' TERM; for n in 1 2 3 4; do setsid sh -c 'sleep 4321 & sleep 4321' & done; sleep 4321; true"
    for _ in range(4):
        with pytest.raises(RuncTimeout):
            await client.exec(name, ["sh", "-c", script], timeout=0.4, grace=grace)
        async with asyncio.timeout(20):
            while len(await client.ps(name)) > 1:  # noqa: ASYNC110 - the kernel takes a moment
                await asyncio.sleep(0.02)
