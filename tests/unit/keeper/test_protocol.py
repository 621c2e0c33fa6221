"""The messages of a keeper: what is sent of clients, streams, options and errors arrives whole, or is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from runc_async import (
    CapturedIO,
    CheckpointError,
    CommandError,
    ContainerNotFound,
    ContainerRunning,
    ExecutableDenied,
    InheritedIO,
    InvalidContainerID,
    KeeperError,
    KeeperLost,
    NullIO,
    PipedIO,
    PtyIO,
    RedirectIO,
    Runc,
    RuncError,
    RuncNotFound,
    RuncTimeout,
    StreamsInUse,
    UnsupportedError,
)
from runc_async._commands.options import DEFAULT
from runc_async.keeper import failures, protocol, sending
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from runc_async.stdio import StdIO


ERRORS: list[Exception] = [
    ContainerNotFound(("runc", "start"), 1, b"gone", stdout=b"out", container_id="web", message="no such container"),
    ExecutableDenied((), 1, container_id="web"),
    CheckpointError((), None, message="criu failed"),
    InvalidContainerID((), None, container_id="a\x1bb", message="no"),
    CommandError(("x" * 9000,) * 20, -9, b"e" * 99999),
    RuncTimeout(("runc",), 2.5, b"out", b"err", "web"),
    RuncNotFound("nothing", "/bin"),
    UnsupportedError("--x", "crun 1.28"),
    StreamsInUse("web"),
    KeeperError("because"),
    KeeperLost("gone"),
    OSError(errno.ENOSPC, "No space left on device", "/x"),
    FileNotFoundError(errno.ENOENT, "No such file", "/y"),
    ValueError("bad \ud800"),
    TypeError("worse"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_of_the_keeper_is_raised_in_the_service(error: Exception) -> None:
    """It has its class, its data and its sentence; only long output and arguments are cut."""
    found = protocol.decode_answer(protocol.encode(failures.failure_of(error)))
    assert isinstance(found, protocol.Failed)
    again = failures.to_error(found)
    assert type(again) is type(error)
    for name in ("container_id", "exit_code", "message", "timeout", "errno", "filename", "command", "what", "runtime"):
        assert getattr(again, name, None) == getattr(error, name, None) or "\x1b" in str(getattr(error, name, ""))
    assert str(again) == str(error).replace("\ud800", "\\ud800")


def test_an_error_of_no_known_class_is_a_keeper_error() -> None:
    """Neither the name of a builtin nor that of another thing in the module is believed."""
    for name in ("SystemExit", "LogRecord", "one_line", "Newer"):
        error = failures.to_error(protocol.Failed(error=name, text="why"))
        assert type(error) is KeeperError
        assert str(error) == f"keeper: {name}: why"
    assert protocol.Failed(error="KeeperError", text="'x'") == failures.failure_of(KeyError("x"))


def test_a_client_is_sent_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its options arrive; paths are absolute, for the keeper is elsewhere."""
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {
        "command": "bin/runc",
        "root": "root",
        "debug": True,
        "log": "log",
        "log_format": "text",
        "systemd_cgroup": True,
        "rootless": "auto",
        "extra_args": ["--x"],
        "env": {"A": "b"},
        "cwd": "d",
        "timeout": 3.5,
        "pdeathsig": "KILL",
        "process_group": 0,
        "max_concurrency": 7,
    }
    runc = Runc(**given)
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(sending.client_of(runc)), type=protocol.Client)
    again = Runc(**sending.to_options(sent))
    given["command"] = str(tmp_path / "bin" / "runc")
    expected = Runc(**given)
    ours, theirs = vars(expected._calls), vars(again._calls)  # pyright: ignore[reportPrivateUsage]
    ignored = {"_given", "runner", "_turns", "identity"}
    for name in ours.keys() - ignored:
        assert theirs[name] == ours[name]
    assert sending.to_options(sent)["root"] == str(tmp_path / "root")


def test_a_client_that_can_not_be_sent_is_refused() -> None:
    """A runner is code, and so is a class of the caller's own."""

    class Own(Runc):
        pass

    with pytest.raises(ValueError, match="a runner of its own can't be sent"):
        sending.client_of(Runc(runner=FakeRunner()))
    with pytest.raises(TypeError, match="must be a Runc"):
        sending.client_of(Own())


STREAMS: list[StdIO] = [
    NullIO(),
    PtyIO(rows=3, cols=4),
    PipedIO(),
    PipedIO(stdin=False, uid=5, gid=6),
    RedirectIO(stdin="/in", stdout=7, stderr=None),
]


@pytest.mark.parametrize("io", STREAMS, ids=repr)
def test_streams_are_sent_whole(io: StdIO) -> None:
    """What arrives is what was asked for, with descriptors by their place beside the message."""
    fds: list[int] = []
    pass_on = fds.append
    sent = sending.streams_of(io, None, lambda fd: pass_on(fd) or len(fds) - 1)
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=protocol.Streams)
    assert sending.to_io(sent, fds.__getitem__) == io


def test_streams_that_can_not_be_sent_are_refused(tmp_path: Path) -> None:
    """`CapturedIO` has no end; the caller's own streams travel as descriptors; a relative path is made absolute."""
    with pytest.raises(ValueError, match="CapturedIO"):
        sending.streams_of(CapturedIO(), None, lambda fd: fd)
    with pytest.raises(TypeError, match="no streams: 'x'"):
        sending.streams_of("x", None, lambda fd: fd)  # type: ignore[arg-type]
    assert sending.streams_of(InheritedIO(stdin=True), None, lambda fd: fd + 10).stdin == 10
    with (tmp_path / "x").open("w") as file:
        sent = sending.streams_of(RedirectIO(stdin="x", stdout=file), None, lambda fd: fd)
        assert (sent.stdin, sent.stdout) == (os.fsencode(Path("x").absolute()), file.fileno())


def test_options_are_sent_whole(tmp_path: Path) -> None:
    """All of them arrive, also the time limit, or that there is none, or that it is the client's."""
    fds: list[int] = []

    def pass_on(fd: int) -> int:
        fds.append(fd)
        return len(fds) - 1

    given: Any = {"pid_file": tmp_path / "p", "pidfd_socket": "s", "no_pivot": True, "extra_args": ["-x"]}
    with (tmp_path / "x").open("w") as file:
        for timeout in (DEFAULT, None, 2.5):
            given["preserve_fds"] = [file]
            sent = sending.options_of(given, timeout, pass_on)
            sent = msgspec.msgpack.decode(msgspec.msgpack.encode(sent), type=protocol.Options)
            options, seconds = sending.to_create_options(sent, fds.__getitem__)
            assert (options.get("preserve_fds"), seconds) == ((file.fileno(),), timeout)
            paths = (str(tmp_path / "p"), str(Path("s").absolute()))
            assert (options.get("pid_file"), options.get("pidfd_socket")) == paths
    with pytest.raises(TypeError, match="nonsense"):
        sending.options_of({"nonsense": 1}, DEFAULT, pass_on)  # type: ignore[typeddict-unknown-key]


def test_a_request_that_is_too_long_is_refused_before_it_is_sent() -> None:
    """So is a text that can't be encoded."""
    with pytest.raises(ValueError, match="at most 131072 bytes"):
        protocol.encode(protocol.List(after="x" * (1 << 17)))
    with pytest.raises(ValueError, match="no text"):
        protocol.encode(protocol.List(after="\ud800"))


def test_the_listing_of_the_longest_ids_fits() -> None:
    """A page of containers is no longer than a message may be."""
    kept = tuple(protocol.Kept("x" * 254, 1 << 22, sending.UNKNOWN, attached=True) for _ in range(protocol.PAGE))
    assert protocol.encode(protocol.Listing(containers=kept, more=True))


def test_errors_say_what_they_are_about() -> None:
    """They are one line, and of the root of all errors."""
    for error in (KeeperError("a\nb"), KeeperLost("x"), StreamsInUse("web"), ContainerRunning((), 1)):
        assert isinstance(error, RuncError)
        assert "\n" not in str(error)
    assert str(KeeperError("a\nb")) == "keeper: a; b"
