"""Under `subreaper()`: what a runtime has started is reaped when the runtime is ended, and it stands still for that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import children
import pytest
from waiting import until

from runc_async._containers import adoption
from runc_async._containers.adoption import adopt_copies, adopt_processes, looking_again
from runc_async._linux.procfs import children as children_of
from runc_async._linux.subreaper import adopt, adopted, reap_adopted, strays, subreaper
from runc_async._process import child as child_module
from runc_async._process.child import Child
from runc_async._process.running import ProcessRunner
from runc_async.runner import StopPolicy, StreamedOutput


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

    monkeypatch.setattr(adoption, "children", no)
    adopt_copies(0)
    adopt_processes("/", "web")


FAMILY = "sleep 1000 & sleep 1000 & trap '' TERM; echo x; wait"


@pytest.mark.parametrize("most", [64, 1])
@pytest.mark.usefixtures("one_subreaper")
async def test_what_a_command_has_started_is_reaped(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is cut short, its children become ours, and don't stay zombies; the many that aren't watched neither."""
    monkeypatch.setattr("runc_async._process.offspring.STRAYS", most)
    before = set(children_of(os.getpid()))
    completed = await ProcessRunner().run(children.shell(FAMILY, timeout=1.0))
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


def none_beyond(before: set[int]) -> bool:
    """Tell whether no other child is left, once those are reaped that aren't watched: a busy machine makes many."""
    reap_adopted()
    return set(children_of(os.getpid())) <= before


@pytest.mark.parametrize(
    "policy",
    [StopPolicy(), StopPolicy(grace=5), StopPolicy(grace=5, waits_for_process=True), StopPolicy(grace=5, helpers=True)],
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
    await until(lambda: none_beyond(before))


@pytest.mark.usefixtures("one_subreaper")
async def test_what_a_command_starts_while_it_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where nobody can wait, as in a finalizer."""
    monkeypatch.setattr(child_module, "HALT_TIME_AT_ONCE", 1.0)
    before = set(children_of(os.getpid()))
    invocation = children.shell('exec "$@"', sys.executable, "-c", FORKING, streams=StreamedOutput())
    for _ in range(20):
        process = await ProcessRunner().open(invocation)
        assert process.stdout is not None
        assert await process.stdout.receive() == b"forks\n"
        process.drop()
        await process.child.wait()
    await until(lambda: none_beyond(before))


async def noting_child() -> tuple[Child, list[str]]:
    """Start a child whose descendants are noted, and give what there is to see of it then: its state."""
    child, noted = Child(), list[str]()
    null = asyncio.subprocess.DEVNULL
    assert await child.start(["/bin/sleep", "1000"], stdin=null, stdout=null, stderr=null) is None
    stat = Path(f"/proc/{child.pid}/stat")
    child.note_descendants = lambda: noted.append(stat.read_text().rpartition(") ")[2][0])
    return child, noted


@pytest.mark.any_loop
async def test_a_command_is_halted_only_as_a_subreaper() -> None:
    """Then it stands still while its descendants are noted; else nothing of the kind is of use."""
    with subreaper():
        child, noted = await noting_child()
        await child.stop(grace=5)
        assert (noted, child.returncode) == (["T"], -signal.SIGTERM)
    child, noted = await noting_child()
    await child.stop()
    assert len(noted) == 1
    assert noted != ["T"]


async def halted_child(patch: pytest.MonkeyPatch) -> tuple[Child, list[str], asyncio.Task[None]]:
    """Start a child as `noting_child` does, and a task that is about to end it, and waits for its halt until then."""
    patch.setattr(child_module, "HALT_TIME", 1000)
    child, noted = await noting_child()
    ending = asyncio.create_task(child.end(signal.SIGTERM))
    await anyio.lowlevel.checkpoint()
    return child, noted, ending


@pytest.fixture
def never_halted(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let no command be seen to stand still, as one that is busy in the kernel; return what has done it."""

    def never(_child: Child) -> bool:
        return False

    monkeypatch.setattr(Child, "_has_halted", never)
    return monkeypatch


@pytest.mark.any_loop
@pytest.mark.usefixtures("one_subreaper")
async def test_a_command_that_does_not_halt(never_halted: pytest.MonkeyPatch) -> None:
    """It is ended when the time for that is up, and goes on before that."""
    never_halted.setattr(child_module, "HALT_TIME", 0.01)
    child, noted = await noting_child()
    await child.stop(grace=5)
    assert (len(noted), child.returncode) == (1, -signal.SIGTERM)


@pytest.mark.any_loop
@pytest.mark.usefixtures("one_subreaper")
async def test_a_cancel_while_a_command_is_halted(never_halted: pytest.MonkeyPatch) -> None:
    """The signal is sent, and the command goes on and gets it."""
    child, noted, ending = await halted_child(never_halted)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert (len(noted), await child.wait()) == (1, -signal.SIGTERM)


@pytest.mark.any_loop
@pytest.mark.usefixtures("one_subreaper")
async def test_a_command_that_two_halt_at_once(never_halted: pytest.MonkeyPatch) -> None:
    """It stands still until the last one has looked."""
    child, noted, ending = await halted_child(never_halted)
    never_halted.undo()
    await child.end(signal.SIGTERM)
    await ending
    assert (noted, await child.wait()) == (["T", "T"], -signal.SIGTERM)


@pytest.mark.usefixtures("one_subreaper")
async def test_a_command_that_we_may_not_halt(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs as somebody else, as sudo does, gets no signal, and nobody waits for it to stop.

    That goes for the SIGCONT too, which kill(2) allows within a session.
    """
    sent: list[int] = []

    def forbid(pidfd: int, signum: int) -> None:
        sent.append(signum)
        if signum != signal.SIGCONT:
            raise PermissionError(pidfd, signum)

    monkeypatch.setattr(child_module, "HALT_TIME", 1000)
    child, noted = await noting_child()
    with monkeypatch.context() as patch:
        patch.setattr(signal, "pidfd_send_signal", forbid)
        await child.end(signal.SIGTERM)
    assert len(noted) == 1
    assert sent == [signal.SIGSTOP, signal.SIGTERM]
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
        await until(lambda: none_beyond(before))


async def test_many_ends_are_a_reason_for_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for what is younger than any of their runcs; and when a runc is long gone nobody looks."""
    looks: list[float] = []
    monkeypatch.setattr(adoption, "adopt_copies", looks.append)
    for since in (3.0, 1.0, 2.0):
        looking_again(since)()
    await anyio.lowlevel.checkpoint()
    looking_again(4.0)()
    await anyio.lowlevel.checkpoint()
    monkeypatch.setattr(adoption, "COPY_TIME", 0.0)
    looking_again(5.0)()
    await anyio.lowlevel.checkpoint()
    assert looks == [1.0, 4.0]
