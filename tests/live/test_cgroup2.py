"""What is special where cgroup v2 is all there is; such a place is made where the host has v1 or both."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import leaks
import pytest
import runtime as runtimes
from containers import ended
from runtime import CGROUPS, Runtime, has_controller

from runc_async._linux.cgroup import memory_cgroup, read_oom_kills
from runc_async.errors import ResourceError
from runc_async.events import StatsEvent
from runc_async.spec import LinuxPids, LinuxResources
from runc_async.state import Status

if TYPE_CHECKING:
    from containers import MakeContainer

    from runc_async.client import Runc

pytestmark = pytest.mark.runc

CGROUP2 = Path(__file__).parents[2] / "tools" / "cgroup2.sh"
TESTS_INSIDE = 7

inside = pytest.mark.needs("cgroup v2")


@pytest.mark.needs("missing controllers")
@pytest.mark.skipif(runtimes.is_cgroup2(), reason="the tests here run as they are")
def test_in_a_place_of_its_own(request: pytest.FixtureRequest, runtime: Runtime, tmp_path: Path) -> None:
    """Where cgroup v1 is there too, the tests of this file pass in a mount namespace with v2 alone."""
    command: str = request.node.callspec.params["runtime"].command
    pytest_here = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--require-runc"]
    pytest_here += ["--basetemp", str(tmp_path / "inside")]
    run = subprocess.run(
        [CGROUP2, *pytest_here, "--runtime", command, __file__],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (\w+)", run.stdout.splitlines()[-1])}
    without_events = 0 if runtime.has("events") else 2
    assert counts["passed"] == TESTS_INSIDE - without_events
    assert counts["skipped"] == 1 + without_events


async def cgroup(client: Runc, name: str) -> Path:
    """Return the directory of a container's cgroup."""
    path = Path(f"/proc/{(await client.state(name)).pid}/cgroup").read_text().rpartition("0::/")[2].strip()
    assert name in path
    return CGROUPS / path


@inside
@pytest.mark.needs("events")
async def test_stats(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """Figures are the v2 hierarchy's: CPU time that isn't split by CPU, and, from runc 1.2 on, pressure."""
    name = await make_container()
    stats = await client.stats(name)
    assert stats.cpu.usage.total > 0
    assert stats.cpu.usage.total >= stats.cpu.usage.user
    assert stats.cpu.usage.percpu == []
    told = tuple(map(int, runtime.version.split("."))) >= (1, 2)
    measured = (await cgroup(client, name) / "cpu.pressure").exists()
    assert (stats.cpu.psi is not None) is (told and measured)
    if stats.cpu.psi is not None:
        assert stats.cpu.psi.some.total >= stats.cpu.psi.full.total >= 0
    assert stats.memory.usage.known is has_controller("memory")


@inside
async def test_pause_and_resume(client: Runc, make_container: MakeContainer) -> None:
    """A paused container's cgroup is frozen, and thawed when it is resumed."""
    name = await make_container()
    directory = await cgroup(client, name)
    for change, status, frozen in ((client.pause, Status.PAUSED, "1"), (client.resume, Status.RUNNING, "0")):
        await change(name)
        assert (await client.state(name)).status == status
        assert (directory / "cgroup.freeze").read_text().strip() == frozen
        assert f"frozen {frozen}" in (directory / "cgroup.events").read_text().splitlines()


@inside
@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED])
async def test_deleting_by_force(client: Runc, runtime: Runtime, make_container: MakeContainer, status: Status) -> None:
    """All processes of a container without a pid namespace are killed, also frozen ones, and its cgroup goes."""
    shared = {"namespaces": [{"type": kind} for kind in ("mount", "ipc", "uts")]}
    name = await make_container(Status.RUNNING, ["sleep", "60"], linux=shared)
    await client.exec(name, ["sleep", "60"], detach=True)
    directory, pids = await cgroup(client, name), await client.ps(name)
    assert len(pids) == 2
    if status == Status.PAUSED:
        await client.pause(name)
    await client.delete(name, force=True)
    for pid in pids:
        await ended(pid)
    # runc 1.1 tries to remove the cgroup while its processes are still ending, and may come too early.
    may_be_left = set[str]() if runtime.removes_cgroups else {f"cgroup {directory}"}
    assert set(leaks.left_on_host(name, patience=0.5)) <= may_be_left


@inside
@pytest.mark.needs("events")
async def test_events(client: Runc, make_container: MakeContainer) -> None:
    """A stream ends with its container; without the memory controller there is no memory.events, which is an error."""
    name = await make_container()
    async with client.events(name, interval=0.05) as stream:
        if not has_controller("memory"):
            with pytest.raises(ResourceError, match="inotify watch"):
                [event async for event in stream]
            return
        assert isinstance(await anext(stream), StatsEvent)
        await client.kill(name, "KILL")
        async with asyncio.timeout(5):
            assert all([isinstance(event, StatsEvent) async for event in stream])


@inside
async def test_a_limit(client: Runc, make_container: MakeContainer) -> None:
    """A limit is the cgroup's; one of a controller that isn't there is refused by name."""
    name = await make_container()
    limit = LinuxResources(pids=LinuxPids(limit=17))
    if has_controller("pids"):
        await client.update(name, limit)
        assert (await cgroup(client, name) / "pids.max").read_text().strip() == "17"
    else:
        with pytest.raises(ResourceError, match="pids"):
            await client.update(name, limit)


@inside
async def test_the_memory_cgroup(client: Runc, make_container: MakeContainer, tmp_path: Path) -> None:
    """The cgroup that counts a container's memory is the v2 one, unless a hierarchy that isn't mounted counts it.

    The second case is that of a host with v1. What it would be without v1 is seen in a copy of procfs's files.
    """
    name = await make_container()
    directory, pid = await cgroup(client, name), (await client.state(name)).pid
    assert memory_cgroup(pid) == (directory if has_controller("memory") else None)
    for process in (str(pid), "self"):
        (tmp_path / process).mkdir()
        lines = Path("/proc", process, "cgroup").read_text().splitlines()
        (tmp_path / process / "cgroup").write_text("\n".join(line for line in lines if line.startswith("0::")))
    (tmp_path / "self" / "mountinfo").write_text(Path("/proc/self/mountinfo").read_text())
    assert memory_cgroup(pid, tmp_path) == directory
    assert str(pid) in (directory / "cgroup.procs").read_text().split()
    assert read_oom_kills(directory) == (0 if has_controller("memory") else None)
