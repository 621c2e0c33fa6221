"""A node keeps a client's events until the client has seen them, and its sandboxes while its lease lasts."""

from __future__ import annotations

import asyncio

from runc_async.dask.session import Session


async def test_events_are_kept_until_they_are_seen() -> None:
    """An answer that is lost on its way is given once more; seen events are forgotten."""
    session = Session(10, 8)
    session.report("a", "done", 1)
    session.report("b", "failed", 2)
    first = await session.events(0, 0)
    assert await session.events(0, 0) == first == [(1, "a", "done", 1), (2, "b", "failed", 2)]
    assert await session.events(1, 0) == first[1:]
    assert await session.events(2, 0) == []


async def test_a_wait_ends_with_an_event() -> None:
    """A client that waits gets the event at once."""
    session = Session(10, 8)
    waiting = asyncio.create_task(session.events(0, 60))
    await asyncio.sleep(0)
    session.report("a", "open")
    assert await waiting == [(1, "a", "open", None)]


async def test_a_lease_is_renewed_by_asking() -> None:
    """A lease lapses without a sign of life, and each question is one."""
    session = Session(0.0, 8)
    await asyncio.sleep(0.001)
    assert session.lapsed
    session.lease = 60
    await session.events(0, 0)
    assert not session.lapsed
