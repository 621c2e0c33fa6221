"""A service is killed at random moments, and another process sweeps: nothing of it is left, others lose nothing."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from typing import TYPE_CHECKING

import doomed
import leaks
import proof
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proof import Tried
    from runtime import Runtime

    from runc_async import Runc

pytestmark = pytest.mark.runc

KILLS = int(os.environ.get("SWEEP_KILLS", proof.amount(4, 2)))
"""How often a service is killed; 100 for the whole proof."""

EACH = 10
"""How often in one test, at most."""

CONTAINERS = 10
LONGEST = 2.5
"""Seconds after which it is killed at the latest: by then it has opened its containers, or closes them again."""


@pytest.mark.timeout(170)
@pytest.mark.parametrize("part", range(-(-KILLS // EACH)))
async def test_nothing_is_left_of_a_killed_service(
    *,
    owners: Path,
    client: Runc,
    runtime: Runtime,
    root: Path,
    rootfs: Path,
    scratch: Path,
    container_id: Callable[[], str],
    tried: Tried,
    part: int,
) -> None:
    """No container, mount, directory or cgroup is left of ten containers with overlays; live services lose nothing."""
    chance = random.Random(part)  # noqa: S311 - it is to be repeated
    figures: list[str] = []
    kills = min(EACH, KILLS - part * EACH)
    with tempfile.TemporaryDirectory(dir=scratch) as elsewhere, tempfile.TemporaryDirectory(dir=scratch) as directory:
        words = [str(owners), runtime.command, str(root), str(rootfs)]
        live = [await doomed.started([*words, f"{container_id()}-", "2", "steady"], elsewhere) for _ in range(2)]
        assert [await doomed.line(process) for process in live] == ["ready", "ready"]
        theirs = set(leaks.containers(root))
        for _ in range(kills):
            name = f"{container_id()}-"
            process = await doomed.started([*words, name, str(CONTAINERS), "again"], directory)
            assert await doomed.line(process) == "ready"
            await asyncio.sleep(chance.uniform(0, LONGEST))
            process.kill()
            await process.communicate()
            begun = time.monotonic()
            swept = await client.sweep()
            figures.append(f"{len(swept.containers)} containers in {time.monotonic() - begun:.1f} s")
            assert set(leaks.containers(root)) == theirs
            assert leaks.left_on_host(name) == []
            assert os.listdir(directory) == []
            assert len(os.listdir(owners)) == len(live)
        for process in live:
            said, _ = await process.communicate(b"")
            assert (said, process.returncode) == (b"whole\n", 0)
    assert os.listdir(owners) == []
    tried("kills of a service, then swept", kills)
    print(f"swept: {', '.join(figures)}")  # noqa: T201 - figures
