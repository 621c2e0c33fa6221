"""`Spec.default` against what the runtime on this machine writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import containers
import pytest

from runc_async import spec

if TYPE_CHECKING:
    from pathlib import Path

    from runtime import Runtime

pytestmark = pytest.mark.runc


def comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Give a configuration without what differs by version: its number, and the sets that runc 1.1 fills as well."""
    process = config["process"]
    common = {kind: set(process["capabilities"][kind]) for kind in ("bounding", "effective", "permitted")}
    return {**config, "ociVersion": None, "process": {**process, "capabilities": common}}


@pytest.mark.parametrize("rootless", [False, True])
def test_default_is_what_the_runtime_writes(
    rootless: bool,  # noqa: FBT001 - a parameter
    runtime: Runtime,
    tmp_path: Path,
) -> None:
    """The default configuration is the one of `runc spec` on this host, without running it."""
    if runtime.name != "runc":
        pytest.skip(f"{runtime.name} proposes a configuration of its own")
    options = ["--rootless"] if rootless else []
    containers.runc("spec", "--bundle", tmp_path, *options, command=runtime.command).check_returncode()
    theirs = json.loads((tmp_path / "config.json").read_bytes())
    ours = json.loads(spec.Spec.default(rootless).encode())
    # Newer versions hide more of /sys; what all hide is hidden here too.
    hidden = theirs["linux"]["maskedPaths"]
    assert set(ours["linux"]["maskedPaths"]) <= set(hidden)
    ours["linux"]["maskedPaths"] = hidden
    assert comparable(ours) == comparable(theirs)


def test_what_the_runtime_writes_is_kept(runtime: Runtime, tmp_path: Path) -> None:
    """The runtime's own configuration is a good one, and comes out as it was."""
    directory = [] if runtime.is_crun else ["--bundle", str(tmp_path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        containers.runc("spec", *directory, command=runtime.command).check_returncode()
    data = (tmp_path / "config.json").read_bytes()
    assert spec.validate(data) == []
    assert json.loads(spec.Spec.decode(data).encode()) == json.loads(data)
