"""A pool whose containers are killed, whose takes are cancelled and whose bundles fail gives no container twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import anyio
import leaks
import pytest
import sweep

from runc_async import Bundle, PipedIO, Pool, Runc, RuncError, spec
from runc_async._containers.ownership import recorded_process
from runc_async._pool.warm import WarmState

if TYPE_CHECKING:
    from runtime import Runtime

    from runc_async.container import Container

pytestmark = [pytest.mark.runc, pytest.mark.needs("cgroup removal")]

TAKES = 1000 if sweep.ALL else 60
TASKS = 50 if sweep.ALL else 12
SIZE = 8

COUNT = "n=0; while read word; do n=$((n+1)); echo $word $n; done"
"""The program: it answers each line with that line, and how many there have been."""

LONGEST = 0.15
"""Seconds after which a take that is to be cancelled is cancelled at the latest."""


class BundleFailedError(Exception):
    """What a bundle fails with."""


class Chaos:
    """Bundles that fail, kills and cancels, at random; and what has become of the takes.

    Attributes:
        outcomes: How many takes have ended in each way.
        wrong: What has gone wrong.
    """

    def __init__(self, seed: int, root: Path, rootfs: Path, scratch: Path) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._random = random.Random(seed)  # noqa: S311 - it is to be repeated
        self._root = root
        self._scratch = scratch
        self._spec = spec.Spec.default().set_args("sh", "-c", COUNT).set_terminal(enabled=False)
        self._rootfs = rootfs
        self._given: set[str] = set()
        self._killed: set[str] = set()

    @contextlib.asynccontextmanager
    async def bundle(self) -> AsyncGenerator[str]:
        """Make a bundle; one in ten fails, and one in twenty has a program that isn't there."""
        dice = self._random.random()
        if dice < 0.1:
            raise BundleFailedError
        own = self._spec if dice > 0.15 else spec.Spec.default().set_args("/nonesuch").set_terminal(enabled=False)
        async with Bundle.temporary(rootfs=self._rootfs, spec=own, directory=self._scratch) as bundle:
            yield os.fspath(bundle)

    async def kill(self) -> None:
        """Kill the first process of each fifth container, some time after it was made."""
        seen: set[str] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                for name in set(leaks.containers(self._root)) - seen:
                    seen.add(name)
                    if self._random.random() < 0.2:
                        group.create_task(self._kill(name))
                await asyncio.sleep(0.01)

    async def _kill(self, victim: str) -> None:
        """Kill a container's first process."""
        await asyncio.sleep(self._random.uniform(0, 0.3))
        with contextlib.suppress(OSError):
            process = recorded_process(str(self._root), victim)
            if process is not None and process.exists():
                self._killed.add(victim)
                os.kill(process.pid, signal.SIGKILL)

    async def take(self, pool: Pool) -> None:
        """Take one container, and see that it is new, and alive unless it was killed."""
        limit = self._random.uniform(0, LONGEST) if self._random.random() < 0.2 else 60.0
        outcome = "cancelled"
        with anyio.move_on_after(limit) as scope:
            try:
                async with pool.take() as container:
                    outcome = await self._use(container)
            except (BundleFailedError, RuncError) as exc:
                outcome = type(exc).__name__
        if scope.cancelled_caught and limit > LONGEST:
            self.wrong.append("a take has hung")
        self.outcomes[outcome] += 1

    async def _use(self, container: Container) -> str:
        """Use a container, and return what it was."""
        if container.id in self._given:
            self.wrong.append(f"{container.id} was given twice")
        self._given.add(container.id)
        assert container.stdin is not None
        assert container.stdout is not None
        answer = ""
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, StopAsyncIteration):
            await container.stdin.send(f"{container.id}\n".encode())
            answer = await anext(container.stdout.lines())
        if container.id in self._killed:
            return "killed"
        if answer != f"{container.id} 1":
            self.wrong.append(f"{container.id} isn't alive, or not new: {answer!r}")
        return "served"


@pytest.fixture
def calm() -> Iterator[None]:
    """Keep the delay after failures short: there are many, on purpose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runc_async._pool.delay.LAST", 0.2)
        yield


@pytest.mark.timeout(170 if not sweep.ALL else 1200)
@pytest.mark.usefixtures("calm")
@pytest.mark.proof(every=3)
@pytest.mark.parametrize("state", get_args(WarmState))
async def test_chaos(  # noqa: PLR0917 - the fixtures
    state: WarmState,
    client: Runc,
    runtime: Runtime,
    root: Path,
    rootfs: Path,
    scratch: Path,
    container_id: Callable[[], str],
    tried: Callable[[str, int], None],
    record_property: Callable[[str, object], None],
) -> None:
    """Each take gets a container that is new and lives, or an error; and nothing is left."""
    name = container_id()
    before = set(scratch.iterdir())
    chaos = Chaos(len(state), root, rootfs, scratch)
    async with Pool(client, chaos.bundle, size=SIZE, state=state, io=PipedIO(stderr=False), name=name, grace=0) as pool:
        killing = asyncio.create_task(chaos.kill())
        for _ in range(TAKES // TASKS):
            with anyio.move_on_after(10.0):  # otherwise all takes would be misses
                while pool.stats().ready < SIZE:  # noqa: ASYNC110 - filled() ends with the first failure
                    await asyncio.sleep(0.02)
            async with asyncio.TaskGroup() as group:
                for _ in range(TASKS):
                    group.create_task(chaos.take(pool))
        killing.cancel()
        await asyncio.wait([killing])
    assert sum(chaos.outcomes.values()) == TAKES
    tried("takes from a pool under kills, cancels and failures", TAKES)
    told = f"{state}, {runtime}: {dict(chaos.outcomes)}, {pool.stats()}"
    record_property("outcomes", told)
    assert chaos.wrong == []
    assert chaos.outcomes["served"] > TAKES // 5, told
    assert list(leaks.containers(root)) == []
    assert set(scratch.iterdir()) == before
    assert leaks.left_on_host(name) == []
