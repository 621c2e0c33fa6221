"""Whether the runtime has what a command asks of it."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from .._bundles.check import Source
from .._commands.argv import Command
from .._commands.options import DEFAULT, Timeout
from .._commands.spec_support import ignored_parts
from .._commands.support import UNKNOWN, check_feature, needed, sends_pidfd, supported, worth_asking
from .._commands.words import StrPath
from .._containers.record import own_cgroup_parents
from .._process.running import ProcessRunner
from .._runtimes.known import FEATURES, record_version
from ..errors import UnsupportedError
from ..features import Version
from ..ignored import Ignored
from ..runner import OwnCgroup, PidfdSocket
from .calls import Calls

if TYPE_CHECKING:
    from ..spec import Spec

Parents: TypeAlias = tuple[tuple[tuple[str, str], ...], str]

KNOWN_RECORDS = 1000
"""Containers whose cgroups a client remembers, at most."""


class Requirements:
    """What the runtime has, of which it is asked for its version once."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @property
    def _version(self) -> Version | None:
        """The runtime's version, if it is known by now."""
        return self._calls.identity.version

    async def require_all_of(self, source: Source, timeout: Timeout) -> None:
        """Raise if the runtime will pass over, or refuse, a part of a bundle's configuration.

        Raises:
            UnsupportedError: If it will.
            BundleNotFound: If there is no such bundle here.
            DecodeError: If its config.json can't be read.
        """
        document = source.document
        if document is None:
            from ..bundle import Bundle  # noqa: PLC0415 - it loads the whole of `spec`, which takes milliseconds

            document = (await Bundle.open(source.path, strict=False)).spec.to_builtins()
        version = await self.known_version(timeout)
        if ignored := ignored_parts(document, version):
            raise UnsupportedError(", ".join(map(str, ignored)), f"{version.runtime} {version.version}")

    async def require(self, command: Command, timeout: Timeout = DEFAULT) -> None:
        """Raise if the runtime lacks a command, or what the command needs.

        Where all runtimes have that, nothing is asked. For the command alone nothing is asked either: a runtime of
        which nothing is known yet refuses it by itself, in as much time.

        Raises:
            UnsupportedError: If it has no such command, or no such option.
            RuncTimeout: If the answer takes longer than `timeout`.
        """
        if self._calls.identity.must_ask:
            await self._calls.identify(timeout)
        if self._version is not None:
            check_feature(command.name, self._version)
        for feature in needed(command):
            if self._version is None and not worth_asking(feature):
                continue
            check_feature(feature, await self.known_version(timeout))

    async def pidfd_socket_for_create(self, given: StrPath | None, timeout: Timeout) -> StrPath | PidfdSocket | None:
        """Tell what `create` gets for `--pidfd-socket` when its process is to be held.

        That is what the caller has given; else a socket of the runner's own, if the runtime is known to send to it.
        Another runner may know nothing of such a socket, and isn't asked.
        """
        if given is not None or not isinstance(self._calls.runner, ProcessRunner):
            return given
        return PidfdSocket() if sends_pidfd(await self.known_version(timeout)) else None

    def pidfd_socket_for_exec(self) -> PidfdSocket | None:
        """Tell what `exec` gets for `--pidfd-socket`: a socket if the version is known; nobody is asked for it."""
        known = self._version is not None and isinstance(self._calls.runner, ProcessRunner)
        return PidfdSocket() if known and sends_pidfd(self._version or UNKNOWN) else None

    async def own_cgroup(self, container_id: str, controllers: Sequence[str], timeout: Timeout) -> OwnCgroup | None:
        """Return a cgroup for the process of an `exec` alone, if the container has cgroups, and the runtime can.

        Another runner may take runc to where the record means other directories, and gets none.

        Args:
            container_id: The container.
            controllers: Those of cgroup v1 in whose hierarchies it is to be, `pids` first.
            timeout: Seconds for the question for the runtime's version.

        Raises:
            RuncNotFound: If there is no runc.
            RuncTimeout: If the answer takes longer than `timeout`.
        """
        if not isinstance(self._calls.runner, ProcessRunner):
            return None
        parents, memory = self._own_cgroup_parents(container_id, tuple(controllers))
        if not parents or not supported("exec --cgroup", await self.known_version(timeout)):
            return None
        return OwnCgroup(f"runc_async-{secrets.token_hex(8)}", parents, memory)

    def _own_cgroup_parents(self, container_id: str, controllers: tuple[str, ...]) -> Parents:
        """Return where it would be made, read once from each version of the runtime's record."""
        root = self._calls.state_directory()
        version = record_version(root, container_id)
        if version is None:
            return (), ""
        known = self._parents.get((container_id, controllers))
        if known is None or known[0] != version:
            if len(self._parents) >= KNOWN_RECORDS:
                self._parents.clear()
            known = self._parents[container_id, controllers] = (
                version,
                own_cgroup_parents(root, container_id, controllers),
            )
        return known[1]

    async def known_version(self, timeout: Timeout) -> Version:
        """Ask for the version, once."""
        return await self._calls.identify(timeout)

    @functools.cached_property
    def _parents(self) -> dict[tuple[str, tuple[str, ...]], tuple[tuple[int, int], Parents]]:
        """What was read in the records of containers, with the version of the record."""
        return {}

    async def supports(self, feature: str, *, timeout: Timeout = DEFAULT) -> bool:
        """See `Runc.supports`."""
        if feature not in FEATURES:
            raise ValueError(f"feature must be one of {', '.join(FEATURES)}: {feature!r}")
        return supported(feature, await self.known_version(timeout))

    async def check(self, spec: Spec, *, timeout: Timeout = DEFAULT) -> list[Ignored]:
        """See `Runc.check`."""
        document = spec.to_builtins()
        return ignored_parts(document, await self.known_version(timeout))
