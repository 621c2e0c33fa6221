"""How the process of a container is found while runc writes its pid file."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from waiting import until

from runc_async._containers import workload as workload_module
from runc_async._containers.workload import Workload

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHILDREN = [7]


@pytest.fixture
async def workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workload]:
    """Wait for a pid file in the test's directory, of a runc that has one child."""

    def children(pid: int) -> list[int]:
        """Tell the same of every runc."""
        del pid
        return CHILDREN

    monkeypatch.setattr(workload_module, "children", children)
    made = Workload(str(tmp_path / "pid"))
    yield made
    made.close()


async def test_the_pid_is_read_as_soon_as_it_is_written(workload: Workload, tmp_path: Path) -> None:
    """It counts before the file has its own name, and spares a look through runc's threads."""
    (tmp_path / ".pid").write_text("123")
    assert workload.candidates(".pid") == [123]


async def test_children_are_looked_up_while_nothing_is_written(workload: Workload, tmp_path: Path) -> None:
    """A runc that makes the file and takes its time has its only child there all the same."""
    (tmp_path / ".pid").touch()
    assert workload.candidates(".pid") == CHILDREN


async def test_children_are_looked_up_where_the_file_is_not_ours_to_read(workload: Workload, tmp_path: Path) -> None:
    """What can't be read, as below a directory of that name, tells nothing."""
    (tmp_path / ".pid").mkdir()
    assert workload.candidates(".pid") == CHILDREN


async def test_a_file_with_its_own_name_is_left_to_the_next_event(workload: Workload) -> None:
    """The news of its renaming comes next."""
    assert workload.candidates(".pid") == []


async def test_another_file_tells_that_runc_is_about_it(workload: Workload) -> None:
    """Runtimes that begin under another name have a child by then."""
    assert workload.candidates("pid.tmp") == CHILDREN


async def test_no_descriptor_to_look_with_at_first(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose age couldn't be read while runc wrote its pid is taken hold of when that is written."""
    looks: list[int] = []

    def began_since(pid: int, moment: float) -> bool:
        """Refuse the first look."""
        del moment
        looks.append(pid)
        if len(looks) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return True

    monkeypatch.setattr(workload_module, "began_since", began_since)
    workload.runc_pid = CHILDREN[0]
    (tmp_path / ".pid").write_text(str(os.getpid()))
    await until(lambda: looks)
    (tmp_path / ".pid").rename(tmp_path / "pid")
    await workload.started
    assert looks == [os.getpid()] * 2
    pid, pidfd = workload.take()
    os.close(pidfd)
    assert pid == os.getpid()
