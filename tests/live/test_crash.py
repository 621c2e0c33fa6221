"""A real runtime that is killed while it does something: what it was doing ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from containers import ended
from waiting import until

from runc_async import ContainerNotFound, RuncCrashed
from runc_async._linux.procfs import descendants
from runc_async.stdio import NullIO, PtyIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from containers import MakeBundle, MakeContainer

    from runc_async.client import Runc
    from runc_async.stdio import StdIO

pytestmark = [pytest.mark.runc, pytest.mark.needs("host pids")]  # tests/live/test_runsc.py has those of a sandbox


def sleeps(pid: int) -> bool:
    """Tell whether a process is one that sleeps for a minute."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().startswith(b"sleep")
    except OSError:
        return False


async def kill_runtime() -> int:
    """Wait until the container's process has started, kill our child that waits for it, and return that process.

    That child is the runtime, or has started one that may be ending.
    """
    process, child = 0, 0

    def running() -> bool:
        nonlocal process, child
        parents = dict(descendants(os.getpid()))
        process = child = next(filter(sleeps, parents), 0)
        while parents.get(child, os.getpid()) != os.getpid():
            child = parents[child]
        return process != child

    await until(running)
    os.kill(child, signal.SIGKILL)
    return process


async def test_the_process_of_an_exec(client: Runc, make_container: MakeContainer, tmp_path: Path) -> None:
    """An exec whose runc was killed is a crash, and its process, of which runc had told, is killed.

    The container goes on.
    """
    name = await make_container()
    call = asyncio.create_task(client.exec(name, ["sleep", "61"], pid_file=tmp_path / "pid"))
    await until((tmp_path / "pid").exists)
    process = await kill_runtime()
    with pytest.raises(RuncCrashed) as caught:
        await call
    assert caught.value.exit_code == -signal.SIGKILL
    await ended(process)
    assert len(await client.ps(name)) == 1


@pytest.mark.parametrize("io", [NullIO(), PtyIO()], ids=["null", "pty"])
async def test_the_process_of_a_handle(client: Runc, make_container: MakeContainer, io: StdIO) -> None:
    """At the end of the block the process is gone, although what waited for it can't end it any more."""
    name = await make_container()
    async with client.open_exec(name, ["sleep", "61"], io=io) as process:
        assert await kill_runtime() == process.pid
        with pytest.raises(RuncCrashed):
            await process.wait()
    await ended(process.pid or 0)
    assert len(await client.ps(name)) == 1


async def test_the_container_of_a_run(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A run whose runc was killed is a crash, and its container is deleted."""
    name = container_id()
    call = asyncio.create_task(client.run(name, make_bundle(["sleep", "61"])))
    process = await kill_runtime()
    with pytest.raises(RuncCrashed):
        await call
    await ended(process)
    with pytest.raises(ContainerNotFound):
        await client.state(name)
