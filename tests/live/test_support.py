"""What runtimes have, as they say themselves, and what becomes of calls for what they don't have."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import criu
import pytest

from runc_async._support import SINCE
from runc_async.client import Runc
from runc_async.errors import UnsupportedError
from runc_async.state import Status
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

pytestmark = pytest.mark.runc


@pytest.mark.parametrize("feature", [feature for feature in SINCE if feature.count(" ") < 2])
async def test_the_table_is_right(client: Runc, runtime: Runtime, feature: str) -> None:
    """The runtime lists a command or an option in its help if, and only if, the table says that it has it."""
    if runtime.name not in SINCE[feature]:
        pytest.skip(f"nothing is said of {runtime.name}")
    assert await client.supports(feature) is runtime.has(feature)


async def test_no_events(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """A runtime without events says so, and the container goes on."""
    if runtime.has("events"):
        pytest.skip("this runtime has events")
    name = await make_container()
    with pytest.raises(UnsupportedError, match="events"):
        await client.stats(name)
    with pytest.raises(UnsupportedError, match="events"):
        await anext(client.events(name))
    assert (await client.state(name)).status == Status.RUNNING


@pytest.mark.criu
@pytest.mark.needs("checkpoint")
async def test_a_checkpoint(
    runtime: Runtime, root: Path, scratch: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Each runtime that knows checkpoints writes one, and leaves the container running if it is told to."""
    client = Runc(runtime.command, root=root, env={"PATH": criu.search_path()})
    bundle = make_bundle(["sleep", "60"])
    with tempfile.TemporaryDirectory(dir=scratch) as images:
        async with client.open_container(container_id(), bundle, io=PipedIO(), grace=0) as container:
            await container.checkpoint(images, leave_running=True)
            assert (await container.state()).status == Status.RUNNING
            assert (Path(images) / "inventory.img").exists()
            await container.checkpoint(images)
            assert await client.list() == []
