"""The keeper without containers: its place, and clients that do what no client should."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keepers
import msgspec
import pytest
from waiting import until

from runc_async import (
    CapturedIO,
    InvalidContainerID,
    Keeper,
    KeeperError,
    KeeperLost,
    Runc,
    UnsupportedError,
)
from runc_async.keeper import failures, protocol, server
from runc_async.keeper.accepting import Listener
from runc_async.keeper.channel import Channel
from runc_async.keeper.place import Place
from runc_async.keeper.systemd import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from proof import Tried


HELLO = protocol.encode(protocol.Hello())


@pytest.fixture
def place(scratch: Path) -> Iterator[Path]:
    """Return a place for a keeper."""
    directory = scratch / f"k{os.urandom(3).hex()}"
    yield directory
    keepers.remove(directory)


@pytest.fixture
async def served(place: Path) -> AsyncIterator[Path]:
    """Return a place with a keeper that runs in this very process."""
    with Place.make(str(place)) as opened:
        keeper = server.Server(opened, opened.listen(), Store({}))
        keeper.resume()
        yield place
        await keeper.close()


async def answer(channel: Channel) -> protocol.AnyAnswer:
    """Wait for an answer."""
    async with asyncio.timeout(30):
        data, passed = await channel.receive()
    assert not len(passed)
    return protocol.decode_answer(data)


def pair() -> tuple[Channel, Channel]:
    """Return the two ends of a connection."""
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(two)


@pytest.mark.parametrize(
    ("sent", "lacking"),
    [
        ({"type": "snapshot"}, "request snapshot"),
        ({"type": "wait", "id": "a", "timeout": 1}, "field timeout in a request"),
    ],
)
async def test_an_older_keeper_says_what_it_lacks(served: Path, sent: dict[str, object], lacking: str) -> None:
    """A request or an option that it doesn't know is named, and nothing is done."""
    channel = await keepers.connect(served)
    await channel.send(msgspec.msgpack.encode(sent))
    failed = await answer(channel)
    channel.close()
    assert isinstance(failed, protocol.Failed)
    error = failures.to_error(failed)
    assert isinstance(error, UnsupportedError)
    assert str(error).endswith(f"has no {lacking}")


async def test_a_newer_client_asks_for_nothing_that_the_keeper_lacks(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper tells what requests it knows, and others aren't sent."""
    async with Keeper.connect(served) as keeper:
        monkeypatch.setattr(keeper, "_known", ("hello", "start"))
        with pytest.raises(UnsupportedError, match="has no request 'wait'"):
            await keeper.wait("web")


NONSENSE = [
    b"x",
    b"\xc1",
    HELLO[:-1],
    HELLO + HELLO,
    b"\x81" * 5000,
    msgspec.msgpack.encode({"type": "hello", "protocol": "one"}),
    msgspec.msgpack.encode({"type": "attach", "id": ""}),
    msgspec.msgpack.encode({"type": "detach"}),
    msgspec.msgpack.encode({"type": "close", "stream": "stdin"}),
    msgspec.msgpack.encode({"type": "start", "id": "a", "bundle": b"/", "client": {"command": b""}}),
    msgspec.msgpack.encode(
        {
            "type": "start",
            "id": "a",
            "bundle": b"/",
            "client": {"command": b"x"},
            "streams": {"kind": "redirect", "stdin": 5},
        }
    ),
    msgspec.msgpack.encode({"type": "start", "id": "..", "bundle": b"/", "client": {"command": b"x"}}),
]


@pytest.mark.any_loop
async def test_nonsense_is_refused_and_nothing_leaks(served: Path, tried: Tried) -> None:
    """Whatever is sent, with or without descriptors, is answered with an error, and the next client is served."""
    ours = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    before = len(os.listdir("/proc/self/fd"))
    for message in NONSENSE:
        for count in (0, 1, 253):
            channel = await keepers.connect(served)
            await channel.send(message, [ours] * count)
            assert isinstance(await answer(channel), protocol.Failed)
            channel.close()
    os.close(ours)
    async with Keeper.connect(served) as keeper:
        assert await keeper.list() == []
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before - 1)
    assert os.listdir(served / "containers") == []
    tried("bad messages for a keeper", 3 * len(NONSENSE))


async def test_a_message_that_is_too_long_is_refused(served: Path) -> None:
    """It is cut by the kernel, and not taken for a shorter one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(served / "socket"))
        sock.send(HELLO + b"\xc0" * (1 << 17))
        failed = await answer(Channel(sock))
    assert isinstance(failed, protocol.Failed)
    assert "at most 131072 bytes" in failed.text


async def test_a_client_that_says_nothing_holds_up_no_other(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is served no more after some seconds."""
    monkeypatch.setattr(server, "REQUEST_TIME", 0.5)
    silent = [await keepers.connect(served) for _ in range(50)]
    async with Keeper.connect(served) as keeper:
        assert await keeper.list() == []
    for channel in silent:
        with pytest.raises(KeeperLost):
            await answer(channel)
        channel.close()


async def test_a_client_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side waits a bounded time for room."""
    monkeypatch.setattr("runc_async.keeper.channel.SEND_TIME", 0.2)
    ours, theirs = pair()

    async def flood() -> None:
        while True:
            await ours.send(b"x" * 50_000)

    with pytest.raises(KeeperLost, match="doesn't read"):
        await flood()
    ours.close()
    theirs.close()


async def test_strangers_are_turned_away(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's process is not served, and a client doesn't speak to another user's keeper."""
    monkeypatch.setattr("os.geteuid", lambda: 4711)
    monkeypatch.setattr("runc_async.keeper.channel._UCRED", Stranger())
    with pytest.raises(KeeperError, match="the other side is user 12, and this keeper is for user 4711 alone"):
        await Channel.connect(f"{served}/socket")


class Stranger:
    """What the kernel tells of a process of user 12."""

    size = 12

    def unpack(self, _: bytes) -> tuple[int, int, int]:
        """Return pid, uid and gid."""
        return 1, 12, 12


@pytest.mark.root
async def test_the_kernel_keeps_others_out(served: Path) -> None:
    """A process of another user can't even connect."""
    served.chmod(0o711)
    served.parent.chmod(0o711)
    code = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect({str(served / 'socket')!r})"
    words = ("setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", code)
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    served.parent.chmod(0o700)
    assert b"PermissionError" in said


async def test_no_descriptor_left_to_accept(served: Path) -> None:
    """A client is turned away at once, the event loop doesn't spin, and afterwards all is well."""
    del served
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind("")
    listening.listen(8)
    accepted: list[Channel] = []
    failing = Failing(listening)
    listener = Listener(failing, accepted.append)  # type: ignore[arg-type]
    listener.resume()
    for failures_left in (1, 2):
        failing.failures = failures_left
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(listening.getsockname())
            if failures_left == 1:
                assert await asyncio.to_thread(client.recv, 1) == b""
            else:
                await until(lambda: bool(accepted))
    listener.close()
    for channel in accepted:
        channel.close()


class Failing:
    """A listening socket whose next calls of `accept` fail for want of a descriptor."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.failures = 0

    def accept(self) -> tuple[socket.socket, object]:
        """Fail as often as is wanted."""
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def test_bad_arguments_are_refused_before_anything_is_asked(place: Path) -> None:
    """There is no keeper that could refuse them."""
    keeper = Keeper(str(place), start=False, timeout=1.0)
    with pytest.raises(ValueError, match="pipe_size"):
        await keeper.start(Runc(), "web", "/b", pipe_size=0)
    with pytest.raises(ValueError, match="CapturedIO"):
        await keeper.start(Runc(), "web", "/b", io=CapturedIO())
    with pytest.raises(ValueError, match="at most 250 descriptors"):
        await keeper.start(Runc(), "web", "/b", preserve_fds=[0] * 251)
    for call in (keeper.wait, keeper.delete):
        with pytest.raises(InvalidContainerID):
            await call("..")
    for timeout in (0.0, None):
        with pytest.raises(ValueError, match="timeout"):
            async with Keeper.connect(place, timeout=timeout):  # type: ignore[arg-type]
                pass
    assert not place.exists()


async def test_a_program_at_a_place_that_is_taken_says_so(place: Path) -> None:
    """The second keeper ends with 3, and the first goes on."""
    process = await keepers.child(place)
    second = await asyncio.create_subprocess_exec(*keepers.words(place), stderr=asyncio.subprocess.PIPE)
    _, said = await second.communicate()
    assert (second.returncode, said) == (3, f"another keeper is at {place}\n".encode())
    async with Keeper.connect(place) as keeper:
        assert keeper.pid == process.pid
        assert repr(keeper) == f"<Keeper {str(place)!r} pid {process.pid}>"
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    assert not (place / "scratch").exists()
