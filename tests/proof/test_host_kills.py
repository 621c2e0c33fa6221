"""runc is killed at a random moment: the client says so, and nothing is left after a forced deletion at the latest."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import faults
import leaks
import proof
import pytest

from runc_async import RedirectIO, Runc, RuncError, Status
from runc_async.errors import RuncCrashed

if TYPE_CHECKING:
    from containers import MakeBundle
    from runtime import Runtime

pytestmark = [pytest.mark.runc, pytest.mark.needs("cgroup removal"), pytest.mark.needs("clean failures")]

SEEDS = proof.amount(50, 8)
"""How often each command's runc is killed; of a runtime whose containers are kernels of their own, half as often."""

LONGEST = {"create": 0.06, "start": 0.012, "exec": 0.05, "delete": 0.02}
"""Seconds that each takes at most on a machine with nothing else to do."""

SLOWER = 5
"""How many times as long each takes in a sandbox."""


@pytest.fixture
def runner() -> faults.Killing:
    """Return a runner that kills."""
    return faults.Killing()


@pytest.fixture
def victim(runtime: Runtime, root: Path, runner: faults.Killing) -> Runc:
    """Return a client whose runc is killed."""
    return Runc(runtime.command, root=root, runner=runner)


async def killed(
    runner: faults.Killing, client: Runc, command: str, *, name: str, bundle: Path, seed: int, slower: int
) -> bool:
    """Call a command whose runc is killed at a moment that the seed tells, and return whether it was in time."""
    runner.command = command
    # The first one is killed at once: on a busy host the others may all have ended before.
    runner.after = random.Random(seed).uniform(0, LONGEST[command] * slower) if seed else 0.0  # noqa: S311 - it is to be repeated
    try:
        match command:
            case "create":
                await client.create(name, bundle)
            case "start":
                await client.start(name)
            case "exec":
                await client.exec(name, ["sleep", "0.01"], io=RedirectIO())
            case _:
                await client.delete(name)
    except RuncCrashed:
        return True
    finally:
        runner.command = ""
    return False


@pytest.mark.timeout(150)
@pytest.mark.parametrize("command", LONGEST)
async def test_killed_at_a_random_moment(
    *,
    command: str,
    runtime: Runtime,
    victim: Runc,
    client: Runc,
    runner: faults.Killing,
    root: Path,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    tried: Callable[[str, int], None],
) -> None:
    """It is a `RuncCrashed`; `create` leaves nothing at all, and the others nothing that a forced deletion leaves."""
    bundle = make_bundle(["sleep", "1000"])
    crashes = 0
    found: list[str] = []
    name = container_id()
    slower, seeds = (SLOWER, SEEDS // 2) if runtime.is_sandbox else (1, SEEDS)
    for seed in range(seeds):
        if name not in leaks.containers(root):
            name = container_id()
        if command != "create" and name not in leaks.containers(root):
            await client.create(name, bundle)
            if command == "exec":
                await client.start(name)
        before = leaks.footprint()
        try:
            crashed = await killed(runner, victim, command, name=name, bundle=bundle, seed=seed, slower=slower)
        except RuncError as exc:
            found.append(f"seed {seed}: {exc!r}")
            crashed = False
        crashes += crashed
        if crashed and command == "create":
            found += [f"seed {seed}: left container {name}" for name in leaks.containers(root)]
        elif crashed and command == "exec":
            state = await client.state(name)
            if state.status != Status.RUNNING or await others(client, name, 1 if runtime.is_sandbox else state.pid):
                found.append(f"seed {seed}: {state.status}, {await client.top(name)}")
        if command != "exec" or seed == seeds - 1:
            await client.delete(name, force=True)
            found += [f"seed {seed}: left {left}" for left in leaks.left_on_host(name)]
        found += [f"seed {seed}: left {left}" for left in await leaks.left_in_loop(before)]
    tried("runc killed at a random moment, seeds", seeds)
    assert found == []
    assert crashes > 0


async def others(client: Runc, name: str, init: int) -> list[int]:
    """Tell which processes are in a container beside the first, once those that are ending have ended."""
    left: list[int] = []
    for _ in range(100):
        left = [pid for pid in await client.ps(name) if pid != init]
        if not left:
            break
    return left


async def test_what_is_left_is_found(
    client: Runc, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A cgroup that a killed `create` leaves, and nobody removes, is among what these tests look for."""
    name = container_id()
    await client.create(name, make_bundle(["sleep", "1000"]))
    assert leaks.left_on_host(name, patience=0) != []
    assert list(leaks.containers(root)) == [name]
    await client.delete(name, force=True)
    assert leaks.left_on_host(name) == []


@pytest.mark.needs("record directory")
async def test_a_mount_of_runc_itself(
    client: Runc, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str], tmp_path: Path
) -> None:
    """What runc 1.1 mounts for a moment, and leaves when it is killed in it, keeps no id from being used again."""
    bundle = make_bundle(["sleep", "1000"])
    program = tmp_path / "program"
    program.write_bytes(b"runc")
    half_made, whole = container_id(), container_id()
    (root / half_made).mkdir()
    await client.create(whole, bundle)
    for name in (half_made, whole):
        place = root / name / "runc.aSr41G"
        place.touch()
        subprocess.run(["/bin/mount", "--bind", program, place], check=True)  # noqa: ASYNC221 - it is short
        await client.delete(name, force=True)
        assert list(leaks.mounts(str(root))) == []
        assert not (root / name).exists()
        await client.create(name, bundle)
        await client.delete(name, force=True)
    assert program.read_bytes() == b"runc"
