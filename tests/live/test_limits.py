"""A program ends when it reaches a limit, and the reason is in its response."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runc_async import CapturedIO, Limits, RuncTimeout, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async import Response, Runc

pytestmark = [pytest.mark.runc, pytest.mark.root, pytest.mark.needs("pids controller")]

SPIN = ["sh", "-c", "while :; do :; done"]
"""Uses a CPU without end."""

SPINNERS = ["sh", "-c", "setsid sh -c 'while :; do :; done' & sleep 3600"]
"""Lets a process in another session use a CPU."""

CASES = {
    "wall": (["sleep", "3600"], Limits(wall=0.2)),
    "cpu": (SPIN, Limits(cpu=0.2)),
    "output": (["yes"], Limits(output=1000)),
    "exited": (["sh", "-c", "exit 3"], Limits(wall=60, cpu=60, output=1000)),
    "signaled": (["sh", "-c", "kill -9 $$; sleep 60"], Limits(wall=60)),
}


def ends_all(name: str) -> set[str]:
    """Return the processes of a container, without zombies."""
    groups = Path("/sys/fs/cgroup/pids", name).rglob("cgroup.procs")
    return {pid for group in groups for pid in group.read_text().split()}


async def left(client: Runc, name: str, runtime: Runtime) -> set[str]:
    """Return the processes of a container; those of a sandbox have pids of its own."""
    return set(map(str, await client.ps(name))) if runtime.is_sandbox else ends_all(name)


def check(case: str, response: Response) -> None:
    """See that a response is that of its case."""
    assert response.reason == case
    if case == "output":
        assert response.stdout == b"y\n" * 500
    assert response.exit_code == (3 if case == "exited" else 137)


@pytest.mark.parametrize("case", CASES)
async def test_exec(client: Runc, make_container: MakeContainer, runtime: Runtime, case: str) -> None:
    """An `exec` ends by its limits, and nothing of it is left."""
    args, limits = CASES[case]
    name = await make_container()
    before = await left(client, name, runtime)
    if (runtime.is_crun or runtime.is_sandbox) and limits.cpu is not None:
        with pytest.raises(UnsupportedError, match="CPU time"):
            await client.exec(name, args, limits=limits)
        return
    check(case, await client.exec(name, args, limits=limits))
    assert await left(client, name, runtime) == before


@pytest.mark.parametrize("io", [CapturedIO(), CapturedIO(stderr="stdout")], ids=["separate", "joined"])
@pytest.mark.parametrize("case", [case for case in CASES if case != "signaled"])  # the first process ignores that
async def test_run(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], case: str, io: CapturedIO
) -> None:
    """A `run` ends by its limits, and its container is deleted; also where runc hands its streams over."""
    args, limits = CASES[case]
    check(case, await client.run(container_id(), make_bundle(args), limits=limits, io=io))
    assert await client.list() == []


@pytest.mark.needs("exec --ignore-paused")  # as runc has it, and crun doesn't
async def test_cpu_of_all(client: Runc, make_container: MakeContainer) -> None:
    """CPU time of all that an `exec` has started counts, and the container's own and another exec's doesn't."""
    name = await make_container(args=SPIN)
    other = asyncio.create_task(client.exec(name, SPIN))
    response = await client.exec(name, SPINNERS, limits=Limits(cpu=0.2))
    assert response.reason == "cpu"
    assert (await client.exec(name, ["sleep", "0.5"], limits=Limits(cpu=0.2))).reason == "exited"
    other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await other


async def test_what_was_written_before_the_end(client: Runc, make_container: MakeContainer) -> None:
    """A program that writes too much and exits before that is seen has reached its limit as well."""
    name = await make_container()
    script = ["sh", "-c", "head -c 2000 /dev/zero; exit 5"]
    response = await client.exec(name, script, limits=Limits(output=1999))
    assert (response.reason, len(response.stdout)) == ("output", 1999)
    assert response.exit_code in {5, 137}  # it may have been ended before
    response = await client.exec(name, script, limits=Limits(output=2000))
    assert (response.reason, len(response.stdout), response.exit_code) == ("exited", 2000, 5)


async def test_a_timeout_raises(client: Runc, make_container: MakeContainer) -> None:
    """`timeout` raises as it does without limits."""
    name = await make_container()
    with pytest.raises(RuncTimeout):
        await client.exec(name, ["sleep", "60"], timeout=0.3, grace=0, limits=Limits(wall=60, output=10))


@pytest.mark.needs("memory controller")
@pytest.mark.needs("run --keep")
@pytest.mark.parametrize("io", [CapturedIO(), CapturedIO(stderr="stdout")], ids=["separate", "joined"])
async def test_run_out_of_memory(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], io: CapturedIO
) -> None:
    """A `run` that the kernel has killed for want of memory ended for that, if its container is kept for a moment."""
    args = ["dd", "if=/dev/zero", "of=/dev/null", "bs=512M"]
    limit = {"limit": 32 << 20, "swap": 32 << 20}
    bundle = make_bundle(args, linux={"resources": {"memory": limit}})
    assert (await client.run(container_id(), bundle, io=io, usage=True)).reason == "oom"


@pytest.mark.needs("memory controller")
@pytest.mark.needs("exec --ignore-paused")  # as runc has it, and crun doesn't
async def test_out_of_memory(client: Runc, make_container: MakeContainer) -> None:
    """An `exec` in whose container the kernel has killed for want of memory ended for that, if its code isn't 0."""
    name = await make_container(linux={"resources": {"memory": {"limit": 32 << 20}}})
    eat = "head -c 100000000 /dev/zero | tail -c 90000000 | wc"
    assert (await client.exec(name, ["sh", "-c", f"{eat}; exit 1"])).reason == "oom"
    assert (await client.exec(name, ["sh", "-c", f"{eat}; exit 0"])).reason == "exited"
    assert (await client.exec(name, ["sh", "-c", "exit 1"])).reason == "exited"
