"""`Fleet` on a cluster of separate processes, with a network namespace for each worker: a load, and random faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import leaks
import proof
import pytest
from dask_cluster import DaskCluster
from networks import Network, network
from waiting import until

pytestmark = [pytest.mark.runc, pytest.mark.root, pytest.mark.proof]

CLIENT = Path(__file__).with_name("fleet_client.py")
NODES = 4
PLACES = 2
"""Sandboxes at once on each node."""


class Clients:
    """Clients as processes of their own."""

    def __init__(self, place: Path, scheduler: Path, root: Path) -> None:
        self._words = ["--scheduler", str(scheduler), "--shared", str(place), "--root", str(root)]
        self.root = root
        self._tokens = place / "tokens"

    async def start(self, mode: str, name: str, **options: float) -> asyncio.subprocess.Process:
        """Start one, and wait until it is ready."""
        words = [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(CLIENT),
            mode,
            name,
            *self._words,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    async def answers(self, *processes: asyncio.subprocess.Process) -> list[dict[str, Any]]:
        """Let them begin, and return what each of them has printed at its end."""
        said = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
        return [json.loads(stdout) for stdout, _ in said]

    def began(self) -> Counter[str]:
        """Return how often each run has begun."""
        return Counter(self._tokens.read_text().split())


Cluster: TypeAlias = tuple[DaskCluster, Network, Clients]


@pytest.fixture
async def cluster(tmp_path: Path, root: Path) -> AsyncIterator[Cluster]:
    """Run a scheduler, and four workers with nannies; return what starts clients, too."""
    shared = tmp_path / "shared"
    shared.mkdir()
    with network(NODES) as net:
        processes = DaskCluster(tmp_path, root, net.address)
        try:
            await processes.start_scheduler()
            for number, host in enumerate(net.hosts.items()):
                await processes.start_worker(f"node-{number}", host=host)
            yield processes, net, Clients(shared, processes.scheduler_file, root)
        finally:
            await processes.close()


@pytest.mark.timeout(1800)
async def test_a_load(cluster: Cluster, prefix: str, tried: proof.Tried) -> None:
    """Three clients have 2,000 runs, evenly spread, and each begins once; `-s` shows the times beside no fleet."""
    processes, _, clients = cluster
    here: list[dict[str, Any]] = []
    there: list[list[dict[str, Any]]] = []
    runs, rounds = proof.amount(2000, 120), proof.amount(4, 1)
    for part in range(rounds):
        # By turns, so that the load of the machine is the same for both.
        three = [
            await clients.start(
                "load",
                f"{prefix}{part}-{each}",
                runs=runs // rounds // 3 + (each < runs // rounds % 3),
                at_once=4,
                capacity=PLACES,
            )
            for each in range(3)
        ]
        there += [await clients.answers(*three)]
        alone = await clients.start("here", f"{prefix}{part}-here", runs=runs // rounds, at_once=NODES * PLACES)
        here += await clients.answers(alone)
    pairs = await clients.answers(await clients.start("paired", f"{prefix}paired", runs=proof.amount(200, 20)))
    nodes: Counter[str] = Counter()
    for answers in there:
        for each in answers:
            nodes.update(each["nodes"])
    sys.stdout.write(f"fleet {[max(each['seconds'] for each in answers) for answers in there]} s, ")
    sys.stdout.write(f"here {[each['seconds'] for each in here]} s, one at a time {pairs}, {nodes}\n")
    assert nodes.total() == runs
    assert [each["wrong"] for answers in there for each in answers if each["wrong"]] == []
    assert set(clients.began().values()) == {1}
    assert max(nodes.values()) - min(nodes.values()) <= runs // NODES // 4
    assert list(clients.root.iterdir()) == []
    await processes.close()
    assert leaks.left_on_host(prefix) == []
    tried("runs of a fleet", runs)


class Faults:
    """A cluster and its clients under random faults; what ends is started again, as systemd does.

    Attributes:
        outcomes: How each run has ended, by its token; "began" for a run of a client that was killed.
        done: How many faults of each kind there were.
    """

    def __init__(self, seed: int, processes: DaskCluster, net: Network, clients: Clients, prefix: str) -> None:
        self.outcomes: dict[str, str] = {}
        self.done: Counter[str] = Counter()
        self._dice = random.Random(seed)  # noqa: S311 - it is to be repeated
        self._processes = processes
        self._hosts = {f"node-{number}": host for number, host in enumerate(net.hosts.items())}
        self._clients = clients
        self._prefix = prefix
        self._running: list[asyncio.subprocess.Process] = []
        self._readers: list[asyncio.Task[None]] = []
        self._resumed: list[asyncio.Task[None]] = []

    async def start_client(self) -> None:
        """Start a client; one in three has a retry."""
        number = len(self._readers)
        name = f"{self._prefix}{'retry' if number % 3 == 2 else 'once'}-{number}"
        process = await self._clients.start(
            "faults", name, at_once=4, capacity=PLACES, seconds=0.2, lease=8, patience=4, retries=number % 3 // 2
        )
        assert process.stdin is not None
        process.stdin.write(b"begin\n")
        self._running.append(process)
        self._readers.append(asyncio.create_task(self._read(process)))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """Note what a client prints; the last line of one that is killed may be cut."""
        assert process.stdout is not None
        async for line in process.stdout:
            with contextlib.suppress(ValueError):
                token, outcome = json.loads(line)
                self.outcomes[token] = outcome

    async def cause(self, number: int) -> None:
        """Cause faults, one after the other."""
        kinds = {"cancel": 30, "worker": 35, "node": 10, "client": 15, "hang": 5, "scheduler": 5}
        planned = [kind for kind, share in kinds.items() for _ in range(max(share * number // 100, 1))]
        self._dice.shuffle(planned)
        for kind in planned:
            await asyncio.sleep(self._dice.uniform(0.0, 1.5))
            await getattr(self, f"_{kind}")()
            self.done[kind] += 1
            await self._revive()
        await asyncio.gather(*self._resumed)

    async def finish(self) -> None:
        """Let the clients end their runs, and wait for them."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.close()
        await asyncio.gather(*self._readers, *(process.wait() for process in self._running))

    async def close(self) -> None:
        """End the clients that are left."""
        for process in self._running:
            if process.returncode is None:
                process.kill()
                await process.wait()
        for task in (*self._readers, *self._resumed):
            task.cancel()

    async def _revive(self) -> None:
        """Start the nodes again that have ended."""
        for name, host in self._hosts.items():
            if self._processes.ended(name):
                await self._processes.start_worker(name, host=host)

    def _workers(self) -> tuple[str, list[int]]:
        """Choose a node; return its name and the pids of its worker, if there is one now."""
        name = self._dice.choice(list(self._hosts))
        return name, worker_pids(self._processes.pid(name))

    async def _cancel(self) -> None:
        stdin = self._dice.choice(self._running).stdin
        assert stdin is not None
        stdin.write(b"cancel\n")

    async def _worker(self) -> None:
        for pid in self._workers()[1]:
            send_signal(pid, signal.SIGKILL)

    async def _node(self) -> None:
        name, workers = self._workers()
        for pid in (self._processes.pid(name), *workers):
            send_signal(pid, signal.SIGKILL)
        await until(lambda: self._processes.ended(name))

    async def _hang(self) -> None:
        for pid in self._workers()[1]:
            self._resumed.append(asyncio.create_task(hang(pid)))

    async def _client(self) -> None:
        process = self._running.pop(self._dice.randrange(len(self._running)))
        process.kill()
        await process.wait()
        await self.start_client()

    async def _scheduler(self) -> None:
        await self._processes.stop("scheduler")
        await self._processes.start_scheduler()


def worker_pids(nanny: int) -> list[int]:
    """Return the children of a nanny that are workers."""
    with contextlib.suppress(OSError):
        children = [int(word) for word in Path(f"/proc/{nanny}/task/{nanny}/children").read_text().split()]
        return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return []


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


async def hang(pid: int) -> None:
    """Stop a process for 20 seconds."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGSTOP)
            await asyncio.sleep(20)
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        finally:
            os.close(descriptor)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1])
async def test_faults(cluster: Cluster, prefix: str, seed: int, tried: proof.Tried) -> None:
    """Whatever is killed, hangs or restarts, a run gives its result or NodeLost, begins once, and nothing is left."""
    processes, net, clients = cluster
    faults = Faults(seed, processes, net, clients, prefix)
    try:
        for _ in range(3):
            await faults.start_client()
        await faults.cause(proof.amount(100, 12))
        await faults.finish()
    finally:
        await faults.close()
    outcomes = Counter(outcome for outcome in faults.outcomes.values())
    sys.stdout.write(f"seed {seed}: {faults.done}, {outcomes}\n")
    assert set(outcomes) <= {"right", "lost", "cancelled", "began"}
    assert outcomes["right"] > sum(outcomes.values()) / 2
    began = clients.began()
    assert [token for token, number in began.items() if number > (2 if "retry" in token else 1)] == []
    assert [token for token, outcome in faults.outcomes.items() if outcome == "right" and not began[token]] == []
    # The lease of the clients, and the start of the workers that were killed last.
    await until(lambda: list(clients.root.iterdir()) == [], seconds=45)
    await processes.close()
    assert leaks.left_on_host(prefix) == []
    tried("faults of a fleet", faults.done.total())
    tried("runs of a fleet", len(faults.outcomes))
