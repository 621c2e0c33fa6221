"""The other runtimes in $PATH, and whether they work here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable

import msgspec

from ._commands.support import supported
from ._runtimes.known import DIALECTS, FEATURES
from .client import Runc
from .errors import RuncError


class Surveyed(msgspec.Struct, frozen=True, kw_only=True):
    """Another runtime.

    Attributes:
        name: The name.
        path: Path of the program.
        version: The version; None if unknown.
        lacks: The missing commands.
        failure: The reason why a container doesn't run here; None if one did.
    """

    name: str
    path: str
    version: str | None = None
    lacks: tuple[str, ...] = ()
    failure: str | None = None

    def __str__(self) -> str:
        """Describe the runtime in one line."""
        runs = "runs containers here" if self.failure is None else f"doesn't run here: {self.failure}"
        lacks = f"; without {', '.join(self.lacks)}" if self.lacks else ""
        return f"{self.version or 'unknown version'}, {self.path}: {runs}{lacks}"


async def survey(asked: str, attempt: Callable[[Runc], Awaitable[str | None]]) -> tuple[Surveyed, ...]:
    """Try each known runtime in $PATH, except the requested one.

    Args:
        asked: The requested program.
        attempt: Runs a container; returns the reason for a failure, or None.
    """
    # By the file and not by the name: `runc` may be a link to another runtime.
    known = os.path.realpath(shutil.which(asked) or asked)
    found: list[Surveyed] = []
    for name in DIALECTS:
        path = shutil.which(name)
        if path is None or os.path.realpath(path) == known:
            continue
        client = Runc(path, timeout=10, extra_args=DIALECTS[name].trial_options)
        try:
            version = await client.version()
        except (RuncError, OSError) as error:
            found.append(Surveyed(name=name, path=path, failure=str(error)))
            continue
        # Names with a space are single options of a command.
        commands = [feature for feature in FEATURES if " " not in feature]
        lacks = tuple(command for command in commands if not supported(command, version))
        failure = await attempt(client)
        found.append(Surveyed(name=name, path=path, version=version.version, lacks=lacks, failure=failure))
    return tuple(found)
