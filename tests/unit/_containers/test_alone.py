"""A root directory with one container: what is in it, and that no other command removes it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from children import write_program

from runc_async import Runsc
from runc_async._containers.alone import alone
from runc_async.runner import PrivateRoot

RECORD = '{"ociVersion":"1.1.0","id":"web","status":"stopped","pid":0,"bundle":"/b"}'


def lone(root: Path, container_id: str) -> PrivateRoot:
    """Return the root directory of a container of runsc."""
    record, lock = (f"{container_id}_sandbox:{container_id}.{kind}" for kind in ("state", "lock"))
    return PrivateRoot(str(root), record, lock)


def test_a_container_is_seen_alone(tmp_path: Path) -> None:
    """Its record and its lock are links to the real files, and no other container is there."""
    for root in (lone(tmp_path, "web-1"), lone(tmp_path, "web-10")):
        for name in (root.record, root.lock):
            (tmp_path / name).write_text(name)
    root = lone(tmp_path, "web-1")
    with alone(root) as place:
        assert {file.name: file.read_text() for file in Path(place).iterdir()} == {
            name: name for name in (root.record, root.lock)
        }
        with alone(root) as other:
            assert other != place
        assert Path(place, root.record).exists()
    assert not Path(place).exists()


def test_a_container_that_appears_later(tmp_path: Path) -> None:
    """The lock that the runtime creates stays in the directory, and goes with it; a later record is found."""
    root = lone(tmp_path, "web")
    with alone(root) as place:
        Path(place, root.lock).write_text("the runtime's")
        assert not list(tmp_path.iterdir())
        (tmp_path / root.record).write_text("record")
        assert Path(place, root.record).read_text() == "record"
    assert not Path(place).exists()
    assert [file.name for file in tmp_path.iterdir()] == [root.record]


def test_an_id_too_long_for_a_file(tmp_path: Path) -> None:
    """There is no such container, and no longer id; the runtime says so."""
    with alone(lone(tmp_path, "x" * 300)) as place:
        assert place == str(tmp_path)


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
