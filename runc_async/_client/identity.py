"""The runtime behind a client's command, detected once for each binary and shared by all clients of the process."""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from .._answers.decode import decode_version
from .._commands.support import UNKNOWN
from .._linux.search_path import find_executable
from .._process.running import ProcessRunner
from .._runtimes.dialect import Dialect
from .._runtimes.known import DIALECTS
from .._runtimes.runc import RUNC
from ..errors import CommandError, DecodeError, ResourceError, RuncCrashed
from ..features import Version
from ..runner import Runner

_SCRIPT_LIMIT: Final = 1 << 16
_LARGE: Final = 4 << 20
_PATH: Final = re.compile(r"/[\w./+-]+")
_EXECUTES_VARIABLE: Final = re.compile(r"\bexec\s+[\"']?(?:\$(?![@*])|`)")


class Binary(NamedTuple):
    """A program file, until it is replaced."""

    path: str
    inode: int
    changed: int


_versions: dict[Binary, Version] = {}


@functools.lru_cache
def _may_differ(binary: Binary) -> bool:
    """Return whether a program may be a runtime with another command line than runc's."""
    # Machine code may be any runtime. A script counts only if it names such a runtime or a large program, or executes a
    # variable; a script that plays a runtime by itself, as in tests, is spared the question.
    try:
        with open(binary.path, "rb") as file:
            content = file.read(_SCRIPT_LIMIT)
    except OSError:  # it can be executed, and not be read
        return True
    if not content.startswith(b"#!"):
        return True
    text = os.fsdecode(content.partition(b"\n")[2])
    if any(dialect.name in text for dialect in DIALECTS.values() if dialect.spell) or _EXECUTES_VARIABLE.search(text):
        return True
    return any(map(_is_large, _PATH.findall(text)))


def _is_large(path: str) -> bool:
    """Return whether a file exists with the size of a statically linked runtime."""
    try:
        return os.stat(path).st_size >= _LARGE
    except OSError:
        return False


@functools.lru_cache
def _places(command: str, cwd: str, path: str) -> list[str]:
    """Return where execvp(3) looks for a program: at its path, or in each directory of $PATH."""
    if os.sep in command:
        return [os.path.join(cwd, command)]
    return [os.path.join(each, command) for each in path.split(os.pathsep)]


class Identity:
    """The runtime behind a command. The file name proves nothing: the file may be a link, a copy, or a wrapper script.

    Args:
        command: The program, as passed to the client.
        cwd: The working directory of the program.
        env: Environment variables beside those of this process.
        runner: The runner. Only a `ProcessRunner` is known to start this very file.
        dialect: The dialect, if the caller has chosen the runtime.
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
        """The dialect of the runtime; runc's for an unknown runtime."""
        if self._dialect is not None or self.version is None or not isinstance(self._runner, ProcessRunner):
            return self._dialect or RUNC
        return DIALECTS.get(self.version.runtime, RUNC)

    @property
    def known(self) -> bool:
        """Whether the runtime has a dialect of its own."""
        return self._dialect is not None or (
            isinstance(self._runner, ProcessRunner) and self.version is not None and self.version.runtime in DIALECTS
        )

    @property
    def must_ask(self) -> bool:
        """Whether the version has to be requested before use, because the program may have another command line."""
        # Another runner may start another program on another host, so the file here says nothing.
        if self._dialect is not None or not isinstance(self._runner, ProcessRunner):
            return False
        binary = self._look()
        return binary is not None and (binary in _versions or _may_differ(binary))

    async def find(self, ask: Callable[[], Awaitable[bytes]]) -> Version:
        """Return the version. Concurrent callers share one request.

        Args:
            ask: Requests the version.

        Raises:
            RuncTimeout: If the request takes too long.
            RuncNotFound: If there is no such program.
        """
        binary = self._look() if isinstance(self._runner, ProcessRunner) else None
        if self.version is not None and binary == self._binary:
            return self.version
        # A package upgrade replaces the file, with another inode and time: then the version is requested again.
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
        """Request the version, and keep the result for all clients."""
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
        """Look the program up as execvp(3) does; None if not found."""
        path = self._env.get("PATH", os.environ.get("PATH", os.defpath))  # os.get_exec_path takes 0.1 ms and more
        known = None if os.sep in self._command else find_executable(self._command, path)
        for place in [known] if known is not None else _places(self._command, self._cwd or "", path):
            try:
                found = os.stat(place)
            except OSError:
                continue
            if os.access(place, os.X_OK):
                return Binary(place, found.st_ino, found.st_mtime_ns)
        return None

    @functools.cached_property
    def _asking(self) -> dict[asyncio.AbstractEventLoop, asyncio.Lock]:
        """The lock for the request in each event loop."""
        return {}
