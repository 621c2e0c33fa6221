"""A live sandbox on a node: `Box`."""

# `follow` is the box's own task.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, cast

import anyio
import anyio.lowlevel

from .._streams.pipes import PipeReader, PipeWriter
from ..errors import ContainerNotRunning
from ..exitstatus import ExitStatus
from ..response import Response
from ..spec import Process
from .errors import NodeLost
from .link import Link

_WAIT = 2.0  # seconds of one question for output
_PIECE = 1 << 16


class Box:
    """A live sandbox on a node, from `Fleet.open`: like a `Container`, over Dask's connections.

    Attributes:
        id: The id of the container.
        node: The name of the node.
        pid: The container's first process, as a pid on the node.
        stdin: The input, as anyio's `ByteSendStream`.
        stdout: The output, as anyio's `ByteReceiveStream` with `lines()`.
        stderr: The error output, likewise.
    """

    def __init__(self, link: Link, name: str, pid: int) -> None:
        self.id = name
        self.node: str = link.name
        self.pid = pid
        self.stdin: PipeWriter = _Input(link, name)
        self.stdout: PipeReader = _Output(link, name, "stdout")
        self.stderr: PipeReader = _Output(link, name, "stderr")
        self._link = link
        self._numbers = itertools.count(1)
        self._status: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Box {self.id!r} on {self.node!r}>"

    def _fail(self, error: Exception) -> None:
        """Make `wait` raise an error."""
        self._status.set_exception(error)
        self._status.exception()  # seen, if nobody waits

    async def wait(self) -> ExitStatus:
        """Wait until the container's first process has ended; return its status. Cancelling changes nothing.

        Raises:
            NodeLost: If the node is lost.
        """
        # Shielded: several callers may wait, and a cancelled one must not cancel the status of the others.
        return await asyncio.shield(self._status)

    async def exec(self, process: Process | Sequence[str], **options: Any) -> Response:
        """Run a program in the container, as `Container.exec`, and return its result.

        Cancelled, the program is ended on the node before this returns.

        Raises:
            NodeLost: If the node is lost; whether the program has run is unknown.
            RuncError: As `Container.exec`.
        """
        return cast("Response", await self._remote("exec", (process,), options))

    async def kill(self, signal: int | str = "KILL", **options: Any) -> None:
        """Send a signal to the container, as `Container.kill`.

        Raises:
            NodeLost: If the node is lost.
            RuncError: As `Container.kill`.
        """
        await self._remote("kill", (signal,), options)

    async def _remote(self, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Call a method of the container on the node."""
        call = f"{self.id}.{next(self._numbers)}"
        # Before the call: its event may arrive before the answer to the call.
        self._link.expect(call)
        try:
            if not await self._link.call(
                "call", name=self.id, call=call, method=method, arguments=arguments, options=options
            ):
                raise ContainerNotRunning((), None, container_id=self.id, message="the box is closed")
            kind, value = await self._link.event(call)
        except asyncio.CancelledError:
            await self._link.end(call)
            raise
        finally:
            self._link.forget(call)
        if kind == "done":
            return value
        raise value if isinstance(value, Exception) else ContainerNotRunning((), None, container_id=self.id)

    def close(self) -> None:
        """Close this end of the streams."""
        self.stdin.close()
        self.stdout.close()
        self.stderr.close()


async def follow(box: Box) -> None:
    """Wait for the end of a box's container, for `Box.wait`: the body of a task of `Fleet.open`."""
    try:
        kind, value = await box._link.event(box.id)
    except NodeLost as exc:
        box._fail(exc)
        return
    if kind == "done":
        box._status.set_result(value)
    else:
        box._fail(value if isinstance(value, Exception) else ContainerNotRunning((), None, container_id=box.id))


class _Remote:
    """A stream without a descriptor: the other end is a buffer on a node."""

    _link: Link
    _name: str
    _is_open = True

    @property
    def closed(self) -> bool:
        """Whether this end is closed."""
        return not self._is_open

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._is_open = False

    def _open_fd(self) -> int:
        """Raise if this end is closed; there is no descriptor."""
        if not self._is_open:
            raise anyio.ClosedResourceError
        return -1

    async def _ask(self, method: str, **arguments: Any) -> Any:
        """Call the node.

        Raises:
            anyio.BrokenResourceError: If the node is lost.
        """
        try:
            return await self._link.call(method, _WAIT, name=self._name, **arguments)
        except NodeLost as exc:
            raise anyio.BrokenResourceError from exc


class _Output(_Remote, PipeReader):
    """The output of a box."""

    def __init__(self, link: Link, name: str, stream: str) -> None:
        # not the pipe's own constructor, which takes a descriptor
        self._link, self._name, self._stream = link, name, stream
        self._ahead = bytearray()
        self._offset = 0
        self._reading = anyio.ResourceGuard("reading from")

    async def _receive(self, max_bytes: int) -> bytes:
        """Ask the node for output from the next offset on. Cancelled, nothing is lost: the offset stays."""
        with self._reading:
            await anyio.lowlevel.checkpoint()
            while True:
                self._open_fd()
                answer = await self._ask(
                    "read", stream=self._stream, offset=self._offset, limit=min(max_bytes, _PIECE), wait=_WAIT
                )
                if answer is None:
                    raise anyio.EndOfStream
                data, ended = answer
                # The next call confirms these bytes, and the node drops them: see `OutputBuffer`.
                self._offset += len(data)
                if data:
                    return bytes(data)
                if ended:
                    raise anyio.EndOfStream


class _Input(_Remote, PipeWriter):
    """The input of a box."""

    def __init__(self, link: Link, name: str) -> None:
        # as above
        self._link, self._name = link, name
        self._offset = 0
        self._writing = anyio.ResourceGuard("writing to")
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, item: bytes) -> None:
        """Send all of `item`, until the pipe on the node has taken it. Cancelled, a part may have been sent.

        Raises:
            anyio.BrokenResourceError: If the program has closed its input, the box is gone, or the node is lost.
            anyio.ClosedResourceError: If this end is closed.
            anyio.BusyResourceError: If another task is sending.
        """
        with self._writing:
            for start in range(0, len(item), _PIECE):
                self._open_fd()
                data = bytes(item[start : start + _PIECE])
                # The offset moves on before the call. A cancelled call may have written a part, and the node skips the
                # rest.
                offset, self._offset = self._offset, self._offset + len(data)
                if not await self._ask("write", offset=offset, data=data):
                    raise anyio.BrokenResourceError

    async def aclose(self) -> None:
        """Close the input: the program reads end of file."""
        if self._is_open:
            self._is_open = False
            try:
                await self._ask("write", offset=self._offset, data=None)
            except anyio.BrokenResourceError:
                return
