"""A container in the hands of the keeper, which ends it only when it is asked to."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
from signal import SIGKILL
from typing import Self

import msgspec

from runc_async.client import Runc
from runc_async.console import Pty
from runc_async.container import Container
from runc_async.errors import CommandError, ContainerExists, ContainerNotFound, DecodeError
from runc_async.exitstatus import ExitStatus
from runc_async.stdio import StdIO

from .._commands.options import CreateOptions, Timeout
from .._commands.words import StrPath
from .._containers.first_process import Init
from .._linux.pidfd import open_pidfd
from .._linux.procfs import ProcessIdentity
from .._streams.pipes import PipeReader, PipeWriter
from .channel import Channel
from .protocol import Client, Kept, Record, StreamName
from .sending import UNKNOWN, to_options

NAMES: tuple[StreamName, ...] = ("stdin", "stdout", "stderr", "pty")

CLIENTS = 32
"""Clients that are kept, with what they know of their runtime; a service has one or two."""


class Handle(Container):
    """The keeper's own handle: its end is not that of the container."""

    @classmethod
    def taken(cls, container: Container) -> Self:
        """Take over what another handle holds."""
        runc, init = container._runc, container._init  # noqa: SLF001 - of the same class
        stdin, stdout, stderr, pty = container.stdin, container.stdout, container.stderr, container.pty
        return cls(runc, container.id, init=init, stdin=stdin, stdout=stdout, stderr=stderr, pty=pty)

    @classmethod
    def adopted(cls, record: Record, descriptors: dict[StreamName, int]) -> Self:
        """Take hold of a container by its record, with the descriptors of its streams, which are taken over.

        Raises:
            OSError: If no descriptor is left.
        """
        init = None
        with contextlib.suppress(ProcessLookupError):
            init = Init(record.pid, open_pidfd(ProcessIdentity(record.pid, record.start_time)))
        return cls(
            client_like(record.client),
            record.id,
            init=init,
            stdin=PipeWriter(descriptors["stdin"]) if "stdin" in descriptors else None,
            stdout=PipeReader(descriptors["stdout"]) if "stdout" in descriptors else None,
            stderr=PipeReader(descriptors["stderr"]) if "stderr" in descriptors else None,
            pty=Pty(descriptors["pty"]) if "pty" in descriptors else None,
        )

    @property
    def lives(self) -> bool:
        """Whether its first process is known, so that its end can be waited for."""
        return self._init is not None

    def streams(self) -> dict[StreamName, int]:
        """Return the descriptors of the streams that are open."""
        return {
            name: stream.fileno() for name in NAMES if (stream := getattr(self, name)) is not None and not stream.closed
        }

    def close_stream(self, name: StreamName) -> None:
        """Close a stream, if it is open."""
        stream = getattr(self, name)
        if stream is not None:
            stream.close()

    def kill_process(self) -> None:
        """Send SIGKILL to the first process, if it lives."""
        if self._init is not None:
            self._init.send_signal(SIGKILL)

    def release(self) -> None:
        """Let go of the container. Idempotent."""
        self._close_streams()
        if self._init is not None:
            self._init.close()


class Starter(Runc):
    """The client with which the keeper makes containers."""

    async def begin(
        self, container_id: str, bundle: StrPath, io: StdIO, *, timeout: Timeout, options: CreateOptions
    ) -> Handle:
        """Create a container and start it; cut short, or failed, it leaves nothing behind."""
        return Handle.taken(
            await self._open(container_id, bundle, io, grace=0.0, timeout=timeout, options=options, recorded=False)
        )

    async def check_free(self, container_id: str) -> None:
        """Check that there is no container of this id.

        Raises:
            ContainerExists: If there is one.
        """
        if await self._undo.exists(container_id):
            raise ContainerExists((), None, container_id=container_id, message="container with given ID already exists")

    async def undo(self, record: Record) -> None:
        """Delete what a keeper that was killed in the middle of a start has left; not what another one has made."""
        try:
            created = (await self.state(record.id)).created
        except ContainerNotFound:
            return
        except (CommandError, DecodeError):
            created = None  # it is not finished, and can't tell
        if created is None or created >= record.begun:
            await self.delete(record.id, force=True)


@functools.lru_cache(CLIENTS)
def _client(key: bytes) -> Starter:
    """Make a client, once for all containers with the same options."""
    return Starter(**to_options(msgspec.msgpack.decode(key, type=Client)))


def client_like(client: Client) -> Starter:
    """Return a client with these options.

    Raises:
        ValueError: If an option can't be right.
        TypeError: If one is of a wrong type.
    """
    return _client(msgspec.msgpack.encode(client))


class Holding:
    """A container, its record, and who has its streams.

    Attributes:
        record: What is, or is to be, on the disk.
        container: The handle; None until it is started.
        owner: The connection that has the streams.
        ahead: Files in memory with bytes that were read from a stream and not consumed.
        ended: Set when it is known how the first process has ended.
    """

    def __init__(self, record: Record, container: Handle | None = None) -> None:
        self.record: Record = record
        self.container = container
        self.owner: Channel | None = None
        self.ahead: dict[StreamName, int] = {}
        self.ended: asyncio.Event = asyncio.Event()
        if record.status is not None:
            self.ended.set()

    @property
    def kept(self) -> Kept:
        """It, as `Keeper.list` shows it."""
        return Kept(self.record.id, self.record.pid, self.record.status, self.owner is not None)

    def handle(self) -> Handle:
        """Return the handle.

        Raises:
            ContainerNotFound: If it isn't started yet.
        """
        if self.container is None:
            raise not_kept(self.record.id)
        return self.container

    def identify(self) -> None:
        """Note the process and the streams in the record.

        Raises:
            ProcessLookupError: If the runtime has not reported a process.
        """
        container = self.handle()
        process = ProcessIdentity.of(container.pid or 0)
        self.record = msgspec.structs.replace(
            self.record, pid=process.pid, start_time=process.start_time, streams=tuple(container.streams())
        )

    def set_pipe_size(self, size: int | None) -> None:
        """Set how many bytes each pipe holds.

        Raises:
            OSError: If the kernel doesn't allow so many.
        """
        if size is not None:
            for name, fd in self.handle().streams().items():
                if name != "pty":
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)

    def open_pidfd(self) -> int | None:
        """Open a pidfd of the first process; None if it is gone.

        Raises:
            OSError: If no descriptor is left.
        """
        if self.record.status is not None:
            return None
        with contextlib.suppress(ProcessLookupError):
            return open_pidfd(ProcessIdentity(self.record.pid, self.record.start_time))
        return None

    async def wait(self) -> ExitStatus:
        """Wait until the first process has ended."""
        container = self.handle()
        return await container.wait() if container.lives else UNKNOWN

    def end(self, status: ExitStatus) -> None:
        """Note how the first process has ended."""
        self.record = msgspec.structs.replace(self.record, status=status)
        self.ended.set()

    def keep_ahead(self, name: StreamName, fd: int) -> None:
        """Keep a file in memory with bytes of a stream, which is taken over."""
        self.drop_ahead(name)
        self.ahead[name] = fd

    def drop_ahead(self, name: StreamName) -> None:
        """Close the file in memory of a stream, if there is one."""
        fd = self.ahead.pop(name, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        for name in NAMES:
            self.drop_ahead(name)
        if self.container is not None:
            self.container.release()


def not_kept(container_id: str) -> ContainerNotFound:
    """Make the error for an id of which the keeper has no container."""
    return ContainerNotFound((), None, container_id=container_id, message="the keeper has no such container")
