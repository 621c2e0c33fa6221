"""`Pool` on a runtime that is played: who gets which container, and what is made when."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from waiting import until

from runc_async import (
    CapturedIO,
    CommandError,
    InvalidContainerID,
    Pool,
    PoolStats,
    Runc,
)
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from runc_async.container import Container

BUNDLE = "/nonesuch"
FAILED = b'{"level": "error", "msg": "no more"}'


@pytest.fixture
def runner() -> FakeRunner:
    """Return a runner that plays the runtime."""
    return FakeRunner()


@pytest.fixture
def client(runner: FakeRunner, tmp_path: Path) -> Runc:
    """Return a client of it."""
    return Runc(runner=runner, root=tmp_path)


def commands(runner: FakeRunner) -> list[str]:
    """Return the names of all commands so far."""
    return [invocation.command for invocation in runner.invocations]


class Gate:
    """Makes bundles, each only when it is let through.

    Attributes:
        asked: How many bundles were asked for.
        left: How many were left again.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.left = 0
        self._turns = asyncio.Semaphore(0)

    def open(self, number: int = 1) -> None:
        """Let so many through."""
        for _ in range(number):
            self._turns.release()

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncGenerator[str]:
        """Make one."""
        self.asked += 1
        await self._turns.acquire()
        task = asyncio.current_task()
        try:
            yield BUNDLE
        finally:
            assert asyncio.current_task() is task
            self.left += 1


# arguments


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"size": 0}, ValueError),
        ({"size": True}, TypeError),
        ({"size": 1.5}, TypeError),
        ({"at_once": 0}, ValueError),
        ({"state": "stopped"}, ValueError),
        ({"ready": anyio.sleep}, ValueError),
        ({"io": CapturedIO()}, ValueError),
        ({"grace": -1}, ValueError),
        ({"grace": float("nan")}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"name": "a/b"}, InvalidContainerID),
        ({"pid_file": "/run/pid"}, ValueError),
        ({"pidfd_socket": "/run/socket"}, ValueError),
        ({"no_such_option": 1}, TypeError),
        ({"bundle": 7}, TypeError),
        ({"bundle": ""}, ValueError),
    ],
    ids=[str(number) for number in range(16)],
)
def test_bad_arguments(client: Runc, runner: FakeRunner, arguments: dict[str, Any], error: type[Exception]) -> None:
    """What can't be right is refused by the constructor, and nothing is started."""
    given: dict[str, Any] = {"bundle": BUNDLE, "size": 1} | arguments
    with pytest.raises(error):
        Pool(client, given.pop("bundle"), **given)
    assert runner.invocations == []


async def test_it_is_entered_once(client: Runc) -> None:
    """A pool that was left can't be entered again, and gives nothing before and after its block."""
    pool = Pool(client, BUNDLE, size=1)
    for _ in range(2):
        with pytest.raises(anyio.ClosedResourceError):
            await pool.filled()
        with pytest.raises(anyio.ClosedResourceError):
            async with pool.take():
                pass
        with contextlib.suppress(RuntimeError):
            async with pool:
                pass
    with pytest.raises(RuntimeError, match="once"):
        await pool.__aenter__()


# hits and misses


async def test_a_hit(client: Runc, runner: FakeRunner) -> None:
    """A container that is ready is started when it is taken, deleted after its use, and replaced."""
    async with Pool(client, BUNDLE, size=2, name="web") as pool:
        await pool.filled()
        assert commands(runner) == ["create", "create"]
        assert pool.stats() == PoolStats(ready=2, taken=0, hits=0, misses=0)
        async with pool.take() as container:
            assert container.id.startswith("web-")
            assert commands(runner)[-1] == "start"
            assert pool.stats() == PoolStats(ready=1, taken=1, hits=1, misses=0)
            assert repr(pool) == "<Pool of 2 created, 1 ready, 1 taken>"
        await pool.filled()
        await until(lambda: "delete" in commands(runner))
    made = [call.container_id for call in runner.invocations if call.command == "create"]
    deleted = [call.container_id for call in runner.invocations if call.command == "delete"]
    assert len(set(made)) == len(made) == 3
    assert sorted(filter(None, made)) == sorted(filter(None, deleted))
    assert pool.stats() == PoolStats(ready=0, taken=0, hits=1, misses=0)


async def test_order_of_arrival(client: Runc) -> None:
    """Takes from an empty pool get their containers in the order in which they came."""
    gate = Gate()
    order: list[int] = []

    async def take(number: int) -> None:
        async with pool.take():
            order.append(number)

    async with Pool(client, gate, size=1, at_once=2) as pool, asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(take(number))
            await asyncio.sleep(0)
        await until(lambda: gate.asked == 2)
        gate.open(7)
    assert order == [0, 1, 2, 3, 4, 5]
    assert pool.stats().misses == 6
    assert gate.left == gate.asked


async def test_a_replacement_waits(client: Runc, runner: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is made in advance while a taken container starts, for a while; however long that takes, then one is."""
    monkeypatch.setattr("runc_async.pool.HOLD", 0.3)
    runner.reply("start", hang=True)
    gate = Gate()
    loop = asyncio.get_running_loop()
    async with Pool(client, gate, size=2, at_once=8) as pool:
        gate.open(2)
        await pool.filled()

        async def take() -> None:
            async with pool.take():
                pass

        begun = loop.time()
        taking = asyncio.create_task(take())
        await until(lambda: "start" in commands(runner))
        await until(lambda: gate.asked > 2)
        assert loop.time() - begun >= 0.3
        taking.cancel()
        await asyncio.wait([taking])


async def test_as_many_at_once(client: Runc) -> None:
    """At most `at_once` containers are made at the same time."""
    gate = Gate()
    async with Pool(client, gate, size=5, at_once=3) as pool:
        for made in range(5):
            await until(lambda made=made: gate.asked == min(made + 3, 5))  # type: ignore[misc]
            gate.open()
            await until(lambda made=made: pool.stats().ready == made + 1)  # type: ignore[misc]
    assert gate.left == 5


# cancelling


async def test_a_cancelled_take(client: Runc) -> None:
    """A take that is cancelled while it waits leaves its container to the pool."""
    gate = Gate()
    async with Pool(client, gate, size=1) as pool:

        async def take() -> None:
            async with pool.take():
                pytest.fail("it was cancelled")

        taking = asyncio.create_task(take())
        await until(lambda: gate.asked == 1)
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await taking
        gate.open()
        await pool.filled()
        assert gate.asked == 1
    assert pool.stats() == PoolStats(ready=0, taken=0, hits=0, misses=1)


async def test_cancelled_when_it_has_just_got_one(client: Runc) -> None:
    """A take that is cancelled in the turn of the loop in which it gets a container gives it to the next caller."""
    got: list[str] = []
    gate = Gate()
    async with Pool(client, gate, size=1, at_once=1) as pool:

        async def take() -> None:
            async with pool.take() as container:
                got.append(container.id)

        first, second = asyncio.create_task(take()), asyncio.create_task(take())
        await until(lambda: gate.asked == 1)
        put = pool._put

        def cancel_too(warm: Any) -> None:
            put(warm)
            first.cancel()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pool, "_put", cancel_too)
            gate.open()
            await asyncio.wait([first])
        await second
        assert first.cancelled()
        assert len(got) == 1
        assert got[0].endswith("-1")


async def test_the_end_of_the_pool(client: Runc, runner: FakeRunner) -> None:
    """Takes that wait fail, containers in use are ended, and all bundles are left."""
    gate = Gate()
    outcome: list[BaseException] = []

    async def take_in_vain() -> None:
        try:
            async with pool.take():
                pass
        except anyio.ClosedResourceError as exc:
            outcome.append(exc)

    async def wait_in_vain() -> None:
        try:
            await pool.filled()
        except anyio.ClosedResourceError as exc:
            outcome.append(exc)

    async with asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as takes:
        async with Pool(client, gate, size=1) as pool:
            gate.open()
            used = await takes.enter_async_context(pool.take())
            group.create_task(take_in_vain())
            group.create_task(wait_in_vain())
            await until(lambda: gate.asked == 2)
        deleted = [call.container_id for call in runner.invocations if call.command == "delete"]
        assert deleted == [used.id]
        assert gate.left == 1  # the second never came to its end
    assert len(outcome) == 2


# failures


@contextlib.asynccontextmanager
async def no_bundle() -> AsyncGenerator[str]:
    """Fail."""
    raise ZeroDivisionError
    yield ""


async def test_a_bundle_that_fails(client: Runc, caplog: pytest.LogCaptureFixture) -> None:
    """A take fails with the error of the bundle, without waiting for the delay, and attempts in between are few."""
    attempts = 0

    def bundle() -> AbstractAsyncContextManager[str]:
        nonlocal attempts
        attempts += 1
        return no_bundle()

    caplog.set_level(logging.WARNING, "runc_async")
    begun = time.monotonic()
    async with Pool(client, bundle, size=3, at_once=1) as pool:
        with pytest.raises(ZeroDivisionError):
            await pool.filled()
        for _ in range(8):
            with pytest.raises(ZeroDivisionError):
                async with pool.take():
                    pass
        assert pool._delay.seconds > 10  # nine failures
        assert attempts == pool.stats().failed == 9
        assert time.monotonic() - begun < pool._delay.seconds / 2  # all delays together would be as long as this one
    assert "no container is made for 0.1 s" in caplog.text


async def test_a_function_that_fails(client: Runc) -> None:
    """A function that raises instead of giving a bundle fails the take as well."""

    def bundle() -> AbstractAsyncContextManager[str]:
        raise ZeroDivisionError

    async with Pool(client, bundle, size=1) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.take():
                pass


async def test_it_recovers(client: Runc, runner: FakeRunner) -> None:
    """After a failure the next attempt comes by itself; what succeeds fills the pool."""
    runner.reply("create", log=FAILED, exit_code=1)
    runner.reply("create")
    async with Pool(client, BUNDLE, size=2, at_once=1) as pool:
        with pytest.raises(CommandError, match="no more"):
            await pool.filled()
        await pool.filled()
        assert pool.stats() == PoolStats(ready=2, taken=0, hits=0, misses=0, failed=1)


async def test_a_start_that_fails(client: Runc, runner: FakeRunner) -> None:
    """A container that can't be started is replaced once; then the take fails with runc's error."""
    runner.reply("start", log=FAILED, exit_code=1)
    async with Pool(client, BUNDLE, size=1) as pool:
        await pool.filled()
        with pytest.raises(CommandError, match="no more"):
            async with pool.take():
                pass
        assert commands(runner).count("start") == 2
        assert pool.stats().hits == 0
        assert pool._delay.pending


async def test_a_start_that_fails_once(client: Runc, runner: FakeRunner) -> None:
    """The caller doesn't notice that the first container could not be started."""
    runner.reply("start", log=FAILED, exit_code=1)
    runner.reply("start")
    async with Pool(client, BUNDLE, size=2) as pool:
        await pool.filled()
        async with pool.take() as container:
            assert container.id.endswith("-2")
        assert pool.stats().hits == 1


async def test_a_bundle_that_can_not_be_left(client: Runc, caplog: pytest.LogCaptureFixture) -> None:
    """A failure of the bundle's own end is logged, and fails no take."""

    @contextlib.asynccontextmanager
    async def bundle() -> AsyncGenerator[str]:
        yield BUNDLE
        raise ZeroDivisionError("busy")

    caplog.set_level(logging.WARNING, "runc_async")
    async with Pool(client, bundle, size=1) as pool, pool.take():
        pass
    assert "a bundle could not be removed: busy" in caplog.text
    assert pool.stats().failed == 0


# the other states


async def test_running_and_paused(client: Runc, runner: FakeRunner) -> None:
    """A running one is started and tested before it counts as ready; a paused one is resumed when it is taken."""
    tested: list[str] = []

    async def test(container: Container) -> None:
        tested.append(container.id)

    async with Pool(client, BUNDLE, size=1, state="paused", ready=test) as pool:
        await pool.filled()
        assert commands(runner) == ["create", "start", "pause"]
        async with pool.take() as container:
            assert tested == [container.id]
            assert commands(runner)[-1] == "resume"


async def test_a_caller_who_waits_needs_no_pause(client: Runc, runner: FakeRunner) -> None:
    """A container that was made for a caller isn't paused before; if the caller has gone, it is deleted."""
    gate = Gate()
    async with Pool(client, gate, size=1, at_once=1, state="paused") as pool:
        gate.open()
        async with pool.take():
            assert commands(runner) == ["create", "start"]
        started = asyncio.Event()
        let_on = asyncio.Event()
        make = pool._kind.make

        async def slowly(*args: Any, **options: Any) -> Any:
            warm = await make(*args, **options)
            started.set()
            await let_on.wait()
            return warm

        class Slow:
            """A kind whose containers take their time."""

            make = staticmethod(slowly)
            let_run = pool._kind.let_run
            delete = pool._kind.delete
            state = pool._kind.state

        pool._kind = cast("Any", Slow)

        async def take() -> None:
            async with pool.take():
                pytest.fail("it was cancelled")

        taking = asyncio.create_task(take())
        await until(lambda: gate.asked == 2)
        gate.open()
        await started.wait()
        taking.cancel()
        await asyncio.wait([taking])
        let_on.set()
        await until(lambda: commands(runner).count("delete") == 2)
        assert pool.stats().ready == 0


async def test_a_test_that_fails(client: Runc) -> None:
    """A container that doesn't pass the test is deleted, and the take fails with the test's error."""

    async def test(container: Container) -> None:
        raise ZeroDivisionError(container.id)

    async with Pool(client, BUNDLE, size=1, state="running", ready=test) as pool:
        with pytest.raises(ZeroDivisionError):
            async with pool.take():
                pass


async def test_the_background_has_a_context_of_its_own(client: Runc) -> None:
    """A container that is made because a caller took one doesn't see the caller's context variables."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def bundle() -> AsyncGenerator[str]:
        seen.append(request.get())
        yield BUNDLE

    async with Pool(client, bundle, size=1) as pool:
        request.set("one")
        async with pool.take():
            pass
        await until(lambda: len(seen) > 1)
    assert set(seen) == {"none"}
