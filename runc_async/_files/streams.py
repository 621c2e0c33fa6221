"""An archive as a stream, created piece by piece on request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from .._shield import wait_shielded

if TYPE_CHECKING:
    from .packing import Packing
    from .worker import Worker


class ArchiveStream(anyio.abc.ByteReceiveStream):
    """A tar archive, created while it is read.

    A cancelled `receive` loses nothing.
    """

    def __init__(self, worker: Worker, packing: Packing) -> None:
        self._worker = worker
        self._packing: Packing | None = packing
        self._piece = memoryview(b"")
        self._next: asyncio.Future[bytes] | None = None
        self._guard = anyio.ResourceGuard("reading from")

    async def receive(self, max_bytes: int = 1 << 16) -> bytes:
        """Return the next bytes of the archive.

        Args:
            max_bytes: Maximal number of bytes: 65,536 if left out.

        Raises:
            EndOfStream: At the end of the archive.
            ClosedResourceError: If the stream is closed.
            BusyResourceError: If another task is reading.
            OSError: If a file can't be read.
        """
        with self._guard:
            if self._packing is None:
                raise anyio.ClosedResourceError
            if not self._piece:
                if self._next is None:
                    self._next = self._worker.begin(self._packing.read)
                # asyncio.wait leaves the future alone when the task is cancelled, so the next call gets the piece.
                await asyncio.wait((self._next,))
                done, self._next = self._next, None
                self._piece = memoryview(done.result())
                if not self._piece:
                    raise anyio.EndOfStream
            data = bytes(self._piece[:max_bytes])
            self._piece = self._piece[len(data) :]
            return data

    async def aclose(self) -> None:
        """Close the stream after the current piece; a cancellation waits too. Idempotent."""
        self._packing = None
        if self._next is not None:
            pending, self._next = self._next, None
            cancelled = await wait_shielded(pending)
            pending.exception()  # retrieved: the caller doesn't want the piece
            if cancelled:
                raise cancelled
