"""The config.json of a bundle, shared by the calls that start from it.

It is saved before it is used, and not changed under a call that is still reading it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from .._linux.files import read_bounded, write_private
from .._shield import wait_shielded
from ..errors import BundleChanged
from ..spec._json import MAX_DOCUMENT
from .check import CONFIG

T = TypeVar("T")


class ConfigFile:
    """What was last written to config.json or read from it, and the calls that start from it now.

    Any number of calls share a file that is as they want it. A call that wants another one waits until all of them have
    let go, writes it, and is one of those that hold it then.
    """

    def __init__(
        self, directory: str, content: bytes | None = None, encoded: bytes | None = None, *, durable: bool = True
    ) -> None:
        """Begin with a file that nothing holds.

        Args:
            directory: The bundle's.
            content: The bytes of the file; None if there is none.
            encoded: What the bundle's spec is encoded as while the file is as it should be; None if it isn't, since
                reading has dropped something.
            durable: Whether the file has to be on the disk when it was written.
        """
        self._directory = directory
        self._durable = durable
        self._content = content
        self._encoded = encoded
        self._holders = 0
        self._is_writing = False
        self._waiting: set[asyncio.Future[None]] = set()
        self._lock = threading.Lock()  # a bundle may be used by several event loops

    @contextlib.asynccontextmanager
    async def held(self, wanted: bytes) -> AsyncGenerator[Callable[[], None]]:
        """Keep the file as `wanted` while the block runs, or until the function that it gets is called.

        Cancelling while it waits changes nothing; while it writes, the file is written all the same.

        Raises:
            BundleChanged: If it has to be written, and isn't as it was last written or read.
            OSError: If it can't be read or written.
        """
        if await self._turn(wanted, always=False):
            await self._written(wanted, overwrite=False, hold=True)
        release = self._releasing()
        try:
            yield release
        finally:
            release()

    async def save(self, wanted: bytes) -> None:
        """Write the file, whatever is in it, as soon as nothing holds it that wants another one.

        Raises:
            OSError: If it can't be written.
        """
        await self._turn(wanted, always=True)
        await self._written(wanted, overwrite=True, hold=False)

    async def _turn(self, wanted: bytes, *, always: bool) -> bool:
        """Wait until the file is as wanted, which this call holds then, or can be written; return whether it has to be.

        Args:
            wanted: The contents.
            always: Write it in any case.
        """
        while True:
            with self._lock:
                is_right = wanted == self._encoded
                if not self._is_writing and is_right and not always:
                    self._holders += 1
                    return False
                if not self._is_writing and (is_right or not self._holders):
                    self._is_writing = True
                    return True
                changed = asyncio.get_running_loop().create_future()
                self._waiting.add(changed)
            try:
                await changed
            finally:
                self._waiting.discard(changed)

    async def _written(self, wanted: bytes, *, overwrite: bool, hold: bool) -> None:
        """Write the file, and let those go on who wait for that."""
        done = False
        try:
            await finished(begin(lambda: self._write(wanted, overwrite=overwrite)))
            done = True
        finally:
            with self._lock:
                self._is_writing = False
                self._holders += done and hold
            self._wake()

    def _write(self, wanted: bytes, *, overwrite: bool) -> None:
        """Write the file; in a worker thread."""
        if not overwrite:
            found = self._found()
            if found not in {self._content, wanted}:
                raise BundleChanged(self._directory)
        write_private(self._directory, CONFIG, wanted, replace=True, durable=self._durable)
        self._content = self._encoded = wanted

    def _found(self) -> bytes | None:
        """Return what is in the file; None if there is none."""
        try:
            return read_bounded(os.path.join(self._directory, CONFIG), MAX_DOCUMENT)
        except FileNotFoundError:
            return None

    def _releasing(self) -> Callable[[], None]:
        """Return the function that lets go of the file: once, however often it is called."""
        held = [True]

        def release() -> None:
            if held:
                held.clear()
                with self._lock:
                    self._holders -= 1
                self._wake()

        return release

    def _wake(self) -> None:
        """Let all that wait look again, each in its own event loop."""
        for changed in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # its loop is closed
                changed.get_loop().call_soon_threadsafe(_set, changed)


def _set(changed: asyncio.Future[None]) -> None:
    """Set a future's result unless it is cancelled or set."""
    if not changed.done():
        changed.set_result(None)


def begin(work: Callable[[], T]) -> asyncio.Future[T]:
    """Have something done by a worker thread.

    By the event loop's own, because `asyncio.run` waits for these; and with a future, because it cancels all tasks
    first: one that waits for a thread would leave it alone with a partially created bundle.
    """
    return asyncio.get_running_loop().run_in_executor(None, work)


async def finished(work: asyncio.Future[T]) -> T:
    """Wait for a worker thread, whatever happens to the calling task; a cancel goes on afterwards."""
    if cancelled := await wait_shielded(work):
        work.exception()  # retrieved: what the caller gets to see is the cancel
        raise cancelled
    return work.result()
