"""How much resident memory it takes to hold something: `python -m bench.peers.footprint WHAT ROOT BUNDLE COUNT`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE

from runc_async import PipedIO, Runc

WAIT = ("/bin/sleep", "3600")


def resident() -> int:
    """Tell the resident memory of this process in bytes."""
    gc.collect()
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


class Holding:
    """Holds things until its block ends."""

    def __init__(self, root: str, bundle: str) -> None:
        self._root = root
        self._bundle = bundle
        self._prefix = f"held{os.getpid()}-"
        self.runc = Runc(root=root)
        self.kept: list[object] = []
        self.stack = contextlib.AsyncExitStack()
        self._directory = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="runc_async-bench-"))

    async def streams(self, _number: int) -> None:
        """An event stream whose runc says nothing."""
        runc = Runc("/bin/sh", extra_args=("-c", "exec sleep 3600", "sh"))
        await self.stack.enter_async_context(runc.events("none"))

    async def processes(self, _number: int) -> None:
        """A process with a pipe, with asyncio alone."""
        process = await asyncio.create_subprocess_exec(*WAIT, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
        self.kept.append(process)
        self.stack.push_async_callback(process.wait)
        self.stack.callback(process.kill)

    async def containers(self, number: int) -> None:
        """A container with its pipes."""
        name = f"{self._prefix}{number}"
        await self.stack.enter_async_context(self.runc.open_container(name, self._bundle, io=PipedIO(), grace=0))

    async def runs(self, number: int) -> None:
        """A container with its pipes, with asyncio alone."""
        name, runc = f"{self._prefix}{number}", ("runc", "--root", self._root)
        pid_file = os.path.join(self._directory, name)
        argv = (*runc, "run", "--pid-file", pid_file, "--bundle", self._bundle, name)
        process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=PIPE)
        self.kept.append(process)
        self.stack.push_async_callback(process.wait)
        self.stack.push_async_callback(_call, *runc, "delete", "--force", name)
        while process.returncode is None and not os.path.exists(pid_file):  # noqa: ASYNC110 - a runc that is ended before leaves a cgroup behind
            await asyncio.sleep(0.01)

    async def handles(self, number: int) -> None:
        """A handle on a container."""
        self.kept.append(self.runc.container(f"{self._prefix}{number}"))

    async def dicts(self, number: int) -> None:
        """The least that says the same."""
        self.kept.append({"id": f"{self._prefix}{number}", "pid": None})


async def _call(*argv: str) -> None:
    """Call a program whose output is nobody's."""
    await (await asyncio.create_subprocess_exec(*argv, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL)).wait()


async def main(what: str, root: str, bundle: str, count: str) -> None:
    """Print the bytes for each of `count` things."""
    holding = Holding(root, bundle)
    async with holding.stack:
        for number in range(2):  # what is loaded or made once isn't counted
            await getattr(holding, what)(number)
        before = resident()
        for number in range(2, int(count) + 2):
            await getattr(holding, what)(number)
        print((resident() - before) / int(count))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
