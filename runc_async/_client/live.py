"""Calls whose streams are live: what they refuse, and what a runc process that fails has written into them."""

from __future__ import annotations

import os

import msgspec

from ..runner import Completed, Process as Running
from ..stdio import CapturedIO, StdIO


def check_live(io: StdIO | None) -> None:
    """Refuse streams whose result would come with a `Response`, of which there is none.

    Raises:
        ValueError: If `io` is a `CapturedIO`.
    """
    if isinstance(io, CapturedIO):
        raise ValueError(  # noqa: TRY004 - it is a kind of IO, but not one for a handle
            "CapturedIO comes with a Response: use PipedIO here, or run() and exec()"
        )


_UNREAD_LIMIT = 1 << 16
"""Bytes of an error message that are read from a stream of the handle: a pipe holds as many."""


def with_unread(completed: Completed, running: Running) -> Completed:
    """Add to a runc process that has failed what waits in its live stderr, or terminal: no handle will ever read it."""
    stream = running.stderr or running.pty or running.stdout  # both may be one stream, and no program has printed yet
    if stream is None or completed.returncode == 0:
        return completed
    try:
        unread = os.read(stream.fileno(), _UNREAD_LIMIT)  # it doesn't block
    except OSError:  # nothing has come, or the other end of the terminal is closed
        return completed
    return msgspec.structs.replace(completed, stderr=unread)
