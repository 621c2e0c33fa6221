"""Checks of the streams of a call, and error messages in live streams."""

from __future__ import annotations

import os

import msgspec
from msgspec import structs

from ..runner import Completed, Process as Running
from ..stdio import CapturedIO, InheritedIO, PipedIO, RedirectIO, StdIO


def check_live(io: StdIO | None) -> None:
    """Refuse streams whose output would be in a `Response`, which a live call doesn't return.

    Raises:
        ValueError: If `io` is a `CapturedIO`.
    """
    if isinstance(io, CapturedIO):
        raise ValueError(  # noqa: TRY004 - it is a kind of IO, but not one for a handle
            "CapturedIO comes with a Response: use PipedIO here, or run() and exec()"
        )


_UNREAD_LIMIT = 1 << 16
"""Maximal bytes of an error message read from a live stream: the capacity of a pipe."""


def with_unread(completed: Completed, running: Running) -> Completed:
    """Add the unread stderr or terminal output of a failed runc process: there won't be a handle to read the stream."""
    stream = running.stderr or running.pty or running.stdout  # both may be one stream, and no program has printed yet
    if stream is None or completed.returncode == 0:
        return completed
    try:
        unread = os.read(stream.fileno(), _UNREAD_LIMIT)  # it doesn't block
    except OSError:  # nothing has come, or the other end of the terminal is closed
        return completed
    return msgspec.structs.replace(completed, stderr=unread)


def has_stdin(io: StdIO | None) -> bool:
    """Return whether the streams define stdin."""
    match io:
        case InheritedIO():
            return io.stdin
        case RedirectIO():
            return io.stdin is not None
        case PipedIO():
            return not isinstance(io.stdin, bool)
        case _:
            return False


def first_bytes(io: StdIO | None, limit: int) -> CapturedIO:
    """Return streams that keep the first bytes of each stream.

    Raises:
        ValueError: If the streams aren't captured.
    """
    if io is not None and not isinstance(io, CapturedIO):
        raise ValueError(f"limits of output need CapturedIO: {io!r}")
    return structs.replace(io or CapturedIO(), limit=limit, keep="first")
