"""The delay of a pool grows with each failure, and is forgotten after a success."""

from __future__ import annotations

import asyncio

import pytest

from runc_async._pool.delay import FIRST, FORGIVEN_AFTER, LAST, Delay


async def test_it_doubles() -> None:
    """Each failure makes the delay twice as long, up to a limit; a success ends it."""
    delay = Delay(lambda: None)
    seen: list[float] = []
    for _ in range(12):
        delay.failed()
        seen.append(delay.seconds)
    assert seen[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert seen[-1] == LAST
    assert delay.pending
    delay.succeeded()
    assert (delay.pending, delay.seconds) == (False, 0.0)


async def test_it_calls_back_once() -> None:
    """When the delay is over, the next attempt is asked for; a later failure begins a new delay instead."""
    due = asyncio.Event()
    delay = Delay(due.set)
    delay.failed()
    delay.failed()
    await due.wait()
    assert not delay.pending
    delay.stop()


async def test_a_failure_long_ago_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that comes a minute after the last one begins with the first delay."""
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    delay = Delay(lambda: None)
    delay.failed()
    delay.failed()
    now += FORGIVEN_AFTER + 1
    delay.failed()
    assert delay.seconds == FIRST
    delay.stop()
