"""What becomes our child under `subreaper()`, and when it is reaped."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.lowlevel
import children
import descriptors
import pytest
from orphans import Maker, Process, orphans
from waiting import until

import runc_async._exit as exits
from runc_async import _adoption, _process
from runc_async._adoption import adopt_copies, adopt_processes
from runc_async._call import StopPolicy, StreamedOutput
from runc_async._pidfd import pidfd_pid
from runc_async._prctl import PR_SET_CHILD_SUBREAPER, orphans_come_to_us, prctl
from runc_async._process import Child
from runc_async._runner import ProcessRunner
from runc_async._subreaper import adopt, adopt_stray, adopted, claimed, reap_adopted, strays, subreaper
from runc_async._workload import children as children_of


@pytest.fixture
def orphan() -> Iterator[Maker]:
    """Give a function that starts a process with a given exit code whose parent has gone."""
    with orphans() as make:
        yield make


@pytest.fixture
def one_subreaper() -> Iterator[None]:
    """Be a subreaper for one test."""
    with subreaper():
        yield


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


# what a runtime that is ended leaves


def named(directory: Path, name: str, program: str = "/bin/sleep") -> str:
    """Give a program another name."""
    link = directory / name
    link.symlink_to(program)
    return str(link)


@pytest.mark.usefixtures("one_subreaper")
async def test_copies_of_runc_itself(tmp_path: Path) -> None:
    """What carries the name of such a copy, is younger than that runc, and no container's first process, is a stray."""
    since = time.clock_gettime(time.CLOCK_BOOTTIME)
    copy, other = named(tmp_path, "runc:[2:INIT]"), named(tmp_path, "runc")
    script = 'for program in "$@"; do "$program" 1000 >&- & echo $!; done'
    shell = ["/bin/sh", "-c", script, "sh", copy, copy, other]
    told = subprocess.run(shell, stdout=subprocess.PIPE, check=True).stdout  # noqa: ASYNC221 - it is short
    left, first, foreign = map(int, told.split())
    adopt(first)
    adopt_copies(time.clock_gettime(time.CLOCK_BOOTTIME) + 1)
    assert not strays
    adopt_copies(since)
    assert [process.pid for process in strays] == [left]
    for pid in (left, first, foreign):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not strays)
    for pid in (first, foreign):
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it has been killed
    with pytest.raises(ChildProcessError):
        os.waitpid(left, 0)  # noqa: ASYNC222 - there is none
    reap_adopted()


def test_no_copy_is_looked_for_without_a_subreaper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is ours can be one."""

    def no(_pid: int) -> list[int]:
        raise AssertionError("looked for")

    monkeypatch.setattr(_adoption, "children", no)
    adopt_copies(0)
    adopt_processes("/", "web")


FAMILY = "sleep 1000 & sleep 1000 & trap '' TERM; echo x; wait"


@pytest.mark.parametrize("most", [64, 1])
@pytest.mark.usefixtures("one_subreaper")
async def test_what_a_command_has_started_is_reaped(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is cut short, its children become ours, and don't stay zombies; the many that aren't watched neither."""
    monkeypatch.setattr("runc_async._runner.STRAYS", most)
    before = set(children_of(os.getpid()))
    completed = await ProcessRunner().run(children.shell(FAMILY, timeout=0.1))
    assert completed.timed_out
    orphaned = set(children_of(os.getpid())) - before
    assert len(orphaned) == 2
    assert len(strays) == min(most, 2)
    for pid in orphaned:
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not strays)
    while adopted:
        reap_adopted()
        await anyio.sleep(0.01)
    assert set(children_of(os.getpid())) <= before


FORKING = """
import os
os.write(1, b"forks\\n")
while True:
    if not os.fork():
        os._exit(0)
    os.waitpid(-1, os.WNOHANG)
"""
"""A program that makes processes without end, one after the other."""


@pytest.mark.parametrize(
    "policy",
    [StopPolicy(), StopPolicy(grace=5), StopPolicy(grace=5, workload=True), StopPolicy(grace=5, helpers=True)],
    ids=["killed", "terminated", "works on a container", "has helpers"],
)
@pytest.mark.usefixtures("one_subreaper")
async def test_what_a_command_starts_while_it_is_ended(policy: StopPolicy) -> None:
    """A process that it makes just before the signal is reaped like all others."""
    before = set(children_of(os.getpid()))
    invocation = children.shell('exec "$@"', sys.executable, "-c", FORKING, streams=StreamedOutput(), stop=policy)
    for _ in range(20):
        async with contextlib.aclosing(await ProcessRunner().open(invocation)) as process:
            assert process.stdout is not None
            assert await process.stdout.receive() == b"forks\n"
    await until(lambda: set(children_of(os.getpid())) <= before)


@pytest.mark.usefixtures("one_subreaper")
async def test_what_a_command_starts_while_it_is_dropped() -> None:
    """The same where nobody can wait, as in a finalizer."""
    before = set(children_of(os.getpid()))
    invocation = children.shell('exec "$@"', sys.executable, "-c", FORKING, streams=StreamedOutput())
    for _ in range(20):
        process = await ProcessRunner().open(invocation)
        assert process.stdout is not None
        assert await process.stdout.receive() == b"forks\n"
        process.drop()
    await until(lambda: set(children_of(os.getpid())) <= before)


async def noting_child() -> tuple[Child, list[str]]:
    """Start a child whose descendants are noted, and give what there is to see of it then: its state."""
    child, noted = Child(), list[str]()
    null = asyncio.subprocess.DEVNULL
    assert await child.start(["/bin/sleep", "1000"], stdin=null, stdout=null, stderr=null) is None
    stat = Path(f"/proc/{child.pid}/stat")
    child.note_descendants = lambda: noted.append(stat.read_text().rpartition(") ")[2][0])
    return child, noted


async def test_a_command_is_halted_only_as_a_subreaper() -> None:
    """Then it stands still while its descendants are noted; else nothing of the kind is of use."""
    with subreaper():
        child, noted = await noting_child()
        await child.stop(grace=5)
        assert (noted, child.returncode) == (["T"], -signal.SIGTERM)
    child, noted = await noting_child()
    await child.stop()
    assert noted in (["S"], ["R"])


@pytest.mark.usefixtures("one_subreaper")
async def test_a_command_that_does_not_halt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ended when the time for that is up, and goes on before that."""

    def never(_child: Child) -> bool:
        return False

    monkeypatch.setattr(Child, "_has_halted", never)
    monkeypatch.setattr(_process, "HALT_TIME", 0.01)
    child, noted = await noting_child()
    await child.stop(grace=5)
    assert (len(noted), child.returncode) == (1, -signal.SIGTERM)


@pytest.mark.usefixtures("one_subreaper")
async def test_a_command_that_we_may_not_halt(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs as somebody else, as sudo does, gets no signal, and nobody waits for it to stop."""

    def forbid(pidfd: int, signum: int) -> NoReturn:
        raise PermissionError(pidfd, signum)

    monkeypatch.setattr(_process, "HALT_TIME", 1000)
    child, noted = await noting_child()
    with monkeypatch.context() as patch:
        patch.setattr(signal, "pidfd_send_signal", forbid)
        await child.end(signal.SIGTERM)
    assert noted in (["S"], ["R"])
    await child.stop()


BEQUEATHING = """
"$1" -c 'read _ < "$1"; "$0" 0.1 & exit' "$2" "$3" &
echo forks
wait
"""
"""Starts one copy of itself, that starts the next one when it is told to, and ends."""


@pytest.mark.usefixtures("one_subreaper")
async def test_what_a_copy_of_runc_starts_when_runc_is_gone(tmp_path: Path) -> None:
    """It is reaped too: each copy that ends may have made another."""
    before = set(children_of(os.getpid()))
    copies = named(tmp_path, "runc:[1:CHILD]", "/bin/sh"), named(tmp_path, "runc:[2:INIT]")
    with children.post(tmp_path) as orders:
        invocation = children.shell(BEQUEATHING, *copies, orders.path, streams=StreamedOutput())
        async with contextlib.aclosing(await ProcessRunner().open(invocation)) as process:
            assert process.stdout is not None
            assert await process.stdout.receive() == b"forks\n"
        assert len(strays) == 1
        orders.tell("go on")
        await until(lambda: set(children_of(os.getpid())) <= before)


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

    monkeypatch.setattr(_adoption, "children", ours)
    with descriptors.spare(0):
        adopt(process.pid)
        adopt_stray(process.pid)
        adopt_copies(0)
    assert not adopted
