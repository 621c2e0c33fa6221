"""How soon orphans are reaped here, measured with one."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import NoReturn

import leaks
import pytest

from runc_async._linux import reaping
from runc_async._linux.reaping import Reaping, measure_reaping

pytestmark = pytest.mark.any_loop


async def test_process_1_is_measured() -> None:
    """An orphan goes to another process than this one, and its time as a zombie is measured, or is longer than that."""
    found = await measure_reaping()
    assert found is not None
    assert found.reaper not in {0, os.getpid()}
    assert found.seconds is None or found.seconds >= 0


@pytest.mark.usefixtures("one_subreaper")
async def test_this_process_reaps() -> None:
    """An orphan that comes to this process is reaped by it, at once."""
    found = await measure_reaping()
    assert found is not None
    assert found.reaper == os.getpid()
    assert found.seconds is not None


async def test_a_process_1_that_never_reaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a zombie still when the time is up is told as such."""

    def is_reaped(_: int) -> bool:
        return False

    monkeypatch.setattr(reaping, "is_reaped", is_reaped)
    found = await measure_reaping(limit=0.02)
    assert found is not None
    assert found == Reaping(reaper=found.reaper, seconds=None)


@pytest.mark.parametrize("call", ["pidfd_open", "posix_spawn", "pipe2"])
async def test_a_host_that_gives_nothing_to_measure_with(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Where there is no pidfd, process or descriptor to be had, nothing is known, and nothing is left."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    before = leaks.footprint()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        assert await measure_reaping() is None
    assert leaks.left_since(before) == []


async def test_a_child_that_cannot_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that says nothing, for it could make no orphan, is no measurement."""
    monkeypatch.setattr(reaping, "_ORPHAN", "")
    assert await measure_reaping() is None


async def test_a_cancelled_measurement() -> None:
    """Cancelled, it leaves no process and no descriptor."""
    before = leaks.footprint()
    task = asyncio.create_task(measure_reaping())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await leaks.left_in_loop(before) == []
