"""The commands that only read, on a real runtime."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from typing import TYPE_CHECKING

import pytest

from runc_async._process.running import ProcessRunner
from runc_async.client import Runc
from runc_async.errors import CommandError
from runc_async.runner import Completed, Invocation
from runc_async.spec import LinuxMemory, LinuxPids, LinuxResources, validate
from runc_async.state import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

pytestmark = pytest.mark.runc


class Counting(ProcessRunner):
    """A runner that knows how many runtimes ran at once."""

    def __init__(self) -> None:
        """Begin with none."""
        self.now = self.most = 0

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Run, and count."""
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().run(invocation, started=started)
        finally:
            self.now -= 1


async def test_state(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], rootfs: Path) -> None:
    """A state tells who the container is, where it comes from, and since when."""
    name, bundle = container_id(), make_bundle(["sleep", "60"], annotations={"com.example.Key": "väl\nue"})
    before = dt.datetime.now(dt.UTC)
    await client.create(name, bundle)
    state = await client.state(name)
    assert (state.id, state.status, state.bundle) == (name, Status.CREATED, str(bundle))
    assert state.rootfs == str(rootfs)
    assert state.annotations["com.example.Key"] == "väl\nue"
    assert state.oci_version.startswith("1.")
    assert os.path.exists(f"/proc/{state.pid}")
    assert state.created is not None
    assert before - dt.timedelta(seconds=1) < state.created < dt.datetime.now(dt.UTC)


async def test_state_without_a_process(client: Runc, make_container: MakeContainer) -> None:
    """A container that is stopped has no pid."""
    assert (await client.state(await make_container(Status.STOPPED))).pid == 0


async def test_list(client: Runc, make_container: MakeContainer) -> None:
    """The list has all containers with their statuses and their owner."""
    expected = {await make_container(status): status for status in list(Status) if status != Status.CREATING}
    states = await client.list()
    assert {state.id: state.status for state in states} == expected
    assert {state.owner for state in states} == {"root"}


async def test_list_of_nothing(client: Runc, runtime: Runtime, root: Path) -> None:
    """A root directory without a container, or one that isn't there, is an empty list."""
    assert await client.list() == []
    assert await Runc(runtime.command, root=root / "missing").list() == []


async def test_list_beside_a_broken_one(client: Runc, make_container: MakeContainer, root: Path) -> None:
    """A container whose state can't be read is left out, and the others are told all the same."""
    name = await make_container()
    (root / "broken").mkdir()
    try:
        assert [state.id for state in await client.list()] == [name]
    finally:
        (root / "broken").rmdir()


@pytest.mark.needs("host pids")
async def test_ps(client: Runc, make_container: MakeContainer) -> None:
    """Process ids are the host's, of all processes and not only the first."""
    name = await make_container()
    init = (await client.state(name)).pid
    await client.exec(name, ["sleep", "60"], detach=True)
    pids = await client.ps(name)
    assert init in pids
    assert len(pids) == 2
    assert await client.ps(await make_container(Status.STOPPED)) == []


@pytest.mark.needs("host pids")
async def test_top(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """The table has a row for each process; its columns are those that ps(1) was asked for."""
    name = await make_container()
    pid = str((await client.state(name)).pid)
    [process] = (await client.top(name)).processes
    assert process["PID"] == pid
    if not runtime.is_crun:  # crun has the one column, and takes no options
        assert process["CMD"] == "sleep 60"
        top = await client.top(name, "-o", "pid,args")
        assert (top.header, top.rows) == (("PID", "COMMAND"), ((pid, "sleep 60"),))
        with pytest.raises(CommandError, match="sort"):
            await client.top(name, "--sort", "nonsense")


@pytest.mark.needs("memory controller")
@pytest.mark.needs("pids controller")
@pytest.mark.needs("events")
@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING, Status.PAUSED])
async def test_stats(client: Runc, make_container: MakeContainer, status: Status) -> None:
    """Figures are there for whatever container has a process, with the limits that were set."""
    name = await make_container(status, linux={"resources": {"memory": {"limit": 32 << 20}}})
    await client.update(name, LinuxResources(pids=LinuxPids(limit=33), memory=LinuxMemory(limit=64 << 20)))
    stats = await client.stats(name)
    assert stats.pids.current  # a created container has the threads of runc in it
    assert stats.pids.limit == 33
    assert stats.memory.usage.limit == 64 << 20
    assert 0 < stats.memory.usage.usage < 64 << 20
    assert stats.cpu.usage.total > 0


@pytest.mark.parametrize("rootless", [False, True])
async def test_spec(client: Runc, *, rootless: bool) -> None:
    """The runtime's example is a valid configuration; without root it has a user namespace."""
    spec = await client.spec(rootless=rootless)
    assert validate(spec.encode()) == []
    assert spec.process is not None
    assert spec.process.args == ["sh"]
    assert spec.linux is not None
    namespaces = {namespace.type for namespace in spec.linux.namespaces or ()}
    assert "mount" in namespaces
    assert ("user" in namespaces) is rootless


@pytest.mark.needs("features")
async def test_features(client: Runc) -> None:
    """What the runtime supports."""
    features = await client.features()
    assert features.oci_version_min.startswith("1.0")
    assert features.linux is not None
    assert "pid" in (features.linux.namespaces or ())
    assert "prestart" in (features.hooks or ())


async def test_version(client: Runc, runtime: Runtime) -> None:
    """Which runtime this is."""
    version = await client.version()
    assert version.runtime == runtime.name
    assert runtime.version in version.version
    assert version.spec


@pytest.mark.needs("cheap containers")
async def test_many_at_once(runtime: Runtime, root: Path, make_container: MakeContainer) -> None:
    """A hundred calls at once are answered, so many at a time as the client allows."""
    name = await make_container()
    runner = Counting()
    client = Runc(runtime.command, root=root, runner=runner, max_concurrency=5)
    states = await asyncio.gather(*(client.state(name) for _ in range(100)))
    assert {(state.id, state.status) for state in states} == {(name, Status.RUNNING)}
    assert runner.most == 5


async def test_one_client_for_two_loops(client: Runc, make_container: MakeContainer) -> None:
    """A client is used by another event loop, in another thread, at the same time."""
    name = await make_container()
    ours, theirs = await asyncio.gather(client.state(name), asyncio.to_thread(lambda: asyncio.run(client.state(name))))
    assert ours == theirs
