"""A service is killed at random moments: what its container prints, and how it ends, reaches the next one."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import keepers
import kept_service
import msgspec
import proof
import pytest

from runc_async import Keeper, PipedIO, PtyIO, Runc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from containers import MakeBundle
    from proof import Tried

pytestmark = pytest.mark.runc

KILLS = int(os.environ.get("KEEPER_KILLS", proof.amount(24, 4)))
"""How often a service is killed, of each kind of streams; 200 for the whole proof."""

EACH = min(12, KILLS)
"""How often one container's service is killed."""

LINES = 60_000
SCRIPT = "i=0; while [ $i -lt $0 ]; do echo line $i; i=$((i+1)); done; exit 42"


@pytest.fixture
async def keeper(scratch: Path) -> AsyncIterator[Keeper]:
    """Return a client of a keeper, which is ended with the test."""
    place = scratch / f"k{os.urandom(3).hex()}"
    async with Keeper.connect(place, start=True, timeout=60) as keeper:
        yield keeper
    await keepers.end(place)
    keepers.remove(place)


@pytest.fixture
def start(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> Callable[[bool], Awaitable[tuple[str, Path]]]:
    """Return a function that starts a container which prints lines, and returns its id and a directory for files."""

    async def started(terminal: bool) -> tuple[str, Path]:  # noqa: FBT001 - one of two
        name = container_id()
        bundle = make_bundle(["sh", "-c", SCRIPT, str(LINES)], process={"terminal": terminal})
        await keeper.start(client, name, bundle, io=PtyIO() if terminal else PipedIO())
        return name, bundle

    return started


@pytest.mark.timeout(900)
@pytest.mark.parametrize("terminal", [False, True], ids=["pipes", "terminal"])
async def test_a_killed_service_loses_nothing(
    keeper: Keeper,
    start: Callable[[bool], Awaitable[tuple[str, Path]]],
    tried: Tried,
    terminal: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """No line is lost, and none comes twice, but for those that the killed one had read; the status is 42 each time."""
    end = "\r\n" if terminal else "\n"
    expected = "".join(f"line {number}{end}" for number in range(LINES)).encode()
    killed = missing = 0
    for seed in range(-(-KILLS // EACH)):
        name, out = await start(terminal)
        words = (sys.executable, kept_service.__file__, keeper.path, name, str(out), str(EACH), str(seed))
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        lives = msgspec.json.decode(said, type=list[kept_service.Life])
        missing += kept_service.lost(lives, out, expected)
        killed += sum(life.killed for life in lives)
        assert {life.code for life in lives[:-1] if not life.killed} <= {0}
        assert (lives[-1].code, (await keeper.wait(name)).code) == (42, 42)
        await keeper.delete(name)
    tried(f"kills of a service, {'terminal' if terminal else 'pipes'}", killed)
    print(f"{killed} kills; killed ones had read {missing} bytes that they hadn't written")  # noqa: T201 - a figure
