"""A service that holds containers, overlays and temporary bundles, until it is killed.

As a program:

    python doomed.py OWNERS COMMAND ROOT ROOTFS PREFIX NUMBER KIND

OWNERS is the directory of its owner's file. KIND is "again": it opens and closes NUMBER containers with overlays again
and again; or "steady": it opens them, prints `ready`, and at the end of its input checks that nothing of theirs is
missing, closes them, and prints `whole`; or "run": NUMBER foreground runs; or "bundle": no container is made in its
bundles, whose paths it prints.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

from runc_async import Bundle, NullIO, Runc
from runc_async._linux import owner
from runc_async.rootfs import Overlay
from runc_async.state import Status

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from runc_async import Container

HOLD = 0.15
"""Seconds for which the containers are open."""


async def started(arguments: Sequence[str], directory: str) -> asyncio.subprocess.Process:
    """Start the service, with a directory for its temporary files."""
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "TMPDIR": directory}
    return await asyncio.create_subprocess_exec(
        sys.executable, __file__, *arguments, stdin=pipe, stdout=pipe, env=environment
    )


async def line(process: asyncio.subprocess.Process) -> str:
    """Read a line of a service's output."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def overlay(rootfs: str, *args: str) -> contextlib.AbstractAsyncContextManager[Bundle]:
    """Make a temporary bundle with an overlay."""
    from runc_async.spec import Spec  # noqa: PLC0415 - the child of a test pays for it

    spec = Spec.default().set_args(*args).set_terminal(enabled=False).set_root("rootfs", readonly=False)
    return Bundle.temporary(rootfs=Overlay([rootfs]), spec=spec)


@contextlib.asynccontextmanager
async def opened(runc: Runc, rootfs: str, name: str) -> AsyncGenerator[tuple[Bundle, Container]]:
    """Open a container with an overlay."""
    async with (
        overlay(rootfs, "sh", "-c", "echo mine > /mine; exec sleep 600") as bundle,
        runc.open_container(name, bundle, io=NullIO(), grace=0) as container,
    ):
        yield bundle, container


async def once(runc: Runc, rootfs: str, names: list[str]) -> None:
    """Open containers, each in a task of its own, and close them."""

    async def one(name: str) -> None:
        async with opened(runc, rootfs, name):
            await asyncio.sleep(HOLD)

    await asyncio.gather(*map(one, names))


async def steady(runc: Runc, rootfs: str, names: list[str]) -> None:
    """Open containers; check at the end of the input that all of them are there."""
    async with contextlib.AsyncExitStack() as stack:
        held = [await stack.enter_async_context(opened(runc, rootfs, name)) for name in names]
        say("ready")
        await asyncio.to_thread(sys.stdin.read)
        for bundle, container in held:
            assert (await container.state()).status == Status.RUNNING
            assert (bundle.rootfs / "mine").read_text() == "mine\n"
            assert (await container.exec(["cat", "/mine"])).output == "mine\n"
    say("whole")


async def run(runc: Runc, rootfs: str, names: list[str]) -> None:
    """Run programs in the foreground."""

    async def one(name: str) -> None:
        async with overlay(rootfs, "sleep", "600") as bundle:
            await runc.run(name, bundle)

    await asyncio.gather(*map(one, names))


async def bundles(runc: Runc, rootfs: str, names: list[str]) -> None:
    """Make bundles and print their paths."""
    del runc
    async with contextlib.AsyncExitStack() as stack:
        for _ in names:
            say(str((await stack.enter_async_context(overlay(rootfs, "sleep", "600"))).path))
        await asyncio.sleep(600)


async def main(arguments: Sequence[str]) -> None:
    """Hold things."""
    owner.MEMORY, command, root, rootfs, prefix, number, kind = arguments
    os.environ.pop("XDG_RUNTIME_DIR", None)
    runc = Runc(command, root=root)
    names = [f"{prefix}{number}" for number in range(int(number))]
    if kind == "again":
        say("ready")
        while True:
            await once(runc, rootfs, names)
    await {"steady": steady, "run": run, "bundle": bundles}[kind](runc, rootfs, names)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
