"""What a real runtime logs of calls that succeed goes to the logger `runc_async`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from runc_async.client import Runc

if TYPE_CHECKING:
    from pathlib import Path

    from containers import MakeContainer
    from runtime import Runtime

pytestmark = pytest.mark.runc

NET_RAW = 1 << 13


async def test_a_warning_of_a_call_that_succeeds(
    client: Runc, runtime: Runtime, make_container: MakeContainer, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning is shown at its own level with the container's id, and makes no error."""
    if runtime.is_crun:
        pytest.skip("crun 1.28 breaks down over --cap")
    if runtime.is_sandbox:
        pytest.skip("runsc refuses an unknown capability")
    name = await make_container()
    assert (await client.exec(name, ["true"], caps=["CAP_BOGUS"])).exit_code == 0
    (record,) = [record for record in caplog.records if "BOGUS" in record.getMessage()]
    assert (record.name, record.levelno) == ("runc_async", logging.WARNING)
    assert record.getMessage().startswith(f"container {name!r}: ")
    assert record.__dict__["container_id"] == name


async def test_the_lines_of_a_debugging_runtime(
    runtime: Runtime, root: Path, make_container: MakeContainer, caplog: pytest.LogCaptureFixture
) -> None:
    """With `debug=True` and no log of the caller's, runc's debug lines are shown, whether the call succeeds or not."""
    caplog.set_level(logging.DEBUG, "runc_async")
    name = await make_container()
    client = Runc(runtime.command, root=root, debug=True)
    await client.version()  # which has no container
    caplog.clear()
    assert (await client.exec(name, ["true"])).exit_code == 0
    debugging = [record for record in caplog.records if record.name == "runc_async"]
    if not runtime.is_crun:  # which has few such lines
        assert debugging
    assert {record.levelno for record in debugging} <= {logging.DEBUG, logging.INFO}
    assert all(record.getMessage().startswith(f"container {name!r}: ") for record in debugging)


@pytest.mark.needs("host kernel")
async def test_a_short_name_of_a_capability(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """`caps` takes the names that `add_capabilities` takes."""
    if runtime.is_crun:
        pytest.skip("crun 1.28 breaks down over --cap")
    capabilities = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    name = await make_container(process={"capabilities": capabilities})
    for given, expected in (((), 0), (["NET_RAW"], NET_RAW), (["net_raw"], NET_RAW), (["CAP_NET_RAW"], NET_RAW)):
        shown = await client.exec(name, ["grep", "CapEff", "/proc/self/status"], caps=given)
        assert int(shown.stdout.split()[1], 16) & NET_RAW == expected
