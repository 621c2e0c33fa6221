"""A thread for one operation on files, which the event loop waits for in any case."""

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
    """Something that has to be closed."""

    def close(self) -> object:
        """Close it."""
        ...


C = TypeVar("C", bound=Closable)


class Worker:
    """One thread, for one operation, so that no operation waits for another; its umask is its own, and zero.

    The event loop's threads are left alone: the user as which files are made, and the umask, would stay with them, and
    an archive with a slow consumer would occupy one for hours.

    At the end of its `async with`, the thread closes what was kept and ends.
    """

    def __init__(self) -> None:
        self._given_up = threading.Event()
        self._closing = contextlib.ExitStack()
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
        """Keep something, which is closed by the thread at the end: last in, first out."""
        self._closing.callback(resource.close)
        return resource

    def begin(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have the thread do something."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def do(self, work: Callable[[], T]) -> T:
        """Have the thread do something; cancelled, give it up, wait for the thread, and raise the cancel."""
        future = self.begin(work)
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            await self.give_up(future)
            raise
        return future.result()

    async def give_up(self, future: asyncio.Future[T]) -> None:
        """Give up what the thread is doing, and wait until it has stopped; its result counts no more."""
        self._given_up.set()
        await wait_shielded(future)
        future.exception()  # retrieved: the caller has another exception to raise

    def check(self) -> None:
        """Raise if the work was given up. The thread calls it often.

        Raises:
            InterruptedError: If it was.
        """
        if self._given_up.is_set():
            raise InterruptedError
