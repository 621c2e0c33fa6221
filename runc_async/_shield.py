"""Coroutines that a cancel doesn't cut short: cleanup that runs to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


class _AlwaysStarts(Coroutine[Any, None, T]):
    """A coroutine that begins in any case: a task that is cancelled before its first step never does otherwise.

    The end of the loop cancels the tasks that were made in its last turn, too.
    """

    def __init__(self, work: Coroutine[Any, None, T]) -> None:
        self._work = work
        self._begun = False

    def send(self, value: None) -> Any:
        self._begun = True
        return self._work.send(value)

    def throw(self, *exception: Any) -> Any:
        return self._work.throw(*exception) if self._begun else self.send(None)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, None, T]:
        return self._work.__await__()


def start(work: Coroutine[Any, None, T]) -> asyncio.Task[T]:
    """Make a task that begins in any case; a cancel before its first step is dropped."""
    return asyncio.create_task(_AlwaysStarts(work))


async def shielded(work: Coroutine[Any, None, T] | asyncio.Task[T]) -> T:
    """Run `work` to its end, whatever happens to the calling task; a cancel is raised again afterwards."""
    task = work if isinstance(work, asyncio.Task) else start(work)
    cancelled = await wait_shielded(task)
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # retrieved: what the caller gets to see is the cancel
    raise cancelled


async def retried_once(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work`, and begin it anew if it is cancelled, which for a task of our own only the end of the loop does."""
    try:
        return await work()
    except asyncio.CancelledError:
        return await work()


async def wait_shielded(future: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait until `future` is done, and return the first cancel of the calling task that came meanwhile."""
    return await keep_waiting(lambda: asyncio.wait((future,)))


async def keep_waiting(wait: Callable[[], Awaitable[object]]) -> asyncio.CancelledError | None:
    """Wait, and go on with it when the calling task is cancelled; return the first cancel that came meanwhile.

    After the first one the wait is shielded: an anyio cancel scope delivers its cancel anew in every turn of the loop.
    `Task.cancel()` knows no shield; it comes once, and is held back too.

    Args:
        wait: Waits for something that a cancel of the wait leaves alone; called again, it waits for the same thing.
    """
    try:
        await wait()
    except asyncio.CancelledError as first:
        with anyio.CancelScope(shield=True):
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await wait()
                    return first
    return None
