"""A private runtime root, a root filesystem and bundles for the tests that run real containers."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import containers
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from containers import MakeBundle

NUMBERS = itertools.count(1)


@pytest.fixture
def root(scratch: Path) -> Iterator[Path]:
    """Return a directory for `runc --root`; whatever container is in it at the end is deleted by force."""
    with containers.private_root(scratch) as directory:
        yield directory


@pytest.fixture(scope="session")
def rootfs(scratch: Path) -> Iterator[Path]:
    """Return a root filesystem with all of busybox's commands in /bin, made once."""
    directory = scratch / "rootfs"
    containers.make_rootfs(directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def base_config(scratch: Path) -> dict[str, Any]:
    """Return the configuration that this host's runc proposes."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        containers.runc("spec", "--bundle", directory).check_returncode()
        config: dict[str, Any] = json.loads((Path(directory) / "config.json").read_bytes())
    return config


@pytest.fixture
def make_bundle(scratch: Path, rootfs: Path, base_config: dict[str, Any]) -> Iterator[MakeBundle]:
    """Return a function that writes bundles, which are removed at the end; see `MakeBundle`."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        numbers = itertools.count()

        def make(args: Sequence[str], **changes: Any) -> Path:
            bundle = Path(directory) / str(next(numbers))
            bundle.mkdir()
            ours = {"root": {"path": str(rootfs)}, "process": {"args": list(args), "terminal": False}}
            config = containers.merged(containers.merged(base_config, ours), changes)
            (bundle / "config.json").write_text(json.dumps(config))
            return bundle

        yield make


@pytest.fixture
def container_id(prefix: str) -> Callable[[], str]:
    """Return a function that gives an id that no other container on this machine has."""
    return lambda: f"{prefix}{next(NUMBERS)}"
