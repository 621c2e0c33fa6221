"""Check whether the runtime supports a command and its options."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from .._bundles.check import Source
from .._commands.argv import Command
from .._commands.options import DEFAULT, Timeout
from .._commands.spec_support import ignored_parts
from .._commands.support import UNKNOWN, check_feature, needed, sends_pidfd, supported, worth_asking
from .._commands.words import StrPath
from .._containers.record import has_stopped, own_cgroup_parents
from .._process.running import ProcessRunner
from .._runtimes.known import FEATURES, record_version
from ..errors import ContainerNotRunning, UnsupportedError
from ..features import Version
from ..ignored import Ignored
from ..runner import OwnCgroup, PidfdSocket
from .calls import Calls

if TYPE_CHECKING:
    from ..spec import Spec

Parents: TypeAlias = tuple[tuple[tuple[str, str], ...], str]

KNOWN_RECORDS = 1000
"""Maximal number of containers whose cgroups a client remembers."""


class Requirements:
    """The features of the runtime, from its version, which is requested once."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @property
    def _version(self) -> Version | None:
        """The runtime's version, if known by now."""
        return self._calls.identity.version

    def require_sandbox(self, container_id: str) -> None:
        """Raise if the sandbox of a container has ended: the runtime then says nothing of that.

        Raises:
            ContainerNotRunning: If it has ended.
        """
        if self._calls.dialect.inside is None:
            return
        with contextlib.suppress(OSError):
            if has_stopped(self._calls.state_directory(), container_id):
                message = "the sandbox of the container has ended"
                raise ContainerNotRunning((), None, container_id=container_id, message=message)

    async def require_all_of(self, source: Source, timeout: Timeout) -> None:
        """Raise if the runtime would ignore or refuse a part of a bundle's configuration.

        Raises:
            UnsupportedError: If there is such a part.
            BundleNotFound: If there is no such bundle here.
            DecodeError: If the config.json can't be read.
        """
        document = source.document
        if document is None:
            from ..bundle import Bundle  # noqa: PLC0415 - it loads the whole of `spec`, which takes milliseconds

            document = (await Bundle.open(source.path, strict=False)).spec.to_builtins()
        version = await self.known_version(timeout)
        if ignored := ignored_parts(document, version):
            raise UnsupportedError(", ".join(map(str, ignored)), f"{version.runtime} {version.version}")

    async def require(self, command: Command, timeout: Timeout = DEFAULT) -> None:
        """Raise if the runtime lacks a command, or a feature that the command needs.

        Raises:
            UnsupportedError: If the runtime has no such command or option.
            RuncTimeout: If the request for the version takes longer than `timeout`.
        """
        if self._calls.identity.must_ask:
            await self._calls.identify(timeout)
        # The version is requested only for features that not all runtimes have. A whole command needs no request: an
        # unknown runtime refuses the command by itself, in as much time.
        if self._version is not None:
            check_feature(command.name, self._version)
        for feature in needed(command):
            if self._version is None and not worth_asking(feature):
                continue
            check_feature(feature, await self.known_version(timeout))

    async def pidfd_socket_for_create(self, given: StrPath | None, timeout: Timeout) -> StrPath | PidfdSocket | None:
        """Return the value of `--pidfd-socket` for `create`: the caller's, or the runner's own socket."""
        # Only `ProcessRunner` is known to create such a socket.
        if given is not None or not isinstance(self._calls.runner, ProcessRunner):
            return given
        return PidfdSocket() if sends_pidfd(await self.known_version(timeout)) else None

    def pidfd_socket_for_exec(self) -> PidfdSocket | None:
        """Return a socket for `--pidfd-socket` of `exec` if the version is known; the version isn't requested."""
        known = self._version is not None and isinstance(self._calls.runner, ProcessRunner)
        return PidfdSocket() if known and sends_pidfd(self._version or UNKNOWN) else None

    async def own_cgroup(self, container_id: str, controllers: Sequence[str], timeout: Timeout) -> OwnCgroup | None:
        """Return a separate cgroup for the process of an `exec`; None if the container or the runtime has no support.

        Args:
            container_id: The container's id.
            controllers: Controllers whose cgroup v1 hierarchies to use, `pids` first.
            timeout: Seconds for the request for the version.

        Raises:
            RuncNotFound: If there is no runc.
            RuncTimeout: If the request takes longer than `timeout`.
        """
        # The recorded directories may be others for a runner that starts runc elsewhere.
        if not isinstance(self._calls.runner, ProcessRunner):
            return None
        parents, memory = self._own_cgroup_parents(container_id, tuple(controllers))
        if not parents or not supported("exec --cgroup", self._version or await self.known_version(timeout)):
            return None  # `require` has just looked whether it is that version still
        return OwnCgroup(f"runc_async-{os.urandom(8).hex()}", parents, memory)

    def _own_cgroup_parents(self, container_id: str, controllers: tuple[str, ...]) -> Parents:
        """Return the parents of such a cgroup, read once from each version of the runtime's record."""
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
        """Return the version, requested once."""
        return await self._calls.identify(timeout)

    @functools.cached_property
    def _parents(self) -> dict[tuple[str, tuple[str, ...]], tuple[tuple[int, int], Parents]]:
        """The parents read from records, with the version of the record."""
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
