"""What a runtime will pass over, or refuse, of a configuration: the answer of `Runc.check`."""

from __future__ import annotations

import msgspec


class Ignored(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a configuration that a runtime doesn't know.

    Attributes:
        path: Where it stands, from the document's root, as in ``$.mounts[3].uidMappings``.
        since: The first version of that runtime that knows it, such as `"1.2"`; None if none does.
        refused: Whether the runtime fails because of it; else it goes on as if it weren't there.
    """

    path: str
    since: str | None
    refused: bool

    def __str__(self) -> str:
        since = "" if self.since is None else f" (since {self.since})"
        return f"{self.path}{since}"
