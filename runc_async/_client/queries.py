"""Commands that only read. On cancellation or timeout runc is killed at once, without a loss."""

from __future__ import annotations

import builtins
import errno
import os
import stat
from typing import TYPE_CHECKING

from .._answers import decode
from .._commands import argv
from .._commands.argv import Command
from .._commands.options import DEFAULT, Timeout
from .._containers.record import has_no_cgroup
from .._linux.files import open_itself
from .._linux.scratch import scratch_directory
from ..errors import CommandError, ContainerNotRunning, DecodeError, ResourceError, RuncCrashed
from ..features import Features, Version
from ..ignored import Ignored
from ..runner import StopPolicy
from ..state import State, Status
from ..stats import Stats
from ..top import Top
from .calls import KILL, LET_HELPER_FINISH, OWN_OUTPUT, Calls
from .requirements import Requirements
from .undo import Undo

if TYPE_CHECKING:
    from ..spec import Spec


LIST_TRIES = 10
"""Number of tries for a list while containers vanish meanwhile."""


class Queries:
    """Commands that only read."""

    _calls: Calls
    _undo: Undo
    _requirements: Requirements

    async def state(self, container_id: str, *, timeout: Timeout = DEFAULT) -> State:
        """Return the state of a container: runc-state(8).

        Cancelling kills runc at once; nothing is lost.

        Args:
            container_id: The container's id.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            DecodeError: If runc's output can't be decoded.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        return self._calls.as_it_is(decode.decode_state(await self._read(argv.state(container_id), timeout)))

    async def list(self, *, timeout: Timeout = DEFAULT) -> list[State]:
        """Return the states of all containers below the root directory, sorted by name: runc-list(8).

        Containers with unreadable state are left out, and a missing root directory counts as empty. In some versions
        runc fails if a container is deleted meanwhile; the command is then repeated up to 10 times.

        Cancelling kills runc at once; nothing is lost.

        Args:
            timeout: Seconds for each try, or None for no limit; the client's default if left out.

        Raises:
            DecodeError: If runc's output can't be decoded.
            RuncTimeout: If a try takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return [
                    self._calls.as_it_is(state) for state in decode.decode_list(await self._read(argv.list_(), timeout))
                ]
            except CommandError as exc:
                # runc 1.2 and later fail if the root directory is missing. Its own message decides, and not a look at
                # the file system, which may be another one for runc.
                if exc.message == f"open {self._calls.state_directory()}: no such file or directory":
                    return []
                # runc reads the directory first and the records later: in some versions, a container deleted in
                # between is an error.
                if tries >= (LIST_TRIES if exc.message.endswith(": no such file or directory") else 2):
                    raise

    async def ps(self, container_id: str, *, timeout: Timeout = DEFAULT) -> builtins.list[int]:
        """Return the pids, in the host's namespace, of all processes in a container: runc-ps(8).

        Empty for a stopped container. Cancelling kills runc at once; nothing is lost.

        Args:
            container_id: The container's id.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            DecodeError: If runc's output can't be decoded.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        try:
            return decode.decode_ps(await self._read(argv.ps(container_id), timeout))
        except (ContainerNotRunning, RuncCrashed):
            # In runsc this is an error, and crun 1.8.1 crashes.
            if (await self.state(container_id, timeout=timeout)).status != Status.STOPPED:
                raise
            return []

    async def top(self, container_id: str, *ps_options: str, timeout: Timeout = DEFAULT) -> Top:
        """Return a table of the processes in a container, printed by the host's ps(1): runc-ps(8).

        Cancelling gives runc and its ps process a second to finish, then ends both.

        Args:
            container_id: The container's id.
            ps_options: Options for ps(1), `-ef` if left out; the output needs a column with process ids.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            ValueError: If an option has a NUL byte.
            DecodeError: If runc's output can't be decoded.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc or ps fails, as for an unknown option of ps.
        """
        command = argv.top(container_id, ps_options)
        await self._requirements.require(command, timeout)
        return decode.decode_top(await self._read(command, timeout, LET_HELPER_FINISH))

    async def stats(self, container_id: str, *, timeout: Timeout = DEFAULT) -> Stats:
        """Return the resource usage of a container once: `runc events --stats`, runc-events(8).

        Cancelling kills runc at once; nothing is lost.

        Args:
            container_id: The container's id.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerNotRunning: If the container is stopped, and so has no cgroup any more.
            ResourceError: If the container has no cgroup, as without root: runc then prints zeros.
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            UnsupportedError: If the runtime has no `events` command, as crun.
            DecodeError: If runc's output can't be decoded.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        command = argv.stats(container_id)
        await self._requirements.require(command, timeout)
        self._requirements.require_sandbox(container_id)
        stats = decode.decode_stats(await self._read(command, timeout))
        # Zeros only may also come from a new container; the record decides.
        if stats == Stats() and has_no_cgroup(self._calls.state_directory(), container_id):
            message = "no figures: the container has no cgroup of its own"
            raise ResourceError((), None, container_id=container_id, message=message)
        return stats

    async def spec(self, *, rootless: bool = False, timeout: Timeout = DEFAULT) -> Spec:
        """Return the example configuration of the runtime: runc-spec(8).

        runc writes the file to a new private directory, which is removed in every case. `Spec.default` needs no
        runtime. Cancelling kills runc at once; nothing is lost.

        Args:
            rootless: For a caller without privileges: with a user namespace, without cgroup.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            DecodeError: If runc's configuration can't be decoded.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: If the directory can't be created.
            CommandError: If runc fails in another way.
        """
        from ..spec import Spec  # noqa: PLC0415 - most programs never ask for it

        with scratch_directory("config.json") as directory:
            command = argv.spec(directory, rootless=rootless)
            await self._requirements.require(command, timeout)
            await self._read(command, timeout)
            return Spec.decode(_written(os.path.join(directory, "config.json")))

    async def features(self, *, timeout: Timeout = DEFAULT) -> Features:
        """Return the features that the runtime supports: runc-features(8), runtime-spec features.md.

        Cancelling kills runc at once; nothing is lost.

        Args:
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            UnsupportedError: If the runtime has no such command: runc before 1.1, crun before 1.9.
            DecodeError: If runc's output can't be decoded.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        command = argv.features()
        await self._requirements.require(command, timeout)
        return decode.decode_features(await self._read(command, timeout))

    async def version(self, *, timeout: Timeout = DEFAULT) -> Version:
        """Return the runtime's name and version, and the versions of its parts: `runc --version`.

        Cancelling kills runc at once; nothing is lost.

        Args:
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            DecodeError: If runc's output can't be decoded.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        return decode.decode_version(await self._read(argv.version(), timeout))

    async def _read(self, command: Command, timeout: Timeout, stop: StopPolicy = KILL) -> bytes:
        """Run a command that only reads, and return its stdout."""
        response = await self._calls.request(command, timeout=timeout, stop=stop)
        if response.truncated:
            raise DecodeError(f"runc {command.name} printed more than can be taken", response.stdout)
        return response.stdout

    async def supports(self, feature: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Return whether the runtime has a command or an option that not all runtimes have.

        The result depends on the runtime's version, which is requested once for each client. A runtime unknown to this
        library counts as complete: a missing feature then fails on use. Cancelling kills runc at once; nothing is lost.

        Args:
            feature: A command, such as `"events"`, or a command with an option, such as `"exec --ignore-paused"`; or
                `"files"` for `Container.read_file` and the like.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ValueError: If no difference between runtimes is known for the feature.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
        """
        return await self._requirements.supports(feature, timeout=timeout)

    async def check(self, spec: Spec, *, timeout: Timeout = DEFAULT) -> builtins.list[Ignored]:
        """Return the parts of a configuration that this version of the runtime will ignore or refuse.

        A runtime ignores unknown fields without a message. Known fields are compared with the runtime's version, which
        is requested once for each client; `runc_async.spec.validate` with `unknown=True` finds keys that no
        specification names. For a runtime unknown to this library the result is empty. Features of the host, such as
        cgroup controllers, aren't checked. `create` and `run` with `strict=True` refuse a configuration with ignored
        parts::

            config = spec.Spec.default()
            config.domainname = "example.org"
            ignored = await Runc().check(config)  # $.domainname, with a runc before 1.2

        Cancelling kills runc at once; nothing is lost.

        Args:
            spec: The configuration.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Returns:
            The parts, each with its path; empty if the runtime knows all of them.

        Raises:
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
        """
        return await self._requirements.check(spec, timeout=timeout)


def _written(path: str) -> bytes:
    """Read a regular file that runc has written.

    Raises:
        DecodeError: If there is no such file, or the file is too long.
        OSError: If no descriptor is left.
    """
    name = os.path.basename(path)
    try:
        with open(path, "rb", opener=open_itself) as file:
            found = os.fstat(file.fileno())
            # A device may have no end, and a FIFO would block until some process writes.
            if not stat.S_ISREG(found.st_mode):
                raise DecodeError(f"runc wrote no {name}", b"")
            if found.st_size > OWN_OUTPUT.limit:
                raise DecodeError(f"runc wrote more into {name} than can be taken", file.read(1024))
            return file.read(OWN_OUTPUT.limit)
    except OSError as exc:
        if exc.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EISDIR}:  # or a link, a socket, a directory
            raise DecodeError(f"runc wrote no {name}", b"") from exc
        raise
