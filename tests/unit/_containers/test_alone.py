"""A root directory with one container: what is in it, and when it is removed."""

from __future__ import annotations

import os
from pathlib import Path

from runc_async._containers.alone import PLACE, STALE, alone, forget

FILES = ("{id}_sandbox:{id}.state", "{id}_sandbox:{id}.lock")


def test_a_container_is_seen_alone(tmp_path: Path) -> None:
    """Its record and its lock are links to the real files, and no other container is there."""
    for name in ("web-1", "web-10"):
        for file in FILES:
            (tmp_path / file.format(id=name)).write_text(name)
    place = Path(alone(str(tmp_path), "web-1", FILES))
    assert alone(str(tmp_path), "web-1", FILES) == str(place)
    assert {file.name: file.read_text() for file in place.iterdir()} == {
        file.format(id="web-1"): "web-1" for file in FILES
    }
    forget(str(tmp_path), "web-1", FILES)
    assert place.is_dir()
    os.unlink(tmp_path / FILES[0].format(id="web-1"))
    forget(str(tmp_path), "web-1", FILES)
    assert not (tmp_path / PLACE).exists()


def test_a_container_that_is_not_there(tmp_path: Path) -> None:
    """The lock that the runtime creates stays in there; when the container appears, it is the container's."""
    place = Path(alone(str(tmp_path), "web", FILES))
    record, lock = (file.format(id="web") for file in FILES)
    (place / lock).write_text("the runtime's")
    assert not (tmp_path / lock).exists()
    (tmp_path / record).write_text("record")
    (tmp_path / lock).write_text("lock")
    assert alone(str(tmp_path), "web", FILES) == str(place)
    assert [(place / name).read_text() for name in (record, lock)] == ["record", "lock"]


def test_what_was_asked_for_in_vain_is_removed(tmp_path: Path) -> None:
    """The directory of a container that is gone is removed when another one is made, but not while it is young."""
    old, young = (Path(alone(str(tmp_path), name, FILES)) for name in ("old", "young"))
    past = old.stat().st_mtime - STALE - 1
    os.utime(old, (past, past))
    alone(str(tmp_path), "web", FILES)
    assert not old.exists()
    assert young.exists()
