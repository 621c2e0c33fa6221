"""The config.json of a bundle, shared by concurrent calls.

The file is saved before use, and not changed while a call may still read the file.
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
    """The last contents of config.json, and the calls now using the file.

    Any number of calls with the same wanted contents share a file. A call for other contents waits until all earlier
    calls have released the file, writes the file, and then holds the file too.
    """

    def __init__(
        self, directory: str, content: bytes | None = None, encoded: bytes | None = None, *, durable: bool = True
    ) -> None:
        """Start with a file held by no call.

        Args:
            directory: The bundle's directory.
            content: The bytes of the file; None without a file.
            encoded: The encoded spec of the bundle if the file is up to date; None if not, because reading has dropped
                parts.
            durable: Whether the file has to be on the disk after a write.
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
        """Keep the file equal to `wanted` while the block runs, or until the yielded function is called.

        Cancelling during the wait has no effect; during the write, the file is written all the same.

        Raises:
            BundleChanged: If the file has to be written, and was changed by other means.
            OSError: If the file can't be read or written.
        """
        if await self._turn(wanted, always=False):
            await self._written(wanted, overwrite=False, hold=True)
        release = self._releasing()
        try:
            yield release
        finally:
            release()

    async def save(self, wanted: bytes) -> None:
        """Write the file in any case, as soon as no call holds other contents.

        Raises:
            OSError: If the file can't be written.
        """
        await self._turn(wanted, always=True)
        await self._written(wanted, overwrite=True, hold=False)

    async def _turn(self, wanted: bytes, *, always: bool) -> bool:
        """Wait until the file has the wanted contents, or can be written; return whether a write is needed.

        Args:
            wanted: The contents.
            always: Write the file in any case.
        """
        while True:
            with self._lock:
                is_right = wanted == self._encoded
                # The file has the wanted contents: share it.
                if not self._is_writing and is_right and not always:
                    self._holders += 1
                    return False
                # No call reads other contents now: this call may write.
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
        """Write the file, and wake the waiting calls."""
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
            # Compared with the last known contents, so that a change by another program isn't lost.
            found = self._found()
            if found not in {self._content, wanted}:
                raise BundleChanged(self._directory)
        write_private(self._directory, CONFIG, wanted, replace=True, durable=self._durable)
        self._content = self._encoded = wanted

    def _found(self) -> bytes | None:
        """Return the contents of the file; None without a file."""
        try:
            return read_bounded(os.path.join(self._directory, CONFIG), MAX_DOCUMENT)
        except FileNotFoundError:
            return None

    def _releasing(self) -> Callable[[], None]:
        """Return the function for releasing the file; repeated calls have no effect."""
        held = [True]

        def release() -> None:
            if held:
                held.clear()
                with self._lock:
                    self._holders -= 1
                self._wake()

        return release

    def _wake(self) -> None:
        """Wake all waiting calls, each in the call's event loop."""
        for changed in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # its loop is closed
                changed.get_loop().call_soon_threadsafe(_set, changed)


def _set(changed: asyncio.Future[None]) -> None:
    """Set a future's result unless cancelled or set."""
    if not changed.done():
        changed.set_result(None)


def begin(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run a function in a worker thread."""
    # The event loop's own executor, because `asyncio.run` waits for its threads. And a future, no task, because
    # `asyncio.run` first cancels all tasks: a cancelled task would leave the thread behind with a partially created
    # bundle.
    return asyncio.get_running_loop().run_in_executor(None, work)


async def finished(work: asyncio.Future[T]) -> T:
    """Wait for a worker thread, even if the calling task is cancelled; the cancellation continues afterwards."""
    if cancelled := await wait_shielded(work):
        work.exception()  # retrieved: what the caller gets to see is the cancel
        raise cancelled
    return work.result()
