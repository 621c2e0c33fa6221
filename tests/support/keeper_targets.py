"""What a keeper and its client read of each other, and of the disk, as functions that take any bytes: for fuzzing.

Each does nothing, or raises a `RuncError`; everything else is a bug.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from runc_async.client import Runc
from runc_async.errors import CheckpointError, RuncError, RuncTimeout
from runc_async.exitstatus import ExitStatus
from runc_async.keeper import failures, protocol, sending
from runc_async.keeper.channel import Passed
from runc_async.keeper.errors import KeeperError, StreamsInUse

CLIENT = protocol.Client(command=b"runc", root=b"/r\xff", env={b"A": b"b"}, timeout=3.5, rootless="auto")
WEB = "web"


def request(data: bytes) -> None:
    """Read a request: it is whole again when it is written, and what it asks for is made, or refused."""
    found = protocol.decode_request(data)
    assert protocol.decode_request(msgspec.msgpack.encode(found)) == found
    if isinstance(found, protocol.Start):
        with contextlib.suppress(KeeperError, ValueError, TypeError):
            Runc(**sending.to_options(found.client))
        with contextlib.suppress(KeeperError, ValueError, TypeError):
            sending.to_io(found.streams, Passed().get)
        with contextlib.suppress(KeeperError):
            sending.to_create_options(found.options, Passed().get)


def requests() -> Iterator[bytes]:
    """Write a request of each kind."""
    streams = protocol.Streams(kind="redirect", stdin=0, stdout=b"/log", stderr=True, pipe_size=4096)
    options = protocol.Options(pid_file=b"/p", preserve_fds=(1, 2), extra_args=(b"-x",), timeout=None)
    start = protocol.Start(id=WEB, bundle=b"/b", client=CLIENT, streams=streams, options=options)
    others = (
        protocol.Hello(),
        protocol.List(after="a"),
        protocol.Close(stream="stdin"),
        protocol.Detach(ahead=("pty",)),
    )
    for each in (start, protocol.Attach(id=WEB), protocol.Wait(id=WEB), protocol.Delete(id=WEB), *others):
        yield protocol.encode(each)


def answer(data: bytes) -> None:
    """Read an answer; raise the error that is in it."""
    found = protocol.decode_answer(data)
    if isinstance(found, protocol.Failed):
        error = failures.to_error(found)
        if isinstance(error, RuncError):
            raise error


def answers() -> Iterator[bytes]:
    """Write an answer of each kind, and errors of several."""
    kept = protocol.Kept(WEB, 7, ExitStatus(code=3), attached=True)
    yield protocol.encode(protocol.Welcome(protocol=1, release="1", pid=7, requests=protocol.REQUESTS))
    yield protocol.encode(protocol.Attached(id=WEB, pid=7, client=CLIENT, descriptors=("stdin", "stdout.ahead")))
    for each in (protocol.Done(), protocol.Listing(containers=(kept,)), protocol.Ended(status=ExitStatus(signal=9))):
        yield protocol.encode(each)
    for error in (
        CheckpointError(("a",), 1),
        OSError(28, "full"),
        KeyError(1),
        RuncTimeout((), 1.5),
        StreamsInUse(WEB),
    ):
        yield protocol.encode(failures.failure_of(error))


def record(data: bytes) -> None:
    """Read the record of a container."""
    protocol.decode_record(data)


def records() -> Iterator[bytes]:
    """Write records, of a container that runs and of one that has ended."""
    found = protocol.Record(id=WEB, client=CLIENT, begun=sending.now(), pid=7, start_time=9, streams=("stdin",))
    yield protocol.encode(found)
    yield protocol.encode(msgspec.structs.replace(found, status=ExitStatus()))
