"""`python -m bench.scale`: many handles and many waiting calls: memory, and how late the event loop is meanwhile.

A task sleeps for a millisecond, over and over, and notes how much later than that it goes on. A machine whose cores are
all busy is late by itself, so the same is measured beside a loop that only waits for as many processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.peers.footprint import resident
from bench.report import machine, plots
from bench.stage import stage
from runc_async import Runc, subreaper

TICK: Final = 0.001
"""Seconds that the task sleeps."""

AT_ONCE: Final = 16
"""Calls that run at once, the others wait."""


class Found(NamedTuple):
    """What was measured.

    Attributes:
        memory: Bytes of this process for each thing held.
        late: How late the loop was, in seconds, for each tick.
        wall: Seconds in all.
    """

    memory: float
    late: Sequence[float]
    wall: float


@contextlib.asynccontextmanager
async def ticking() -> AsyncGenerator[list[float]]:
    """Note how late the loop is while the block runs."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            late.append(time.perf_counter() - due)

    task = asyncio.create_task(tick())
    try:
        yield late
    finally:
        task.cancel()
        await asyncio.wait([task])


async def handles(root: str, bundle: str, count: int) -> Found:
    """Open so many containers, and hold them."""
    runc = Runc(root=root)
    begun, before = time.perf_counter(), resident()
    async with contextlib.AsyncExitStack() as stack, ticking() as late:
        for number in range(count):
            await stack.enter_async_context(runc.open_container(f"scale-{number}", bundle, grace=0))
        held = resident()
    return Found((held - before) / count, late, time.perf_counter() - begun)


async def waiting(call: Callable[[], Awaitable[object]], count: int) -> Found:
    """Make so many calls at once."""
    begun, before = time.perf_counter(), resident()
    async with ticking() as late:
        tasks = [asyncio.create_task(_called(call)) for _ in range(count)]
        await asyncio.sleep(0)
        held = resident()
        late.clear()  # to begin them all, and to ask for the memory, is one step of the loop
        await asyncio.wait(tasks)
    return Found((held - before) / count, late, time.perf_counter() - begun)


async def _called(call: Callable[[], Awaitable[object]]) -> None:
    await call()


def by_hand(root: str, name: str, limit: int) -> Callable[[], Awaitable[object]]:
    """Return a call of `state` with asyncio alone, of which only some run at once."""
    turns = asyncio.Semaphore(limit)

    async def call() -> None:
        async with turns:
            process = await asyncio.create_subprocess_exec(
                "runc", "--root", root, "state", name, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
            )
            await process.wait()

    return call


async def measure(root: str, name: str, bundle: str, held: int, calls: int) -> dict[str, Found]:
    """Measure handles of containers from a bundle, and calls for one container."""
    runc = Runc(root=root, max_concurrency=AT_ONCE)
    await runc.state(name)
    return {
        f"{held} handles of `open_container`": await handles(root, bundle, held),
        f"{calls} calls of `state`": await waiting(lambda: runc.state(name), calls),
        f"{calls} times the same by hand": await waiting(by_hand(root, name, AT_ONCE), calls),
    }


def draw(found: dict[str, Found], path: Path) -> None:
    """Draw how often the loop was how late."""
    plt = plots()
    picture, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for name, measured in found.items():
        share = [1 - number / len(measured.late) for number in range(len(measured.late))]
        axes.plot([1e3 * seconds for seconds in sorted(measured.late)], share, label=name.replace("`", ""))
    axes.set(xscale="log", yscale="log", xlabel="the loop is later than this, ms", ylabel="share of the ticks")
    axes.legend()
    picture.savefig(path, dpi=80)
    plt.close(picture)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--handles", type=int, default=1000, help="containers held at once")
    parser.add_argument("--calls", type=int, default=10_000, help="calls at once")
    parser.add_argument("--plot", type=Path, help="draw how late the loop was; needs matplotlib")
    options = parser.parse_args()
    with stage() as made, subreaper():
        (name,) = made.containers(1)
        found = asyncio.run(measure(str(made.root), name, made.sleeper, options.handles, options.calls))
    print(
        f"{machine()}\n\n| | memory for each | loop late: median | 1 of 100 | worst | wall |\n|---|---|---|---|---|---|"
    )
    for name, (memory, late, wall) in found.items():
        middle, worst = statistics.median(late), max(late)
        hundredth = statistics.quantiles(late, n=100)[-1]
        times = " | ".join(f"{1e3 * seconds:.1f} ms" for seconds in (middle, hundredth, worst))
        print(f"| {name} | {memory / 1024:.1f} KiB | {times} | {wall:.0f} s |")
    if options.plot:
        draw(found, options.plot)


if __name__ == "__main__":
    main()
