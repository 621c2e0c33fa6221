"""Which runtime a client has: found out once for each binary, for all clients of the process."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from .._answers.decode import decode_version
from .._commands.support import UNKNOWN
from .._process.running import ProcessRunner
from .._runtimes.dialect import Dialect
from .._runtimes.known import DIALECTS
from .._runtimes.runc import RUNC
from ..errors import CommandError, DecodeError, ResourceError, RuncCrashed
from ..features import Version
from ..runner import Runner


class Binary(NamedTuple):
    """A program, as long as it isn't replaced."""

    path: str
    inode: int
    changed: int


_versions: dict[Binary, Version] = {}


class Identity:
    """Which runtime it is. The name of its file says nothing: that may be a link, a copy, or a script in front.

    Args:
        command: The program, as the client was given it.
        cwd: The working directory that it will have.
        env: The variables that it will have, beside those of this process.
        runner: What starts it. Only a `ProcessRunner` is known to start that very file.
        dialect: What is known of it already, if the caller has said which it is.
    """

    def __init__(
        self, command: str, cwd: str | None, env: Mapping[str, str], runner: Runner, dialect: Dialect | None
    ) -> None:
        self._command = command
        self._cwd = cwd
        self._env = env
        self._runner = runner
        self._dialect = dialect
        self._binary: Binary | None = None
        self.version: Version | None = None

    @property
    def dialect(self) -> Dialect:
        """What is known of it; of one that isn't known, what is known of runc."""
        if self._dialect is not None or self.version is None or not isinstance(self._runner, ProcessRunner):
            return self._dialect or RUNC
        return DIALECTS.get(self.version.runtime, RUNC)

    @property
    def known(self) -> bool:
        """Whether it is one of the runtimes of which something is known."""
        return self._dialect is not None or (
            isinstance(self._runner, ProcessRunner) and self.version is not None and self.version.runtime in DIALECTS
        )

    @property
    def can_ask(self) -> bool:
        """Whether it is to be asked before it is used."""
        return self._dialect is None and isinstance(self._runner, ProcessRunner)

    async def find(self, ask: Callable[[], Awaitable[bytes]]) -> Version:
        """Return its version: who comes while it is being asked for waits for the answer.

        Args:
            ask: Asks it for its version.

        Raises:
            RuncTimeout: If it takes too long.
            RuncNotFound: If there is no such program.
        """
        binary = self._look() if isinstance(self._runner, ProcessRunner) else None
        if self.version is not None and binary == self._binary:
            return self.version
        known = None if binary is None else _versions.get(binary)
        if known is None:
            loop = asyncio.get_running_loop()
            try:
                async with self._asking.setdefault(loop, asyncio.Lock()):
                    if self.version is not None and binary == self._binary:
                        return self.version
                    known = await self._ask(ask, binary)
            finally:
                self._asking.pop(loop, None)
        self.version, self._binary = known, binary
        return known

    async def _ask(self, ask: Callable[[], Awaitable[bytes]], binary: Binary | None) -> Version:
        """Ask, and keep the answer for all clients."""
        try:
            version = decode_version(await ask())
        except (RuncCrashed, ResourceError):  # perhaps it can answer later
            return UNKNOWN
        except (CommandError, DecodeError):
            version = UNKNOWN
        if binary is not None:
            _versions[binary] = version
        return version

    def _look(self) -> Binary | None:
        """Look the program up, as execvp(3) does; None if it isn't there."""
        if os.sep in self._command:
            places = [os.path.join(self._cwd or "", self._command)]
        else:
            places = [os.path.join(each, self._command) for each in os.get_exec_path({**os.environ, **self._env})]
        for path in places:
            try:
                found = os.stat(path)
            except OSError:
                continue
            if os.access(path, os.X_OK):
                return Binary(path, found.st_ino, found.st_mtime_ns)
        return None

    @functools.cached_property
    def _asking(self) -> dict[asyncio.AbstractEventLoop, asyncio.Lock]:
        """Who asks for the version, in each event loop."""
        return {}
