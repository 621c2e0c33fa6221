"""Under `subreaper()` everything that a runtime leaves is our child: nothing of it may keep a container from ending."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import criu
import leaks
import pytest

from runc_async import NullIO, Runc, Status, subreaper

if TYPE_CHECKING:
    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

pytestmark = [pytest.mark.runc, pytest.mark.timeout(30)]

SOON = 5.0
"""Seconds, half of what runc waits for the end of a container's first process before it gives up."""


@pytest.fixture(autouse=True)
async def no_child_is_left() -> AsyncIterator[None]:
    """Be a subreaper, and leave no child, dead or alive."""
    before = leaks.footprint()
    with subreaper():
        yield
    assert await leaks.left_in_loop(before) == []


async def begun(client: Runc) -> None:
    """Wait until a container runs."""
    while not [state for state in await client.list() if state.status == Status.RUNNING]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_container_is_deleted_with_what_exec_has_left(client: Runc, make_container: MakeContainer) -> None:
    """The kernel lets its first process end only when we have reaped all others, in the middle of the deletion."""
    name = await make_container()
    for args in (["sleep", "1000"], ["true"], ["sh", "-c", "sleep 1000 & sleep 1000"]):
        await client.exec(name, args, detach=True)
    async with asyncio.timeout(SOON):
        await client.delete(name, force=True)


async def test_a_container_ends_in_spite_of_what_exec_has_left(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A wait for its end, and a runc in the foreground, come to their end."""
    bundle, name = make_bundle(["sleep", "1000"]), container_id()
    async with client.open_container(name, bundle, io=NullIO()) as container:
        await container.exec(["sleep", "1000"], detach=True)
        await container.kill("KILL")
        async with asyncio.timeout(SOON):
            assert (await container.wait()).signal == 9
    async with asyncio.TaskGroup() as group:
        running = group.create_task(client.run(name, bundle))
        await begun(client)
        await client.exec(name, ["sleep", "1000"], detach=True)
        await client.kill(name, "KILL")
        async with asyncio.timeout(SOON):
            assert (await running).exit_code == 137


@pytest.mark.needs("host pids")
async def test_a_created_container_keeps_its_status(
    client: Runc, make_container: MakeContainer, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """What another call leaves of itself when it is cut short has the same name, and is told from it."""
    created = await make_container(Status.CREATED)
    pid = (await client.state(created)).pid
    for _ in range(3):
        running = asyncio.create_task(client.run(container_id(), make_bundle(["sleep", "1000"]), grace=0))
        await asyncio.sleep(0.02)  # somewhere in the middle
        running.cancel()
        await asyncio.wait((running,))
    await client.kill(created, "KILL")
    status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - it was killed
    assert status is not None
    assert status.si_status == signal.SIGKILL
    await client.delete(created)


@pytest.mark.needs("restore --no-subreaper")
async def test_a_checkpoint_leaves_no_zombie(
    runtime: Runtime, root: Path, make_container: MakeContainer, tmp_path: Path
) -> None:
    """The container that it ends is nobody's to delete, and its process reaped all the same."""
    if reason := criu.missing():
        pytest.skip(reason)
    client = Runc(runtime.command, root=root, env={"PATH": criu.search_path()})
    name = await make_container()
    pid = (await client.state(name)).pid
    await client.checkpoint(name, tmp_path / "images")
    assert not [child for child in leaks.children() if child.startswith(f"{pid} ")]
