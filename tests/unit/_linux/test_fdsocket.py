"""The socket that receives one descriptor, against peers that send what they should and what they shouldn't."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
import uvloop

from runc_async._linux import fdsocket
from runc_async._linux.fdsocket import FDSocket
from runc_async.errors import RuncError

uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, for good: before any test counts descriptors

pytestmark = pytest.mark.any_loop

Environ = pytest.MonkeyPatch

CLIENT = """if 1:
    import array, os, socket, sys
    def send(path, *fds):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        client.sendmsg([b"/dev/ptmx"], rights)
        client.close()
"""
"""What a child runs that behaves as runc does."""


@pytest.fixture(autouse=True)
def parents(monkeypatch: Environ, tmp_path: Path, scratch: Path) -> Iterator[Path]:
    """Let the sockets be made in a directory of the test's own, and see that nothing is left in it."""
    del tmp_path  # its path is too long
    directory = tempfile.mkdtemp(dir=scratch)
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    yield Path(directory)
    os.rmdir(directory)


@contextlib.contextmanager
def file() -> Generator[int]:
    """Open a file in memory to be sent."""
    fd = os.memfd_create("sent")
    os.write(fd, b"content")
    yield fd
    os.close(fd)


def connect(path: str) -> socket.socket:
    """Connect as a client."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    return client


def send(path: str, *fds: int, data: bytes = b"/dev/ptmx") -> None:
    """Be a client that sends a message with descriptors, and closes."""
    with connect(path) as client:
        client.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


async def until_waiting(task: asyncio.Task[bytes]) -> None:
    """Return when the task has done what it can without a peer."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()


async def test_a_descriptor_is_received() -> None:
    """What the peer sends is told, and the descriptor is the same file, ours alone and not inheritable."""
    async with FDSocket() as sock:
        with file() as fd:
            send(sock.path, fd)
        assert await sock.receive(os.getpid()) == b"/dev/ptmx"
        assert sock.data == b"/dev/ptmx"
        received = sock.detach()
    assert os.pread(received, 10, 0) == b"content"
    assert not os.get_inheritable(received)
    os.close(received)


async def test_the_wait_ends_with_the_peer() -> None:
    """A receive that waits, first for a connection and then for its message, ends with the descriptor."""
    async with FDSocket() as sock:
        receiving = asyncio.create_task(sock.receive(os.getpid()))
        await until_waiting(receiving)
        with connect(sock.path) as client, file() as fd:
            await until_waiting(receiving)
            socket.send_fds(client, [b"standard"], [fd])
            assert await receiving == b"standard"


async def test_a_child_of_what_we_started_is_welcome() -> None:
    """The peer may be a child of the program that was started, as with sudo in front of runc."""
    async with FDSocket() as sock:
        script = CLIENT + "    if not os.fork():\n        send(sys.argv[1], 1)\n        os._exit(0)\n    os.wait()\n"
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, sock.path)
        assert await sock.receive(child.pid) == b"/dev/ptmx"
        assert await child.wait() == 0


async def test_a_stranger_is_turned_away() -> None:
    """Another process of our user is refused, and the wait goes on until the right one comes."""
    async with FDSocket() as sock:
        script = CLIENT + "    send(sys.argv[1], 1)\n    sys.stdin.read()\n"
        pipe = asyncio.subprocess.PIPE
        right = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        with file() as fd:
            send(sock.path, fd)  # we ourselves are a stranger to `cat`
        assert not sock.receive_nowait(right.pid)
        receiving = asyncio.create_task(sock.receive(right.pid))
        await until_waiting(receiving)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)
        await right.communicate(b"")
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, sock.path, stdin=pipe)
        assert await sock.receive(child.pid) == b"/dev/ptmx"
        await child.communicate(b"")


async def test_a_peer_that_has_gone_is_judged_by_its_user() -> None:
    """A peer that was reaped before we looked can't be traced; the directory has admitted none but our user."""
    async with FDSocket() as sock:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT + "    send(sys.argv[1], 1)\n", sock.path
        )
        assert await child.wait() == 0
        assert await sock.receive(child.pid + 1) == b"/dev/ptmx"


async def test_another_user_is_turned_away(monkeypatch: Environ) -> None:
    """A peer that is neither of our user nor root is refused."""
    async with FDSocket() as sock:
        with file() as fd:
            send(sock.path, fd)
            monkeypatch.setattr(fdsocket, "_UCRED", ForeignUser())
            assert not sock.receive_nowait(os.getpid())
            monkeypatch.undo()
            send(sock.path, fd)
        assert sock.receive_nowait(os.getpid())


class ForeignUser:
    """Reads any credentials as those of a user that nobody is."""

    size = 12

    def unpack(self, data: bytes) -> tuple[int, int, int]:
        """Keep the pid and replace the user."""
        return int.from_bytes(data[:4], sys.byteorder), 4_000_000, 0


async def test_what_was_sent_before_the_exit_is_there_after_it() -> None:
    """Without waiting one learns whether a descriptor has come; twice is as good as once."""
    async with FDSocket() as sock:
        assert not sock.receive_nowait(os.getpid())
        with file() as fd, connect(sock.path) as client:
            assert not sock.receive_nowait(os.getpid())
            socket.send_fds(client, [b"setns"], [fd])
        assert sock.receive_nowait(os.getpid())
        assert sock.receive_nowait(os.getpid())
        assert await sock.receive(os.getpid()) == b"setns"


async def test_a_descriptor_that_nobody_takes_is_closed() -> None:
    """Leaving the context closes what has come and was not taken; the writer of a pipe notices."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    async with FDSocket() as sock:
        send(sock.path, writer)
        os.close(writer)
        await sock.receive(os.getpid())
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
    assert os.read(reader, 1) == b""
    os.close(reader)


async def test_a_descriptor_is_taken_once() -> None:
    """There is nothing to take before it has come, nor afterwards."""
    async with FDSocket() as sock:
        with pytest.raises(ValueError, match="there is no descriptor to take"):
            sock.detach()
        with file() as fd:
            send(sock.path, fd)
        await sock.receive(os.getpid())
        os.close(sock.detach())
        with pytest.raises(ValueError, match="there is no descriptor to take"):
            sock.detach()


@pytest.mark.parametrize("connected", [False, True])
async def test_a_cancelled_receive_can_be_repeated(connected: bool) -> None:  # noqa: FBT001  (a parameter of the test)
    """A cancel, before or after the connection, loses neither the connection nor the descriptor."""
    async with FDSocket() as sock:
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(connect(sock.path)) if connected else None
            receiving = asyncio.create_task(sock.receive(os.getpid()))
            await until_waiting(receiving)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            fd = stack.enter_context(file())
            client = client or stack.enter_context(connect(sock.path))
            socket.send_fds(client, [b"x"], [fd])
            assert await sock.receive(os.getpid()) == b"x"


def send_nothing(path: str) -> None:
    """Connect and close."""
    connect(path).close()


def send_text(path: str) -> None:
    """Send a message without a descriptor."""
    send(path, data=b"junk")


def send_two(path: str) -> None:
    """Send two descriptors."""
    with file() as one, file() as two:
        send(path, one, two)


def send_credentials(path: str) -> None:
    """Send another kind of ancillary data than descriptors."""
    with connect(path) as client:
        credentials = array.array("i", [os.getpid(), os.getuid(), os.getgid()])
        client.sendmsg([b"me"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])


@pytest.mark.parametrize(
    ("peer", "complaint"),
    [
        (send_nothing, "the runtime sent no descriptors instead of one, with b''"),
        (send_text, "the runtime sent no descriptors instead of one, with b'junk'"),
        (send_two, "the runtime sent 2 descriptors instead of one, with b'/dev/ptmx'"),
        (send_credentials, "the runtime sent no descriptors instead of one, with b'me'"),
    ],
)
async def test_other_messages_are_refused(peer: Callable[[str], None], complaint: str) -> None:
    """Anything but one descriptor is an error that says what came, and leaves nothing open."""
    async with FDSocket() as sock:
        peer(sock.path)
        with pytest.raises(RuncError) as caught:
            await sock.receive(os.getpid())
        assert str(caught.value) == complaint
        with file() as fd:  # the socket is of use still
            send(sock.path, fd)
        await sock.receive(os.getpid())


async def test_a_broken_connection_is_an_error() -> None:
    """A peer that resets the connection has sent nothing."""
    async with FDSocket() as sock:
        client = connect(sock.path)
        receiving = asyncio.create_task(sock.receive(os.getpid()))
        await until_waiting(receiving)
        assert sock._connection is not None  # pyright: ignore[reportPrivateUsage]  # to make a reset we have to write
        sock._connection.send(b"never read")  # pyright: ignore[reportPrivateUsage]  # as above
        client.close()
        with pytest.raises(RuncError, match="broke its connection off without sending a descriptor"):
            await receiving


@contextlib.contextmanager
def free_descriptors(count: int) -> Generator[None]:
    """Leave room for `count` more descriptors and no others."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.open("/dev/null", os.O_RDONLY)]
    highest = spare[0]
    while len(os.listdir("/proc/self/fd")) < highest + 1:  # fill the holes below, so that the limit counts
        spare.append(os.open("/dev/null", os.O_RDONLY))
        highest = max(highest, spare[-1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in spare:
            os.close(fd)


async def test_without_a_descriptor_for_the_socket_there_is_none() -> None:
    """When no descriptor is left the directory is removed again and the error says why."""
    with free_descriptors(0), pytest.raises(OSError, match="Too many open files"):
        async with FDSocket():
            pytest.fail("it has been opened")


async def test_without_a_descriptor_for_the_connection_it_is_an_error() -> None:
    """When no descriptor is left for the connection the error says why, and the next try can succeed."""
    async with FDSocket() as sock:
        with file() as fd:
            send(sock.path, fd)
        with free_descriptors(0), pytest.raises(OSError, match="Too many open files") as caught:
            await sock.receive(os.getpid())
        assert caught.value.errno == errno.EMFILE
        assert await sock.receive(os.getpid()) == b"/dev/ptmx"


async def test_without_a_descriptor_for_what_was_sent_it_is_an_error() -> None:
    """When the kernel has to drop the descriptor the error says so."""
    async with FDSocket() as sock:
        with file() as fd:
            send(sock.path, fd)
        with free_descriptors(1), pytest.raises(RuncError, match="was lost: too many descriptors are open"):
            await sock.receive(os.getpid())


async def test_a_check_that_fails_closes_the_connection(monkeypatch: Environ) -> None:
    """An unexpected error while the peer is looked at leaves no connection open."""
    monkeypatch.setattr(fdsocket, "descends_from", broken)
    async with FDSocket() as sock:
        with connect(sock.path), pytest.raises(PermissionError):
            await sock.receive(os.getpid())


def broken(pid: int, ancestor: int) -> bool:
    """Fail as /proc may."""
    raise PermissionError(pid, ancestor)


async def test_the_socket_is_private(parents: Path) -> None:
    """Nobody else can enter the directory, which is fresh, and gone afterwards."""
    async with FDSocket() as sock:
        directory = Path(sock.path).parent
        assert directory.parent == parents
        assert directory.stat().st_mode & 0o777 == 0o700
        assert directory.stat().st_uid == os.geteuid()
        assert repr(sock) == f"<FDSocket {sock.path!r} waiting>"
        with file() as fd:
            send(sock.path, fd)
        await sock.receive(os.getpid())
        assert repr(sock).startswith(f"<FDSocket {sock.path!r} holds fd ")
    assert not directory.exists()
    assert repr(sock) == "<FDSocket closed>"


async def test_a_socket_that_is_not_open_is_refused() -> None:
    """Outside of its context there is nothing to wait for."""
    sock = FDSocket()
    with pytest.raises(ValueError, match="only there inside `async with`"):
        await sock.receive(1)


async def test_a_long_path_is_passed_over(parents: Path, monkeypatch: Environ) -> None:
    """A directory whose path leaves no room for the socket isn't used; another one is."""
    long = parents / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    async with FDSocket() as sock:
        assert len(os.fsencode(sock.path)) <= fdsocket.PATH_LIMIT
        assert Path(sock.path).parent.parent != long
    long.rmdir()


async def test_the_longest_path_works(parents: Path, monkeypatch: Environ) -> None:
    """A path of exactly 107 bytes can be bound, and connected to."""
    rest = fdsocket.PATH_LIMIT - len(os.fsencode(parents)) - len("//runc-12345678/s")
    longest = parents / ("x" * rest)
    longest.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(longest))
    async with FDSocket() as sock:
        assert len(os.fsencode(sock.path)) == fdsocket.PATH_LIMIT
        with file() as fd:
            send(sock.path, fd)
        await sock.receive(os.getpid())
    longest.rmdir()


@pytest.mark.parametrize(("name", "number"), [("x" * 100, errno.ENAMETOOLONG), ("missing", errno.ENOENT)])
async def test_without_any_directory_it_is_an_error(
    parents: Path, monkeypatch: Environ, name: str, number: int
) -> None:
    """If there is no directory that can be used, the error says what is wrong with the first."""
    monkeypatch.setattr(fdsocket, "_parents", [str(parents / name)].copy)
    with pytest.raises(OSError, match=r"107 bytes|No such file") as caught:
        async with FDSocket():
            pytest.fail("it has been opened")
    assert caught.value.errno == number
    assert str(parents / name) in str(caught.value)


async def test_a_user_without_a_runtime_directory_has_the_temporary_one(parents: Path, monkeypatch: Environ) -> None:
    """Without $XDG_RUNTIME_DIR, or with one that is no absolute path, the socket goes to where temporary files go."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(parents))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        async with FDSocket() as sock:
            assert Path(sock.path).parent.parent == parents
