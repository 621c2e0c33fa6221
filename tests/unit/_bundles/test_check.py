"""What a bundle on the disk says of its process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import Bundle
from runc_async._bundles.check import takes_pipes

if TYPE_CHECKING:
    from pathlib import Path

CONFIGS: dict[str, tuple[Any, bool]] = {
    "nothing": ({}, True),
    "no terminal": ({"process": {"terminal": False}, "linux": {"namespaces": [{"type": "pid"}]}}, True),
    "null": ({"process": None, "linux": {"namespaces": None}}, True),
    "a terminal": ({"process": {"terminal": True}}, False),
    "a user namespace": ({"linux": {"namespaces": [{"type": "pid"}, {"type": "user"}]}}, False),
    "something else": ([], False),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_whether_a_process_takes_our_pipes(tmp_path: Path, case: str) -> None:
    """A terminal and a user namespace keep runc between, and so does a configuration that can't be read."""
    config, expected = CONFIGS[case]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert takes_pipes(tmp_path) is expected
    (tmp_path / "config.json").unlink()
    assert takes_pipes(tmp_path) is False


async def test_a_spec_that_is_not_saved_yet() -> None:
    """The spec of a `Bundle` counts as it is, and not as it was saved."""
    async with Bundle.busybox(["true"]) as bundle:
        assert takes_pipes(bundle)
        bundle.spec.set_terminal()
        assert not takes_pipes(bundle)
