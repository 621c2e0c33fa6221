"""The fixtures of the live tests do what their docstrings say, on real runc."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import leaks
import pytest
from containers import private_root, runc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from containers import MakeBundle
    from runtime import Runtime

pytestmark = pytest.mark.runc


def test_a_bundle_runs(runtime: Runtime, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A bundle from `make_bundle` runs its arguments, with what was changed in it."""
    bundle = make_bundle(["sh", "-c", "hostname; id -u"], hostname="web", process={"user": {"uid": 7}})
    ended = runc("--root", root, "run", "--bundle", bundle, container_id(), command=runtime.command)
    assert (ended.stdout, ended.stderr) == ("web\n7\n", "")


def test_a_running_container_is_deleted(
    runtime: Runtime, scratch: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A container that a test leaves running, and the directory of its root, are gone when the fixture ends."""
    left = container_id()
    with private_root(scratch, runtime.command) as root:
        runc("--root", root, "create", "--bundle", make_bundle(["sleep", "30"]), left, command=runtime.command)
        assert list(leaks.containers(root)) == [left]
        assert leaks.left_on_host(left, patience=0)
    assert not root.exists()
    assert leaks.left_on_host(left) == []


def test_what_cannot_be_deleted_is_named(scratch: Path) -> None:
    """A container that runc refuses to delete fails the test that left it."""

    def leave_a_broken_one() -> None:
        with private_root(scratch) as root:
            (root / "broken").mkdir()
            (root / "broken" / "state.json").write_text("no JSON")

    with pytest.raises(RuntimeError, match="containers left behind"):
        leave_a_broken_one()


def test_changes_are_merged(make_bundle: MakeBundle, rootfs: Path) -> None:
    """Changes go into the proposed configuration at any depth, and leave the rest of it."""
    config = json.loads((make_bundle(["true"], linux={"cgroupsPath": "/x"}) / "config.json").read_bytes())
    assert config["linux"]["cgroupsPath"] == "/x"
    assert config["linux"]["namespaces"]
    assert config["root"] == {"path": str(rootfs), "readonly": True}


def test_ids_differ(container_id: Callable[[], str], prefix: str) -> None:
    """Each id is new and begins with the run's prefix, so that what is left of it is found."""
    first, second = container_id(), container_id()
    assert first != second
    assert first.startswith(prefix)
    assert second.startswith(prefix)
