"""`StatsReader` on real containers: the same figures as the runtime's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import pytest
import runtime as runtimes

from runc_async.state import Status
from runc_async.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from containers import MakeContainer
    from runtime import Runtime

    from runc_async.client import Runc

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | float | None"

pytestmark = [pytest.mark.runc, pytest.mark.root]


def disagreements(before: Plain, read: Plain, after: Plain, path: str = "") -> Iterator[str]:
    """Yield where a value is neither between two readings of the runtime's nor equal to the first."""
    if isinstance(read, dict) and isinstance(before, dict) and isinstance(after, dict):
        for name in {*read, *before}:
            yield from disagreements(before.get(name), read.get(name), after.get(name), f"{path}.{name}")
    elif isinstance(read, list) and isinstance(before, list) and isinstance(after, list) and len(read) == len(before):
        for index, values in enumerate(zip(before, read, after, strict=True)):
            yield from disagreements(*values, f"{path}[{index}]")
    elif isinstance(read, int) and isinstance(before, int) and isinstance(after, int):
        if not min(before, after) <= read <= max(before, after):
            yield f"{path}: {before} {read} {after}"
    elif read != before and not path.endswith(".psi"):  # runc has it since 1.2 and averages move
        yield f"{path}: {before!r} {read!r} {after!r}"


@pytest.mark.any_loop
@pytest.mark.needs("events")
async def test_all_fields_are_those_of_the_runtime(client: Runc, make_container: MakeContainer) -> None:
    """Every field has the value that `stats` has, for running, created and paused containers."""
    work = ("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=3 2>/dev/null; exec sleep 60")
    limits: dict[str, Any] = (
        {"linux": {"resources": {"memory": {"limit": 64 << 20}}}} if runtimes.has_controller("memory") else {}
    )
    names = [
        await make_container(args=work, **limits),
        await make_container(Status.CREATED),
        await make_container(Status.PAUSED),
    ]
    async with client.stats_reader() as reader:
        assert (await reader.read()).keys() == set(names)
        for name in names:
            before = await client.stats(name)
            read = (await reader.read([name]))[name]
            after = await client.stats(name)
            assert list(disagreements(*map(msgspec.to_builtins, (before, read, after)))) == []
            assert isinstance(read, Stats)


async def test_containers_come_and_go(client: Runc, make_container: MakeContainer) -> None:
    """A new container is read, a stopped one too, and a deleted one isn't, though its descriptors were kept."""
    open_before = len(os.listdir("/proc/self/fd"))
    async with client.stats_reader() as reader:
        assert await reader.read() == {}
        first = await make_container()
        assert (await reader.read()).keys() == {first}
        second = await make_container(Status.STOPPED)
        assert (await reader.read()).keys() == {first, second}
        await client.delete(first, force=True)
        assert (await reader.read()).keys() == {second}
        assert (await reader.read([first, second, second, "other"])).keys() == {second}
        assert reader.read_now().keys() == {second}
    assert len(os.listdir("/proc/self/fd")) == open_before


async def test_a_container_of_the_same_id_is_another(
    client: Runc, make_container: MakeContainer, make_bundle: Any
) -> None:
    """A container that was deleted and created anew between two readings is read anew."""
    name = await make_container(args=("sh", "-c", "while :; do :; done"))
    async with client.stats_reader() as reader:
        used = 0
        while used < 50_000_000:
            used = (await reader.read())[name].cpu.usage.total
        await client.delete(name, force=True)
        await client.create(name, make_bundle(["sleep", "60"]))
        assert 0 < (await reader.read())[name].cpu.usage.total < used


@pytest.mark.needs("cgroup v2")
async def test_pressure_is_read_whatever_the_runtime(
    client: Runc, make_container: MakeContainer, runtime: Runtime
) -> None:
    """On cgroup v2 the pressure is there where the kernel measures it."""
    name = await make_container()
    async with client.stats_reader() as reader:
        stats = (await reader.read())[name]
    assert (stats.cpu.psi is not None) == os.path.exists("/proc/pressure/cpu"), str(runtime)
