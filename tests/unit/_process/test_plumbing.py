"""From the streams of an invocation to descriptors."""

from __future__ import annotations

import errno
import os
import signal
import stat
from asyncio.subprocess import DEVNULL
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import leaks
import pytest

from runc_async._process import plumbing as plumbing_module
from runc_async._process.plumbing import Plumbing
from runc_async.runner import OwnOutput, StreamedOutput
from runc_async.stdio import CapturedIO, InheritedIO, NullIO, PipedIO, PtyIO, RedirectIO

if TYPE_CHECKING:
    from pathlib import Path

    from runc_async.runner import Streams

pytestmark = pytest.mark.any_loop

STREAMS = [
    NullIO(),
    InheritedIO(),
    InheritedIO(stdin=True),
    CapturedIO(),
    PipedIO(),
    PipedIO(stdin=False, stdout=False, stderr=False),
    PipedIO(uid=0, gid=0),
    PipedIO(stdin="/dev/zero", stdout="/dev/null", stderr="stdout"),
    CapturedIO(stderr="stdout"),
    RedirectIO(stdin="/dev/zero", stdout="/dev/null", stderr="/dev/null"),
    PtyIO(),
    OwnOutput(),
    StreamedOutput(),
]


def plumb(streams: Streams, *, data: bytes | None = None, live: bool = False) -> Plumbing:
    """Open streams."""
    return Plumbing(streams, data=data, live=live)


def as_child(plumbing: Plumbing, fd: int, data: bytes) -> None:
    """Write as the child would."""
    os.write(plumbing.child[fd], data)


@pytest.mark.proof(every=3)
@pytest.mark.parametrize("streams", STREAMS, ids=repr)
@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("data", [None, b"", b"input"])
async def test_everything_is_closed(streams: Streams, live: bool, data: bytes | None) -> None:  # noqa: FBT001 - of the table
    """Whatever was opened is closed again without a spawn; closing twice does nothing."""
    before = leaks.footprint()
    plumbing = plumb(streams, live=live, data=data)
    plumbing.close()
    plumbing.close()
    assert leaks.left_since(before, patience=0) == []


async def test_nothing() -> None:
    """`NullIO` opens nothing."""
    assert plumb(NullIO()).child == [DEVNULL, DEVNULL, DEVNULL]


async def test_inherited() -> None:
    """`InheritedIO` gives the caller's streams, stdin only if asked for."""
    assert plumb(InheritedIO()).child == [DEVNULL, 1, 2]
    assert plumb(InheritedIO(stdin=True)).child == [0, 1, 2]


async def test_own_output() -> None:
    """Output of runc's own goes into memory, each stream apart."""
    plumbing = plumb(OwnOutput())
    as_child(plumbing, 1, b"out")
    as_child(plumbing, 2, b"err")
    plumbing.spawned()
    assert plumbing.draining == []
    assert not plumbing.drained()
    assert (plumbing.captured(0), plumbing.captured(1), plumbing.dropped) == (b"out", b"err", False)
    plumbing.close()


async def test_own_output_that_is_too_much() -> None:
    """A write beyond the limit of runc's own output fails, and the loss is told."""
    plumbing = plumb(OwnOutput(limit=4096))
    as_child(plumbing, 2, b"x" * 5000)
    with pytest.raises(PermissionError):
        as_child(plumbing, 2, b"x")
    assert plumbing.dropped
    plumbing.close()


async def test_captured() -> None:
    """Captured streams are read to their end when the child's ends are closed."""
    plumbing = plumb(CapturedIO(limit=3))
    as_child(plumbing, 1, b"out")
    as_child(plumbing, 2, b"more")
    assert len(plumbing.draining) == 2
    plumbing.spawned()
    assert not plumbing.drained()
    assert (plumbing.captured(0), plumbing.captured(1), plumbing.dropped) == (b"out", b"ore", True)


async def test_the_first_bytes_are_captured() -> None:
    """With `keep="first"` the beginning of a stream is kept, and its end is dropped."""
    plumbing = plumb(CapturedIO(limit=3, keep="first"))
    as_child(plumbing, 1, b"out")
    as_child(plumbing, 2, b"more")
    plumbing.spawned()
    assert not plumbing.drained()
    assert (plumbing.captured(0), plumbing.captured(1), plumbing.dropped) == (b"out", b"mor", True)


@pytest.mark.parametrize("io", [CapturedIO(stderr="stdout"), PipedIO(stderr="stdout")], ids=repr)
async def test_both_streams_in_one(io: Streams) -> None:
    """With `stderr="stdout"` both come as stdout, in the order in which they were written."""
    plumbing = plumb(io)
    for piece in range(4):
        as_child(plumbing, 1 + piece % 2, b"%d" % piece)
    plumbing.spawned()
    assert not plumbing.drained()
    assert (plumbing.captured(0), plumbing.captured(1)) == (b"0123", b"")


async def test_captured_while_others_hold_the_pipe() -> None:
    """A pipe that somebody else holds is read as far as it goes, and said to be incomplete."""
    plumbing = plumb(CapturedIO())
    other = os.dup(plumbing.child[1])
    os.write(other, b"out")
    plumbing.spawned()
    assert plumbing.drained()
    assert plumbing.captured(0) == b"out"
    assert not plumbing.dropped
    os.close(other)


async def test_pipes_that_are_captured() -> None:
    """Without anybody to read them, the pipes of `PipedIO` are captured; one that wasn't asked for is no pipe."""
    plumbing = plumb(PipedIO(stderr=False))
    assert plumbing.child[0] == plumbing.child[2] == DEVNULL
    as_child(plumbing, 1, b"out")
    plumbing.spawned()
    assert not plumbing.drained()
    assert plumbing.captured(0) == b"out"
    assert plumbing.stdout is None


async def test_pipes_that_are_live() -> None:
    """Live pipes are streams of ours once there is a child, and stay open when the rest is closed."""
    plumbing = plumb(PipedIO(), live=True)
    theirs = [os.dup(fd) for fd in plumbing.child]
    assert (plumbing.stdin, plumbing.stdout, plumbing.stderr) == (None, None, None)
    plumbing.spawned()
    plumbing.close()
    assert plumbing.stdin is not None
    assert plumbing.stdout is not None
    assert plumbing.stderr is not None
    await plumbing.stdin.send(b"in")
    assert os.read(theirs[0], 10) == b"in"
    os.write(theirs[1], b"out")
    os.write(theirs[2], b"err")
    assert (await plumbing.stdout.receive(), await plumbing.stderr.receive()) == (b"out", b"err")
    for fd in theirs:
        os.close(fd)
    with pytest.raises(anyio.EndOfStream):
        await plumbing.stdout.receive()
    for stream in (plumbing.stdin, plumbing.stdout, plumbing.stderr):
        await stream.aclose()


async def test_both_live_streams_in_one() -> None:
    """With `stderr="stdout"` there is one live stream, and its end is the end of both."""
    plumbing = plumb(PipedIO(stderr="stdout"), live=True)
    as_child(plumbing, 1, b"one ")
    as_child(plumbing, 2, b"two")
    plumbing.spawned()
    plumbing.close()
    assert plumbing.stdin is not None
    assert plumbing.stdout is not None
    assert plumbing.stderr is None
    assert b"".join([chunk async for chunk in plumbing.stdout]) == b"one two"
    await plumbing.stdin.aclose()
    await plumbing.stdout.aclose()


@pytest.mark.parametrize("live", [False, True])
async def test_pipes_beside_files(tmp_path: Path, live: bool) -> None:  # noqa: FBT001 - of the table
    """Each stream is what was asked for, whatever the others are; the caller's descriptor and file stay open."""
    (tmp_path / "in").write_bytes(b"input")
    with (tmp_path / "err").open("wb", buffering=0) as errors:
        plumbing = plumb(PipedIO(stdin=tmp_path / "in", stdout=True, stderr=errors, uid=1, gid=1), live=live)
        assert os.read(plumbing.child[0], 10) == b"input"
        as_child(plumbing, 1, b"out")
        as_child(plumbing, 2, b"err")
        plumbing.spawned()
        plumbing.close()
        errors.write(b" more")
    assert (tmp_path / "err").read_bytes() == b"err more"
    assert (tmp_path / "in").stat().st_uid == os.geteuid(), "only pipes change hands"
    assert (plumbing.stdin, plumbing.stderr) == (None, None)
    if live:
        assert plumbing.stdout is not None
        assert await plumbing.stdout.receive() == b"out"
        await plumbing.stdout.aclose()
    else:
        assert plumbing.captured(0) == b"out"


async def test_both_streams_in_one_file(tmp_path: Path) -> None:
    """With `stderr="stdout"` both go where stdout goes: into a file, or nowhere."""
    plumbing = plumb(PipedIO(stdout=tmp_path / "out", stderr="stdout"))
    assert plumbing.child[1] == plumbing.child[2]
    plumbing.close()
    assert plumb(PipedIO(stdout=False, stderr="stdout")).child == [DEVNULL] * 3


@pytest.mark.parametrize("streams", [PipedIO, RedirectIO])
async def test_a_descriptor_that_is_closed(streams: Any) -> None:
    """A number that is no open descriptor is an error before a spawn."""
    closed = os.dup(0)
    os.close(closed)
    before = leaks.footprint()
    with pytest.raises(OSError, match="Bad file descriptor"):
        plumb(streams(stderr=closed), live=True)
    assert leaks.left_since(before, patience=0) == []


async def test_whether_live_streams_are_quiet() -> None:
    """Streams are quiet when nothing waits in them to be read."""
    plumbing = plumb(PipedIO(), live=True)
    theirs = os.dup(plumbing.child[2])
    plumbing.spawned()
    assert plumbing.quiet
    os.write(theirs, b"x")
    assert not plumbing.quiet
    assert plumbing.stderr is not None
    await plumbing.stderr.receive()
    assert plumbing.quiet
    os.write(theirs, b"x")
    for stream in (plumbing.stdin, plumbing.stdout, plumbing.stderr):
        assert stream is not None
        await stream.aclose()
    assert plumbing.quiet
    os.close(theirs)
    plumbing.close()


@pytest.mark.root
@pytest.mark.parametrize(("uid", "gid"), [(1234, None), (None, 1234), (1234, 1235)])
async def test_the_owner_of_pipes(uid: int | None, gid: int | None) -> None:
    """The pipes belong to the user and group that were asked for, so that these can open them anew."""
    plumbing = plumb(PipedIO(uid=uid, gid=gid, stdin=False), live=True)
    assert plumbing.child[0] == DEVNULL
    for fd in plumbing.child[1:]:
        status = os.fstat(fd)
        assert (status.st_uid, status.st_gid) == (uid or 0, gid or 0)
    plumbing.close()


async def test_redirecting_to_files(tmp_path: Path) -> None:
    """Files are made and appended to; one path for both streams is one stream."""
    (tmp_path / "in").write_text("input")
    out = tmp_path / "out"
    out.write_text("before ")
    for text in (b"one ", b"two "):
        plumbing = plumb(RedirectIO(stdin=tmp_path / "in", stdout=out, stderr=out))
        assert os.read(plumbing.child[0], 10) == b"input"
        assert plumbing.child[1] == plumbing.child[2]
        as_child(plumbing, 1, text)
        as_child(plumbing, 2, text.upper())
        plumbing.spawned()
    assert out.read_text() == "before one ONE two TWO "


async def test_redirecting_to_different_files(tmp_path: Path) -> None:
    """Two paths are two streams; what isn't given is nothing."""
    plumbing = plumb(RedirectIO(stdout=str(tmp_path / "out"), stderr=str(tmp_path / "err")))
    assert plumbing.child[0] == DEVNULL
    as_child(plumbing, 1, b"out")
    as_child(plumbing, 2, b"err")
    plumbing.close()
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == ("out", "err")


async def test_redirecting_to_a_fifo_without_a_peer(tmp_path: Path) -> None:
    """A FIFO whose other end nobody has opened yet holds up nobody."""
    os.mkfifo(tmp_path / "fifo")
    plumbing = plumb(RedirectIO(stdin=tmp_path / "fifo", stdout=tmp_path / "fifo"))
    as_child(plumbing, 1, b"text")
    assert os.read(plumbing.child[0], 10) == b"text"
    plumbing.close()


async def test_redirecting_to_descriptors(tmp_path: Path) -> None:
    """Descriptors and open files are lent: they are open afterwards."""
    with open(tmp_path / "file", "wb", buffering=0) as file:
        plumbing = plumb(RedirectIO(stdin=0, stdout=file, stderr=file.fileno()))
        assert plumbing.child == [0, file.fileno(), file.fileno()]
        plumbing.spawned()
        plumbing.close()
        file.write(b"still open")


@pytest.mark.parametrize("streams", [PipedIO, RedirectIO])
@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
async def test_redirecting_into_a_directory_that_does_not_exist(tmp_path: Path, name: str, streams: Any) -> None:
    """A file that can't be opened is an OSError which names it, and what was opened before is closed."""
    targets: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), "/dev/null")
    targets[name] = tmp_path / "missing" / "file"
    before = leaks.footprint()
    with pytest.raises(FileNotFoundError) as caught:
        plumb(streams(**targets))
    assert caught.value.filename == str(tmp_path / "missing" / "file")
    assert leaks.left_since(before, patience=0) == []


async def test_a_terminal() -> None:
    """The child's three streams are one terminal of the size that was asked for, and its output is captured."""
    plumbing = plumb(PtyIO(rows=10, cols=20))
    assert len(set(plumbing.child)) == 1
    assert os.isatty(plumbing.child[0])
    assert os.get_terminal_size(plumbing.child[0]) == (20, 10)
    as_child(plumbing, 1, b"text")
    plumbing.spawned()
    assert not plumbing.drained()
    assert plumbing.captured(0) == b"text"
    assert plumbing.captured(1) == b""


async def test_a_live_terminal() -> None:
    """A live terminal is a stream of ours."""
    plumbing = plumb(PtyIO(), live=True)
    theirs = os.dup(plumbing.child[0])
    plumbing.spawned()
    plumbing.close()
    assert plumbing.pty is not None
    os.write(theirs, b"text")
    assert await plumbing.pty.receive() == b"text"
    os.close(theirs)
    await plumbing.pty.aclose()


async def test_a_new_size_of_a_live_terminal() -> None:
    """The child hears of a new size by a signal from us: the kernel tells only those whose terminal it is."""
    plumbing = plumb(PtyIO(), live=True)
    theirs = os.dup(plumbing.child[0])
    sent: list[int] = []
    plumbing.spawned(sent.append)
    plumbing.close()
    assert plumbing.pty is not None
    plumbing.pty.resize(5, 6)
    assert os.get_terminal_size(theirs) == (6, 5)
    assert sent == [signal.SIGWINCH]
    os.close(theirs)
    await plumbing.pty.aclose()


async def test_streamed_output_without_a_reader() -> None:
    """Where nobody reads while runc runs, both streams are files in memory."""
    plumbing = plumb(StreamedOutput())
    as_child(plumbing, 1, b"out")
    plumbing.spawned()
    assert plumbing.stdout is None
    assert plumbing.captured(0) == b"out"
    plumbing.close()


async def test_streamed_output() -> None:
    """What is read while runc runs comes by two pipes; the second, its log too, can be opened by any user's runc."""
    plumbing = plumb(StreamedOutput(), live=True)
    as_child(plumbing, 1, b"out")
    as_child(plumbing, 2, b"err")
    assert stat.S_IMODE(os.fstat(plumbing.child[2]).st_mode) & stat.S_IWOTH
    plumbing.spawned()
    for stream, data in ((plumbing.stdout, b"out"), (plumbing.stderr, b"err")):
        assert stream is not None
        assert await stream.receive() == data
        await stream.aclose()
    plumbing.close()


@pytest.mark.parametrize("streams", [CapturedIO(), PtyIO()], ids=repr)
async def test_a_pump_that_cannot_be_set_up(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe or terminal that can't be read leaves nothing open."""

    def fail(fd: int, _: int, **_options: object) -> NoReturn:
        os.close(fd)  # it has taken the descriptor over
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(plumbing_module, "Drain", fail)
    before = leaks.footprint()
    with pytest.raises(OSError, match="no space"):
        plumb(streams)
    assert leaks.left_since(before, patience=0) == []
