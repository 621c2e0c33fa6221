"""Runtimes of a keeper that was killed."""

from __future__ import annotations

import asyncio
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
