"""Parts of a configuration that a runtime ignores or refuses: the result of `Runc.check`."""

from __future__ import annotations

import msgspec


class Ignored(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a configuration unknown to a runtime.

    Attributes:
        path: The place in the document, such as ``$.mounts[3].uidMappings``.
        since: The first version of the runtime that knows the part, such as `"1.2"`; None if none does.
        refused: Whether the runtime fails because of the part; otherwise the part is ignored.
    """

    path: str
    since: str | None
    refused: bool

    def __str__(self) -> str:
        since = "" if self.since is None else f" (since {self.since})"
        return f"{self.path}{since}"
