"""Turns for spawning: one at a time in an event loop, and none held up for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest

from runc_async._process import spawn_turn as module
from runc_async._process.child import Child
from runc_async._process.spawn_turn import spawn_turn


async def test_one_spawn_is_under_way_at_a_time() -> None:
    """Spawns that are asked for together begin one after the other, in order, and each has its own end."""
    under_way: list[int] = []
    most: list[int] = []
    order: list[int] = []

    async def spawn(number: int) -> None:
        async with spawn_turn():
            under_way.append(number)
            most.append(len(under_way))
            order.append(number)
            await asyncio.sleep(0)
            under_way.remove(number)

    await asyncio.gather(*map(spawn, range(20)))
    assert (max(most), order) == (1, list(range(20)))


async def test_other_tasks_run_between_two_spawns() -> None:
    """The event loop gets its turn between any two of many processes that are started together."""
    iterations = 0

    async def count() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    children = [Child() for _ in range(10)]
    seen: list[int] = []

    async def start(child: Child) -> None:
        await child.start(["/bin/true"])
        seen.append(iterations)

    await asyncio.gather(*map(start, children))
    counting.cancel()
    assert len(set(seen)) == len(seen)
    for child in children:
        assert await child.wait() == 0


async def test_a_spawn_that_hangs_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has waited for long enough spawns without a turn, and takes nobody else's."""
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    async with spawn_turn():
        for _ in range(2):
            async with spawn_turn():
                pass
        assert module._turn(asyncio.get_running_loop()).locked()  # pyright: ignore[reportPrivateUsage]
    assert not module._turn(asyncio.get_running_loop()).locked()  # pyright: ignore[reportPrivateUsage]


async def test_a_cancelled_wait_leaves_the_turn_alone() -> None:
    """A task that is cancelled while it waits for its turn has none, and the next one gets it."""
    waits = asyncio.Event()

    async def wait() -> None:
        waits.set()
        async with spawn_turn():
            raise AssertionError("it has been cancelled")

    async with spawn_turn():
        waiting = asyncio.create_task(wait())
        await waits.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
    assert waiting.cancelled()
    async with asyncio.timeout(1), spawn_turn():
        pass


def test_event_loops_have_turns_of_their_own() -> None:
    """Two threads with an event loop each don't wait for each other, and closed loops are forgotten."""
    both = threading.Barrier(2, timeout=10)

    async def spawn() -> None:
        async with spawn_turn():
            both.wait()

    threads = [threading.Thread(target=asyncio.run, args=(spawn(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def look() -> int:
        async with spawn_turn():
            return len(module._turns)  # pyright: ignore[reportPrivateUsage]

    assert asyncio.run(look()) == 1
