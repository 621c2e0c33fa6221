"""The directory of a keeper: its lock, its socket, and the records in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runc_async import KeeperError
from runc_async.keeper import protocol, sending
from runc_async.keeper.place import Place


def test_a_place_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    """Nor is a symbolic link followed, or a file taken."""
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(KeeperError, match="mode 0700, not 0755"):
        Place.make(str(tmp_path / "open"))
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(OSError, match="Not a directory"):
            Place.make(str(tmp_path / name))


def test_a_lock_lives_as_long_as_its_holder(tmp_path: Path) -> None:
    """A second one is refused; afterwards the place is free."""
    with Place.make(str(tmp_path / "p")) as place:
        first = place.lock()
        with pytest.raises(BlockingIOError):
            place.lock()
        os.close(first)
        os.close(place.lock())


def test_a_path_may_be_longer_than_that_of_a_socket(tmp_path: Path) -> None:
    """The directory is reached by its descriptor."""
    deep = tmp_path / ("x" * 120) / ("y" * 120)
    deep.parent.mkdir()
    with Place.make(str(deep)) as place:
        place.listen().close()
    assert stat.S_ISSOCK((deep / "socket").stat().st_mode)


def test_records_are_read_again(tmp_path: Path) -> None:
    """A file that is no record, or another container's, is left and not believed; unfinished ones are removed."""
    record = protocol.Record(id="web", client=protocol.Client(command=b"runc"), begun=sending.now())
    with Place.make(str(tmp_path / "p")) as place:
        place.write(record)
        folder = tmp_path / "p" / "containers"
        data = (folder / "web").read_bytes()
        (folder / "half").write_bytes(data[:-3])
        (folder / "other").write_bytes(data)
        (folder / "web~").write_bytes(data)
        (folder / "folder").mkdir()
        assert list(place.records()) == [record]
        assert sorted(path.name for path in folder.iterdir()) == ["folder", "half", "other", "web"]
        place.remove("web")
        place.remove("web")
        assert list(place.records()) == []


def test_scratch_of_a_killed_keeper_is_removed(tmp_path: Path) -> None:
    """The next one finds the directory by a link."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "file").touch()
    with Place.make(str(tmp_path / "p")) as place:
        place.remove_scratch()
        place.note_scratch(str(tmp_path / "scratch"))
        place.remove_scratch()
        place.note_scratch("/nowhere")
    assert not (tmp_path / "scratch").exists()
