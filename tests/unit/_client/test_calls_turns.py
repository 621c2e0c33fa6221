"""How many commands run at once, in one event loop and in several."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import TYPE_CHECKING

import pytest
from calls import BUNDLE, commands, invoked

from runc_async import (
    Completed,
    Runc,
    RuncTimeout,
)
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from runc_async import Invocation, Process


# --- turns


class CountingRunner:
    """A runner whose runs last until they are released, and which counts those that are under way."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.order: list[str | None] = []

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Last for some turns of the loop."""
        del started
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(invocation.container_id)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            self.running -= 1
        return Completed(pid=1, returncode=0)

    async def open(self, invocation: Invocation) -> Process:
        """Open nothing."""
        raise NotImplementedError(invocation)


@pytest.mark.any_loop
@pytest.mark.parametrize(("limit", "most"), [(1, 1), (3, 3), (None, 20)])
async def test_never_more_at_once(limit: int | None, most: int) -> None:
    """Never more request/response commands than asked for run at once, and they come in the order of the calls."""
    runner = CountingRunner()
    client = Runc(runner=runner, max_concurrency=limit)
    await asyncio.gather(*(client.start(f"c{number}") for number in range(20)))
    assert runner.most == most
    assert runner.order == [f"c{number}" for number in range(20)]


async def test_foreground_commands_take_no_turn() -> None:
    """A container that runs for long keeps no place from short commands."""
    runner = FakeRunner()
    runner.reply("run", hang=True)
    client = Runc(runner=runner, max_concurrency=1)
    running = asyncio.create_task(client.run("web", BUNDLE))
    await invoked(runner, "run")
    await client.start("web")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancelled_call_gives_its_place_up() -> None:
    """A call that is cancelled, waiting or running, leaves its place to the next."""
    runner = FakeRunner()
    runner.reply("pause", hang=True)
    client = Runc(runner=runner, max_concurrency=1)
    first, second = (asyncio.create_task(client.pause("web")) for _ in range(2))
    await invoked(runner, "pause")
    second.cancel()
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    await client.start("web")
    assert commands(runner) == ["pause", "start"]


async def test_waiting_for_a_turn_takes_no_time() -> None:
    """The time that a call waits for its turn doesn't count for its timeout."""
    runner = FakeRunner()
    runner.reply("pause", hang=True)
    client = Runc(runner=runner, max_concurrency=1)
    first = asyncio.create_task(client.pause("web", timeout=1.0))
    await invoked(runner, "pause")
    await client.start("web", timeout=0.5)
    with pytest.raises(RuncTimeout):
        await first


def test_several_event_loops() -> None:
    """One client serves event loops in several threads at once, each with turns of its own."""
    runner = CountingRunner()
    client = Runc(runner=runner, max_concurrency=2)
    failures: list[BaseException] = []

    async def main() -> None:
        await asyncio.gather(*(client.start("web") for _ in range(50)))

    def work() -> None:
        try:
            asyncio.run(main())
        except BaseException as exc:  # noqa: BLE001 - looked at below
            failures.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(runner.order) == 200
    assert runner.most <= 8


def test_event_loops_are_not_kept() -> None:
    """A client that is used in one event loop after the other keeps none that is closed."""
    client = Runc(runner=CountingRunner(), max_concurrency=1)

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        await asyncio.gather(client.start("web"), client.start("web"))
        return weakref.ref(asyncio.get_running_loop())

    first = asyncio.run(main())
    asyncio.run(main())
    gc.collect()
    assert first() is None
