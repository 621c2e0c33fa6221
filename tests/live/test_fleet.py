"""`Fleet` on a real cluster: a scheduler and workers as processes of their own, and real containers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from dask_cluster import DaskCluster, dask_cluster
from waiting import until

from runc_async import spec
from runc_async.dask import Fleet, NodeLost, NoNode, Recipe, RecipeRefused

pytestmark = [pytest.mark.runc, pytest.mark.timeout(300)]

Cluster: TypeAlias = tuple[DaskCluster, Any]

CLIENT = """
import asyncio, sys
from distributed import Client
from runc_async.dask import Fleet, Recipe

async def main():
    async with Client(scheduler_file=sys.argv[1], asynchronous=True) as client, Fleet(client, lease=2) as fleet:
        recipe = Recipe(spec=sys.stdin.buffer.read(), rootfs="busybox")
        async with fleet.open(recipe) as box:
            print(box.id, flush=True)
            await box.wait()

asyncio.run(main())
"""


def recipe(*args: str, memory: int | str = "64M") -> Recipe:
    """Return a recipe around busybox."""
    return Recipe(
        spec=spec.Spec.default().set_args(*args).set_terminal(enabled=False).limit_memory(memory), rootfs="busybox"
    )


def containers(root: Path) -> set[str]:
    """Return the ids of all containers below a root directory."""
    return {path.name for path in root.iterdir() if path.is_dir()} if root.exists() else set()


@pytest.fixture
async def cluster(tmp_path: Path, root: Path) -> AsyncIterator[Cluster]:
    """Run a cluster of two workers."""
    async with dask_cluster(tmp_path, root, "one", "two") as (processes, client):
        yield processes, client


async def test_runs_and_boxes(cluster: Cluster, root: Path) -> None:
    """Runs are spread, give their own results in any number, and a box has streams; nothing is left of any."""
    _, client = cluster
    async with Fleet(client, capacity=2) as fleet:
        assert {(node.name, node.state, node.capacity) for node in fleet.nodes()} == {
            ("one", "ready", 2),
            ("two", "ready", 2),
        }

        echo = recipe("sh", "-c", "cat; echo oops >&2; exit 3")
        responses = await asyncio.gather(*(fleet.run(echo, input=str(number).encode()) for number in range(12)))
        assert [(each.stdout, each.stderr, each.exit_code) for each in responses] == [
            (str(number).encode(), b"oops\n", 3) for number in range(12)
        ]
        assert min(Counter(each.node for each in responses).values()) >= 4

        async with fleet.open(echo) as box:
            await box.stdin.send(b"a line\n")
            assert await anext(box.stdout.lines()) == "a line"
            answer = await box.exec(["sh", "-c", "cat; exit 4"], input=b"inside")
            assert (answer.stdout, answer.exit_code) == (b"inside", 4)
            assert containers(root) == {box.id}
            await box.stdin.aclose()
            assert (await box.wait()).code == 3
            assert [line async for line in box.stderr.lines()] == ["oops"]
        assert containers(root) == set()

        async with fleet.open(recipe("sleep", "100")) as box:
            await box.kill("KILL")
            assert (await box.wait()).signal == signal.SIGKILL


@pytest.mark.proof
async def test_what_a_box_prints_arrives_whole(cluster: Cluster) -> None:
    """Megabytes go both ways through bounded buffers, and come back as they were."""
    _, client = cluster
    data = os.urandom(3 << 20)
    async with Fleet(client) as fleet, fleet.open(recipe("cat")) as box:
        got = bytearray()
        async with asyncio.TaskGroup() as group:

            async def write() -> None:
                await box.stdin.send(data)
                await box.stdin.aclose()

            group.create_task(write())
            async for chunk in box.stdout:
                got += chunk
        assert got == data


@pytest.mark.proof
async def test_cut_short(cluster: Cluster, root: Path) -> None:
    """A cancelled run, a failing block and the end of the fleet end their containers before they return."""
    _, client = cluster
    async with Fleet(client) as fleet:
        run = asyncio.create_task(fleet.run(recipe("sleep", "100")))
        await until(lambda: len(containers(root)) == 1)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert containers(root) == set()
        with pytest.raises(ZeroDivisionError):
            async with fleet.open(recipe("sleep", "100")):
                raise ZeroDivisionError
        assert containers(root) == set()
        run = asyncio.create_task(fleet.run(recipe("sleep", "100")))
        await until(lambda: len(containers(root)) == 1)
    assert containers(root) == set()
    with pytest.raises(NodeLost, match="closed"):
        await run


async def test_recipes_that_no_node_runs(tmp_path: Path, root: Path) -> None:
    """A recipe that is too large, unknown or not allowed is refused with the reason, and nothing waits."""
    allowed = recipe("true")
    large = recipe("true", memory=1 << 60)
    unknown = Recipe(spec=allowed.spec, rootfs="ruby")
    async with dask_cluster(tmp_path, root) as (cluster, client):
        digests = json.dumps([allowed.digest, large.digest, unknown.digest])
        await cluster.start_worker("strict", recipes=digests)
        await client.wait_for_workers(1)
        async with Fleet(client) as fleet:
            assert (await fleet.run(allowed)).exit_code == 0
            with pytest.raises(RecipeRefused, match="list"):
                await fleet.run(recipe("false"))
            with pytest.raises(NoNode, match="less memory"):
                await fleet.run(large)
            with pytest.raises(RecipeRefused, match="ruby"):
                await fleet.run(unknown)


@pytest.mark.proof
async def test_a_client_that_vanishes(cluster: Cluster, root: Path) -> None:
    """The sandboxes of a client that is killed end with its lease."""
    processes, _ = cluster
    process = subprocess.Popen(  # noqa: ASYNC220 - it starts in a moment
        [sys.executable, "-c", CLIENT, str(processes.scheduler_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin:
        process.stdin.write(recipe("sleep", "1000").document().encode())
    name = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
    assert containers(root) == {name}
    process.kill()
    process.wait()
    process.stdout.close()
    await until(lambda: containers(root) == set(), seconds=60)


@pytest.mark.proof
async def test_a_node_that_hangs(cluster: Cluster, root: Path) -> None:
    """A node that is silent for longer than the patience is lost; when it goes on it ends what it had."""
    _, client = cluster
    workers = await client.run(os.getpid)
    async with Fleet(client, lease=4, patience=2) as fleet:
        run = asyncio.create_task(fleet.run(recipe("sleep", "1000")))
        await until(lambda: len(containers(root)) == 1)
        (address,) = [node.address for node in fleet.nodes() if node.runs]
        os.kill(workers[address], signal.SIGSTOP)
        try:
            with pytest.raises(NodeLost):
                await run
            assert (await fleet.run(recipe("true"))).exit_code == 0  # the other one goes on
        finally:
            os.kill(workers[address], signal.SIGCONT)
        await until(lambda: containers(root) == set(), seconds=60)
        await until(lambda: all(node.state == "ready" for node in fleet.nodes()), seconds=60)
        assert {(await fleet.run(recipe("true"))).node for _ in range(6)} == {"one", "two"}


@pytest.mark.proof
async def test_a_worker_that_is_killed(cluster: Cluster, root: Path) -> None:
    """Callers of a killed worker get NodeLost, a new one sweeps what it left, and a retry waits for that."""
    processes, client = cluster
    await processes.stop("two")
    async with Fleet(client, lease=20, patience=2) as fleet:
        lost = asyncio.create_task(fleet.run(recipe("sleep", "1000")))
        again = asyncio.create_task(fleet.run(recipe("sh", "-c", "cat; exit 5"), input=b"x", retries=0))
        assert (await again).exit_code == 5
        retried = asyncio.create_task(fleet.run(recipe("sleep", "3"), retries=1))
        await until(lambda: len(containers(root)) == 2)
        first = containers(root)
        await processes.stop("one")
        with pytest.raises(NodeLost):
            await lost
        await processes.start_worker("three")
        response = await retried
        assert (response.node, response.exit_code) == ("three", 0)
        assert not containers(root) & first
    assert containers(root) == set()
