"""A root directory with one container: what is in it, and when it is removed."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from children import write_program

from runc_async import Runsc
from runc_async._containers.alone import PLACE, alone
from runc_async.runner import PrivateRoot

RECORD = '{"ociVersion":"1.1.0","id":"web","status":"stopped","pid":0,"bundle":"/b"}'


def lone(root: Path, container_id: str) -> PrivateRoot:
    """Return the root directory of a container of runsc."""
    record, lock = (f"{container_id}_sandbox:{container_id}.{kind}" for kind in ("state", "lock"))
    return PrivateRoot(str(root), record, lock)


def test_a_container_is_seen_alone(tmp_path: Path) -> None:
    """Its record and its lock are links to the real files, no other container is there, and all commands share it."""
    for root in (lone(tmp_path, "web-1"), lone(tmp_path, "web-10")):
        for name in (root.record, root.lock):
            (tmp_path / name).write_text(name)
    root = lone(tmp_path, "web-1")
    with alone(root) as place, alone(root) as same:
        assert place == same
        assert {file.name: file.read_text() for file in Path(place).iterdir()} == {
            name: name for name in (root.record, root.lock)
        }
    assert Path(place).is_dir()
    with alone(root):
        (tmp_path / root.record).unlink()
    assert not (tmp_path / PLACE).exists()


def test_the_last_command_removes_it(tmp_path: Path) -> None:
    """As long as another command uses the directory of a container that is gone, it stays."""
    root = lone(tmp_path, "web")
    with alone(root) as place:
        with alone(root):
            pass
        assert Path(place).is_dir()
    assert not (tmp_path / PLACE).exists()


def test_a_container_that_appears_later(tmp_path: Path) -> None:
    """The lock that the runtime creates stays in the directory; when the container appears, it is the container's."""
    root = lone(tmp_path, "web")
    with alone(root) as place:
        Path(place, root.lock).write_text("the runtime's")
        assert not (tmp_path / root.lock).exists()
        (tmp_path / root.record).write_text("record")
        (tmp_path / root.lock).write_text("lock")
        assert Path(place, root.record).read_text() == "record"
        with alone(root):
            assert [Path(place, name).read_text() for name in (root.record, root.lock)] == ["record", "lock"]


def test_what_a_killed_process_has_left(tmp_path: Path) -> None:
    """The directory of a container that is gone is removed when another one is made, unless a command uses it."""
    used, left = lone(tmp_path, "used"), lone(tmp_path, "left")
    with alone(used) as place:
        abandoned = Path(place).with_name(left.record)
        abandoned.mkdir()
        (abandoned / left.record).symlink_to(tmp_path / left.record)
        with alone(lone(tmp_path, "web")):
            assert Path(place).is_dir()
            assert not abandoned.exists()


def test_a_directory_that_is_being_removed(tmp_path: Path) -> None:
    """A command that starts meanwhile has a directory of its own."""
    root = lone(tmp_path, "web")
    place = tmp_path / PLACE / root.record
    place.mkdir(parents=True)
    fd = os.open(place, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    (tmp_path / root.record).write_text("record")
    with alone(root) as other:
        assert Path(other) != place
        assert Path(other, root.record).read_text() == "record"
    os.close(fd)
    assert not Path(other).exists()


def test_no_container_can_be_there(tmp_path: Path) -> None:
    """An id too long for a file, and a root directory that isn't there, are left to the runtime."""
    for root in (lone(tmp_path, "x" * 300), lone(tmp_path / "missing", "web")):
        with alone(root) as place:
            assert place == root.path
    assert list(tmp_path.iterdir()) == []


SCRIPT = """\
#!/bin/sh
case " $* " in *" --version "*) echo 'runsc version 0.0~20240729.0'; exit ;; esac
while [ "$1" != --root ]; do shift; done
case " $* " in
    *" state "*) echo > {asked}; read -r _ < {gate}; cat "$2"/*.state || exit 128 ;;
    *" delete "*) rm -f {root}/* ;;
esac
"""


async def test_a_command_under_way_keeps_its_directory(tmp_path: Path) -> None:
    """A command that is slow to start finds the next container of the same id, after the deletion of the first."""
    root, gate, asked = (tmp_path / name for name in ("root", "gate", "asked"))
    root.mkdir()
    for pipe in (gate, asked):
        os.mkfifo(pipe)
    client = Runsc(write_program(tmp_path / "runsc", SCRIPT.format(root=root, gate=gate, asked=asked)), root=root)
    record = root / lone(root, "web").record
    record.write_text(RECORD)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        state = group.create_task(client.state("web"))
        await asyncio.to_thread(asked.read_bytes)
        await client.delete("web", force=True)
        assert not record.exists()
        record.write_text(RECORD)
        await asyncio.to_thread(gate.write_bytes, b"\n")
    assert state.result().bundle == "/b"
