"""The commands that only read. Cancelled, or out of time, runc is killed at once: nothing is lost."""

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
from ..errors import CommandError, DecodeError, ResourceError
from ..features import Features, Version
from ..ignored import Ignored
from ..runner import StopPolicy
from ..state import State
from ..stats import Stats
from ..top import Top
from .calls import KILL, LET_HELPER_FINISH, OWN_OUTPUT, Calls
from .requirements import Requirements
from .undo import Undo

if TYPE_CHECKING:
    from ..spec import Spec


LIST_TRIES = 10
"""How often a list is begun while containers vanish under it."""


class Queries:
    """The commands that only read."""

    _calls: Calls
    _undo: Undo
    _requirements: Requirements

    async def state(self, container_id: str, *, timeout: Timeout = DEFAULT) -> State:
        """Tell what a container is and does: runc-state(8).

        Cancelling kills runc at once; nothing is lost.

        Args:
            container_id: Its id.
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id can't be one.
            DecodeError: If runc's answer can't be understood.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        return decode.decode_state(await self._read(argv.state(container_id), timeout))

    async def list(self, *, timeout: Timeout = DEFAULT) -> list[State]:
        """Tell of all containers under the root directory, by name: runc-list(8).

        Those whose state runc can't read aren't in the list, and a root directory that isn't there is an empty one.
        A container that is deleted while runc reads can make some versions fail; that is tried again, a few times.

        Cancelling kills runc at once; nothing is lost.

        Args:
            timeout: Seconds for each try, or None for no limit; the client's own if left out.

        Raises:
            DecodeError: If runc's answer can't be understood.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return decode.decode_list(await self._read(argv.list_(), timeout))
            except CommandError as exc:
                # runc 1.2 and later; asked of runc and not of the file system, which may be another one for runc
                if exc.message == f"open {self._calls.state_directory()}: no such file or directory":
                    return []
                if tries >= (LIST_TRIES if exc.message.endswith(": no such file or directory") else 2):
                    raise

    async def ps(self, container_id: str, *, timeout: Timeout = DEFAULT) -> builtins.list[int]:
        """Tell the process ids, as the host sees them, of all processes in a container: runc-ps(8).

        Empty for a container that is stopped. Cancelling kills runc at once; nothing is lost.

        Args:
            container_id: Its id.
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id can't be one.
            DecodeError: If runc's answer can't be understood.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        return decode.decode_ps(await self._read(argv.ps(container_id), timeout))

    async def top(self, container_id: str, *ps_options: str, timeout: Timeout = DEFAULT) -> Top:
        """Tell of the processes in a container as ps(1) of the host prints them: runc-ps(8).

        Cancelling gives runc, and the ps that it has started, a second to finish, and then ends both.

        Args:
            container_id: Its id.
            ps_options: Options for ps(1), `-ef` if there are none; a column of process ids has to be among the output.
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id can't be one.
            ValueError: If an option has a NUL byte.
            DecodeError: If runc's answer can't be understood.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc or ps fails, as for an option that ps doesn't know.
        """
        command = argv.top(container_id, ps_options)
        await self._requirements.require(command, timeout)
        return decode.decode_top(await self._read(command, timeout, LET_HELPER_FINISH))

    async def stats(self, container_id: str, *, timeout: Timeout = DEFAULT) -> Stats:
        """Tell the figures of a container's cgroup, once: `runc events --stats`, runc-events(8).

        Cancelling kills runc at once; nothing is lost.

        Args:
            container_id: Its id.
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            ContainerNotRunning: If the container is stopped: it has no figures any more.
            ResourceError: If the container has no cgroup, as without root: runc then prints zeros.
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id can't be one.
            UnsupportedError: If the runtime has no events, as crun.
            DecodeError: If runc's answer can't be understood.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        command = argv.stats(container_id)
        await self._requirements.require(command, timeout)
        stats = decode.decode_stats(await self._read(command, timeout))
        if stats == Stats() and has_no_cgroup(self._calls.state_directory(), container_id):
            message = "no figures: the container has no cgroup of its own"
            raise ResourceError((), None, container_id=container_id, message=message)
        return stats

    async def spec(self, *, rootless: bool = False, timeout: Timeout = DEFAULT) -> Spec:
        """Tell the example configuration of this runtime: runc-spec(8).

        runc writes it into a fresh private directory, which is removed in every case. `Spec.default` makes one without
        a runtime. Cancelling kills runc at once; nothing is lost.

        Args:
            rootless: For a caller without privileges: in a user namespace, without cgroup.
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            DecodeError: If runc's configuration can't be understood.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: If there is no place for the directory.
            CommandError: If runc fails in another way.
        """
        from ..spec import Spec  # noqa: PLC0415 - most programs never ask for it

        with scratch_directory("config.json") as directory:
            await self._read(argv.spec(directory, rootless=rootless), timeout)
            return Spec.decode(_written(os.path.join(directory, "config.json")))

    async def features(self, *, timeout: Timeout = DEFAULT) -> Features:
        """Tell what the runtime supports: runc-features(8), runtime-spec features.md.

        Cancelling kills runc at once; nothing is lost.

        Args:
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            UnsupportedError: If the runtime has no such command: runc before 1.1, crun before 1.9.
            DecodeError: If runc's answer can't be understood.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        command = argv.features()
        await self._requirements.require(command, timeout)
        return decode.decode_features(await self._read(command, timeout))

    async def version(self, *, timeout: Timeout = DEFAULT) -> Version:
        """Tell the runtime's name, its version and those of its parts: `runc --version`.

        Cancelling kills runc at once; nothing is lost.

        Args:
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            DecodeError: If runc's answer can't be understood.
            RuncTimeout: If it takes longer than `timeout`.
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
        return await self._requirements.supports(feature, timeout=timeout)

    async def check(self, spec: Spec, *, timeout: Timeout = DEFAULT) -> builtins.list[Ignored]:
        """Return what the runtime will pass over, or refuse, of a configuration, because it is too old or another one.

        A runtime says nothing of a field that it doesn't know: it goes on as if the field weren't there. Known fields
        are held against the runtime's version, for which the client asks once; keys that no specification names are
        found by `runc_async.spec.validate` with `unknown=True`. Of a runtime that this library doesn't know, nothing is
        known to be ignored. What the host lacks, such as a cgroup controller, isn't asked. `create` and `run` with
        `strict=True` refuse what this returns::

            config = spec.Spec.default()
            config.domainname = "example.org"
            ignored = await Runc().check(config)  # $.domainname, with a runc before 1.2

        Cancelling kills runc at once; nothing is lost.

        Args:
            spec: The configuration.
            timeout: Seconds, or None for no limit; the client's own if left out.

        Returns:
            The parts, each with its path; empty if the runtime knows all of them.

        Raises:
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
        """
        return await self._requirements.check(spec, timeout=timeout)


def _written(path: str) -> bytes:
    """Read what runc has written: a regular file, for another one may have no end, or keep us waiting for a writer.

    Raises:
        DecodeError: If it has written none, or more than it may print.
        OSError: If no descriptor is left.
    """
    name = os.path.basename(path)
    try:
        with open(path, "rb", opener=open_itself) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise DecodeError(f"runc wrote no {name}", b"")
            if found.st_size > OWN_OUTPUT.limit:
                raise DecodeError(f"runc wrote more into {name} than can be taken", file.read(1024))
            return file.read(OWN_OUTPUT.limit)
    except OSError as exc:
        if exc.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EISDIR}:  # or a link, a socket, a directory
            raise DecodeError(f"runc wrote no {name}", b"") from exc
        raise
