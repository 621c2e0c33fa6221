"""Following the forks of a sandbox."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import leaks
import pytest
from children import shell

from runc_async import CleanupWarning
from runc_async._process.inside import Forks, Inside
from runc_async._runtimes.runsc import RUNSC
from runc_async.runner import Completed, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from runc_async.runner import Invocation


async def failing(_: Invocation) -> Completed:
    """Run a runtime that fails."""
    return Completed(pid=1, returncode=1)


async def test_a_signal_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that can't be sent for want of descriptors is sent when there are some, and else a warning."""
    free: list[Completed] = []

    async def scarce(_: Invocation) -> Completed:
        if free:
            return free.pop()
        free.append(Completed(pid=1, returncode=0))
        raise OSError(errno.EMFILE, "Too many open files")

    sandbox = Sandbox(runtime="runsc", container_id="box", options=())
    inside = Inside(shell(""), sandbox, scarce)
    inside.pid = lambda: 7
    await inside.send(9)
    assert free == []
    monkeypatch.setattr("runc_async._process.inside.SCARCE_TIME", -1)
    with pytest.warns(CleanupWarning, match="in container 'box': Too many open files"):
        await inside.send(9)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_release_after_the_loop_was_closed(loop: str) -> None:
    """The socket and its directory are closed all the same."""
    made: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        made = pytest.importorskip("uvloop").new_event_loop
        made().close()  # the first loop opens a pipe for good
    assert RUNSC.inside is not None
    sandbox = Sandbox(runtime="runsc", container_id="box", options=())
    before = leaks.footprint()
    with asyncio.Runner(loop_factory=made) as runner:
        forks = runner.run(Forks.follow(sandbox, RUNSC.inside, failing, shell("")))
    forks.release()
    assert leaks.left_since(before) == []
