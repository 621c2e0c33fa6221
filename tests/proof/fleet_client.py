"""A client of a fleet, as a process of its own: `test_fleet` starts it, and reads what it prints as JSON.

It prints "ready", waits for a line, and begins. Each run has a token of its own as its input, which the program appends
to a file that all nodes share, and prints: so a run that has begun twice shows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from distributed import Client

from runc_async import Bundle, Runc, spec
from runc_async.dask import Fleet, NodeLost, Recipe
from runc_async.rootfs import Busybox

PROGRAM = "read token; echo $token >> /shared/tokens; sleep {seconds}; echo $token"


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def document(shared: str, seconds: float) -> spec.Spec:
    """Return the configuration of the program."""
    config = spec.Spec.default().set_args("sh", "-c", PROGRAM.format(seconds=seconds)).set_terminal(enabled=False)
    config.limit_memory("64M").bind(shared, "/shared")
    return config


async def direct(options: argparse.Namespace, token: str) -> str:
    """Run the program here, without Dask; return what it prints."""
    config = document(options.shared, options.seconds)
    async with Bundle.temporary(rootfs=Busybox(), spec=config) as bundle:
        runc = Runc(options.runtime, root=options.root)
        return (await runc.run(token, bundle, input=f"{token}\n".encode())).output.strip()


async def crowd(options: argparse.Namespace, work: Any) -> None:
    """Do all runs, so many at once."""
    numbers = iter(range(options.runs))

    async def worker() -> None:
        for number in numbers:
            await work(f"{options.name}-{number}")

    await asyncio.gather(*(worker() for _ in range(options.at_once)))


async def load(options: argparse.Namespace, fleet: Fleet | None) -> dict[str, Any]:
    """Do all runs, on the fleet or here; return how long they took, and how many each node had."""
    nodes: Counter[str] = Counter()
    wrong: list[str] = []
    recipe = Recipe(spec=document(options.shared, options.seconds), rootfs="busybox")

    async def work(token: str) -> None:
        if fleet is None:
            node, said = "here", await direct(options, token)
        else:
            response = await fleet.run(recipe, input=f"{token}\n".encode())
            node, said = response.node, response.output.strip()
        nodes[node] += 1
        if said != token:
            wrong.append(token)

    begin = time.monotonic()
    await crowd(options, work)
    return {"seconds": time.monotonic() - begin, "nodes": nodes, "wrong": wrong}


async def paired(options: argparse.Namespace, fleet: Fleet) -> dict[str, Any]:
    """Do one run at a time, by turns on the fleet and here; return the medians, and that of the differences."""
    recipe = Recipe(spec=document(options.shared, options.seconds), rootfs="busybox")
    seconds: dict[str, list[float]] = {"fleet": [], "here": []}
    for number in range(options.runs):
        for way in ("fleet", "here"):
            token = f"{options.name}-{way}-{number}"
            begin = time.perf_counter()
            if way == "fleet":
                await fleet.run(recipe, input=f"{token}\n".encode())
            else:
                await direct(options, token)
            seconds[way].append(time.perf_counter() - begin)
    differences = [there - here for there, here in zip(seconds["fleet"], seconds["here"], strict=True)]
    return {way: statistics.median(each) for way, each in seconds.items()} | {
        "difference": statistics.median(differences)
    }


async def faults(options: argparse.Namespace, fleet: Fleet) -> None:
    """Do runs until stdin ends, cancel one for each line, and print how each has ended."""
    dice = random.Random(options.name)  # noqa: S311 - it is to be repeated
    recipe = Recipe(spec=document(options.shared, options.seconds), rootfs="busybox")
    numbers = itertools.count()
    running: set[asyncio.Task[str]] = set()
    stopped = asyncio.Event()

    async def obey() -> None:
        while await asyncio.to_thread(sys.stdin.readline):
            if running:
                dice.choice(list(running)).cancel()
        stopped.set()

    async def one(token: str) -> str:
        try:
            response = await fleet.run(recipe, input=f"{token}\n".encode(), retries=options.retries)
        except asyncio.CancelledError:
            return "cancelled"
        except NodeLost:
            return "lost"
        except Exception as exc:  # noqa: BLE001 - the test judges it
            return f"error: {exc!r}"
        return "right" if response.output.strip() == token else f"wrong: {response!r}"

    async def worker() -> None:
        while not stopped.is_set():
            token = f"{options.name}-{next(numbers)}"
            say(json.dumps([token, "began"]))
            task = asyncio.create_task(one(token))
            running.add(task)
            say(json.dumps([token, await task]))
            running.discard(task)

    await asyncio.gather(obey(), *(worker() for _ in range(options.at_once)))


async def main(options: argparse.Namespace) -> None:
    """Connect, wait for the start, and work."""
    async with contextlib.AsyncExitStack() as stack:
        fleet: Any = None
        if options.mode != "here":
            connect: Any = Client  # Dask's constructor has no annotations
            client = await stack.enter_async_context(
                connect(json.loads(options.scheduler.read_text())["address"], asynchronous=True)
            )
            settings = {"capacity": options.capacity, "lease": options.lease, "patience": options.patience}
            fleet = await stack.enter_async_context(Fleet(client, **settings))
        say("ready")
        await asyncio.to_thread(sys.stdin.readline)
        if options.mode == "faults":
            await faults(options, fleet)
        else:
            say(json.dumps(await (paired if options.mode == "paired" else load)(options, fleet)))


parser = argparse.ArgumentParser()
parser.add_argument("mode", choices=["load", "here", "paired", "faults"])
parser.add_argument("name")
parser.add_argument("--scheduler", type=Path)
parser.add_argument("--shared", required=True)
parser.add_argument("--root", required=True)
parser.add_argument("--runtime", default="runc")
parser.add_argument("--runs", type=int, default=0)
parser.add_argument("--at-once", type=int, default=1)
parser.add_argument("--seconds", type=float, default=0.0)
parser.add_argument("--capacity", type=int, default=8)
parser.add_argument("--lease", type=float, default=30.0)
parser.add_argument("--patience", type=float, default=10.0)
parser.add_argument("--retries", type=int, default=0)
if __name__ == "__main__":
    asyncio.run(main(parser.parse_args()))
