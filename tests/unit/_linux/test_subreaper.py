"""What becomes our child under `subreaper()`, and when it is reaped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import children
import descriptors
import pytest
from orphans import Maker, Process, orphans
from waiting import until

from runc_async._containers import adoption
from runc_async._containers.adoption import adopt_copies, adopt_processes
from runc_async._linux import exits
from runc_async._linux.libc import PR_SET_CHILD_SUBREAPER, orphans_come_to_us, prctl
from runc_async._linux.pidfd import pidfd_pid
from runc_async._linux.subreaper import adopt, adopt_stray, adopted, claimed, reap_adopted, strays, subreaper
from runc_async._process.running import ProcessRunner


@pytest.fixture
def orphan() -> Iterator[Maker]:
    """Give a function that starts a process with a given exit code whose parent has gone."""
    with orphans() as make:
        yield make


def is_gone(process: Process) -> bool:
    """Say whether a process has ended and was reaped."""
    try:
        pidfd_pid(process.pidfd)
    except ProcessLookupError:
        return True
    return False


def is_zombie(process: Process) -> bool:
    """Say whether a child of ours has ended, and leave it to be reaped."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


# the setting


def test_a_subreaper_restores_what_was_before() -> None:
    """Nested contexts count; the last one to leave undoes the setting."""
    assert not orphans_come_to_us()
    with subreaper():
        with subreaper():
            assert orphans_come_to_us()
        assert orphans_come_to_us()
    assert not orphans_come_to_us()


def test_a_subreaper_that_was_one_before_stays_one() -> None:
    """Somebody else's setting survives ours."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    with subreaper():
        assert orphans_come_to_us()
    assert orphans_come_to_us()
    prctl(PR_SET_CHILD_SUBREAPER, 0)


def test_a_refusal_of_the_kernel_is_an_error() -> None:
    """The error of prctl has its number."""
    with pytest.raises(OSError, match="Invalid argument") as caught:
        prctl(9999, 0)
    assert caught.value.errno == errno.EINVAL


def test_adopted_processes_are_reaped_when_they_have_ended(orphan: Maker) -> None:
    """An orphan of ours that nobody waits for is reaped when asked; one that runs is not waited for."""
    with subreaper():
        process = orphan()
        adopt(process.pid)
        reap_adopted()
        assert pidfd_pid(process.pidfd) == process.pid
        process.end()
        reap_adopted()
        with pytest.raises(ProcessLookupError):
            pidfd_pid(process.pidfd)
    assert not adopted


def test_leaving_the_subreaper_reaps_what_was_adopted(orphan: Maker) -> None:
    """No zombie of ours outlives the context."""
    with subreaper():
        process = orphan()
        adopt(process.pid)
        process.end()
    with pytest.raises(ProcessLookupError):
        pidfd_pid(process.pidfd)


def test_no_descriptor_is_left_to_look_with(orphan: Maker) -> None:
    """What can't be looked at is reaped the next time, and the context ends as ever."""
    with contextlib.ExitStack() as none_left:
        with subreaper():
            process = orphan()
            adopt(process.pid)
            process.end()
            none_left.enter_context(descriptors.spare(0))
        assert not orphans_come_to_us()
    assert adopted
    reap_adopted()
    assert not adopted


def test_nothing_is_adopted_without_a_subreaper(orphan: Maker) -> None:
    """Who hasn't asked for orphans doesn't get to keep a list of them; and who is gone is not listed."""
    process = orphan()
    adopt(process.pid)
    adopt_stray(process.pid)
    assert not adopted
    with subreaper():
        process = orphan()
        process.end()
        process.reaped()
        for note in (adopt, adopt_stray):
            note(process.pid)
        assert not adopted


# strays


@pytest.mark.any_loop
async def test_a_stray_is_reaped_as_soon_as_it_ends(orphan: Maker) -> None:
    """Nobody has to ask, and nothing is left of the watch; neither if it had ended before."""
    with subreaper():
        running, ended = orphan(), orphan()
        ended.release()
        await until(lambda: is_zombie(ended))
        adopt_stray(ended.pid)
        assert is_gone(ended)
        adopt_stray(running.pid)
        adopt_stray(running.pid)
        assert not is_gone(running)
        running.release()
        await until(lambda: is_gone(running))
        assert not adopted
        assert not strays
        assert not exits.watches


@pytest.mark.usefixtures("one_subreaper")
async def test_a_stray_that_its_parent_reaps_is_forgotten(tmp_path: Path) -> None:
    """One that doesn't become our child after all is not watched for ever."""
    command = children.shell(f"sleep 1000 & echo $! >{tmp_path}/pid; wait $!; exit 3")
    running = asyncio.create_task(ProcessRunner().run(command))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"))
    pid = int((tmp_path / "pid").read_text())
    adopt_stray(pid)
    assert len(strays) == 1
    os.kill(pid, signal.SIGKILL)
    assert (await running).returncode == 3
    await until(lambda: not strays)
    assert not adopted


@pytest.mark.usefixtures("one_subreaper")
async def test_a_stray_that_proves_to_be_a_first_process(orphan: Maker) -> None:
    """It is watched no longer, and its status kept until it is asked for, or its container is deleted."""
    process = orphan()
    adopt_stray(process.pid)
    adopt(process.pid)
    assert not strays
    process.release()
    await until(lambda: is_zombie(process))
    await anyio.lowlevel.checkpoint()
    assert not is_gone(process)
    reap_adopted()
    assert is_gone(process)


@pytest.mark.usefixtures("one_subreaper")
async def test_a_stray_that_somebody_has_a_handle_of(orphan: Maker) -> None:
    """Its status is left to the handle."""
    process = orphan()
    adopt_stray(process.pid)
    claimed[process.pid] += 1
    process.release()
    await until(lambda: not strays)
    assert is_zombie(process)
    del claimed[process.pid]
    reap_adopted()
    assert not adopted


def test_a_stray_of_a_loop_that_is_closed(orphan: Maker) -> None:
    """What the loop would have reaped is reaped with the next container, or when the context ends."""

    async def note() -> None:
        adopt_stray(process.pid)
        assert strays

    with subreaper():
        process = orphan()
        asyncio.run(note())
        process.end()
    assert is_gone(process)
    assert not adopted
    assert not strays


def test_a_stray_without_a_loop(orphan: Maker) -> None:
    """Where there is no event loop to watch it, it is reaped when asked."""
    with subreaper():
        process = orphan()
        adopt_stray(process.pid)
        process.end()
        reap_adopted()
        assert is_gone(process)
    adopt_stray(process.pid)
    assert not adopted


@pytest.mark.usefixtures("one_subreaper")
async def test_no_descriptor_is_left_to_watch_a_stray(orphan: Maker) -> None:
    """It is reaped when asked."""
    process = orphan()
    with descriptors.spare(1):  # for its start time
        adopt_stray(process.pid)
    assert not strays
    process.end()
    reap_adopted()
    assert is_gone(process)
    assert not adopted


# containers


@pytest.mark.usefixtures("one_subreaper")
async def test_what_is_in_the_cgroup_of_a_container(orphan: Maker, tmp_path: Path) -> None:
    """The first process is kept for who asks, and every other child of ours is a stray."""
    first, second = orphan(), orphan()
    (tmp_path / "web").mkdir()
    (tmp_path / "cgroup.procs").write_text(f"{first.pid}\n{second.pid}\n")
    record = f'{{"init_process_pid": {first.pid}, "cgroup_paths": {{"pids": "{tmp_path}"}}}}'
    (tmp_path / "web" / "state.json").write_text(record)
    adopt_processes(str(tmp_path), "web")
    assert {process.pid for process in adopted} == {first.pid, second.pid}
    assert {process.pid for process in strays} == {second.pid}
    first.end()
    second.release()
    await until(lambda: not strays)
    assert is_gone(second)
    reap_adopted()
    assert is_gone(first)


@pytest.mark.usefixtures("one_subreaper")
async def test_what_is_in_our_own_cgroup(orphan: Maker, tmp_path: Path) -> None:
    """Where a container shares our cgroup, our other children are nobody's to reap but their owners'."""
    process = orphan()
    (tmp_path / "web").mkdir()
    (tmp_path / "cgroup.procs").write_text(f"{os.getpid()}\n{process.pid}\n")
    (tmp_path / "web" / "state.json").write_text(f'{{"cgroup_paths": {{"pids": "{tmp_path}"}}}}')
    adopt_processes(str(tmp_path), "web")
    assert not adopted


@pytest.mark.usefixtures("one_subreaper")
async def test_a_call_ends_without_a_descriptor_to_look_with(orphan: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be looked at isn't noted, and nothing is raised."""
    process = orphan()

    def ours(_pid: int) -> list[int]:
        return [process.pid]

    monkeypatch.setattr(adoption, "children", ours)
    with descriptors.spare(0):
        adopt(process.pid)
        adopt_stray(process.pid)
        adopt_copies(0)
    assert not adopted
