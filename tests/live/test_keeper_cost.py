"""What a keeper costs: memory and descriptors for each container, and time for a start."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import keepers
import pytest
from waiting import until

from runc_async import Keeper, PipedIO, Runc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from containers import MakeBundle
    from proof import Tried

pytestmark = pytest.mark.runc

NUMBER = int(os.environ.get("KEEPER_CONTAINERS", "20"))
"""Containers in one keeper: 200 for the whole proof."""

PAIRS = int(os.environ.get("KEEPER_PAIRS", "12"))
"""Starts that are compared: 150 for the whole proof, whose bar is 1.15; fewer on a busy machine have a wider one."""

STARTS = int(os.environ.get("KEEPER_STARTS", "16"))
"""Containers that start and end in one keeper: 10,000 for the whole proof."""

PARTS = 4
TASKS = 4


@pytest.fixture
async def keeper(scratch: Path) -> AsyncIterator[Keeper]:
    """Return a client of a keeper, which is ended with the test."""
    place = scratch / f"k{os.urandom(3).hex()}"
    async with Keeper.connect(place, start=True, timeout=60) as keeper:
        yield keeper
    await keepers.end(place)
    keepers.remove(place)


@pytest.mark.timeout(900)
@pytest.mark.needs("bare usage")
async def test_many_containers(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Memory and descriptors of the keeper grow by a little for each container, and the descriptors go back to none."""
    bundle = make_bundle(["sleep", "600"])
    names = [container_id() for _ in range(NUMBER)]
    before = len(keepers.open_descriptors(keeper.pid))
    for at in range(0, NUMBER, 8):
        await asyncio.gather(*(keeper.start(client, name, bundle, io=PipedIO()) for name in names[at : at + 8]))
    kept, memory = len(await keeper.list()), keepers.memory(keeper.pid)
    held = len(keepers.open_descriptors(keeper.pid)) - before
    for at in range(0, NUMBER, 8):
        await asyncio.gather(*(keeper.delete(name, force=True) for name in names[at : at + 8]))
    print(f"{kept} containers: {memory:.1f} MiB, {held} descriptors")  # noqa: T201 - a figure
    assert (kept, await keeper.list()) == (NUMBER, [])
    assert memory <= 40
    assert held <= 4 * NUMBER + 8
    await until(lambda: len(keepers.open_descriptors(keeper.pid)) <= before + 2)


@pytest.mark.timeout(900)
async def test_a_start_through_the_keeper(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """`start` and `attach` take hardly longer than `open_container`, measured in turns."""
    bundle = make_bundle(["sleep", "600"])
    ratios: list[float] = []
    for _ in range(PAIRS):
        begun = time.perf_counter()
        async with client.open_container(container_id(), bundle, io=PipedIO(), grace=0):
            without = time.perf_counter() - begun
        name = container_id()
        begun = time.perf_counter()
        await keeper.start(client, name, bundle, io=PipedIO())
        async with keeper.attach(name):
            ratios.append((time.perf_counter() - begun) / without)
        await keeper.delete(name, force=True)
    ratio = statistics.median(ratios)
    print(f"{PAIRS} pairs: {ratio:.3f} times as long")  # noqa: T201 - a figure
    assert ratio <= (1.15 if PAIRS >= 150 else 2)


@pytest.mark.timeout(3600 if STARTS > 1000 else 60)
async def test_many_starts_and_ends(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], tried: Tried
) -> None:
    """However many containers have started and ended, the keeper has no more descriptors than after the first ones."""
    bundle = make_bundle(["true"])
    counts: list[int] = []

    async def some(number: int) -> None:
        for _ in range(number):
            name = container_id()
            await keeper.start(client, name, bundle, io=PipedIO())
            assert (await keeper.wait(name)).code == 0
            await keeper.delete(name)

    for _ in range(PARTS):
        await asyncio.gather(*(some(STARTS // PARTS // TASKS) for _ in range(TASKS)))
        await until(lambda: not counts or len(keepers.open_descriptors(keeper.pid)) <= counts[0])
        counts.append(len(keepers.open_descriptors(keeper.pid)))
        print(f"{STARTS // PARTS} more: {counts[-1]} descriptors, {keepers.memory(keeper.pid):.1f} MiB", flush=True)  # noqa: T201 - figures
    tried("starts and ends in a keeper", STARTS // PARTS // TASKS * TASKS * PARTS)
