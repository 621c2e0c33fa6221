"""What some runtimes have and others don't, in one table, and the question to the runtime at hand."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Final

from . import _argv
from ._argv import StrPath
from ._call import PidfdSocket
from ._caller import DEFAULT, KILL, Caller, Timeout
from ._decode import decode_version
from ._runner import ProcessRunner
from .errors import CommandError, DecodeError, UnsupportedError
from .features import Version

# crun was looked at in 1.8.1, 1.21 and 1.28: what only 1.8.1 lacks counts as there from 1.8.2 on, and a crun that still
# lacks it says so itself.
AFTER_DEBIAN_12 = (1, 8, 2)

CREATE_PIDFD_SOCKET: Final = "create --pidfd-socket"

SINCE: Final[Mapping[str, Mapping[str, tuple[int, ...] | None]]] = {
    "features": {"runc": (1, 1), "crun": AFTER_DEBIAN_12},
    "files": {"runsc": None},
    "events": {"crun": None},
    "checkpoint": {"crun": AFTER_DEBIAN_12},
    "restore": {"crun": AFTER_DEBIAN_12},
    CREATE_PIDFD_SOCKET: {"runc": (1, 2), "crun": None},
    "run --pidfd-socket": {"runc": (1, 2), "crun": None},
    "run --keep": {"runc": (1, 1), "crun": AFTER_DEBIAN_12},
    "exec --pidfd-socket": {"runc": (1, 2), "crun": None},
    "exec --cgroup": {"runc": (1, 1)},
    "exec --ignore-paused": {"runc": (1, 1), "crun": None},
    "exec --additional-gids": {"crun": None},
    "update --cpu-burst": {"runc": (1, 2)},
    "update --cpu-idle": {"runc": (1, 2)},
    "update --l3-cache-schema": {"crun": AFTER_DEBIAN_12},
    "update --mem-bw-schema": {"crun": AFTER_DEBIAN_12},
    "checkpoint --lazy-pages": {"crun": None},
    "checkpoint --status-fd": {"crun": None},
    "checkpoint --page-server": {"crun": None},
    "checkpoint --empty-ns": {"crun": None},
    "checkpoint --auto-dedup": {"crun": None},
    "checkpoint --tcp-skip-in-flight": {"runc": (1, 3), "crun": None},
    "checkpoint --link-remap": {"runc": (1, 3), "crun": None},
    "checkpoint --manage-cgroups-mode ignore": {"runc": (1, 2)},
    "restore --lazy-pages": {"crun": None},
    "restore --empty-ns": {"crun": None},
    "restore --auto-dedup": {"crun": None},
    "restore --no-pivot": {"crun": None},
    "restore --no-subreaper": {"crun": None},
    "restore --lsm-mount-context": {"runc": (1, 1), "crun": AFTER_DEBIAN_12},
    "restore --manage-cgroups-mode ignore": {"runc": (1, 2)},
}
"""A command, `files`, or a command with an option: for each runtime the first version that has it, None for none.

A runtime that isn't named has it in all versions, or isn't known.
"""


_UNKNOWN: Final = Version(runtime="", version="")


def supported(feature: str, version: Version) -> bool:
    """Tell whether a version has a feature of the table; one that isn't known has all."""
    since = SINCE[feature]
    if version.runtime not in since:
        return True
    first = since[version.runtime]
    return first is not None and (version.number >= first or not version.number)


def _check(feature: str, version: Version) -> None:
    """Raise if a version lacks a feature of the table.

    Raises:
        UnsupportedError: If it has no such feature.
    """
    if not supported(feature, version):
        raise UnsupportedError(feature, f"{version.runtime} {version.version}")


def sends_pidfd(version: Version) -> bool:
    """Tell whether a version is known to send a pidfd of the process that it creates."""
    known = version.runtime in SINCE[CREATE_PIDFD_SOCKET] and bool(version.number)
    return known and supported(CREATE_PIDFD_SOCKET, version)


class Support(Caller):
    """What the runtime has."""

    _version: Version | None = None

    async def supports(self, feature: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Tell whether the runtime has a command, or an option of one, that not all runtimes have.

        It goes by the runtime's version, which is asked for once for each client. A runtime that this library doesn't
        know is taken to have everything; what it lacks, it says itself when it is asked for it.

        Cancelling kills runc at once; nothing is lost.

        Args:
            feature: A command, such as `"events"`, or a command with an option, such as `"exec --ignore-paused"`; or
                `"files"` for `Container.read_file` and the like.
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            ValueError: If no difference between runtimes is known there.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
        """
        if feature not in SINCE:
            raise ValueError(f"feature must be one of {', '.join(SINCE)}: {feature!r}")
        return supported(feature, await self._known_version(timeout))

    async def _require(self, given: Mapping[str, object], timeout: Timeout = DEFAULT) -> None:
        """Raise if the runtime lacks a feature that is given. Where none is, nothing is asked.

        Raises:
            UnsupportedError: If it has no such feature.
            RuncTimeout: If the answer takes longer than `timeout`.
        """
        for feature in [feature for feature, value in given.items() if value]:
            _check(feature, await self._known_version(timeout))

    def _check_command(self, command: str) -> None:
        """Raise if the client knows already that the runtime lacks a command.

        Nobody is asked for that: a runtime of which nothing is known yet refuses the command itself, in as much time.

        Raises:
            UnsupportedError: If it has no such command.
        """
        if self._version is not None:
            _check(command, self._version)

    async def _first_process(self, given: StrPath | None, timeout: Timeout) -> StrPath | PidfdSocket | None:
        """Tell what `create` gets for `--pidfd-socket` when its process is to be held.

        That is what the caller has given; else a socket of the runner's own, if the runtime is known to send to it.
        Another runner may know nothing of such a socket, and isn't asked.
        """
        if given is not None or not isinstance(self._runner, ProcessRunner):
            return given
        return PidfdSocket() if sends_pidfd(await self._known_version(timeout)) else None

    def _pidfd_socket_for_exec(self) -> PidfdSocket | None:
        """Tell what `exec` gets for `--pidfd-socket`: a socket if the version is known; nobody is asked for it."""
        known = self._version is not None and isinstance(self._runner, ProcessRunner)
        return PidfdSocket() if known and sends_pidfd(self._version or _UNKNOWN) else None

    async def _known_version(self, timeout: Timeout) -> Version:
        """Ask for the version, once: who comes while it is being asked for waits for the answer."""
        if self._version is None:
            loop = asyncio.get_running_loop()
            try:
                async with self._asking_version.setdefault(loop, asyncio.Lock()):
                    if self._version is None:
                        self._version = await self._told_version(timeout)
            finally:
                self._asking_version.pop(loop, None)
        return self._version

    async def _told_version(self, timeout: Timeout) -> Version:
        """Ask for the version."""
        try:
            return decode_version((await self._request(_argv.version(), timeout=timeout, stop=KILL)).stdout)
        except (CommandError, DecodeError):
            return _UNKNOWN

    @functools.cached_property
    def _asking_version(self) -> dict[asyncio.AbstractEventLoop, asyncio.Lock]:
        """Who asks for the version, in each event loop."""
        return {}
