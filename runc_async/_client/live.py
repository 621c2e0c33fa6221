"""Checks for calls with live streams, and error messages in live streams."""

from __future__ import annotations

import os

import msgspec

from ..runner import Completed, Process as Running
from ..stdio import CapturedIO, StdIO


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
