"""Errors between a service and its keeper. Errors of the runtime are the same as without a keeper."""

# ruff: noqa: N818 - as in `runc_async.errors`: the names are what happened

from __future__ import annotations

from runc_async.errors import RuncError

from .._text import one_line


class KeeperError(RuncError):
    """The keeper can't be reached, can't be started, or refuses a request.

    Attributes:
        reason: The reason, as one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"keeper: {one_line(self.reason)}"


class KeeperLost(KeeperError):
    """The connection ended before an answer: the keeper has ended, or has refused the connection."""


class StreamsInUse(KeeperError):
    """Another connection has the streams of the container; only one at a time can have them.

    Attributes:
        container_id: The container's id.
    """

    def __init__(self, container_id: str) -> None:
        RuncError.__init__(self, container_id)
        self.container_id = container_id
        self.reason: str = f"another connection has the streams of container {container_id!r}"
