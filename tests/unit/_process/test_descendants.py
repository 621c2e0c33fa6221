"""The processes that a runtime has started end with it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import anyio
import pytest
from containers import heard

from runc_async._linux.pidfd import has_exited
from runc_async._process import descendants as descendants_module
from runc_async._process.descendants import Descendants
from runc_async._process.running import ProcessRunner
from runc_async.runner import Invocation, StopPolicy
from runc_async.stdio import RedirectIO

if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILY = "{} & echo $!; exec sleep 60"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe's reading and writing end."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def helped(script: str, policy: StopPolicy, writing: int) -> Invocation:
    """Return an invocation of a program that starts another one, and prints its pid."""
    argv = ("sh", "-c", FAMILY.format(script))
    return Invocation(command="family", argv=argv, streams=RedirectIO(stdout=writing), stop=policy)


async def test_a_helper_is_ended_with_the_runtime(pipe: tuple[int, int]) -> None:
    """A helper that doesn't end by itself, when its runtime is stopped, is killed after the grace."""
    reading, writing = pipe
    process = await ProcessRunner().open(helped("sleep 60", StopPolicy(grace=0.1, helpers=True), writing))
    pid = int(await heard(reading))
    pidfd = os.pidfd_open(pid)
    try:
        await process.aclose()
        assert has_exited(pidfd)
    finally:
        os.close(pidfd)


async def test_a_helper_may_end_by_itself(pipe: tuple[int, int]) -> None:
    """A helper that ends soon after its runtime is waited for, and not killed."""
    reading, writing = pipe
    invocation = helped("(sleep 0.2; echo done)", StopPolicy(grace=5, helpers=True), writing)
    process = await ProcessRunner().open(invocation)
    await heard(reading)
    await process.aclose()
    os.set_blocking(reading, False)
    assert os.read(reading, 100) == b"done\n"


async def test_without_the_policy_a_helper_is_left_alone(pipe: tuple[int, int]) -> None:
    """Who doesn't ask for it keeps what the runtime has started."""
    reading, writing = pipe
    process = await ProcessRunner().open(helped("sleep 60", StopPolicy(grace=0.1), writing))
    pidfd = os.pidfd_open(int(await heard(reading)))
    try:
        await process.aclose()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        with anyio.fail_after(5):
            await anyio.wait_readable(pidfd)
    finally:
        os.close(pidfd)


async def test_what_has_ended_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is gone, or whose number is another's now, isn't touched."""
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)

    def descendants(pid: int) -> list[tuple[int, int]]:
        return [(gone.pid, pid), (other.pid, gone.pid)]

    monkeypatch.setattr(descendants_module, "descendants", descendants)
    await Descendants(os.getpid()).end(0)
    assert other.stdin is not None
    other.stdin.write(b"\n")
    assert await other.wait() == 0
