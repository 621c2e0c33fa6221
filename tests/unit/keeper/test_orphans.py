"""Runtimes of a keeper that was killed."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest

from runc_async.keeper import orphans
from runc_async.runner import StopPolicy


async def test_runtimes_of_a_killed_keeper_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes with its mark are found, and no others; a process that goes on is killed after a while."""
    monkeypatch.setattr(orphans, "LET_FINISH", StopPolicy(patience=0.3, grace=30.0))
    mine = {**os.environ, orphans.VARIABLE: str(tmp_path)}
    other = {**os.environ, orphans.VARIABLE: f"{tmp_path}/other"}
    started = [await asyncio.create_subprocess_exec("sleep", "60", env=env) for env in (mine, other)]
    found = orphans.found(str(tmp_path))
    assert len(found) == 1
    await orphans.ended(found)
    assert await started[0].wait() == -signal.SIGKILL
    assert (started[1].returncode, orphans.found(str(tmp_path))) == (None, [])
    started[1].kill()
    await started[1].wait()


async def test_a_pid_that_changes_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has got the pid of a runtime between the look and the opening of the pidfd is let alone."""
    other = await asyncio.create_subprocess_exec("sleep", "60")
    looks = iter([True, False])

    def is_marked(pid: str, _variable: bytes) -> bool:
        return pid == str(other.pid) and next(looks)

    monkeypatch.setattr(orphans, "_is_marked", is_marked)
    assert orphans.found(str(tmp_path)) == []
    other.kill()
    await other.wait()


async def test_no_descriptor_for_the_second_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pidfds opened so far are closed."""
    mine = {**os.environ, orphans.VARIABLE: str(tmp_path)}
    started = [await asyncio.create_subprocess_exec("sleep", "60", env=mine) for _ in range(2)]
    opened: list[int] = []
    pidfd_open = os.pidfd_open

    def once(pid: int) -> int:
        if opened:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        opened.append(pidfd_open(pid))
        return opened[0]

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", once)
        with pytest.raises(OSError, match="Too many open files"):
            orphans.found(str(tmp_path))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
    for process in started:
        process.kill()
        await process.wait()
