"""Images of a checkpoint replace those of an earlier one, whole or not at all."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from runc_async._client.images import replaced

if TYPE_CHECKING:
    from pathlib import Path


def files(directory: Path) -> dict[str, str]:
    """Return what a directory holds."""
    return {path.name: path.read_text() for path in directory.iterdir()}


def write(directory: str) -> None:
    """Write an image."""
    with open(f"{directory}/checkpoint.img", "x", encoding="ascii") as file:
        file.write("new")


@pytest.mark.parametrize("gone", [True, False])
def test_a_checkpoint(tmp_path: Path, *, gone: bool) -> None:
    """New images take the place of the old; of a call that fails only where the container is gone."""
    with replaced(str(tmp_path / "images"), lambda: gone) as directory:
        write(directory)
    assert files(tmp_path / "images") == {"checkpoint.img": "new"}
    (tmp_path / "images" / "checkpoint.img").write_text("old")
    with contextlib.suppress(KeyError), replaced(str(tmp_path / "images"), lambda: gone) as directory:
        write(directory)
        raise KeyError
    assert files(tmp_path / "images") == {"checkpoint.img": "new" if gone else "old"}
