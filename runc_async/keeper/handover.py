"""The upgrade of a keeper: the process executes the currently installed program.

So the new program is still the parent of the containers, and gets exact exit statuses; and execve(2) leaves the
descriptors open. A file in memory describes them. Before the upgrade, a trial run of the new program reads the same
file: a program that doesn't start or doesn't understand the file replaces nothing.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator

import msgspec

from .._process.running import ProcessRunner
from ..runner import Invocation, OwnOutput
from .channel import Channel
from .errors import KeeperError
from .protocol import Record, StreamName, Value
from .server import Server
from .streams import content_of, memory_of

TRIAL_TIME = 30.0
"""Seconds for the trial run of the new program."""


class HandedContainer(Value, frozen=True):
    """A container, with descriptors of the streams, of files with bytes read ahead, and of the owner's connection."""

    record: Record
    streams: dict[StreamName, int]
    ahead: dict[StreamName, int]
    owner: int


class Handover(Value, frozen=True):
    """All resources of a keeper."""

    listener: int
    lock: int
    containers: tuple[HandedContainer, ...] = ()
    unread: tuple[int, ...] = ()

    def descriptors(self) -> Iterator[int]:
        """Yield the descriptors."""
        yield from (self.listener, self.lock, *self.unread)
        for handed in self.containers:
            yield from (*handed.streams.values(), *handed.ahead.values())
            if handed.owner >= 0:
                yield handed.owner


def command(path: str, *options: str) -> list[str]:
    """Return the command line of a keeper: the current Python with its options."""
    return [sys.executable, *_interpreter_options(), "-m", "runc_async.keeper", *options, path]


def _interpreter_options() -> list[str]:
    """Return the options with which Python was started."""
    options = sys.orig_argv[1:]
    # Such as -X and -W options, which are not in sys.argv.
    return options[: options.index("-m")] if "-m" in options else []


def read(fd: int) -> Handover:
    """Read the file from the former program, and close the descriptor.

    Raises:
        KeeperError: If the file can't be decoded.
    """
    os.set_inheritable(fd, False)
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        return msgspec.msgpack.decode(content_of(fd), type=Handover)
    except msgspec.MsgspecError as exc:
        raise KeeperError(f"what the older keeper hands over can't be understood: {exc}") from exc
    finally:
        os.close(fd)


def take_over(handover: Handover, server: Server) -> None:
    """Pass the resources to a new server, except the listening socket and the lock."""
    for fd in handover.descriptors():
        os.set_inheritable(fd, False)
    for handed in handover.containers:
        holding = server.adopt(handed.record, handed.streams)
        if holding is not None:
            holding.ahead = handed.ahead
            if handed.owner >= 0:
                holding.owner = Channel(socket.socket(fileno=handed.owner))
    server.unread = [Channel(socket.socket(fileno=fd)) for fd in handover.unread]


async def replace(server: Server, path: str, lock: int) -> None:
    """Execute the currently installed program in this process; return only on failure, with nothing changed.

    Raises:
        KeeperError: If the new program doesn't start, or doesn't understand the file.
        OSError: If the program can't be executed, or no descriptor is left.
    """
    # The trial comes before the pause, so that a broken program doesn't interrupt the service at all.
    await _try(path, Handover(listener=server.fileno(), lock=lock, containers=tuple(_handed(server))))
    # The trial has succeeded. From here on no container may start or end, so that the descriptors stay the same until
    # execve(2).
    await server.pause()
    try:
        handover = Handover(
            listener=server.fileno(),
            lock=lock,
            containers=tuple(_handed(server)),
            unread=tuple(channel.fileno() for channel in server.unread),
        )
        memory = memory_of(msgspec.msgpack.encode(handover))
        descriptors = [memory, *handover.descriptors()]
        try:
            for fd in descriptors:
                os.set_inheritable(fd, True)
            before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the new program has no handler at first
            try:
                argv = command(path, "--resume", str(memory))
                os.execv(argv[0], argv)  # noqa: S606 - it is this very program
            finally:
                signal.signal(signal.SIGHUP, before)
        finally:
            for fd in descriptors:
                os.set_inheritable(fd, False)
            os.close(memory)
    finally:
        server.resume()


def _handed(server: Server) -> Iterator[HandedContainer]:
    """Yield the containers. In a trial, some may be starting and have no process yet."""
    for holding in server.holdings.values():
        yield HandedContainer(
            record=holding.record,
            streams={} if holding.container is None else holding.container.streams(),
            ahead=holding.ahead,
            owner=-1 if holding.owner is None else holding.owner.fileno(),
        )


async def _try(path: str, handover: Handover) -> None:
    """Let the new program read a trial file.

    Raises:
        KeeperError: If the program fails.
    """
    memory = memory_of(msgspec.msgpack.encode(handover))
    try:
        argv = tuple(command(path, "--try", str(memory)))
        trial = Invocation(command="try", argv=argv, pass_fds=(memory,), streams=OwnOutput(), timeout=TRIAL_TIME)
        completed = await ProcessRunner().run(trial)
    finally:
        os.close(memory)
    if completed.returncode != 0:
        lines = completed.stderr.decode(errors="replace").strip().splitlines()
        reason = "it takes too long" if completed.timed_out else (lines or [f"exit code {completed.returncode}"])[-1]
        raise KeeperError(f"the new program can't take over: {reason}")
