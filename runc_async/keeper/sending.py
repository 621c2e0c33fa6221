"""Convert clients, streams and options to parts of messages, and back."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from typing import Any

import msgspec

from runc_async.client import Runc
from runc_async.exitstatus import ExitStatus
from runc_async.stdio import CapturedIO, InheritedIO, NullIO, PipedIO, PtyIO, RedirectIO, StdIO

from .._client.calls import given_options
from .._commands.options import DEFAULT, CreateOptions, Timeout
from .._commands.words import absolute, preserved, signal_number
from .protocol import Client, Options, Streams, Target

_NAMES = ("stdin", "stdout", "stderr")


def client_of(runc: Runc) -> Client:
    """Convert the options of a client to a message.

    Raises:
        ValueError: If the client has a custom runner, which can't be sent.
        TypeError: If `runc` isn't a `Runc`, or is of a subclass.
    """
    # A subclass may have other behaviour, which the keeper couldn't reproduce.
    if type(runc) is not Runc:
        raise TypeError(f"runc must be a Runc, and not of a subclass: {runc!r}")
    given = given_options(runc._calls)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if given.pop("runner") is not None:
        raise ValueError("a client with a runner of its own can't be sent to a keeper")
    program: str | os.PathLike[str] = given.pop("command")
    command = os.fspath(program)
    env: dict[str, str] = given.pop("env") or {}
    signal = given.pop("pdeathsig")
    paths: dict[str, Any] = {name: _path(given.pop(name)) for name in ("root", "log", "cwd")}
    return Client(
        # A name is looked up in the keeper's own $PATH, a relative path is resolved here.
        command=os.fsencode(absolute(command) if os.sep in command else command),
        extra_args=tuple(map(os.fsencode, given.pop("extra_args"))),
        env={os.fsencode(name): os.fsencode(value) for name, value in env.items()},
        pdeathsig=None if signal is None else signal_number(signal),
        **paths,
        **given,
    )


def to_options(client: Client) -> dict[str, Any]:
    """Return the arguments of `Runc` in a message."""
    given = msgspec.structs.asdict(client)
    for name in ("command", "root", "log", "cwd"):
        given[name] = None if given[name] is None else os.fsdecode(given[name])
    given["extra_args"] = tuple(map(os.fsdecode, client.extra_args))
    given["env"] = {os.fsdecode(name): os.fsdecode(value) for name, value in client.env.items()}
    return given


def streams_of(io: StdIO | None, pipe_size: int | None, pass_on: Callable[[int], int]) -> Streams:
    """Convert the streams of a container to a message.

    Args:
        io: The streams.
        pipe_size: Capacity of a pipe in bytes.
        pass_on: Registers a descriptor to send, and returns its index.

    Raises:
        ValueError: If the streams can't outlive this process.
        TypeError: If `io` has a wrong type.
    """
    match io:
        case None | NullIO():
            return Streams()
        case PtyIO():
            return Streams(kind="pty", rows=io.rows, cols=io.cols)
        case InheritedIO():
            # The keeper's own streams are its log and /dev/null, so the descriptors travel.
            first = pass_on(0) if io.stdin else None
            return Streams(kind="redirect", stdin=first, stdout=pass_on(1), stderr=pass_on(2))
        case PipedIO():
            stdin, stdout = _target(io.stdin, pass_on), _target(io.stdout, pass_on)
            stderr = _target(io.stderr, pass_on, same=True)
            return Streams(
                kind="piped",
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                uid=io.uid,
                gid=io.gid,
                pipe_size=pipe_size,
            )
        case RedirectIO():
            stdin, stdout, stderr = (_target(target, pass_on) for target in (io.stdin, io.stdout, io.stderr))
            return Streams(kind="redirect", stdin=stdin, stdout=stdout, stderr=stderr)
        case CapturedIO():
            raise ValueError("CapturedIO comes with a Response: use PipedIO here, or RedirectIO with a file")
    raise TypeError(f"no streams: {io!r}")


def _target(target: Any, pass_on: Callable[[int], int], *, same: bool = False) -> Target:
    """Convert one stream."""
    if target is None or isinstance(target, bool):
        return target
    if same and target == "stdout":
        return b"stdout"
    if isinstance(target, str | os.PathLike):
        return os.fsencode(absolute(target))  # pyright: ignore[reportUnknownArgumentType]
    return pass_on(target if isinstance(target, int) else target.fileno())


def to_io(streams: Streams, fd: Callable[[int], int]) -> StdIO:
    """Return the streams in a message.

    Args:
        streams: The part of the message.
        fd: Returns the descriptor of an index.

    Raises:
        ValueError: If the streams are invalid.
        KeeperError: If a descriptor is missing.
    """
    targets: dict[str, Any] = {}
    for name in _NAMES:
        target = getattr(streams, name)
        if isinstance(target, bytes):
            target = os.fsdecode(target)
        # bool is a subclass of int, and here it stands for a pipe, or none.
        elif isinstance(target, int) and not isinstance(target, bool):
            target = fd(target)
        targets[name] = target
    match streams.kind:
        case "null":
            return NullIO()
        case "pty":
            return PtyIO(streams.rows, streams.cols)
        case "piped":
            return PipedIO(**targets, uid=streams.uid, gid=streams.gid)
        case "redirect":
            return RedirectIO(**targets)


def options_of(options: CreateOptions, timeout: Timeout, pass_on: Callable[[int], int]) -> Options:
    """Convert the options of `create` to a message.

    Raises:
        TypeError: If there is no such option, or one has a wrong type.
        ValueError: If an option is invalid.
    """
    given: dict[str, Any] = dict(options)
    for name in ("pid_file", "pidfd_socket"):
        if name in given:
            given[name] = _path(given[name])
    if "preserve_fds" in given:
        given["preserve_fds"] = tuple(map(pass_on, preserved(given["preserve_fds"])))
    if "extra_args" in given:
        given["extra_args"] = tuple(map(os.fsencode, given["extra_args"]))
    if timeout is not DEFAULT:
        given["timeout"] = timeout
    return Options(**given)


def to_create_options(options: Options, fd: Callable[[int], int]) -> tuple[CreateOptions, Timeout]:
    """Return the options of `create` in a message, and the timeout.

    Raises:
        KeeperError: If a descriptor is missing.
    """
    create = CreateOptions(
        no_pivot=options.no_pivot,
        no_new_keyring=options.no_new_keyring,
        preserve_fds=tuple(map(fd, options.preserve_fds)),
        extra_args=tuple(map(os.fsdecode, options.extra_args)),
    )
    if options.pid_file is not None:
        create["pid_file"] = os.fsdecode(options.pid_file)
    if options.pidfd_socket is not None:
        create["pidfd_socket"] = os.fsdecode(options.pidfd_socket)
    return create, DEFAULT if isinstance(options.timeout, msgspec.UnsetType) else options.timeout


def _path(path: Any) -> bytes | None:
    """Make a path absolute: the keeper has another working directory."""
    return None if path is None else os.fsencode(absolute(path))


def now() -> dt.datetime:
    """Return the current time for a record."""
    return dt.datetime.now(dt.UTC)


UNKNOWN = ExitStatus()
"""The status of a process about which the kernel reports nothing any more."""
