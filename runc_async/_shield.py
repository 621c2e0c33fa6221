"""Coroutines that run to their end despite cancellation, for cleanup."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


class _AlwaysStarts(Coroutine[Any, None, T]):
    """Wrap a coroutine so that it runs even if its task is cancelled before the first step.

    The end of the event loop cancels even the tasks created in its last iteration.
    """

    def __init__(self, work: Coroutine[Any, None, T]) -> None:
        self._work = work
        self._begun = False

    def send(self, value: None) -> Any:
        self._begun = True
        return self._work.send(value)

    def throw(self, *exception: Any) -> Any:
        # The first throw is the cancellation of a task that hasn't run yet: run the first step instead.
        return self._work.throw(*exception) if self._begun else self.send(None)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, None, T]:
        return self._work.__await__()


def start(work: Coroutine[Any, None, T]) -> asyncio.Task[T]:
    """Create a task that runs in any case; a cancellation before its first step is dropped."""
    return asyncio.create_task(_AlwaysStarts(work))


async def shielded(work: Coroutine[Any, None, T] | asyncio.Task[T]) -> T:
    """Run `work` to its end, even if the calling task is cancelled; the cancellation is raised afterwards."""
    task = work if isinstance(work, asyncio.Task) else start(work)
    cancelled = await wait_shielded(task)
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # retrieved: what the caller gets to see is the cancel
    raise cancelled


async def retried_once(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work`, and start again if it is cancelled; in a task of our own, only the end of the event loop cancels."""
    try:
        return await work()
    except asyncio.CancelledError:
        return await work()


async def wait_shielded(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until `future` is done, and return the first cancellation of the calling task meanwhile."""
    return await keep_waiting(lambda: asyncio.wait((future,)))


async def keep_waiting(wait: Callable[[], Awaitable[object]]) -> asyncio.CancelledError | None:
    """Wait, and continue to wait when the calling task is cancelled; return the first cancellation.

    Args:
        wait: Waits for an event that isn't affected by a cancelled wait; each call waits for the same event.
    """
    try:
        await wait()
    except asyncio.CancelledError as first:
        # An anyio cancel scope cancels again in each iteration of the loop, so the wait is shielded after the first
        # time. `Task.cancel()` ignores shields, but comes once, and is suppressed too.
        with anyio.CancelScope(shield=True):
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await wait()
                    return first
    return None
