"""What an exec has started: when it ends with the exec, and when it is left alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import heard
from waiting import until

from runc_async import ContainerNotRunning, NullIO, PipedIO, RedirectIO, Runc
from runc_async._linux.leaf_cgroup import LeafCgroup
from runc_async.state import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import MakeContainer
    from runtime import Runtime


pytestmark = [pytest.mark.runc, pytest.mark.root, pytest.mark.needs("pids controller")]

AWAY = "setsid sh -c 'echo $$; sleep 3600; true' & wait"
"""A script that starts a process in a session of its own, which prints its number, as the container sees it."""


def members(name: str) -> dict[int, Path]:
    """Return the processes of a container, without zombies, and the cgroup of each."""
    groups = Path("/sys/fs/cgroup/pids", name).rglob("cgroup.procs")
    return {int(pid): group.parent for group in groups for pid in group.read_text().split()}


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe, of which reading doesn't block."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.mark.needs("host pids")
async def test_what_ends_by_itself_leaves_its_children(client: Runc, make_container: MakeContainer) -> None:
    """A process that ends by itself leaves a background child alone, in the container's own cgroup."""
    name = await make_container()
    before = members(name)
    await client.exec(name, ["sh", "-c", "sleep 3600 >/dev/null 2>&1 & true"], io=NullIO())
    after = members(name)
    assert len(after.keys() - before.keys()) == 1
    assert set(after.values()) == {Path("/sys/fs/cgroup/pids", name)}


@pytest.mark.needs("host pids")
async def test_a_child_that_is_exiting(client: Runc, make_container: MakeContainer) -> None:
    """A child that is exiting, and can't be moved, keeps the cgroup of the exec until the exit is over: no warning."""
    name = await make_container()
    # The writer has 200 MB, and dies of SIGPIPE together with the shell. The kernel frees the memory first.
    writer = "dd if=/dev/zero of=/dev/shm/$0 bs=200M count=1 2>/dev/null"
    script = f"mkfifo /dev/shm/$0; {writer} & head -c 1 /dev/shm/$0 >/dev/null"
    for pipe in "abc":
        await client.exec(name, ["sh", "-c", script, pipe], check=True)
    await until(lambda: not [*Path("/sys/fs/cgroup/pids", name).glob("runc_async-*")])


@pytest.mark.needs("host pids")
async def test_what_ends_before_its_block(client: Runc, make_container: MakeContainer) -> None:
    """A first process that ends by itself before the block leaves its children alone, unless `kill` is asked to."""
    name = await make_container()
    before = members(name)
    async with client.open_exec(name, ["sh", "-c", "sleep 3600 >/dev/null 2>&1 & true"]) as process:
        assert (await process.wait()).code == 0
    assert len(members(name).keys() - before.keys()) == 1
    async with client.open_exec(name, ["sh", "-c", "sleep 3600 >/dev/null 2>&1 & true"]) as process:
        assert (await process.wait()).code == 0
        process.kill(tree=True)
        await until(lambda: len(members(name).keys() - before.keys()) == 1)


async def test_signals_to_the_tree(client: Runc, make_container: MakeContainer) -> None:
    """`send_signal` reaches the first process alone, with `tree` all that it has started; a handler of each runs."""
    name = await make_container()
    inner = "trap 'echo inner; exit' TERM; echo up; while :; do sleep 0.05; done"
    script = f"trap 'echo outer' TERM; setsid sh -c \"{inner}\" & while :; do sleep 0.05; done"
    async with client.open_exec(name, ["sh", "-c", script], io=PipedIO(), grace=0) as process:
        assert process.stdout is not None
        lines = process.stdout.lines()
        assert await anext(lines) == "up"
        process.send_signal("TERM")
        assert await anext(lines) == "outer"
        process.send_signal("TERM", tree=True)
        assert {await anext(lines), await anext(lines)} == {"outer", "inner"}


@pytest.mark.parametrize("how", ["exec", "open_exec"])
@pytest.mark.needs("host pids")
async def test_not_asked_for(client: Runc, make_container: MakeContainer, how: str, pipe: tuple[int, int]) -> None:
    """Without `kill_tree` the first process alone ends."""
    name = await make_container()
    before = members(name)
    read, write = pipe
    if how == "exec":
        io = RedirectIO(stdout=write)
        call = asyncio.create_task(client.exec(name, ["sh", "-c", AWAY], io=io, kill_tree=False, grace=0.2))
        await heard(read)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    else:
        async with client.open_exec(name, ["sh", "-c", AWAY], io=PipedIO(), kill_tree=False, grace=0.2) as process:
            assert process.stdout is not None
            await process.stdout.receive()
    assert len(members(name).keys() - before.keys()) == 2  # the shell, and what it waits for


@pytest.mark.needs("exec --cgroup")
async def test_with_a_cgroup_of_the_callers(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """A process in a cgroup of the caller's is known by a mark; the cgroup, and what else is in it, stay."""
    name = await make_container()
    before = members(name)
    group = Path("/sys/fs/cgroup/pids", name, "mine")
    option = "mine" if runtime.is_crun else "pids:mine"
    group.mkdir()
    try:
        async with client.open_exec(name, ["cat"], io=PipedIO(), cgroup=option, grace=0) as other:
            async with client.open_exec(name, ["sh", "-c", AWAY], io=PipedIO(), cgroup=option, grace=0.2) as process:
                assert process.stdout is not None
                await process.stdout.receive()
                assert members(name)[process.pid or 0] == group
            assert members(name).keys() - before.keys() == {other.pid}
            assert group.is_dir()
    finally:
        group.rmdir()


@pytest.mark.parametrize("how", ["exec", "open_exec"])
async def test_a_cgroup_that_is_gone(
    client: Runc, make_container: MakeContainer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the cgroup is gone when the runtime looks for it, the process runs without one."""
    name = await make_container()
    removed: list[str] = []

    class Vanishing(LeafCgroup):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            removed.append(self.path)
            self.remove()

    monkeypatch.setattr("runc_async._process.argument_files.LeafCgroup", Vanishing)
    if how == "exec":
        assert (await client.exec(name, ["echo", "here"])).stdout == b"here\n"
    else:
        async with client.open_exec(name, ["echo", "here"], io=PipedIO()) as process:
            assert process.stdout is not None
            assert await process.stdout.receive() == b"here\n"
    assert len(removed) == (1 if await client.supports("exec --cgroup") and removed else 0)


async def test_in_a_container_that_has_ended(client: Runc, make_container: MakeContainer) -> None:
    """For a container that has ended the error is as it was, and no cgroup is left below it."""
    name = await make_container(Status.STOPPED)
    with pytest.raises(ContainerNotRunning):
        await client.exec(name, ["true"])
    assert not list(Path("/sys/fs/cgroup/pids", name).glob("runc_async-*"))


async def test_a_detached_one(client: Runc, make_container: MakeContainer) -> None:
    """A process that is left running by `detach` has no cgroup of its own."""
    name = await make_container()
    response = await client.exec(name, ["sleep", "3600"], detach=True)
    assert not any("<own cgroup>" in word for word in response.args)
    assert set(members(name).values()) == {Path("/sys/fs/cgroup/pids", name)}
