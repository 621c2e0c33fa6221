"""The peer that is runc_async itself."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import time
from pathlib import Path

import anyio

from bench.peers.chunks import Chunks
from bench.peers.serve import Operation, numbers, serve
from runc_async import Bundle, NullIO, PipedIO, Runc, spec, subreaper

NAMES = numbers(f"ours{os.getpid()}-")


def start(program: str) -> Operation:
    """Call any program that ends with 0."""
    runc = Runc(program)
    return lambda: runc.start("none")


def state(root: str, container_id: str) -> Operation:
    """Ask for the state of a container."""
    runc = Runc(root=root)

    async def once() -> None:
        await runc.state(container_id)

    return once


def list_(root: str) -> Operation:
    """Ask for all containers."""
    runc = Runc(root=root)

    async def once() -> None:
        await runc.list()

    return once


def execute(root: str, container_id: str) -> Operation:
    """Run a process in a container."""
    runc = Runc(root=root)
    process = spec.Process(args=["/bin/true"], env=["PATH=/bin"], cwd="/")

    async def once() -> None:
        await runc.exec(container_id, process, io=NullIO(), check=True)

    return once


def output(root: str, container_id: str) -> Operation:
    """Run a process in a container, and take its output."""
    runc = Runc(root=root)

    async def once() -> None:
        await runc.exec(container_id, ["/bin/true"], check=True)

    return once


def foreground(root: str, bundle: str) -> Operation:
    """Run a container, and take its output."""
    runc = Runc(root=root)

    async def once() -> None:
        await runc.run(next(NAMES), bundle, check=True)

    return once


def submission(root: str, rootfs: str) -> Operation:
    """Do a judge's work for one submission: a bundle of its own, a run, its output and its usage, and no trace."""
    runc = Runc(root=root)
    config = program(rootfs)

    async def once() -> None:
        async with Bundle.temporary(rootfs=Path(rootfs), spec=config) as bundle:
            response = await runc.run(next(NAMES), bundle, usage=True)
            assert response.stdout == b"hello\n"

    return once


def program(rootfs: str) -> spec.Spec:
    """Configure a submission."""
    own = spec.Spec.default().set_args("echo", "hello").set_terminal(enabled=False)
    return own.set_root(rootfs, readonly=True).limit_memory(64 << 20).limit_pids(16)


def bundle(rootfs: str) -> Operation:
    """Make and remove a bundle with a root filesystem that all share."""
    config = program(rootfs)

    async def once() -> None:
        async with Bundle.temporary(rootfs=Path(rootfs), spec=config):
            pass

    return once


def document(path: str) -> Operation:
    """Decode a configuration, change it, and encode it."""
    data = Path(path).read_bytes()

    async def once() -> None:
        spec.Spec.decode(data).set_args("true").encode()

    return once


def cycle(root: str, bundle: str) -> Operation:
    """Create, start, wait for and delete a container."""
    runc = Runc(root=root)

    async def once() -> None:
        async with runc.open_container(next(NAMES), bundle) as container:
            await container.wait()

    return once


def events(command: str, count: str) -> Operation:
    """Take so many events from a program that prints them and goes on."""
    runc = Runc(command)

    async def once() -> None:
        left = int(count)
        async with runc.events("none") as stream:
            async for _ in stream:
                left -= 1
                if not left:
                    break

    return once


def decode(path: str) -> Operation:
    """Read an event stream that comes from memory to its end."""
    runc = Runc(runner=Chunks(path))

    async def once() -> None:
        async with runc.events("none") as stream:
            async for _ in stream:
                pass

    return once


def transfer(root: str, bundle: str) -> Operation:
    """Read all that a container writes; only the reading counts."""
    runc = Runc(root=root)

    async def once() -> float:
        async with runc.open_container(next(NAMES), bundle, io=PipedIO()) as container:
            assert container.stdout is not None
            begin = time.perf_counter()
            while True:
                try:
                    await container.stdout.receive()
                except anyio.EndOfStream:
                    return time.perf_counter() - begin

    return once


def limited(root: str, container_id: str, limit: str) -> Operation:
    """Ask for the state of a container, with another limit of concurrency than the client's own; 0 for none."""
    runc = Runc(root=root, max_concurrency=int(limit) or None)

    async def once() -> None:
        await runc.state(container_id)

    return once


if __name__ == "__main__":
    # As its parent we hear of a container's end at once; process 1 of a machine like those for tests takes seconds.
    factory = None if sys.argv[1:] != ["uvloop"] else importlib.import_module("uvloop").new_event_loop
    with subreaper(), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(
            serve(
                {
                    "start": start,
                    "state": state,
                    "list": list_,
                    "exec": execute,
                    "output": output,
                    "foreground": foreground,
                    "submission": submission,
                    "bundle": bundle,
                    "document": document,
                    "cycle": cycle,
                    "events": events,
                    "decode": decode,
                    "bytes": transfer,
                    "limited": limited,
                }
            )
        )
