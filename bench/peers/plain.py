"""The peers without a library: asyncio alone, `subprocess.run`, and decoders of JSON on lines that are cut already."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import subprocess
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import anyio
import msgspec

from bench.peers.serve import Operation, numbers, serve
from runc_async import OOMEvent, StatsEvent
from runc_async.spec import Spec

MEMORY = "/dev/shm"  # noqa: S108 - what is made there is private, as on our side
POOL = ThreadPoolExecutor(64)
NAMES = numbers(f"plain{os.getpid()}-")


def spawn(*argv: str) -> Operation:
    """Call a program with asyncio alone."""

    async def once() -> None:
        process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
        await process.communicate()
        assert process.returncode == 0

    return once


def alone(*argv: str) -> Operation:
    """Start a program without a pipe, and wait for its end: what no way around asyncio's spawning is without."""
    return lambda: call_alone(*argv)


async def call_alone(*argv: str) -> None:
    """Start a program without a pipe, and wait for its end."""
    process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)
    assert await process.wait() == 0


async def call_with_output(*argv: str) -> bytes:
    """Start a program, and return what it has written to stdout."""
    process = await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output


def state(root: str, container_id: str) -> Operation:
    """Ask for the state of a container."""

    async def once() -> None:
        json.loads(await call_with_output("runc", "--root", root, "state", container_id))

    return once


def cycle(root: str, bundle: str) -> Operation:
    """Create, start, wait for and delete a container."""
    runc = ("runc", "--root", root)

    async def once() -> None:
        container_id = next(NAMES)
        pid_file = f"{bundle}/{container_id}"
        await call_alone(*runc, "create", "--bundle", bundle, "--pid-file", pid_file, container_id)
        with open(pid_file) as file:
            pidfd = os.pidfd_open(int(file.read()))
        os.remove(pid_file)
        await call_alone(*runc, "start", container_id)
        await anyio.wait_readable(pidfd)
        os.close(pidfd)
        await call_alone(*runc, "delete", container_id)

    return once


def foreground(root: str, bundle: str) -> Operation:
    """Run a container, and take its output."""

    async def once() -> None:
        await call_with_output("runc", "--root", root, "run", "--bundle", bundle, next(NAMES))

    return once


def submission(root: str, rootfs: str) -> Operation:
    """Do a judge's work for one submission: a directory, a container, its output and its figures, and no trace."""
    config, runc = program(rootfs), ("runc", "--root", root)

    async def once() -> None:
        with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
            container_id, pid_file = next(NAMES), f"{directory}/pid"
            with open(f"{directory}/config.json", "w") as file:
                json.dump(config, file)
            ours, theirs = os.pipe()
            create = (*runc, "create", "--bundle", directory, "--pid-file", pid_file, container_id)
            process = await asyncio.create_subprocess_exec(*create, stdin=DEVNULL, stdout=theirs, stderr=DEVNULL)
            assert await process.wait() == 0
            os.close(theirs)
            with open(pid_file) as file:
                pid = int(file.read())
            pidfd, cgroups = os.pidfd_open(pid), cgroups_of(pid)
            await call_alone(*runc, "start", container_id)
            await anyio.wait_readable(pidfd)
            assert os.read(ours, 1 << 16) == b"hello\n"
            figures = [
                read(f"{cgroups['memory']}/memory.max_usage_in_bytes"),
                read(f"{cgroups['cpuacct']}/cpuacct.usage"),
            ]
            assert all(figure.strip().isdigit() for figure in figures)
            os.close(ours)
            os.close(pidfd)
            await call_alone(*runc, "delete", container_id)

    return once


def cgroups_of(pid: int) -> dict[str, str]:
    """Return the directory of a process's cgroup for each controller of cgroup v1."""
    found: dict[str, str] = {}
    for line in read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = f"/sys/fs/cgroup/{controllers}{path}"
    return found


def read(path: str) -> str:
    """Read a small file."""
    with open(path) as file:
        return file.read()


def program(rootfs: str) -> dict[str, object]:
    """Configure a submission."""
    own = Spec.default().set_args("echo", "hello").set_terminal(enabled=False)
    return own.set_root(rootfs, readonly=True).limit_memory(64 << 20).limit_pids(16).to_builtins()


def bundle(rootfs: str) -> Operation:
    """Make and remove a directory with a configuration."""
    config = program(rootfs)

    async def once() -> None:
        with tempfile.TemporaryDirectory(dir=MEMORY) as directory, open(f"{directory}/config.json", "w") as file:
            json.dump(config, file)

    return once


def document(path: str) -> Operation:
    """Decode a configuration, change it, and encode it, with msgspec and the same structs."""
    with open(path, "rb") as file:
        data = file.read()
    decoder, encoder = msgspec.json.Decoder(Spec), msgspec.json.Encoder()

    async def once() -> None:
        found = decoder.decode(data)
        assert found.process is not None
        found.process.args = ["true"]
        encoder.encode(found)

    return once


def run(*argv: str) -> Operation:
    """Call a program with `subprocess.run`."""

    async def once() -> None:
        call(argv)

    return once


def threads(*argv: str) -> Operation:
    """Call a program with `subprocess.run` in a thread, of which there are as many as calls at once."""
    loop = asyncio.get_running_loop()

    async def once() -> None:
        await loop.run_in_executor(POOL, call, argv)

    return once


def call(argv: Sequence[str]) -> None:
    """Call a program and read its output."""
    subprocess.run(argv, stdin=DEVNULL, capture_output=True, check=True)


def lines(decoder: Callable[[bytes], object], path: str) -> Operation:
    """Decode the lines of a file, which is read and cut before."""
    with open(path, "rb") as file:
        cut = file.read().splitlines()

    async def once() -> None:
        for line in cut:
            decoder(line)

    return once


def transfer(root: str, bundle: str) -> Operation:
    """Read all that a container writes, by a bare loop; only the reading counts."""
    numbers = itertools.count()

    async def once() -> float:
        return read_all()

    def read_all() -> float:
        container_id = f"plain{os.getpid()}-{next(numbers)}"
        ours, theirs = os.pipe()
        runc = ("runc", "--root", root)
        subprocess.run([*runc, "create", "--bundle", bundle, container_id], stdin=DEVNULL, stdout=theirs, check=True)
        os.close(theirs)
        subprocess.run([*runc, "start", container_id], check=True)
        begin = time.perf_counter()
        while os.read(ours, 1 << 16):
            pass
        elapsed = time.perf_counter() - begin
        os.close(ours)
        subprocess.run([*runc, "delete", "--force", container_id], check=True)
        return elapsed

    return once


if __name__ == "__main__":
    asyncio.run(
        serve(
            {
                "alone": alone,
                "spawn": spawn,
                "state": state,
                "cycle": cycle,
                "foreground": foreground,
                "submission": submission,
                "bundle": bundle,
                "document": document,
                "run": run,
                "threads": threads,
                "json": functools.partial(lines, json.loads),
                "msgspec": functools.partial(lines, msgspec.json.Decoder(StatsEvent | OOMEvent).decode),
                "bytes": transfer,
            }
        )
    )
