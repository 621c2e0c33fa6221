"""`python -m bench.warm`: the first byte of output, from cold and from warm containers, beside the bare runtime.

Each figure is a median. All ways are measured in turn in each round, so the load of the machine is the same for all; a
ratio is the median of the ratios of one round's pairs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shlex
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import anyio

from bench.report import machine
from runc_async import Bundle, PipedIO, Pool, Runc

HYBRID = "/sys/fs/cgroup/unified"
# crun refuses the hybrid layout of cgroups; without its second hierarchy the layout is plain v1.
WITHOUT_HYBRID = """#!/bin/sh
exec unshare -m sh -c 'umount {hybrid}; exec "$0" "$@"' {command} "$@"
"""

SANDBOX: Final = ("--network=none", "--ignore-cgroups")
"""Options of runsc, which takes a network for these containers otherwise, and has trouble with the hybrid layout."""

PRINT: Final = ("echo", "x")
WAIT: Final = ("sleep", "1000")
COPY: Final = ("cat",)

Timed: TypeAlias = Callable[[], Awaitable[float]]


class Bare:
    """The runtime, called by hand with plain asyncio."""

    def __init__(self, runtime: Sequence[str], root: str, bundles: Mapping[Sequence[str], str]) -> None:
        self._argv = (*runtime, "--root", root)
        self._bundles = bundles
        self._ids = (f"bare{os.getpid()}-{number}" for number in itertools.count())

    async def run(self, *words: str, stdin: int | None = None, stdout: int | None = None) -> None:
        """Run a command to its end."""
        null = subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *self._argv,
            *words,
            stdin=null if stdin is None else stdin,
            stdout=null if stdout is None else stdout,
            stderr=null,
        )
        await process.wait()

    @contextlib.asynccontextmanager
    async def container(self, args: Sequence[str], *commands: str) -> AsyncGenerator[tuple[str, int, int]]:
        """Have a container; give its id, and our ends of its stdin and stdout."""
        name = next(self._ids)
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        try:
            await self.run("create", "--bundle", self._bundles[args], name, stdin=theirs_in, stdout=theirs_out)
            os.close(theirs_out)
            for command in commands:
                await self.run(command, name)
            yield name, ours_in, ours_out
        finally:
            await self.run("delete", "--force", name)
            for fd in (theirs_in, ours_in, ours_out):
                os.close(fd)

    async def cold(self) -> float:
        """Create and start a container."""
        name = next(self._ids)
        reading, writing = os.pipe()
        begun = time.perf_counter()
        await self.run("create", "--bundle", self._bundles[PRINT], name, stdout=writing)
        os.close(writing)
        await self.run("start", name)
        await first_byte(reading)
        passed = time.perf_counter() - begun
        os.close(reading)
        await self.run("delete", "--force", name)
        return passed

    async def created(self) -> float:
        """Start a container that is there."""
        async with self.container(PRINT) as (name, _, stdout):
            begun = time.perf_counter()
            await self.run("start", name)
            await first_byte(stdout)
            return time.perf_counter() - begun

    async def running(self, *, pause: bool = False) -> float:
        """Run a program in a container that runs."""
        async with self.container(WAIT, *(("start", "pause") if pause else ("start",))) as (name, _, _):
            reading, writing = os.pipe()
            begun = time.perf_counter()
            if pause:
                await self.run("resume", name)
            executing = asyncio.create_task(self.run("exec", name, *PRINT, stdout=writing))
            await first_byte(reading)
            passed = time.perf_counter() - begun
            await executing
            os.close(reading)
            os.close(writing)
        return passed

    async def alone(self) -> float:
        """Do the same: a runtime by itself ends no more than the first process of an `exec`."""
        return await self.running()

    async def paused(self) -> float:
        """Resume a container, and run a program in it."""
        return await self.running(pause=True)

    async def written(self) -> float:
        """Write to a program that runs."""
        async with self.container(COPY, "start") as (_, stdin, stdout):
            os.write(stdin, b"x")
            await first_byte(stdout)
            begun = time.perf_counter()
            os.write(stdin, b"x")
            await first_byte(stdout)
            return time.perf_counter() - begun


class Ours:
    """The same with runc_async."""

    def __init__(self, runc: Runc, root: Path, bundles: Mapping[Sequence[str], str]) -> None:
        self._runc = runc
        self._root = root
        self._bundles = bundles
        self._ids = (f"ours{os.getpid()}-{number}" for number in itertools.count())
        self._pools: dict[str, Pool] = {}

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncGenerator[None]:
        """Have a pool of one for each way."""
        pipes = PipedIO(stderr=False)
        async with contextlib.AsyncExitStack() as stack:
            for way, pool in {
                "created": Pool(self._runc, self._bundles[PRINT], size=1, io=pipes, grace=0),
                "running": Pool(self._runc, self._bundles[WAIT], size=1, state="running", grace=0),
                "paused": Pool(self._runc, self._bundles[WAIT], size=1, state="paused", grace=0),
                "written": Pool(
                    self._runc, self._bundles[COPY], size=1, state="running", io=pipes, ready=echo, grace=0
                ),
            }.items():
                self._pools[way] = await stack.enter_async_context(pool)
            yield

    async def settled(self) -> None:
        """Wait until all pools are full, and all that was used is deleted."""
        for pool in self._pools.values():
            await pool.filled()
        while self._waiting() > len(self._pools):  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def _waiting(self) -> int:
        """Count the containers of the pools; runsc has several files for each in one directory."""
        names = (name.removeprefix("runsc-").partition("_sandbox:")[0] for name in os.listdir(self._root))
        return len({name.removesuffix(".sock") for name in names if name.startswith("pool")})

    async def cold(self) -> float:
        """Open a container."""
        begun = time.perf_counter()
        opening = self._runc.open_container(
            next(self._ids), self._bundles[PRINT], io=PipedIO(stdin=False, stderr=False), grace=0
        )
        async with opening as container:
            assert container.stdout is not None
            await container.stdout.receive(1)
            return time.perf_counter() - begun

    async def created(self) -> float:
        """Take a container that was created."""
        await self.settled()
        begun = time.perf_counter()
        async with self._pools["created"].take() as container:
            assert container.stdout is not None
            await container.stdout.receive(1)
            return time.perf_counter() - begun

    async def running(self, way: str = "running", *, kill_tree: bool = True) -> float:
        """Take a container that runs, and run a program in it."""
        await self.settled()
        begun = time.perf_counter()
        async with (
            self._pools[way].take() as container,
            container.open_exec(PRINT, io=PipedIO(stdin=False, stderr=False), grace=0, kill_tree=kill_tree) as process,
        ):
            assert process.stdout is not None
            await process.stdout.receive(1)
            return time.perf_counter() - begun

    async def alone(self) -> float:
        """Do the same with `kill_tree=False`."""
        return await self.running(kill_tree=False)

    async def paused(self) -> float:
        """Take a container that is paused, and run a program in it."""
        return await self.running("paused")

    async def written(self) -> float:
        """Take a container that runs, and write to its program."""
        await self.settled()
        begun = time.perf_counter()
        async with self._pools["written"].take() as container:
            assert container.stdin is not None
            assert container.stdout is not None
            await container.stdin.send(b"x")
            await container.stdout.receive(1)
            return time.perf_counter() - begun


WAYS: Final = ("cold", "created", "running", "alone", "paused", "written")


async def echo(container: object) -> None:
    """Have a program that copies, for it may not have been executed yet when `start` ends."""
    stdin, stdout = vars(container)["stdin"], vars(container)["stdout"]
    await stdin.send(b"x")
    await stdout.receive(1)


async def first_byte(fd: int) -> None:
    """Wait for one byte."""
    await anyio.wait_readable(fd)
    os.read(fd, 1)


async def measure(command: str, rounds: int, directory: Path) -> dict[str, dict[str, list[float]]]:
    """Measure all ways in turn; return the seconds by way, ours and the bare runtime's."""
    root = directory / "root"
    found: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    async with contextlib.AsyncExitStack() as stack:
        shared = await stack.enter_async_context(Bundle.busybox(directory=directory))
        bundles: dict[Sequence[str], str] = {}
        for args in (PRINT, WAIT, COPY):
            own = shared.spec.set_args(*args).set_root(str(shared.rootfs), readonly=True)
            bundle = await stack.enter_async_context(
                Bundle.temporary(rootfs=shared.rootfs, spec=own, directory=directory)
            )
            bundles[args] = os.fspath(bundle)
        words = SANDBOX if "runsc" in os.path.basename(command) else ()
        ours = Ours(Runc(command, root=root, extra_args=words), root, bundles)
        bare = Bare((command, *words), str(root), bundles)
        await stack.enter_async_context(ours.opened())
        for number in range(rounds):
            for way in WAYS:
                pair: list[tuple[str, Timed]] = [("ours", getattr(ours, way)), ("bare", getattr(bare, way))]
                for who, timed in pair if number % 2 else reversed(pair):
                    await ours.settled()
                    found[way][who].append(await timed())
    return found


def suited(command: str, directory: Path) -> str:
    """Return a command that works with this host's cgroups."""
    path = shutil.which(command) or command
    if "crun" not in os.path.basename(path) or not os.path.ismount(HYBRID):
        return path
    script = directory / "crun"
    script.write_text(WITHOUT_HYBRID.format(hybrid=HYBRID, command=shlex.quote(os.path.abspath(path))))
    script.chmod(0o755)
    return str(script)


def rows(name: str, found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Return the lines of the table for one runtime."""
    cold = found["cold"]["ours"]
    lines: list[str] = []
    for way in WAYS:
        ours, bare = found[way]["ours"], found[way]["bare"]
        ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
        quicker = statistics.median(a / b for a, b in zip(cold, ours, strict=True))
        figures = (
            f"{statistics.median(ours) * 1e3:.1f} | {statistics.median(bare) * 1e3:.1f} | {ratio:.2f} | {quicker:.1f}"
        )
        lines.append(f"| {name} | {way} | {figures} |")
    return lines


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.warm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="measurements of each way")
    parser.add_argument("--json", type=Path, help="write all measurements as JSON")
    parser.add_argument("runtimes", nargs="*", default=["runc"], help="names or paths of runtimes")
    options = parser.parse_args()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        # A job in the background ignores these; to restore them the client has to start a helper for each container.
        signal.signal(number, signal.SIG_DFL)
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    before = os.getloadavg()[0]
    for runtime in options.runtimes:
        with tempfile.TemporaryDirectory(prefix="runc_async-warm-") as made:
            command = suited(runtime, Path(made))
            version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
            name = " ".join(version.split()[:3:2])
            found[name] = asyncio.run(measure(command, options.rounds, Path(made)))
    print(f"{machine()}; medians of {options.rounds}; load {before:.0f} to {os.getloadavg()[0]:.0f}\n")
    print("| runtime | way | runc_async, ms | bare, ms | ratio | times quicker than cold |\n|---|---|---|---|---|---|")
    for name, figures in found.items():
        print("\n".join(rows(name, figures)))
    if options.json:
        options.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
