"""Exit statuses of processes that are nobody's, somebody else's or our own, with small children."""

from __future__ import annotations

import asyncio
import datetime as dt
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, strategies
from orphans import Maker, Process, orphans

import runc_async._linux.pidfd as pidfds
from runc_async._linux import exits, procfs
from runc_async._linux.exits import wait_pidfd
from runc_async._linux.pidfd import has_exited, kept_status, open_pidfd, pidfd_pid
from runc_async._linux.procfs import ProcessIdentity, SignalView, children, descends_from
from runc_async._linux.subreaper import adopt, adopted, reap_adopted
from runc_async._process.descendants import drops_sigterm
from runc_async.exitstatus import ExitStatus, from_exit_code, from_wait_status

uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, for good: before any test counts descriptors

any_loop = pytest.mark.any_loop


@pytest.fixture
def orphan() -> Iterator[Maker]:
    """Give a function that starts a process with a given exit code whose parent has gone, or goes when told to."""
    with orphans() as make:
        yield make


@pytest.fixture
def child() -> Iterator[Maker]:
    """Give a function that starts a child of ours with a given exit code."""
    made: list[Process] = []

    def make(code: int = 7) -> Process:
        hand, leash = os.pipe2(os.O_CLOEXEC)
        shell = ["/bin/sh", "-c", f"read _; exit {code}"]
        pid = os.posix_spawn("/bin/sh", shell, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, hand, 0)])
        os.close(hand)
        made.append(Process(pid, leash))
        return made[-1]

    yield make
    for process in made:
        process.close()


def kernel_keeps_statuses() -> bool:
    """Say whether the kernel has the status of a reaped process for its pidfd."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    try:
        return kept_status(pidfd) == 0
    except OSError:
        return False
    finally:
        os.close(pidfd)


needs_kept_status = pytest.mark.skipif(not kernel_keeps_statuses(), reason="needs Linux 6.15")


async def until_awaited(count: int = 1) -> None:
    """Return as soon as so many waits are under way in this loop."""
    loop = asyncio.get_running_loop()
    while loop not in exits.watches or sum(map(len, exits.watches[loop].waits.values())) < count:  # noqa: ASYNC110  (nothing tells of it)
        await asyncio.sleep(0)


@any_loop
@needs_kept_status
async def test_the_status_of_somebody_elses_child(orphan: Maker) -> None:
    """The exit code of a process that is not our child comes from the kernel, once its parent has reaped it."""
    process = orphan(7)
    before = dt.datetime.now(dt.UTC)
    waiting = asyncio.create_task(wait_pidfd(process.pidfd))
    await until_awaited()
    process.release()
    status = await waiting
    assert (status.code, status.signal, status.oom_killed) == (7, None, None)
    assert status.exited_at is not None
    assert before <= status.exited_at <= dt.datetime.now(dt.UTC)


@any_loop
@needs_kept_status
async def test_the_signal_of_somebody_elses_child(orphan: Maker) -> None:
    """A process that was killed has a signal and no code."""
    process = orphan()
    process.kill()
    status = await wait_pidfd(process.pidfd)
    assert (status.code, status.signal, status.exit_code) == (None, 9, 137)


@any_loop
@pytest.mark.usefixtures("one_subreaper")
@pytest.mark.parametrize("code", [0, 7, 255])
async def test_a_subreaper_reaps_what_it_waits_for(orphan: Maker, code: int) -> None:
    """The orphan of a subreaper is its child: the wait tells the code and leaves no zombie."""
    process = orphan(code)
    waiting = asyncio.create_task(wait_pidfd(process.pidfd))
    await until_awaited()
    process.release()
    assert (await waiting).code == code
    with pytest.raises(ProcessLookupError):
        pidfd_pid(process.pidfd)


@any_loop
@pytest.mark.usefixtures("one_subreaper")
async def test_a_subreaper_sees_signals(orphan: Maker) -> None:
    """The orphan of a subreaper that is killed has its signal."""
    process = orphan()
    process.kill()
    assert (await wait_pidfd(process.pidfd)).signal == 9


@any_loop
@pytest.mark.usefixtures("one_subreaper")
@pytest.mark.parametrize("kernel", ["this", "old"])
async def test_a_zombie_that_becomes_ours(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends before its parent, runc, is reaped by us when runc has exited without reaping it."""
    if kernel == "old":
        monkeypatch.setattr(exits, "kept_status", refuse(errno.ENOTTY))
    parent, pidfd = await neglectful_parent()
    waiting = asyncio.create_task(wait_pidfd(pidfd))
    await until_awaited()
    await parent.communicate(b"")
    assert (await waiting).code == 7
    os.close(pidfd)


async def neglectful_parent() -> tuple[asyncio.subprocess.Process, int]:
    """Start a child that has a zombie, exited with 7, until its input ends; return it and the zombie's pidfd."""
    script = """if 1:
        import os, sys
        pid = os.fork() or os._exit(7)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        print(pid, flush=True)
        sys.stdin.read()
    """
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdin=pipe, stdout=pipe)
    assert parent.stdout is not None
    return parent, os.pidfd_open(int(await parent.stdout.readline()))


@any_loop
async def test_a_child_is_not_stolen(child: Maker) -> None:
    """With `reap=False` the status of a child is told, and its owner can still wait for it."""
    process = child(7)
    process.release()
    assert (await wait_pidfd(process.pidfd, reap=False)).code == 7
    assert process.reaped() == 7 << 8


@any_loop
async def test_a_child_of_asyncio_is_left_to_it() -> None:
    """Beside asyncio's own wait for the same process both learn the status."""
    process = await asyncio.create_subprocess_exec("sh", "-c", "read _; exit 7", stdin=asyncio.subprocess.PIPE)
    pidfd = os.pidfd_open(process.pid)
    waiting = asyncio.create_task(wait_pidfd(pidfd, reap=False))
    await until_awaited()
    await process.communicate(b"\n")
    assert process.returncode == 7
    assert (await waiting).code in {7, None if not kernel_keeps_statuses() else 7}
    os.close(pidfd)


@any_loop
@pytest.mark.usefixtures("one_subreaper")
async def test_other_children_are_left_alone(orphan: Maker) -> None:
    """A subreaper that waits for orphans takes no status away from subprocess and asyncio."""
    theirs = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
    synchronous = subprocess.Popen(["sh", "-c", "exit 4"])  # noqa: S607, ASYNC220  (any sh; what is tested)
    process = orphan(7)
    adopt(process.pid)
    process.release()
    assert (await wait_pidfd(process.pidfd)).code == 7
    reap_adopted()
    assert await theirs.wait() == 3
    assert synchronous.wait() == 4


@any_loop
async def test_the_time_of_an_end_that_nobody_saw_is_unknown(child: Maker) -> None:
    """`exited_at` is only given if the wait was there when the process ended."""
    process = child(0)
    process.end()
    assert await wait_pidfd(process.pidfd) == ExitStatus(code=0)


def refuse(number: int) -> Callable[[int], int | None]:
    """Make a `kept_status` that fails as it does on another kernel."""

    def kept_status(pidfd: int) -> int | None:
        del pidfd
        raise OSError(number, os.strerror(number))

    return kept_status


@any_loop
@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EINVAL, errno.ESRCH], ids=["6.12", "other", "6.14"])
async def test_a_status_that_nobody_keeps_is_unknown(
    orphan: Maker, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On kernels that don't keep statuses a zombie that we may not see is unknown, not 0, at the end of the process."""
    monkeypatch.setattr(exits, "kept_status", refuse(number))
    monkeypatch.setattr(exits, "zombie_status", unseen)
    process = orphan(0)
    process.release()
    status = await wait_pidfd(process.pidfd)
    assert not status.known
    assert status.code is None


@any_loop
@pytest.mark.usefixtures("one_subreaper")
async def test_a_status_that_somebody_else_has_taken_is_unknown(orphan: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where we may become the parent and the kernel keeps nothing, a reaped process is not waited for."""
    monkeypatch.setattr(exits, "kept_status", refuse(errno.ENOTTY))
    process = orphan(0)
    process.release()
    process.reaped()
    assert not (await wait_pidfd(process.pidfd)).known


def unseen(pidfd: int) -> int | None:
    """Say of every zombie that it isn't ours to look into."""
    del pidfd
    return None


@any_loop
async def test_a_parent_that_does_not_reap_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a zombie that we may not see stays one for `reap_timeout` its status is unknown."""
    monkeypatch.setattr(exits, "zombie_status", unseen)
    parent, pidfd = await neglectful_parent()
    assert not (await wait_pidfd(pidfd, reap_timeout=0.05)).known
    os.close(pidfd)
    await parent.communicate(b"")


@any_loop
@pytest.mark.parametrize("kernel", ["this", "old"])
@pytest.mark.parametrize("reap", [True, False])
async def test_a_parent_that_does_not_reap_is_not_waited_for(
    kernel: str,
    reap: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The zombie tells its status at once, on every kernel, however long its parent lets it be one."""
    if kernel == "old":
        monkeypatch.setattr(exits, "kept_status", refuse(errno.ENOTTY))
    parent, pidfd = await neglectful_parent()
    async with asyncio.timeout(5):
        assert (await wait_pidfd(pidfd, reap=reap, reap_timeout=600)).code == 7
    assert pidfd_pid(pidfd) > 0
    os.close(pidfd)
    await parent.communicate(b"")


@any_loop
@pytest.mark.usefixtures("one_subreaper")
async def test_a_subreapers_grandchild_whose_parent_does_not_reap() -> None:
    """What may become our child is waited for until then; after `reap_timeout` its zombie tells its status."""
    parent, pidfd = await neglectful_parent()
    assert (await wait_pidfd(pidfd, reap_timeout=0.05)).code == 7
    await parent.communicate(b"")
    assert (await wait_pidfd(pidfd)).code == 7
    os.close(pidfd)


async def test_the_end_is_not_the_reaping() -> None:
    """The end of a process is waited for, and not what its parent does about it; its reaping can be waited for too."""
    parent, pidfd = await neglectful_parent()
    async with asyncio.timeout(5):
        await exits.wait_exited(pidfd)
    reaping = asyncio.create_task(exits.wait_reaped(pidfd))
    await until_awaited()
    assert not reaping.done()
    await parent.communicate(b"")
    if kernel_keeps_statuses():
        async with asyncio.timeout(10):
            await reaping
    reaping.cancel()
    os.close(pidfd)


LEADER_FIRST = """if 1:
    import ctypes, os, sys, threading
    from runc_async._linux.pidfd import has_exited
    libc = ctypes.CDLL(None)

    def last() -> None:
        while open(f"/proc/self/task/{os.getpid()}/stat").read().rpartition(")")[2].split()[0] != "Z":
            pass
        print(flush=True)
        sys.stdin.readline()
        os._exit(7)

    threading.Thread(target=last).start()
    libc.syscall(ctypes.c_long(60 if os.uname().machine == "x86_64" else 93), 0)
"""
"""A process whose first thread ends with 0, and another one later with 7; exit(2) has these numbers."""


def of_the_first_thread(pid: int, field: int) -> int:
    """Tell the exit code as a kernel before Linux 5.17 does."""
    del pid, field
    return 0


@pytest.mark.parametrize("kernel", ["this", "5.16"])
def test_a_leader_that_ends_before_its_process(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose first thread has ended is no zombie, and it is the last thread's code that is told, or none."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", LEADER_FIRST], stdin=pipe, stdout=pipe)
    pidfd = os.pidfd_open(process.pid)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        assert pidfds.zombie_status(pidfd) is None
        process.stdin.close()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        if kernel == "5.16":
            monkeypatch.setattr(pidfds, "stat_field", of_the_first_thread)
            monkeypatch.setattr(pidfds, "TELLS_PROCESS", False)
            assert pidfds.zombie_status(pidfd) is None
        elif pidfds.TELLS_PROCESS:
            assert pidfds.zombie_status(pidfd) == 7 << 8
    os.close(pidfd)


@pytest.mark.root
@pytest.mark.parametrize("code", [0, 7])
def test_a_zombie_that_is_not_ours_to_see(child: Maker, code: int) -> None:
    """Without the permission to look into a process the kernel reports 0 for it; that is never believed."""
    process = child(code)
    process.end()
    assert pidfds.zombie_status(process.pidfd) == code << 8
    script = f"""if 1:
        import codecs, ctypes, os
        from runc_async._linux.pidfd import pidfd_pid, zombie_status
        codecs.lookup("ascii")  # while Python's own files can be read
        pidfd = os.pidfd_open({process.pid})
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: the change of user has taken /proc/self away
        pidfd_pid(pidfd)
        print(zombie_status(pidfd))
        print(open("/proc/{process.pid}/stat").read().split()[-1])
    """
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["None", "0"]


def test_a_zombie_that_is_reaped_while_it_is_read(child: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read under a number that was set free meanwhile isn't believed."""
    process = child(7)
    process.end()

    def read_late(pid: int, field: int) -> int:
        del pid, field
        return process.reaped()

    monkeypatch.setattr(pidfds, "stat_field", read_late)
    assert pidfds.zombie_status(process.pidfd) is None


def test_a_zombie_without_a_descriptor_to_look_with(child: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A want of descriptors is an error and not an unknown status."""
    process = child(7)
    process.end()

    def refuse_to_read(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(pidfds, "stat_field", refuse_to_read)
    with pytest.raises(OSError, match="Too many open files"):
        pidfds.zombie_status(process.pidfd)


@any_loop
async def test_out_of_memory_is_read_at_the_end(child: Maker, tmp_path: Path) -> None:
    """What the cgroup counts when the process has ended decides, compared with what it counted before."""
    events = tmp_path / "memory.events"
    events.write_text("oom_kill 2\n")
    process = child(1)
    waiting = asyncio.create_task(wait_pidfd(process.pidfd, memory_cgroup=tmp_path, oom_kills_before=2))
    await until_awaited()
    events.write_text("oom_kill 3\n")
    process.release()
    assert (await waiting).oom_killed is True


@pytest.mark.parametrize(("content", "expected"), [("oom_kill 2\n", False), ("low 0\n", None)])
async def test_no_out_of_memory_is_told_from_unknown(
    child: Maker,
    tmp_path: Path,
    content: str,
    expected: bool | None,  # noqa: FBT001  (a parameter of the test)
) -> None:
    """A counter that has not moved is False, and one that isn't there is None."""
    (tmp_path / "memory.events").write_text(content)
    process = child(0)
    process.release()
    status = await wait_pidfd(process.pidfd, memory_cgroup=tmp_path, oom_kills_before=2)
    assert status.oom_killed is expected


@any_loop
async def test_a_cancelled_wait_changes_nothing(child: Maker) -> None:
    """After a cancel the process runs, its status is there to be asked again, and the loop watches nothing."""
    process = child(7)
    waiting = asyncio.create_task(wait_pidfd(process.pidfd))
    await until_awaited()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not exits.watches
    process.release()
    assert (await wait_pidfd(process.pidfd)).code == 7


@any_loop
@needs_kept_status
async def test_two_waits_for_one_process(child: Maker) -> None:
    """Each of several waits for the same pidfd is told."""
    process = child(7)
    waits = [asyncio.create_task(wait_pidfd(process.pidfd)) for _ in range(3)]
    await until_awaited(3)
    process.release()
    assert [status.code for status in await asyncio.gather(*waits)] == [7, 7, 7]


@any_loop
async def test_many_waits_share_one_descriptor_and_one_reader(child: Maker) -> None:
    """Fifty waits cost one descriptor more, and no thread; each is told its own status."""
    processes = [child(code) for code in range(50)]
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    waits = [asyncio.create_task(wait_pidfd(process.pidfd)) for process in processes]
    await until_awaited(50)
    assert len(os.listdir("/proc/self/fd")) == descriptors + 1
    assert threading.active_count() == threads
    for process in reversed(processes):
        process.release()
    assert [status.code for status in await asyncio.gather(*waits)] == list(range(50))
    assert not exits.watches


def ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Be an event loop's handler of exceptions that does nothing."""
    del loop, context


def test_a_loop_that_was_closed_without_its_end_is_forgotten(child: Maker) -> None:
    """The watch of a loop that was closed under a wait is closed by the next one that is made."""
    process = child(7)
    abandoned = asyncio.new_event_loop()
    abandoned.set_exception_handler(ignore)  # it would complain of the task
    task = abandoned.create_task(wait_pidfd(process.pidfd))
    abandoned.run_until_complete(until_awaited())
    abandoned.close()
    process.release()
    assert asyncio.run(wait_pidfd(process.pidfd)).code == 7
    assert not exits.watches
    # The task is told to end, which nobody can do any more through its loop.
    task.get_coro().close()  # pyright: ignore[reportOptionalMemberAccess]  # it has one
    del task


async def test_what_is_no_pidfd_is_refused() -> None:
    """A regular file can't be waited for, and nothing is left of the attempt."""
    memory = os.memfd_create("no-pidfd")
    with pytest.raises(PermissionError):
        await wait_pidfd(memory)
    os.close(memory)
    assert not exits.watches


async def test_a_pidfd_that_is_closed_too_early_breaks_nothing_else(child: Maker) -> None:
    """A wait whose pidfd was closed can still be cancelled."""
    process = child(7)
    twin = os.dup(process.pidfd)
    only = os.pidfd_open(process.pid)
    waiting = asyncio.create_task(wait_pidfd(only))
    await until_awaited()
    os.close(only)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    os.close(twin)
    process.release()


@pytest.mark.usefixtures("one_subreaper")
async def test_adopted_processes_are_left_to_their_wait(orphan: Maker) -> None:
    """What a task waits for is not reaped under its hands."""
    process = orphan(7)
    adopt(process.pid)
    waiting = asyncio.create_task(wait_pidfd(process.pidfd))
    await until_awaited()
    process.end()
    reap_adopted()
    assert pidfd_pid(process.pidfd) == process.pid
    assert (await waiting).code == 7
    reap_adopted()
    assert not adopted


async def test_reaping_while_another_thread_waits(child: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits of other threads begin and end, and their pidfds become other files, while this one looks at them."""
    process = child(7)
    waiting = asyncio.create_task(wait_pidfd(process.pidfd, reap=False))
    await until_awaited()
    waits = next(iter(exits.watches.values())).waits
    memory, closed = os.memfd_create("no-pidfd"), os.dup(process.pidfd)
    os.close(closed)
    looked: list[int] = []

    def look(pidfd: int) -> int:
        looked.append(pidfd)
        waits[1000 + pidfd] = []
        return pidfd_pid(pidfd)

    monkeypatch.setattr(exits, "pidfd_pid", look)
    waits |= {memory: [], closed: []}
    reap_adopted()
    assert looked == [process.pidfd, memory, closed]
    for number in (memory, closed, *(1000 + pidfd for pidfd in looked)):
        del waits[number]
    process.release()
    assert (await waiting).code == 7
    os.close(memory)
    assert process.reaped() == 7 << 8


def gone() -> int:
    """Return the number of a process that is gone."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


def test_a_pidfd_is_opened_for_the_very_process(child: Maker) -> None:
    """The pidfd of an identity is of that process."""
    process = child()
    identity = ProcessIdentity.of(process.pid)
    assert identity.exists()
    pidfd = open_pidfd(identity)
    assert pidfd_pid(pidfd) == process.pid
    assert not os.get_inheritable(pidfd)
    os.close(pidfd)


def test_a_number_that_is_in_use_again_is_refused(child: Maker) -> None:
    """A process with the same number that started at another time is another one."""
    identity = ProcessIdentity.of(child().pid)
    other = identity._replace(start_time=identity.start_time - 1)
    assert not other.exists()
    with pytest.raises(ProcessLookupError, match=f"process {identity.pid} is gone"):
        open_pidfd(other)


def test_a_process_that_is_gone_is_refused() -> None:
    """There is neither an identity nor a pidfd of a process that was reaped."""
    pid = gone()
    with pytest.raises(ProcessLookupError, match=f"process {pid} is gone"):
        ProcessIdentity.of(pid)
    assert not ProcessIdentity(pid, 1).exists()
    with pytest.raises(ProcessLookupError):
        open_pidfd(ProcessIdentity(pid, 1))


SETTINGS = {
    "default": "",
    "caught": "signal.signal(signal.SIGTERM, print)",
    "ignored": "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_how_a_process_stands_to_a_signal(setting: str) -> None:
    """What it catches, ignores or blocks is seen, and that it is no namespace's first process."""
    script = f"import signal\n{SETTINGS[setting]}\nprint(flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        view = SignalView.of(process.pid)
        process.communicate(b"\n")
    assert view.namespace_init is False
    assert bool(view.regarded >> (signal.SIGTERM - 1) & 1) is (setting != "default")
    assert view.drops(signal.SIGTERM) is False


@pytest.mark.root
def test_the_first_process_of_a_namespace() -> None:
    """It never gets a signal that it has no handler for, and the others."""
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", "trap exit USR1; echo; read word"],  # noqa: S607
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (pid,) = children(process.pid)
        view = SignalView.of(pid)
        assert drops_sigterm(process.pid)
        process.communicate(b"\n")
    assert view.namespace_init
    assert view.drops(signal.SIGTERM)
    assert not view.drops(signal.SIGUSR1)
    assert not drops_sigterm(process.pid)


@pytest.mark.root
def test_a_first_process_that_fetches_signals() -> None:
    """One in sigtimedwait(2) shows no signal as blocked, and gets them all the same."""
    script = "import signal; signal.pthread_sigmask(2, [15]); print(flush=True); signal.sigtimedwait([15], 600)"
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-ISc", script],  # noqa: S607
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (pid,) = children(process.pid)
        while not (view := SignalView.of(pid)).fetching:  # it is about to be
            time.sleep(0.001)
        assert not view.regarded >> (signal.SIGTERM - 1) & 1
        assert not view.drops(signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)


def test_a_process_that_is_gone_stands_nowhere() -> None:
    """There is nothing to be told of a process that was reaped."""
    pid = gone()
    with pytest.raises(ProcessLookupError, match=f"process {pid} is gone"):
        SignalView.of(pid)


def test_a_zombie_has_an_identity(child: Maker) -> None:
    """A process that has ended and was not reaped still holds its number."""
    process = child()
    identity = ProcessIdentity.of(process.pid)
    assert not has_exited(process.pidfd)
    process.end()
    assert has_exited(process.pidfd)
    assert identity.exists()


def test_only_a_pidfd_has_a_process() -> None:
    """Another kind of descriptor is told from a pidfd."""
    memory = os.memfd_create("no-pidfd")
    with pytest.raises(ValueError, match=f"descriptor {memory} is no pidfd"):
        pidfd_pid(memory)
    os.close(memory)


def test_descent_is_traced_through_procfs(orphan: Maker) -> None:
    """A process descends from itself and its ancestors, from nobody else, and a dead one can't be traced."""
    process = orphan(parent="exit 0")
    assert descends_from(process.pid, process.pid)
    assert descends_from(os.getpid(), os.getppid())
    assert descends_from(os.getppid(), os.getpid()) is False
    assert descends_from(0, os.getpid()) is False
    assert descends_from(gone(), os.getpid()) is None


def test_a_name_with_brackets_does_not_confuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second field of the process table's line may hold anything."""
    (tmp_path / "5").mkdir()
    fields = " ".join(str(number) for number in range(5, 53))
    (tmp_path / "5" / "stat").write_bytes(b"5 (a) R 9 (\xff) S 4 " + fields.encode())
    monkeypatch.setattr(procfs, "PROC", tmp_path)
    assert ProcessIdentity.of(5) == (5, 22)


@given(code=strategies.integers(0, 255))
def test_a_wait_status_of_an_exit_is_its_code(code: int) -> None:
    """All codes are told, and none of them has a signal."""
    status = from_wait_status(code << 8)
    assert (status.code, status.signal, status.exit_code, status.known) == (code, None, code, True)


@given(number=strategies.integers(1, 64), dumped=strategies.booleans())
def test_a_wait_status_of_a_death_is_its_signal(number: int, dumped: bool) -> None:  # noqa: FBT001  (from Hypothesis)
    """All signals are told, with or without a core dump."""
    status = from_wait_status(number | (0x80 if dumped else 0))
    assert (status.code, status.signal, status.exit_code, status.known) == (None, number, 128 + number, True)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (None, ExitStatus()),
        (0, ExitStatus(code=0)),
        (128, ExitStatus(code=128)),
        (129, ExitStatus(signal=1)),
        (192, ExitStatus(signal=64)),
        (193, ExitStatus(code=193)),
        (255, ExitStatus(code=255)),
    ],
)
def test_an_exit_code_of_runc_may_be_a_signal(code: int | None, expected: ExitStatus) -> None:
    """What a foreground runc ends with is a signal's death where there is such a signal."""
    assert from_exit_code(code) == expected


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"code": 0}, "exited with 0"),
        ({"code": 1, "oom_killed": True}, "exited with 1 (out of memory)"),
        ({"signal": 9}, "killed by SIGKILL"),
        ({"signal": 9, "oom_killed": True}, "killed by SIGKILL (out of memory)"),
        ({"signal": 40, "oom_killed": False}, "killed by signal 40"),
        ({}, "exited with an unknown status"),
    ],
)
def test_a_status_reads_as_a_sentence(fields: dict[str, Any], text: str) -> None:
    """`str()` says how the process ended."""
    assert str(ExitStatus(**fields)) == text


def test_an_unknown_status_is_no_success() -> None:
    """What isn't known has no code, no shell's code, and isn't known."""
    status = ExitStatus()
    assert (status.code, status.exit_code, status.known) == (None, None, False)
