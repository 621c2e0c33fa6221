"""`Container.usage` and `run(usage=True)` beside a reader of the cgroup of one's own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import runtime as runtimes
from waiting import until

from runc_async import UnsupportedError
from runc_async.errors import ContainerNotFound, ExecutableNotFound, ExitError, RuncTimeout
from runc_async.exitstatus import ExitStatus
from runc_async.state import Status
from runc_async.stdio import PipedIO
from runc_async.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.client import Runc
    from runc_async.container import Container

pytestmark = [pytest.mark.runc, pytest.mark.root]

MIB = 1 << 20
BATCH = 1 << 18
"""Bytes that a CPU takes from a memory cgroup at a time, whatever it needs of them: 64 pages."""

CGROUP2 = Path(__file__).parents[2] / "tools" / "cgroup2.sh"
WORK = "dd if=/dev/zero of=/dev/null bs=50M count=2 2>/dev/null; i=0; while [ $i -lt 50000 ]; do i=$((i + 1)); done"
BUSY = ["sh", "-c", f"{WORK}; echo done; read end"]

memory = pytest.mark.skipif(not runtimes.has_controller("memory"), reason="needs a memory controller")


def own_reading(root: Path, name: str) -> dict[str, float]:
    """Read a container's cgroup by other means: CPU seconds, bytes at most."""
    paths: dict[str, str] = json.loads((root / name / "state.json").read_text())["cgroup_paths"]
    found: dict[str, float] = {}
    if "cpuacct" in paths:
        found["cpu"] = int(Path(paths["cpuacct"], "cpuacct.usage").read_text()) / 1e9
        words = Path(paths["cpuacct"], "cpuacct.stat").read_text().split()
        found["user"], found["system"] = int(words[1]) / 100, int(words[3]) / 100
    else:
        words = Path(paths[""], "cpu.stat").read_text().split()
        stat = dict(zip(words[::2], words[1::2], strict=True))
        found |= {kind: int(stat[f"{name}_usec"]) / 1e6 for kind, name in NAMES.items()}
    if "memory" in paths:
        found["peak"] = int(Path(paths["memory"], "memory.max_usage_in_bytes").read_text())
    return found


NAMES = {"cpu": "usage", "user": "user", "system": "system"}


def close_to(expected: float, least: float) -> Any:
    """Compare within 5 %, or `least`."""
    return pytest.approx(expected, rel=0.05, abs=least)


@pytest.mark.any_loop
@pytest.mark.needs("events")
@pytest.mark.needs("record directory")
async def test_beside_an_own_reader(
    client: Runc, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """The values are those of a reader of one's own, with what the runtime has used taken off."""
    name = container_id()
    bundle = make_bundle(["sh", "-c", "read go; " + BUSY[2]])
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        before = own_reading(root, name)
        used = await container.usage()
        await container.stdin.send(b"go\n")
        assert await anext(container.stdout.lines()) == "done"
        usage, after = await container.usage(), own_reading(root, name)
        assert usage.cpu_seconds is not None
        assert used.cpu_seconds is not None
        assert usage.user_seconds is not None
        assert usage.system_seconds is not None
        assert usage.cpu_seconds - used.cpu_seconds == close_to(after["cpu"] - before["cpu"], 0.005)
        assert usage.user_seconds + usage.system_seconds == close_to(usage.cpu_seconds, 0.005)
        for kind, value in (("user", usage.user_seconds), ("system", usage.system_seconds)):
            assert value == close_to(after[kind] - before[kind], 0.021), "cgroup v1 has steps of 10 ms"
        if "peak" in after:
            assert usage.peak_memory == close_to(after["peak"], 0)
            assert 50 * MIB < (usage.peak_memory or 0) < 60 * MIB
        assert usage.wall_seconds is not None
        assert usage.wall_seconds >= usage.cpu_seconds * 0.9
        assert not usage.includes_runtime


@pytest.mark.any_loop
@pytest.mark.needs("events")
@pytest.mark.needs("bare usage")
async def test_a_program_that_needs_nothing(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """It has less than 5 ms of CPU time, and hardly more memory than the runtime's init holds."""
    name = container_id()
    await client.create(name, make_bundle(["true"]))
    container = client.container(name)
    held = (await client.stats(name)).memory.usage.usage if runtimes.has_controller("memory") else 0
    await container.start()
    await container.ended()
    usage = await container.usage()
    assert usage.cpu_seconds is not None
    assert 0 < usage.cpu_seconds < 0.005
    if usage.peak_memory is not None:
        assert usage.peak_memory <= held + 2 * BATCH
    assert not usage.includes_runtime
    await container.delete()
    assert await container.usage() == usage


def container_has_ended(container: Container) -> bool:
    """Look whether a container's first process is a zombie, or gone."""
    try:
        return Path(f"/proc/{container.pid}/stat").read_bytes().rpartition(b") ")[2][:1] in b"ZX"
    except OSError:
        return True


async def test_at_any_time(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """While it runs, after its end and after the block; the time stops at the end, whether or not a task waits."""
    async with client.open_container(container_id(), make_bundle(["sleep", "0.3"]), grace=0) as container:
        running = await container.usage()
        assert 0 <= (running.wall_seconds or 0) < 30
        pid = container.pid
        await until(lambda: (client, Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] in b"ZX")[1])
        await anyio.sleep(0.3)
        ended = await container.usage()
    assert (ended.wall_seconds or 0) > 0.28
    after = await container.usage()
    assert after == ended
    assert after == await container.usage()


async def test_of_a_container_of_others(client: Runc, make_container: MakeContainer) -> None:
    """A handle that hasn't started the container reads all of it, and says that the runtime's part is in it."""
    name = await make_container()
    usage = await client.container(name).usage()
    assert usage.includes_runtime
    assert (usage.cpu_seconds or 0) > 0
    assert (usage.wall_seconds or -1) >= 0
    await client.container(name).stop(grace=0)
    stopped = await client.container(name).usage()
    assert (stopped.cpu_seconds or 0) >= (usage.cpu_seconds or 0)
    assert stopped.wall_seconds is None, "this handle hasn't seen the end"
    await client.delete(name)
    with pytest.raises(ContainerNotFound):
        await client.container(name).usage()


@pytest.mark.needs("run --keep")
async def test_of_a_run(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """`run(usage=True)` reports it with the runtime's part, and deletes the container; without it there is none."""
    response = await client.run(container_id(), make_bundle(["sh", "-c", f"{WORK}; exit 3"]), usage=True)
    usage = response.usage
    assert response.exit_code == 3
    assert usage is not None
    assert usage.includes_runtime
    assert 0.02 < (usage.cpu_seconds or 0) < (usage.wall_seconds or 0) * 2
    if runtimes.has_controller("memory"):
        assert 50 * MIB < (usage.peak_memory or 0) < 70 * MIB
        assert usage.oom_kills == 0
    assert (await client.run(container_id(), make_bundle(["true"]))).usage is None
    assert await client.list() == []


@pytest.mark.needs("run --keep")
async def test_of_a_run_that_fails(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """However it ends, the container is deleted, unless it is to be kept; `check` raises with the usage."""
    with pytest.raises(ExecutableNotFound):
        await client.run(container_id(), make_bundle(["nonesuch"]), usage=True)
    with pytest.raises(RuncTimeout):
        await client.run(container_id(), make_bundle(["sleep", "600"]), usage=True, timeout=0.5, grace=0)
    with pytest.raises(ExitError) as caught:
        await client.run(container_id(), make_bundle(["false"]), usage=True, check=True)
    assert caught.value.response.usage is not None
    assert await client.list() == []
    name = container_id()
    response = await client.run(name, make_bundle(["true"]), usage=True, keep=True)
    assert response.usage is not None
    assert [(state.id, state.status) for state in await client.list()] == [(name, Status.STOPPED)]
    await client.delete(name)


async def test_of_a_run_that_is_not_waited_for(client: Runc) -> None:
    """`usage` with `detach` is refused before anything starts."""
    with pytest.raises(ValueError, match="usage needs a run that waits"):
        await client.run("nonesuch", "/nonesuch", usage=True, detach=True)


async def test_of_a_run_on_an_old_runtime(runtime: Runtime, client: Runc, make_bundle: MakeBundle) -> None:
    """A runtime without `run --keep` is told before anything starts."""
    if runtime.has("run --keep"):
        pytest.skip(f"{runtime} has run --keep")
    with pytest.raises(UnsupportedError, match="run --keep"):
        await client.run("nonesuch", make_bundle(["true"]), usage=True)


@memory
@pytest.mark.needs("events")
@pytest.mark.needs("bare usage")
async def test_oom_kills(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A program that was killed for its memory has a kill more."""
    limit = {"limit": 32 * MIB, "swap": 32 * MIB}
    hungry = make_bundle(["dd", "if=/dev/zero", "of=/dev/null", "bs=512M"], linux={"resources": {"memory": limit}})
    async with client.open_container(container_id(), hungry, grace=0) as container:
        await container.wait()
        usage = await container.usage()
    assert usage.oom_kills == 1
    assert 25 * MIB < (usage.peak_memory or 0) <= 32 * MIB


SCRIPT = """\
import asyncio, sys
from runc_async import Bundle, Runc, PipedIO

async def main():
    runc = Runc(sys.argv[1], root=sys.argv[2])
    args = ["sh", "-c", sys.argv[4]]
    async with Bundle.busybox(args) as bundle:
        async with runc.open_container(sys.argv[3], bundle, io=PipedIO(), grace=0) as container:
            await container.wait()
            print(await container.usage())

asyncio.run(main())
"""


@pytest.mark.skipif(runtimes.is_cgroup2(), reason="the tests here run as they are")
@pytest.mark.needs("missing controllers")
def test_where_cgroup_v2_is_all_there_is(runtime: Runtime, root: Path, container_id: Callable[[], str]) -> None:
    """There the CPU time is known, and what has no controller is None."""
    run = subprocess.run(
        [CGROUP2, sys.executable, "-c", SCRIPT, str(runtime.command), str(root), container_id(), WORK],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    usage: Usage = eval(run.stdout, {"Usage": Usage, "ExitStatus": ExitStatus})  # noqa: S307 - our own program's
    assert 0.02 < (usage.cpu_seconds or 0) < 5
    assert (usage.peak_memory, usage.peak_pids, usage.read_bytes, usage.oom_kills) == (None, None, None, None)
