"""What a keeper is made of: its place and records, the streams that it lends, what systemd gives it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import stat
from pathlib import Path

import anyio
import pytest

from runc_async import (
    KeeperError,
)
from runc_async.keeper import orphans, protocol, sending, streams
from runc_async.keeper.channel import Passed
from runc_async.keeper.place import Place
from runc_async.keeper.systemd import Inherited, Store
from runc_async.runner import StopPolicy


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


async def test_what_was_read_ahead_is_consumed_as_it_is_read() -> None:
    """What one service has not read of it is there for the next, and what has been read and not consumed goes back."""
    memory = streams.memory_of(b"one\ntwo\nthree\n")
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.write(theirs, b"four\n")
    killed = streams.lent("stdout", os.dup(ours), os.dup(memory))
    assert isinstance(killed, streams.LentReader)
    assert await killed.receive(4) == b"one\n"
    assert killed.give_back() == b""  # as if it had been killed: nothing goes back
    second = streams.lent("stdout", os.dup(ours), os.dup(memory))
    assert isinstance(second, streams.LentReader)
    async for line in second.lines():
        assert line == "two"
        break
    assert second.give_back() == b"three\n"
    again = streams.memory_of(b"three\n")
    os.close(theirs)
    third = streams.lent("stderr", ours, again)
    assert isinstance(third, streams.LentReader)
    assert [line async for line in third.lines()] == ["three", "four"]
    with pytest.raises(anyio.EndOfStream):
        await third.receive()
    assert third.give_back() == b""
    os.close(memory)


def test_what_comes_before_a_stream_has_to_be_a_file() -> None:
    """A pipe in its place could block the event loop."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    with pytest.raises(ValueError, match="no file"):
        streams.lent("stdout", ours, theirs)
    os.close(ours)
    os.close(theirs)


async def test_closing_a_lent_stream_is_reported_once() -> None:
    """A stream that goes back is not closed for the keeper."""
    closed: list[str] = []
    for give_back in (False, True):
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        stream = streams.lent("stdin", theirs)
        stream.when_closed = closed.append
        if give_back:
            assert stream.give_back() == b""
        await stream.aclose()
        stream.close()
        os.close(ours)
    assert closed == ["stdin"]


async def test_runtimes_of_a_killed_keeper_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes with its mark are found, and no others; a process that goes on is killed after a while."""
    monkeypatch.setattr(orphans, "LET_FINISH", StopPolicy(patience=0.3, grace=30.0))
    mine = {**os.environ, orphans.VARIABLE: str(tmp_path)}
    other = {**os.environ, orphans.VARIABLE: f"{tmp_path}/other"}
    started = [await asyncio.create_subprocess_exec("sleep", "60", env=env) for env in (mine, other)]
    found = orphans.found(str(tmp_path))
    assert len(found) == 1
    await orphans.ended(found)
    assert await started[0].wait() == -signal.SIGKILL
    assert (started[1].returncode, orphans.found(str(tmp_path))) == (None, [])
    started[1].kill()
    await started[1].wait()


def test_what_systemd_gives_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket of a socket unit, and stored descriptors by container and stream; what has no use is closed."""
    names = ["keeper.socket", "web/stdin", "web/stdout", "web/stdout", "web/nonsense", "stored"]
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in names[1:]]
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    numbers = iter([sock.detach(), *fds])
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "6", "LISTEN_FDNAMES": ":".join(names), "A": "b"}
    monkeypatch.setattr("runc_async.keeper.systemd.FIRST", Numbers(list(numbers)))
    inherited = Inherited(environ)
    assert environ == {"A": "b"}
    assert inherited.listener is not None
    taken = inherited.take("web")
    assert (sorted(taken), inherited.take("web")) == (["stdin", "stdout"], {})
    assert not any(os.get_inheritable(fd) for fd in taken.values())
    for fd in taken.values():
        os.close(fd)
    inherited.listener.close()
    inherited.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            fcntl.fcntl(fd, fcntl.F_GETFD)
    other = Inherited({"LISTEN_PID": "1", "LISTEN_FDS": "3"})
    assert (other.listener, other.streams) == (None, {})


class Numbers:
    """Descriptors in the place of 3, 4, ..., for those are in use here."""

    def __init__(self, fds: list[int]) -> None:
        self._fds = fds

    def __add__(self, index: int) -> int:
        return self._fds[index]


def test_descriptors_are_given_to_systemd(tmp_path: Path) -> None:
    """Each with its container and stream as its name, and taken back by that; without systemd nothing happens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        store = Store({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with (tmp_path / "x").open("w") as file:
            store.ready()
            store.add("web", {"stdout": file.fileno()})
        store.remove("web", ("stdout",))
        received = [socket.recv_fds(manager, 4096, 4) for _ in range(3)]
    assert [data for data, *_ in received] == [
        b"READY=1",
        b"FDSTORE=1\nFDNAME=web/stdout\nFDPOLL=0",
        b"FDSTOREREMOVE=1\nFDNAME=web/stdout",
    ]
    (fd,) = received[1][1]
    assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "x")
    os.close(fd)
    Store({}).add("web", {"stdout": 0})
    Store({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_descriptors_beside_a_message_are_closed() -> None:
    """Only what is taken out stays open."""
    fds = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(3)]
    with Passed(fds) as passed:
        taken = passed.take(1)
        for index in (1, 3):
            with pytest.raises(KeeperError, match=f"descriptor {index} is missing"):
                passed.get(index)
    assert [os.path.exists(f"/proc/self/fd/{fd}") for fd in fds] == [False, True, False]
    os.close(taken)
