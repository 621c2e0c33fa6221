"""Operations of a whole host and of a keeper for the cancellation sweep: `watch`, `stats_reader`, and `Keeper`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import keepers

from runc_async import Keeper, PipedIO
from runc_async.errors import ContainerNotFound

if TYPE_CHECKING:
    from pathlib import Path

    from operations import Stage


async def watch_the_host(stage: Stage) -> None:
    """Watch all containers: first comes what is there, then what happens."""
    async with stage.client.watch() as changes:
        assert (await anext(changes)).id == stage.name
        name = stage.another()
        await stage.client.run(name, stage.short)
        async for change in changes:
            if (change.id, change.kind) == (name, "deleted"):
                break
    changes = stage.client.watch()
    try:
        await anext(changes)
    finally:
        await changes.aclose()


async def read_the_host(stage: Stage) -> None:
    """Read the resource usage of all containers, twice."""
    async with stage.client.stats_reader() as reader:
        for _ in range(2):
            assert set(await reader.read()) <= {stage.name}
            await asyncio.sleep(0)  # the reader itself waits only where there are many containers


# keepers


def keeper_of(stage: Stage) -> Path:
    """Return the place of the stage's keeper."""
    return stage.directory / "keeper"


async def end_keeper(stage: Stage) -> None:
    """End the stage's keeper, also one that is being started."""
    place = keeper_of(stage)
    while any(keepers.pids(place)):
        await keepers.end(place)
    keepers.remove(place)


async def start_keeper(stage: Stage) -> None:
    """Start a keeper."""
    async with Keeper.connect(keeper_of(stage), start=True, timeout=30):
        pass


async def have_a_keeper(stage: Stage) -> None:
    """See that there is a keeper."""
    if not keeper_of(stage).exists():
        await start_keeper(stage)


async def start_kept(stage: Stage) -> None:
    """Start a container in the keeper."""
    async with Keeper.connect(keeper_of(stage)) as keeper:
        await keeper.start(stage.client, stage.name, stage.short, io=PipedIO())


async def have_it_kept(stage: Stage) -> None:
    """See that there is a keeper, with a container."""
    await have_a_keeper(stage)
    await start_kept(stage)


async def use_kept(stage: Stage) -> None:
    """Talk with a container of the keeper's, twice, and wait for its end."""
    async with Keeper.connect(keeper_of(stage)) as keeper:
        async with keeper.attach(stage.name) as container:
            assert container.stdin is not None
            assert container.stdout is not None
            await container.stdin.send(b"hello\nagain\n")
            assert await anext(container.stdout.lines()) == "hello"
        async with keeper.attach(stage.name) as container:
            assert container.stdin is not None
            assert container.stdout is not None
            assert await anext(container.stdout.lines()) == "again"
            await container.stdin.aclose()
            await container.wait()
        await keeper.wait(stage.name)
        await keeper.list()
        await keeper.delete(stage.name)


async def delete_kept(stage: Stage) -> None:
    """Delete the container of the keeper's, after its streams were there to be taken."""
    async with Keeper.connect(keeper_of(stage)) as keeper:
        with contextlib.suppress(ContainerNotFound):
            async with keeper.attach(stage.name):
                pass
            await keeper.delete(stage.name, force=True)
