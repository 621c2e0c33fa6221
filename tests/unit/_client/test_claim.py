"""The record of a container: kept as long as the container is there, and no longer."""

from __future__ import annotations

import shutil
from pathlib import Path

from runc_async._client.claim import ContainerClaim, release_gone
from runc_async._linux import owner


def recorded(name: str) -> bool:
    """Return whether this process has a record of a container."""
    held = owner._owner._held  # pyright: ignore[reportPrivateUsage]
    return any(f'"{name}"'.encode() in line for line in held.values())


def test_a_container_that_was_left_is_forgotten_once_it_is_gone(tmp_path: Path) -> None:
    """A container that its block couldn't delete stays recorded until another call has deleted it."""
    names = [f"claim-{number}-{tmp_path.name}" for number in range(2)]
    for name in names:
        with ContainerClaim(str(tmp_path), name) as claim:
            claim.begin("/bundle")
            (tmp_path / name).mkdir()
            (tmp_path / name / "state.json").touch()
        release_gone()
        assert recorded(name)
    shutil.rmtree(tmp_path / names[0])
    release_gone()
    assert list(map(recorded, names)) == [False, True]
    shutil.rmtree(tmp_path / names[1])
    release_gone()
    assert not recorded(names[1])
