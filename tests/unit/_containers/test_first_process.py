"""The first process of a container, played by small children of somebody else, and by our own."""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import leaks
import pytest

from runc_async._containers import first_process
from runc_async._containers.first_process import Init, merged
from runc_async.exitstatus import ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

pytestmark = pytest.mark.any_loop

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


@pytest.fixture
def born() -> Generator[Callable[[str], Init]]:
    """Return a function that starts a shell script, waits until it says that it is ready, and takes hold of it."""
    made: list[tuple[subprocess.Popen[bytes], Init]] = []

    def start(script: str) -> Init:
        child = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE)
        assert child.stdout is not None
        if "ready" in script:
            child.stdout.readline()
        init = Init(child.pid, os.pidfd_open(child.pid))
        made.append((child, init))
        return init

    yield start
    for child, init in made:
        init.close()
        assert child.stdout is not None
        child.stdout.close()
        child.kill()
        child.wait()


async def test_several_waits(born: Callable[[str], Init]) -> None:
    """All tasks that wait are told the same, and who asks later too, though only one of them can reap."""
    init = born("exec sleep 600")
    waits = [asyncio.create_task(init.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    init.send_signal(signal.SIGKILL)
    statuses = await asyncio.gather(*waits)
    assert {status.signal for status in statuses} <= {signal.SIGKILL, None}
    assert (await init.wait()).signal == signal.SIGKILL
    init.close()
    assert (await init.wait()).signal == signal.SIGKILL


async def test_a_wait_that_is_cancelled(born: Callable[[str], Init]) -> None:
    """A wait that is cancelled takes nothing from the others."""
    init = born("exec sleep 600")
    waits = [asyncio.create_task(init.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.wait(waits[:1])
    init.send_signal(signal.SIGTERM)
    assert await waits[1] == await waits[2]
    assert waits[1].result().signal == signal.SIGTERM


async def test_closing_while_others_wait(born: Callable[[str], Init]) -> None:
    """Who waits is told the end also if another task has closed it before; new waits are told what is known."""
    init = born("exec sleep 600")
    waiting = asyncio.create_task(init.wait())
    await asyncio.sleep(0)
    pidfd = os.pidfd_open(init.pid)
    descriptors = leaks.footprint().descriptors
    init.close()
    init.close()
    assert init.closed
    assert leaks.footprint().descriptors == descriptors
    assert await init.wait() == ExitStatus()
    init.send_signal(signal.SIGKILL)  # goes nowhere
    assert not waiting.done()
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    assert (await waiting).signal == signal.SIGTERM
    assert len(leaks.footprint().descriptors) == len(descriptors) - 2  # its own, and the epoll of the waits
    os.close(pidfd)


async def test_the_end(born: Callable[[str], Init]) -> None:
    """It is ended by SIGTERM; with no grace, or after it, by SIGKILL; and one that has ended is left alone."""
    loop = asyncio.get_running_loop()
    for script, grace, signum in (
        ("exec sleep 600", 5.0, signal.SIGTERM),
        ("exec sleep 600", 0.0, signal.SIGKILL),
        (STUBBORN, 0.2, signal.SIGKILL),
    ):
        init, begun = born(script), loop.time()
        assert not init.exited
        await init.end(grace)
        assert loop.time() - begun < 2
        assert init.exited
        assert (await init.wait()).signal == signum
        await init.end(grace)


async def test_the_end_is_not_held_up_by_others(born: Callable[[str], Init], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending waits for the end, and not for somebody else's wait, which may wait for a reaping for long."""
    init = born("exec sleep 600")

    async def unknown(*_: object, **__: object) -> None:
        await asyncio.sleep(600)

    monkeypatch.setattr("runc_async._linux.exits._status", unknown)
    waiting = asyncio.create_task(init.wait())
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await init.end(5.0)
    assert init.exited
    waiting.cancel()
    await asyncio.wait([waiting])


@pytest.mark.parametrize("later", [0, 1])
async def test_our_own_kill_is_not_for_memory(
    later: int, born: Callable[[str], Init], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An exec that was killed for memory before our SIGKILL doesn't count; what is killed later does."""
    kills = [0]
    monkeypatch.setattr(first_process, "memory_cgroup", lambda _: tmp_path)
    monkeypatch.setattr(first_process, "read_oom_kills", lambda _: kills[0])
    monkeypatch.setattr("runc_async._linux.exits.read_oom_kills", lambda _: kills[0] + later)
    init = born("exec sleep 600")
    waiting = asyncio.create_task(init.wait())
    await asyncio.sleep(0)
    kills[0] = 1
    init.send_signal(signal.SIGKILL)
    assert (await waiting).oom_killed is bool(later)


async def test_what_the_cgroup_told(
    born: Callable[[str], Init], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was read of the cgroup while it was there is kept, and processes that were killed earlier don't count."""
    kills = iter([3, 4, None])

    def directory(_: int) -> Path:
        return tmp_path

    def counted(_: Path) -> int | None:
        return next(kills)

    monkeypatch.setattr(first_process, "memory_cgroup", directory)
    monkeypatch.setattr(first_process, "read_oom_kills", counted)
    monkeypatch.setattr("runc_async._linux.exits.read_oom_kills", counted)
    init = born("kill -KILL $$")
    assert (await init.wait(reap_timeout=0)).oom_killed is True
    assert (await init.wait()).oom_killed is True


def test_two_answers_become_one() -> None:
    """Of two answers the known one counts, and what either has seen of the cgroup and the time."""
    unknown, known = ExitStatus(oom_killed=False), ExitStatus(code=7)
    for before, after in ((unknown, known), (known, unknown)):
        both = merged(before, after)
        assert (both.code, both.oom_killed) == (7, False)
    assert merged(None, known) is known


@pytest.mark.parametrize("step", ["adopt", "memory_cgroup", "read_oom_kills"])
async def test_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch, step: str, tmp_path: Path) -> None:
    """If the process or its cgroup can't be looked at for want of descriptors, the pidfd is closed."""

    def refuse(_: object) -> None:
        raise OSError(24, "Too many open files")

    def directory(_: int) -> Path:
        return tmp_path

    monkeypatch.setattr(first_process, "memory_cgroup", directory)
    monkeypatch.setattr(first_process, step, refuse)
    before = leaks.footprint()
    with pytest.raises(OSError, match="Too many"):
        Init(os.getpid(), os.pidfd_open(os.getpid()))
    assert leaks.left_since(before) == []
