"""All that a process has started: found, signalled, ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from waiting import until

from runc_async._process.child import Child
from runc_async._process.tree import Tree
from runc_async.runner import Invocation, StopPolicy


@pytest.fixture
async def tree() -> AsyncIterator[tuple[Tree, asyncio.subprocess.Process]]:
    """Return a marked shell with two processes that have left it, and whose numbers it has printed."""
    away = "setsid sh -c 'echo $$; exec sleep 100' &"  # no fork: in vfork(2) a shell doesn't stop if its child has
    script = f"read -r _; {away} ({away}); wait; exec sleep 100"
    shell = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    found = tree_of(shell.pid)
    yield found, shell
    found.signal(signal.SIGKILL)
    shell.kill()
    await shell.wait()


def tree_of(pid: int, *, command: str = "exec", whole: bool = True) -> Tree:
    """Return the tree of a runtime process that is about to start others."""
    child = Child()
    child.pid = pid
    stop = StopPolicy(waits_for_process=True, tree=whole)
    found = Tree(Invocation(command=command, argv=(), stop=stop), child, None, None)
    found.spawned()
    return found


async def begun(shell: asyncio.subprocess.Process) -> list[int]:
    """Let the shell start the others, and return their numbers."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(b"\n")
    return [int(await shell.stdout.readline()) for _ in range(2)]


def runs(pid: int) -> bool:
    """Return whether a process is there, and no zombie."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] != b"Z"
    except OSError:
        return False


async def test_it_ends(tree: tuple[Tree, asyncio.subprocess.Process]) -> None:
    """When `end` returns, all have ended but the runtime process; only if they were cut short."""
    found, shell = tree
    pids = await begun(shell)
    await found.end()
    found.kill()
    found.cut_short()  # it has no process that we could have ended
    await found.end()
    assert all(map(runs, pids))
    found.cut_short(lost=True)
    await found.end()
    assert not any(map(runs, pids))
    assert runs(shell.pid)


async def test_a_signal(tree: tuple[Tree, asyncio.subprocess.Process]) -> None:
    """A signal reaches all but the runtime process; SIGKILL too, which isn't waited for."""
    found, shell = tree
    pids = await begun(shell)
    found.signal(signal.SIGSTOP)
    await until(lambda: all(map(stopped, pids)))
    assert not stopped(shell.pid)
    found.signal(signal.SIGKILL)
    await until(lambda: not any(map(runs, pids)))
    assert runs(shell.pid)


def stopped(pid: int) -> bool:
    """Return whether a process has stopped."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b") ")[2][:1] == b"T"


@pytest.mark.parametrize(
    ("changes", "launched"), [({}, True), ({"whole": False}, False), ({"command": "run"}, False)], ids=str
)
async def test_the_launcher(changes: dict[str, Any], launched: bool) -> None:  # noqa: FBT001
    """A program in front of the runtime, which takes milliseconds, is there only for what is to end whole."""
    child = await asyncio.create_subprocess_exec("/bin/sleep", "100")
    try:
        launcher = tree_of(child.pid, **changes).launcher
        assert [os.path.basename(word) for word in launcher[:1]] == ["prlimit"] * launched
    finally:
        child.kill()
        await child.wait()


@pytest.mark.parametrize("changes", [{"command": "run"}, {"whole": False}], ids=str)
async def test_what_does_not_end(changes: dict[str, Any]) -> None:
    """What another command has started is left alone, and so is what an `exec` has that isn't to end whole."""
    shell = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", "sleep 100 & echo $!; exec sleep 100", stdout=asyncio.subprocess.PIPE
    )
    try:
        found = tree_of(shell.pid, **changes)
        assert shell.stdout is not None
        pid = int(await shell.stdout.readline())
        found.cut_short(lost=True)
        found.kill()
        await found.end()
        assert runs(pid)
        os.kill(pid, signal.SIGKILL)
    finally:
        shell.kill()
        await shell.wait()
