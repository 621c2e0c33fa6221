"""Spawns of one event loop, one after the other: each blocks the loop, for one or two milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final

PATIENCE: Final = 0.5
"""Seconds for which a spawn waits for its turn at most: a spawn that hangs must not hold up the others."""

_turns: Final[dict[asyncio.AbstractEventLoop, asyncio.Lock]] = {}


@contextlib.asynccontextmanager
async def spawn_turn() -> AsyncGenerator[None]:
    """Wait until no other spawn of this event loop is under way, for at most `PATIENCE` (0.5 seconds).

    Commands that end at the same time let as many callers go on, each of which may spawn at once. Without turns all of
    these spawns would happen in one iteration of the event loop, and no other task would run meanwhile.
    """
    turn = _turn(asyncio.get_running_loop())
    has_turn = True
    if turn.locked():
        try:
            async with asyncio.timeout(PATIENCE):
                await turn.acquire()
        except TimeoutError:
            has_turn = False
    else:
        await turn.acquire()  # never waits
    try:
        yield
    finally:
        if has_turn:
            turn.release()


def _turn(loop: asyncio.AbstractEventLoop) -> asyncio.Lock:
    """Return the lock of an event loop."""
    turn = _turns.get(loop)
    if turn is None:
        for closed in [other for other in _turns if other.is_closed()]:
            del _turns[closed]
        turn = _turns[loop] = asyncio.Lock()
    return turn
