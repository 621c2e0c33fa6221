"""Descriptors that systemd gives, and stores."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest

from runc_async.keeper.systemd import Inherited, Store


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
