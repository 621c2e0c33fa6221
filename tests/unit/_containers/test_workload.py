"""The process of a container's that a runc waits for: played by a shell that plays runc."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import inspect
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec
import pytest
from children import alive, gone, post, shell
from runtime import KERNEL_KEEPS
from waiting import until

import runc_async
from runc_async._containers.workload import Workload
from runc_async._linux.pidfd import HeldPidfd, pidfd_numbers, pidfd_pid
from runc_async._linux.procfs import began_since, children, descendants
from runc_async._process.descendants import drops_sigterm, kill_descendants
from runc_async._process.running import ProcessRunner
from runc_async.runner import Invocation, PidfdSocket, PidFile, PrivateLog, StopPolicy
from runc_async.stdio import NullIO

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.any_loop

PROCESS = "sleep 100 & trap 'kill $!' TERM; tell $! $1; wait $!; wait $!"
"""What runc does: it starts the process, tells its pid, forwards SIGTERM, and waits."""


def runc(script: str, pid_file: str | None = None, **settings: object) -> Invocation:
    """Return a runc that runs `script`, with the path for the pid in $1."""
    made = shell("tell() { echo $1 > $2.tmp; mv $2.tmp $2; }; " + script, streams=NullIO(), **settings)
    return Invocation(
        command="exec",
        argv=(*made.argv, PidFile(pid_file)),
        streams=NullIO(),
        stop=StopPolicy(grace=5.0, waits_for_process=True),
    )


async def test_children_and_theirs(tmp_path: Path) -> None:
    """All descendants of a process are killed, and not the process itself."""
    with post(tmp_path) as said:
        process = await ProcessRunner().open(
            shell(
                f"sh -c 'sleep 100 & echo $! > {said.path}; wait' & echo $! > {said.path}; wait; exit 7",
                streams=NullIO(),
            )
        )
        pids = {int(await said.word()), int(await said.word())}
        assert set(children(process.pid)) < pids
        kill_descendants(process.pid)
        assert (await process.wait()).returncode == 7
        for pid in pids:
            await gone(pid)
        await process.aclose()


BREEDING = """
import os, signal
os.write(1, b".")
for _ in range(300):
    if not os.fork():
        signal.pause()
signal.pause()
"""
"""A program that makes processes all the time."""


async def test_what_forks_while_it_is_killed() -> None:
    """A child that a process makes while its tree is listed is killed with the tree."""
    for _ in range(5):
        argv = ["/bin/sh", "-c", '"$@" & wait', "sh", sys.executable, "-ISc", BREEDING]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as top:  # noqa: ASYNC220 - a byte
            assert top.stdout is not None
            assert top.stdout.read(1) == b"."
            kill_descendants(top.pid)
            top.wait()
        await until(lambda: not members(top.pid))


def members(session: int) -> list[int]:
    """Return the processes of a session that aren't zombies."""
    found: list[int] = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            state, _, _, leader = file.read().rpartition(b") ")[2].split()[:4]
            if int(leader) == session and state != b"Z":
                found.append(int(pid))
    return found


async def test_the_children_of_a_process_that_is_killed_first(tmp_path: Path) -> None:
    """What the container's process has started ends with it, although it gets another parent at that moment."""
    with post(tmp_path) as said:
        script = f"trap '' TERM; sh -c 'setsid sleep 100 & echo $! > {said.path}; wait' & tell $! $1; wait"
        invocation = msgspec.structs.replace(runc(script), stop=StopPolicy(waits_for_process=True))
        process = await ProcessRunner().open(invocation)
        child = int(await said.word())
        assert await process.started() is None
        await process.aclose()
        await gone(child)
        process.close_workload()


async def test_a_number_that_changed_hands(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that isn't the child of its parent any more isn't killed."""
    process = await ProcessRunner().open(shell("exec sleep 100", streams=NullIO()))

    def descendants(_: int) -> list[tuple[int, int]]:
        return [(process.pid, 1 << 22), (1 << 22, 1)]

    monkeypatch.setattr("runc_async._process.descendants.descendants", descendants)
    kill_descendants(1)
    assert alive(process.pid)
    await process.aclose()


GROWING = """
import os, signal
for number in range({number}):
    {condition} os.fork(): break
else:
    os.write(1, b".")
signal.pause()
"""


@pytest.mark.parametrize("condition", ["if", "if not"], ids=["in a line", "side by side"])
async def test_a_container_decides_how_many_there_are(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that stand in a line deeper than Python recurses, or are many, are found in one look at each."""
    number = 120
    looks: list[int] = []

    def look(pid: int) -> list[int]:
        looks.append(pid)
        return children(pid)

    script = GROWING.format(number=number, condition=condition)
    argv = [sys.executable, "-ISc", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as top:  # noqa: ASYNC220 - a byte
        assert top.stdout is not None
        try:
            assert top.stdout.read(1) == b"."
            for place in ("_linux.procfs", "_process.descendants"):
                monkeypatch.setattr(f"runc_async.{place}.children", look)
            with recursion(number // 2):
                assert not drops_sigterm(top.pid)
                found = descendants(top.pid)
                kill_descendants(top.pid)
            assert len(found) == number
            assert len(looks) == 4 * (number + 1)  # to kill them takes two: a second one shows no new process
            for pid, _ in found:
                await gone(pid)
        finally:
            os.killpg(top.pid, signal.SIGKILL)


@contextlib.contextmanager
def recursion(depth: int) -> Generator[None]:
    """Let Python recurse only so deep in the block."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + depth)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def test_the_children_of_nobody() -> None:
    """A process that is gone has no children."""
    assert children(1 << 22) == []


@pytest.mark.parametrize("own_path", [False, True])
async def test_the_process_is_known_and_its_end_is_heard(tmp_path: Path, own_path: bool) -> None:  # noqa: FBT001
    """The process is known when runc has written its pid, and its end is heard before runc's."""
    path = str(tmp_path / "pid") if own_path else None
    with post(tmp_path) as said:
        process = await ProcessRunner().open(
            runc(f"sleep 100 & tell $! $1; wait; read word < {said.path}; exit 7", path)
        )
        assert process.workload is not None
        await process.workload.started
        assert process.workload.pid in children(process.pid)
        assert not process.workload.exited.done()
        process.workload.send_signal(signal.SIGTERM)
        await process.workload.exited
        assert process.child.returncode is None
        said.tell("go on")
        assert (await process.wait()).returncode == 7
        await process.aclose()
    assert (tmp_path / "pid").exists() is own_path


@pytest.mark.parametrize("there", [True, False], ids=["before the loop turns", "afterwards"])
async def test_others_make_more_files_than_the_kernel_reports(tmp_path: Path, there: bool) -> None:  # noqa: FBT001
    """A pid file of the caller's in a directory where much is written is found, although its event was dropped."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    crowd = [str(tmp_path / name) for name in ("one", "other")]
    workload = Workload(str(tmp_path / "pid"))
    try:
        for number in range(most + 1):  # in turn: an event like the one before it is none
            os.close(os.open(crowd[number % 2], os.O_WRONLY | os.O_CREAT))
        if not there:
            await asyncio.sleep(0)
            assert not workload.started.done()
        (tmp_path / ".pid").write_text(str(os.getpid()))
        (tmp_path / ".pid").rename(tmp_path / "pid")
        async with asyncio.timeout(10):
            await workload.started
        assert workload.pid == os.getpid()
    finally:
        workload.close()


async def test_nothing_is_left_of_a_private_pid_file() -> None:
    """The private directory is there for runc, through a descriptor, and gone afterwards."""
    workload = Workload(None, above=40)
    assert workload.directory_fd >= 40
    directory = os.readlink(f"/proc/self/fd/{workload.directory_fd}")
    assert os.path.isdir(directory)
    workload.close()
    workload.close()
    assert not os.path.exists(directory)


async def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    """A pid file of the caller's in a directory that isn't there is for runc to report, whose end ends the wait."""
    for parent in ("missing", "file"):
        (tmp_path / "file").touch()
        process = await ProcessRunner().open(runc("exit 3", str(tmp_path / parent / "pid")))
        completed = await process.started()
        assert completed is not None
        assert (completed.returncode, completed.process) == (3, None)
        await process.aclose()


UNREADABLE = """if 1:
    import asyncio, os, sys
    from runc_async._linux.libc import libc
    from runc_async._containers.workload import Workload

    async def main():
        libc()  # while Python's own files can be read
        os.chdir(sys.argv[1])
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        workload = Workload("dark/pid")
        with open("dark/.pid", "w") as file:
            file.write(str(os.getpid()))
        os.rename("dark/.pid", "dark/pid")
        async with asyncio.timeout(20):
            await workload.started
        workload.check()
        print(workload.pid == os.getpid())
        workload.close()

    asyncio.run(main())
"""


@pytest.mark.root
def test_a_directory_that_may_be_written_and_not_read(tmp_path: Path) -> None:
    """A pid file in a directory of mode 0300, which inotify can't watch for a user other than root, is found."""
    (tmp_path / "dark").mkdir(mode=0o300)
    os.chown(tmp_path / "dark", 65534, 65534)
    tmp_path.chmod(0o711)
    argv = [sys.executable, "-c", UNREADABLE, str(tmp_path)]
    assert subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout == b"True\n"


@pytest.mark.parametrize(
    "script",
    ["tell $OLDER $1; trap '' TERM; sleep 100", "tell $OLDER $1; exit 2", "echo $OLDER > ${1%/*}/.pid; exit 2"],
    ids=["stopped", "broken down", "not even told"],
)
async def test_a_process_that_was_there_before(script: str) -> None:
    """A number that means another process here, as one from another pid namespace may, has nobody killed."""
    older = await asyncio.create_subprocess_exec("/bin/sleep", "100")
    await until(lambda: not began_since(older.pid, time.clock_gettime(time.CLOCK_BOOTTIME)))  # it counts in ticks
    try:
        env = {"OLDER": str(older.pid)}
        process = await ProcessRunner().open(
            msgspec.structs.replace(runc(script), env=env, stop=StopPolicy(waits_for_process=True))
        )
        assert process.workload is not None
        await process.child.wait(or_for=process.workload.started)
        await process.aclose()
        completed = await process.wait()
        assert completed.process == ("none" if script.startswith("echo") else None)
        assert alive(older.pid)
    finally:
        older.kill()
        await older.wait()


async def test_a_file_from_before(tmp_path: Path) -> None:
    """What is in the caller's place for the pid from the time before is no news; nor is its absence."""
    pid_file = tmp_path / "pid"
    for content in ("", str(os.getpid())):
        if content:
            pid_file.write_text(content)
        process = await ProcessRunner().open(runc("exit 2", str(pid_file)))
        completed = await process.started()
        assert completed is not None
        assert completed.process is None
        await process.aclose()


async def test_signals_before_it_has_started() -> None:
    """A process that hasn't started gets no signal, and nobody else gets it."""
    workload = Workload(None)
    workload.send_signal(signal.SIGKILL)
    assert workload.wait_status is None
    with pytest.raises(ProcessLookupError):
        workload.take()
    workload.close()


async def test_a_process_that_is_gone_when_its_pid_is_told() -> None:
    """A process that ended and was reaped before its pid was told counts as ended."""
    process = await ProcessRunner().open(runc("true & pid=$!; wait; tell $pid $1; exec sleep 100"))
    assert process.workload is not None
    await process.workload.exited
    assert process.workload.started.done()
    process.workload.send_signal(signal.SIGKILL)
    await process.aclose()


@pytest.mark.parametrize("content", ["", "no number", "-"])
async def test_a_pid_file_without_a_pid(content: str) -> None:
    """A pid file that holds no pid tells nothing; runc's end ends the call."""
    completed = await ProcessRunner().run(runc(f"tell '{content}' $1; exit 3"))
    assert completed.returncode == 3


async def test_files_of_other_names(tmp_path: Path) -> None:
    """Other files that come into the directory of the caller's pid file say nothing."""
    process = await ProcessRunner().open(runc(f"touch $1.x; mv $1.x $1.y; {PROCESS}", str(tmp_path / "pid")))
    assert process.workload is not None
    await process.workload.started
    assert process.workload.pid in children(process.pid)
    await process.aclose()


async def test_taking_the_pidfd() -> None:
    """The pidfd can be taken over; it is the taker's then."""
    process = await ProcessRunner().open(runc(PROCESS))
    assert process.workload is not None
    await process.workload.started
    pid, pidfd = process.workload.take()
    await process.aclose()
    await gone(pid)
    os.fstat(pidfd)
    os.close(pidfd)


async def test_taking_after_runc_has_ended(tmp_path: Path) -> None:
    """A process that outlives runc is found by its pid file, also when the news of that hasn't come yet."""
    with post(tmp_path) as said:
        process = await ProcessRunner().open(runc(f"sleep 100 & tell $! $1; echo > {said.path}"))
        assert process.workload is not None
        while alive(process.pid):  # the loop stands still meanwhile
            time.sleep(0.001)  # noqa: ASYNC251 - that is the point
        pid, pidfd = process.workload.take()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
        await gone(pid)
        await process.aclose()


async def test_how_the_process_ended(tmp_path: Path) -> None:
    """How the process ended is told where the kernel keeps it."""
    with post(tmp_path) as said:
        process = await ProcessRunner().open(
            runc(f"sh -c 'read word < {said.path}; exit 5' & tell $! $1; wait; exec sleep 100")
        )
        assert process.workload is not None
        await process.workload.started
        assert process.workload.wait_status is None
        said.tell("go on")
        status = await process.ended()
        assert status == 5 << 8 if KERNEL_KEEPS else status is None
        await process.aclose()


async def test_a_process_that_is_reaped_late(tmp_path: Path) -> None:
    """A process that has ended is waited for until runc has reaped it, for only then the kernel tells how it ended."""
    with post(tmp_path) as said, post(tmp_path, "reap") as reap:
        process = await ProcessRunner().open(
            runc(f"sh -c 'read word < {said.path}; exit 5' & tell $! $1; read word < {reap.path}; wait; exec sleep 100")
        )
        assert process.workload is not None
        await process.workload.started
        said.tell("go on")
        await process.workload.exited
        asyncio.get_running_loop().call_later(0.05, reap.tell, "go on")
        status = await process.ended()
        assert status == 5 << 8 if KERNEL_KEEPS else status is None
        await process.aclose()


async def test_no_descriptor_for_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no descriptor is left to hold the process by, that is told, and runc's end ends the wait."""
    real = os.pidfd_open

    def fail(pid: int, flags: int = 0) -> int:
        if inspect.stack(0)[1].filename.startswith(os.path.dirname(runc_async.__file__)):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(pid, flags)

    with post(tmp_path) as said, monkeypatch.context() as patch:
        process = await ProcessRunner().open(runc(f"read word < {said.path}; {PROCESS}"))
        workload = process.workload
        assert workload is not None
        workload.check()
        patch.setattr(os, "pidfd_open", fail)
        said.tell("go on")
        await workload.started
    with pytest.raises(OSError, match="Too many open files"):
        workload.check()
    with pytest.raises(OSError, match="Too many open files"):
        workload.take()
    assert not workload.exited.done()
    assert workload.wait_status is None
    os.kill(workload.pid, signal.SIGTERM)
    await process.wait()
    await process.aclose()


async def test_no_descriptor_for_the_pid_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same holds where the pid file can't be read."""
    workload = Workload(str(tmp_path / "pid"))
    (tmp_path / "new").write_text("1")

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("os.open", fail)
        (tmp_path / "new").rename(tmp_path / "pid")
        await workload.started
    with pytest.raises(OSError, match="Too many open files"):
        workload.check()
    workload.close()


# a runc that sends a pidfd


SENDER = """if 1:
    import array, os, signal, socket, subprocess, sys
    file, path, what = sys.argv[1:]
    process = subprocess.Popen(["sh", "-c", "exit 7"] if what == "gone" else ["sleep", "100"])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    pidfd = os.pidfd_open(process.pid)
    if what == "gone":
        process.wait()
    gone = subprocess.Popen("true")
    another = os.pidfd_open(gone.pid if what == "gone another" else os.getpid())
    gone.wait()
    sent = {
        "pidfd": [pidfd], "gone": [pidfd], "two": [pidfd, pidfd], "file": [0], "none": [], "another": [another],
        "gone another": [another],
    }.get(what)
    with socket.socket(socket.AF_UNIX) as client:
        if sent is not None:
            client.connect(path)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", sent))] if sent else []
            client.sendmsg([b"standard"], rights)
    with open(file + ".new", "w") as new:
        new.write(str(process.pid))
    os.rename(file + ".new", file)
    process.wait()
"""
"""What a runc does that knows `--pidfd-socket`; it sends what its last argument says."""


def sender(what: str) -> Invocation:
    """Return a runc that sends something to the runner's socket."""
    return Invocation(
        command="create",
        argv=(sys.executable, "-I", "-S", "-c", SENDER, PidFile(), PidfdSocket(), what),
        streams=NullIO(),
        stop=StopPolicy(grace=5.0, waits_for_process=True),
    )


async def test_a_pidfd_that_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one that is held, and no process is looked up."""

    def look_up(*_: object) -> NoReturn:
        raise AssertionError("a process is looked up by its number")

    monkeypatch.setattr("runc_async._containers.workload.children", look_up)
    with monkeypatch.context() as patch:
        patch.setattr(HeldPidfd, "open", look_up)
        process = await ProcessRunner().open(sender("pidfd"))
        assert process.workload is not None
        await process.workload.started
        pid, pidfd = process.workload.take()
        assert pidfd_pid(pidfd) == pid == process.workload.pid
        assert not os.get_inheritable(pidfd)
    monkeypatch.undo()
    await process.aclose()
    await gone(pid)
    os.close(pidfd)


@pytest.mark.parametrize("what", ["nothing", "none", "two", "file", "another", "gone another"])
async def test_a_runc_that_sends_something_else(what: str) -> None:
    """The process is looked up by its number where no pidfd has come, or what has come is none, or another's."""
    process = await ProcessRunner().open(sender(what))
    assert process.workload is not None
    await process.workload.started
    pid, pidfd = process.workload.take()
    assert pidfd_pid(pidfd) == pid == process.workload.pid
    os.close(pidfd)
    await process.aclose()


@pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")
async def test_a_process_that_has_ended_when_its_pidfd_comes() -> None:
    """A pidfd of a process that is gone is a pidfd all the same: the kernel knows how it ended."""
    process = await ProcessRunner().open(sender("gone"))
    assert process.workload is not None
    await process.workload.started
    await process.workload.exited
    assert process.workload.wait_status == 7 << 8
    await process.aclose()


@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace takes privileges")
async def test_a_process_in_a_namespace_of_its_own() -> None:
    """Its pidfd is believed under the number that it has there, which may be anybody's here."""
    namespace = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    invocation = sender("pidfd")
    policy = StopPolicy(grace=0.1, waits_for_process=True)
    process = await ProcessRunner().open(
        msgspec.structs.replace(invocation, argv=(*namespace, *invocation.argv), stop=policy)
    )
    assert process.workload is not None
    await process.workload.started
    _, pidfd = process.workload.take()
    told = process.workload.pid
    assert told < 10
    assert pidfd_numbers(pidfd)[1:] == [told]
    os.close(pidfd)
    await process.aclose()


async def test_no_descriptor_for_a_pidfd_that_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can't be received, that is told."""

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("runc_async._linux.fdsocket._accept", fail)
    process = await ProcessRunner().open(sender("pidfd"))
    assert process.workload is not None
    await process.workload.started
    with pytest.raises(OSError, match="Too many open files"):
        process.workload.take()
    await process.aclose()


async def test_a_socket_for_nobody() -> None:
    """A socket alone says nothing: the pid comes by the file."""
    with pytest.raises(ValueError, match="PidFile"):
        await ProcessRunner().open(Invocation(command="create", argv=("/bin/true", PrivateLog(), PidfdSocket())))
