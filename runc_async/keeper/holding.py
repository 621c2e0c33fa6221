"""A container of the keeper, ended only on request."""

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
"""Number of cached clients, with the detected runtime; a service has one or two."""


RELEASE_TIME = 1.0
"""Seconds to detect the end of the connection with the streams, when another one requests them."""


class Handle(Container):
    """The keeper's own handle, whose end doesn't end the container."""

    @classmethod
    def taken(cls, container: Container) -> Self:
        """Take over the resources of another handle."""
        runc, init = container._runc, container._init  # noqa: SLF001 - of the same class
        stdin, stdout, stderr, pty = container.stdin, container.stdout, container.stderr, container.pty
        return cls(runc, container.id, init=init, stdin=stdin, stdout=stdout, stderr=stderr, pty=pty)

    @classmethod
    def adopted(cls, record: Record, descriptors: dict[StreamName, int]) -> Self:
        """Create a handle from a record and the descriptors of the streams, which belong to the handle from now on.

        Raises:
            OSError: If no descriptor is left.
        """
        init = None
        with contextlib.suppress(ProcessLookupError):
            # The start time in the record rules out another process with a reused pid.
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
        """Whether the first process is held, so that its end can be waited for."""
        return self._init is not None

    def streams(self) -> dict[StreamName, int]:
        """Return the descriptors of the open streams."""
        return {
            name: stream.fileno() for name in NAMES if (stream := getattr(self, name)) is not None and not stream.closed
        }

    def close_stream(self, name: StreamName) -> None:
        """Close a stream, if open."""
        stream = getattr(self, name)
        if stream is not None:
            stream.close()

    def kill_process(self) -> None:
        """Send SIGKILL to the first process, if still running."""
        if self._init is not None:
            self._init.send_signal(SIGKILL)

    def release(self) -> None:
        """Release the container. Idempotent."""
        self._close_streams()
        if self._init is not None:
            self._init.close()


class Starter(Runc):
    """The client with which the keeper creates containers."""

    async def begin(
        self, container_id: str, bundle: StrPath, io: StdIO, *, timeout: Timeout, options: CreateOptions
    ) -> Handle:
        """Create a container and start it; on failure or cancellation, nothing is left behind."""
        return Handle.taken(
            await self._open(container_id, bundle, io, grace=0.0, timeout=timeout, options=options, recorded=False)
        )

    async def check_free(self, container_id: str) -> None:
        """Check that the id isn't in use.

        Raises:
            ContainerExists: If the id is in use.
        """
        if await self._undo.exists(container_id):
            raise ContainerExists((), None, container_id=container_id, message="container with given ID already exists")

    async def undo(self, record: Record) -> None:
        """Delete the container of a start that was in progress when the keeper was killed, but no other container."""
        try:
            created = (await self.state(record.id)).created
        except ContainerNotFound:
            return
        except (CommandError, DecodeError):
            created = None  # it is not finished, and can't tell
        # An older container with this id belongs to another program. An unfinished one has no time yet, and is ours:
        # the keeper has checked that the id was free.
        if created is None or created >= record.begun:
            await self.delete(record.id, force=True)


@functools.lru_cache(CLIENTS)
def _client(key: bytes) -> Starter:
    """Return the client with these options, shared by all containers."""
    return Starter(**to_options(msgspec.msgpack.decode(key, type=Client)))


def client_like(client: Client) -> Starter:
    """Return a client with these options.

    Raises:
        ValueError: If an option is invalid.
        TypeError: If an option has a wrong type.
    """
    # The encoded options are the key of the cache, since a `Client` has a dict and isn't hashable.
    return _client(msgspec.msgpack.encode(client))


class Holding:
    """A container, the record, and the connection with its streams.

    Attributes:
        record: The record, as written or to be written to the disk.
        container: The handle; None before the start.
        owner: The connection with the streams.
        ahead: Files in memory with bytes that were read from a stream and not consumed.
        ended: Set when the exit status of the first process is known.
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
        """The container as shown by `Keeper.list`."""
        return Kept(self.record.id, self.record.pid, self.record.status, self.owner is not None)

    def handle(self) -> Handle:
        """Return the handle.

        Raises:
            ContainerNotFound: If the container isn't started yet.
        """
        if self.container is None:
            raise not_kept(self.record.id)
        return self.container

    async def released(self) -> None:
        """Give the task of the connection with the streams a chance to notice the connection's end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_TIME):
                while self.owner is not None and self.owner.has_news:  # noqa: ASYNC110 - by the task that reads them
                    await asyncio.sleep(0)

    def identify(self) -> None:
        """Add the process and the streams to the record.

        Raises:
            ProcessLookupError: If the runtime has reported no process.
        """
        container = self.handle()
        process = ProcessIdentity.of(container.pid or 0)
        self.record = msgspec.structs.replace(
            self.record, pid=process.pid, start_time=process.start_time, streams=tuple(container.streams())
        )

    def set_pipe_size(self, size: int | None) -> None:
        """Set the capacity of each pipe.

        Raises:
            OSError: If the kernel refuses the size.
        """
        if size is not None:
            for name, fd in self.handle().streams().items():
                # A terminal has a fixed buffer.
                if name != "pty":
                    fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)

    def open_pidfd(self) -> int | None:
        """Open a pidfd of the first process; None if the process is gone.

        Raises:
            OSError: If no descriptor is left.
        """
        # The process has ended, and its pid may belong to another one.
        if self.record.status is not None:
            return None
        with contextlib.suppress(ProcessLookupError):
            return open_pidfd(ProcessIdentity(self.record.pid, self.record.start_time))
        return None

    async def wait(self) -> ExitStatus:
        """Wait for the end of the first process."""
        container = self.handle()
        return await container.wait() if container.lives else UNKNOWN

    def end(self, status: ExitStatus) -> None:
        """Record the exit status of the first process."""
        self.record = msgspec.structs.replace(self.record, status=status)
        self.ended.set()

    def keep_ahead(self, name: StreamName, fd: int) -> None:
        """Take over a file in memory with bytes of a stream."""
        self.drop_ahead(name)
        self.ahead[name] = fd

    def drop_ahead(self, name: StreamName) -> None:
        """Close the file in memory of a stream, if there is one."""
        fd = self.ahead.pop(name, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Release everything. Idempotent."""
        for name in NAMES:
            self.drop_ahead(name)
        if self.container is not None:
            self.container.release()


def not_kept(container_id: str) -> ContainerNotFound:
    """Return the error for an unknown id."""
    return ContainerNotFound((), None, container_id=container_id, message="the keeper has no such container")
