"""What runtimes have, as they say themselves, and what becomes of calls for what they don't have."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import criu
import feature_table
import leaks
import pytest

from runc_async._runtimes.known import DIALECTS, FEATURES
from runc_async.client import Runc
from runc_async.errors import UnsupportedError
from runc_async.state import Status
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import ByteReceiveStream
    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async._commands.criu import CgroupsMode

pytestmark = pytest.mark.runc


@pytest.mark.parametrize("feature", [feature for feature in FEATURES if feature.count(" ") < 2])
async def test_the_table_is_right(client: Runc, runtime: Runtime, feature: str) -> None:
    """The runtime lists a command or an option in its help if, and only if, the table says that it has it."""
    if feature not in DIALECTS[runtime.name].features:
        pytest.skip(f"nothing is said of {runtime.name}")
    assert await client.supports(feature) is runtime.has(feature)


@pytest.mark.parametrize("feature", [feature for feature in feature_table.read() if feature.count(" ") < 2])
def test_the_page_is_right(runtime: Runtime, feature: str) -> None:
    """What docs/topics/runtimes.md says of a version is what that version lists in its help."""
    if runtime.is_sandbox:
        pytest.skip("runsc has a table of its own")
    try:
        first = feature_table.since(feature_table.read()[feature][runtime.name])
    except ValueError as prose:
        pytest.skip(f"the page says: {prose}")
    version = tuple(map(int, runtime.version.split(".")))
    assert runtime.has(feature) is (first is not None and version >= first)


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
@pytest.mark.needs("record directory")  # tests/live/test_runsc.py has that of runsc, which uses no criu
async def test_a_checkpoint(
    runtime: Runtime, root: Path, scratch: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Each runtime that knows checkpoints writes one, leaves the container running if told to, and restores it."""
    client = Runc(runtime.command, root=root, env={"PATH": criu.search_path()})
    counter = "i=0; while :; do echo $i; i=$((i+1)); usleep 10000; done"
    # What crun hides directories with is no mount that criu knows, and its cgroups criu would copy all.
    hidden: dict[str, Any] = {"linux": {"maskedPaths": []}} if runtime.is_crun else {}
    mode: CgroupsMode | None = "ignore" if runtime.is_crun else None
    name, bundle = container_id(), make_bundle(["sh", "-c", counter], **hidden)
    with tempfile.TemporaryDirectory(dir=scratch) as images:
        async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
            await container.checkpoint(images, leave_running=True, manage_cgroups_mode=mode)
            assert (await container.state()).status == Status.RUNNING
            assert (Path(images) / "inventory.img").exists()
            await container.checkpoint(images, manage_cgroups_mode=mode)
            assert await client.list() == []
            assert container.stdout is not None
            counted = await to_the_end(container.stdout)
        async with client.open_restored(
            name, bundle, images, io=PipedIO(), grace=0, manage_cgroups_mode=mode
        ) as restored:
            assert restored.stdout is not None
            async with asyncio.timeout(20):
                went_on = await restored.stdout.receive()
            assert int(went_on.split()[0]) == int(counted.split()[-1]) + 1
            assert (await restored.state()).pid == restored.pid != container.pid
            assert (await restored.exec(["echo", "inside"])).stdout == b"inside\n"
    assert leaks.left_on_host(name) == []


async def to_the_end(stream: ByteReceiveStream) -> bytes:
    """Read a stream to its end."""
    async with asyncio.timeout(20):
        return b"".join([chunk async for chunk in stream])
