"""A separate thread for one file operation."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self, TypeVar

from .._shield import wait_shielded
from .openat2 import leave_umask

T = TypeVar("T")


class Closable(Protocol):
    """An object with `close()`."""

    def close(self) -> object:
        """Close it."""
        ...


C = TypeVar("C", bound=Closable)


class Worker:
    """One thread for one operation, so that operations don't wait for each other; its umask is separate, and zero.

    At the end of the `async with`, the thread closes the kept resources and ends.
    """

    def __init__(self) -> None:
        self._given_up = threading.Event()
        self._closing = contextlib.ExitStack()
        # Not the event loop's own threads: they would keep the user as which files are created, and the umask; and an
        # archive with a slow consumer would occupy one for hours.
        self._executor = ThreadPoolExecutor(1, "runc_async-files")
        self._executor.submit(leave_umask)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        work = self.begin(self._closing.close)
        self._executor.shutdown(wait=False)
        cancelled = await wait_shielded(work)
        work.result()
        if cancelled:
            raise cancelled

    def keep(self, resource: C) -> C:
        """Register a resource, which the thread closes at the end: last in, first out."""
        self._closing.callback(resource.close)
        return resource

    def begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run a function in the thread."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def do(self, work: Callable[[], T]) -> T:
        """Run a function in the thread. On cancellation stop it, wait for the thread, and raise the cancellation."""
        future = self.begin(work)
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            await self.give_up(future)
            raise
        return future.result()

    async def give_up(self, future: asyncio.Future[T]) -> None:
        """Stop the current function, and wait until it has ended; its result is dropped."""
        self._given_up.set()
        await wait_shielded(future)
        future.exception()  # retrieved: the caller has another exception to raise

    def check(self) -> None:
        """Raise if the work was stopped. The thread calls this often.

        Raises:
            InterruptedError: If the work was stopped.
        """
        if self._given_up.is_set():
            raise InterruptedError
