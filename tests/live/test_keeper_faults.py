"""A keeper on a host that has no descriptor or no room left."""

from __future__ import annotations

import resource
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import faults
import keepers
import pytest
from waiting import until

from runc_async import Keeper, PipedIO, Runc, RuncError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from containers import MakeBundle
    from proof import Tried

pytestmark = pytest.mark.runc


@pytest.fixture
async def place(scratch: Path) -> AsyncIterator[Path]:
    """Return a place for a keeper on a small disk, which is ended with the test."""
    with faults.small_disk(scratch) as disk:
        place = disk / "k"
        yield place
        await keepers.end(place)
        keepers.remove(place)


@pytest.fixture
async def keeper(place: Path) -> AsyncIterator[Keeper]:
    """Return a client of the keeper."""
    async with Keeper.connect(place, start=True, timeout=60) as keeper:
        yield keeper


async def test_no_descriptor_left(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], tried: Tried
) -> None:
    """With any number of descriptors left, a start succeeds or leaves nothing, and the keeper goes on afterwards."""
    bundle = make_bundle(["sleep", "60"])
    await keeper.start(client, container_id(), bundle, io=PipedIO())  # so that all is loaded, and the version known
    for kept in await keeper.list():
        await keeper.delete(kept.id, force=True)
    before = keepers.open_descriptors(keeper.pid)
    _, hard = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE)
    top = max(map(int, before))
    refused = 0
    for spare in range(1, 31):
        name = container_id()
        soft, _ = resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (top + spare, hard))
        try:
            await keeper.start(client, name, bundle, io=PipedIO())
        except (RuncError, OSError):
            refused += 1
            started = False
        else:
            started = True
        finally:
            resource.prlimit(keeper.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert [kept.id for kept in await keeper.list()] == [name] * started
        assert [state.id for state in await client.list()] == [name] * started
        if started:
            await keeper.delete(name, force=True)
    await until(lambda: len(keepers.open_descriptors(keeper.pid)) <= len(before))
    assert 0 < refused < 30
    tried("starts in a keeper without descriptors", 30)


async def test_no_room_left(
    keeper: Keeper, place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A start without room for the record leaves nothing; an end without room for it is known, and written later."""
    name, other = container_id(), container_id()
    await keeper.start(client, name, make_bundle(["sh", "-c", "read line; exit 42"]), io=PipedIO())
    with faults.full(place.parent):
        with pytest.raises(OSError, match="No space left on device"):
            await keeper.start(client, other, make_bundle(["sleep", "60"]))
        assert [state.id for state in await client.list()] == [name]
        async with keeper.attach(name) as container:
            assert container.stdin
            await container.stdin.send(b"\n")
            assert (await container.wait()).code == 42
        assert [kept.id for kept in await keeper.list()] == [name]
    await keeper.start(client, other, make_bundle(["true"]))
    await keeper.wait(other)
    await keepers.end(place, signal.SIGKILL)
    assert {kept.id: kept.status and kept.status.code for kept in await keeper.list()} == {name: 42, other: 0}
    for each in (name, other):
        await keeper.delete(each)
