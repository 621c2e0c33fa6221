"""The ways in which work that is under way is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

import anyio
import pytest

Work: TypeAlias = Callable[[], Coroutine[Any, Any, object]]

SIBLING = "the sibling"


async def by_cancel(work: Work, reached: Awaitable[object]) -> None:
    """Cancel the task."""
    task = asyncio.create_task(work())
    await reached
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_two_cancels(work: Work, reached: Awaitable[object]) -> None:
    """Cancel the task, and once more while it still works on the first one."""
    task = asyncio.create_task(work())
    await reached
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0.01)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_scope(work: Work, reached: Awaitable[object]) -> None:
    """Cancel the scope of anyio that it runs in."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await reached
            scope.cancel()
    assert scope.cancelled_caught


async def by_timeout(work: Work, reached: Awaitable[object]) -> None:
    """Let the time of asyncio's run out."""

    async def timed(limit: asyncio.Timeout) -> None:
        await reached
        limit.reschedule(asyncio.get_running_loop().time())

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:
            timer = asyncio.create_task(timed(limit))
            await work()
        await timer

    with pytest.raises(TimeoutError):
        await limited()


async def by_sibling(work: Work, reached: Awaitable[object]) -> None:
    """Let another task of the same group fail."""

    async def fail() -> None:
        await reached
        raise RuntimeError(SIBLING)

    async def grouped() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        await grouped()
    assert [str(error) for error in caught.value.exceptions] == [SIBLING]


INTERRUPTIONS: dict[str, Callable[[Work, Awaitable[object]], Coroutine[Any, Any, None]]] = {
    "cancel": by_cancel,
    "two-cancels": by_two_cancels,
    "scope": by_scope,
    "timeout": by_timeout,
    "sibling": by_sibling,
}
