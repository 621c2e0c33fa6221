"""Calls that are cancelled in each phase and in each way, and the runner that is used again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any

import anyio
import leaks
import pytest
from children import alive, each_loop, gone, post, run_in, shell

from runc_async._containers.workload import Workload
from runc_async._process.running import ProcessRunner
from runc_async.runner import Invocation, PidFile, StopPolicy
from runc_async.stdio import CapturedIO, NullIO, PipedIO

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from runc_async._process.running import RunningProcess
    from runc_async.runner import Completed

any_loop = pytest.mark.any_loop

PATIENT = StopPolicy(patience=20.0, grace=20.0)
GRACEFUL = StopPolicy(grace=20.0)
SHORT = StopPolicy(grace=0.05)
WORKLOAD = StopPolicy(grace=0.05, waits_for_process=True)


async def run(invocation: Invocation) -> Completed:
    """Run it."""
    return await ProcessRunner().run(invocation)


async def opened(invocation: Invocation) -> RunningProcess:
    """Open it."""
    return await ProcessRunner().open(invocation)


async def cancel_by_task(work: Coroutine[Any, Any, object], ready: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Cancel by `Task.cancel()`."""
    task = asyncio.create_task(work)
    await ready()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_twice(work: Coroutine[Any, Any, object], ready: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Cancel twice in a row."""
    task = asyncio.create_task(work)
    await ready()
    task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def cancel_by_timeout(
    work: Coroutine[Any, Any, object], ready: Callable[[], Coroutine[Any, Any, object]]
) -> None:
    """Cancel by `asyncio.timeout`."""
    reached = asyncio.ensure_future(ready())

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:
            reached.add_done_callback(lambda _: limit.reschedule(0))
            await work

    with pytest.raises(TimeoutError):
        await limited()


async def cancel_by_scope(work: Coroutine[Any, Any, object], ready: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Cancel by a scope of anyio's."""
    with anyio.CancelScope() as scope:
        reached = asyncio.ensure_future(ready())
        reached.add_done_callback(lambda _: scope.cancel())
        await work
    assert scope.cancelled_caught


async def cancel_by_group(work: Coroutine[Any, Any, object], ready: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Cancel by the failure of another task of a group."""

    async def fail() -> None:
        await ready()
        raise LookupError

    async def join() -> None:
        await work

    async def together() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(join)
            group.start_soon(fail)

    with pytest.raises(ExceptionGroup) as caught:
        await together()
    assert [type(exc) for exc in caught.value.exceptions] == [LookupError]


WAYS = [cancel_by_task, cancel_twice, cancel_by_timeout, cancel_by_scope, cancel_by_group]
each_way = pytest.mark.parametrize("cancel", WAYS)


@any_loop
@each_way
@pytest.mark.parametrize(
    "stop", [StopPolicy(), SHORT, GRACEFUL, WORKLOAD], ids=["kill", "short", "graceful", "workload"]
)
async def test_cancelled_while_it_waits(cancel: Any, stop: StopPolicy, tmp_path: Path) -> None:
    """A cancelled call returns when its process is gone, and the runner can be used again."""
    with post(tmp_path) as said:
        await cancel(run(shell(f"echo $$ > {said.path}; exec sleep 100", streams=CapturedIO(), stop=stop)), said.word)
    assert (await run(shell("echo again"))).stdout == b"again\n"


@any_loop
@each_way
async def test_cancelled_while_it_is_fed(cancel: Any, tmp_path: Path) -> None:
    """A cancel while the input is written closes the pipe and ends the child."""
    with post(tmp_path) as said:
        script = f"head -c 100000 > /dev/null; echo up > {said.path}; exec sleep 100"
        await cancel(run(shell(script, streams=CapturedIO(), input=b"x" * (5 << 20))), said.word)


@any_loop
@each_way
async def test_cancelled_while_it_is_drained(cancel: Any, tmp_path: Path) -> None:
    """A cancel while only others hold the pipes ends the call at once."""
    with post(tmp_path) as said, post(tmp_path, "pids") as pids:

        async def drained() -> None:
            pid = int(await pids.word())
            await gone(pid)

        script = f"exec 3< {said.path}; (read word <&3) & echo $$ > {pids.path}"
        await cancel(run(shell(script, streams=CapturedIO(), drain_timeout=1000.0)), drained)
        said.tell("end")


@any_loop
@pytest.mark.parametrize("turns", range(12))
@pytest.mark.parametrize("stop", [StopPolicy(), GRACEFUL, PATIENT], ids=["kill", "graceful", "patient"])
async def test_cancelled_after_some_turns(turns: int, stop: StopPolicy) -> None:
    """A cancel in whichever turn of the loop, the spawn among them, leaves nothing."""
    script = "exit 0" if stop is PATIENT else "exec sleep 100"
    task = asyncio.create_task(run(shell(script, streams=CapturedIO(), stop=stop, input=b"x")))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@any_loop
@pytest.mark.parametrize("turns", range(12))
async def test_opening_is_cancelled_after_some_turns(turns: int) -> None:
    """A cancel while a process is opened stops it, or comes too late; then it is open."""
    task = asyncio.create_task(opened(shell("exec sleep 100", streams=PipedIO())))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await (await task).aclose()


@any_loop
async def test_a_cancel_lets_a_change_finish(tmp_path: Path) -> None:
    """A command that changes something ends by itself within its patience, and no signal reaches it."""
    with post(tmp_path) as said, post(tmp_path, "orders") as orders:
        up = f"echo up > {said.path}"
        script = f"trap 'echo term > {said.path}' TERM; {up}; read word < {orders.path}; echo done > {said.path}"
        task = asyncio.create_task(run(shell(script, streams=NullIO(), stop=PATIENT)))
        assert await said.word() == "up"
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        orders.tell("go on")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await said.word() == "done"


@any_loop
async def test_a_change_that_does_not_finish(tmp_path: Path) -> None:
    """When the patience is over it gets SIGTERM, and SIGKILL after its grace."""
    with post(tmp_path) as said:
        script = f"trap 'echo term > {said.path}' TERM; echo up > {said.path}; while :; do sleep 0.01; done"
        task = asyncio.create_task(run(shell(script, streams=NullIO(), stop=StopPolicy(patience=0.05, grace=0.1))))
        assert await said.word() == "up"
        task.cancel()
        assert await said.word() == "term"
        with pytest.raises(asyncio.CancelledError):
            await task


@any_loop
async def test_a_workload_that_ends_when_it_is_told(tmp_path: Path) -> None:
    """A runc in the foreground forwards SIGTERM, reports the end of the process, and isn't killed."""
    with post(tmp_path) as said:
        script = (
            f"sleep 100 & trap 'kill $!; wait; echo reported > {said.path}; exit' TERM; echo up > {said.path}; wait"
        )
        task = asyncio.create_task(
            run(shell(script, streams=NullIO(), stop=StopPolicy(grace=20, waits_for_process=True)))
        )
        assert await said.word() == "up"
        task.cancel()
        assert await said.word() == "reported"
        with pytest.raises(asyncio.CancelledError):
            await task


@any_loop
async def test_a_workload_that_ignores_sigterm(tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed itself, and runc reports its end: it isn't orphaned."""
    with post(tmp_path) as said:
        script = f"trap '' TERM; sleep 100 & echo $! > {said.path}; wait $!; echo reported $? > {said.path}"
        task = asyncio.create_task(run(shell(script, streams=NullIO(), stop=WORKLOAD)))
        pid = int(await said.word())
        task.cancel()
        assert await said.word() == "reported 137"
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(pid)


@any_loop
async def test_a_runc_that_hangs_after_its_workload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runc that hangs although the process is dead is killed too."""
    monkeypatch.setattr("runc_async._process.running.KILL_GRACE", 0.05)
    with post(tmp_path) as said:
        script = f"trap '' TERM; sleep 100 & echo $! > {said.path}; wait $!; while :; do sleep 0.01; done"
        task = asyncio.create_task(run(shell(script, streams=NullIO(), stop=WORKLOAD)))
        pid = int(await said.word())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(pid)


@any_loop
async def test_started_is_told_the_pid() -> None:
    """`started` gets the pid as soon as the child runs."""
    pids: list[int] = []
    completed = await ProcessRunner().run(shell("exit"), started=pids.append)
    assert pids == [completed.pid]


@any_loop
async def test_started_fails() -> None:
    """An exception from `started` ends the child, and is raised."""

    def fail(pid: int) -> None:
        raise LookupError(pid)

    with pytest.raises(LookupError) as caught:
        await ProcessRunner().run(shell("exec sleep 100"), started=fail)
    assert not alive(caught.value.args[0])


@each_loop
@pytest.mark.parametrize("stop", [StopPolicy(), SHORT, WORKLOAD], ids=["kill", "short", "workload"])
@pytest.mark.parametrize("turns", [*range(8), 100])
def test_the_end_of_the_loop(new_loop: Any, stop: StopPolicy, turns: int) -> None:
    """A loop that ends in whichever turn of a call waits until the child is gone; another loop can be used then."""
    runner = ProcessRunner()

    async def main() -> None:
        invocation = shell("exec sleep 100", streams=CapturedIO(), stop=stop, input=b"x")
        call = asyncio.ensure_future(runner.run(invocation))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not call.done()

    before = leaks.footprint()
    run_in(new_loop, main())
    assert leaks.left_since(before) == []
    assert run_in(new_loop, runner.run(shell("echo again"))).stdout == b"again\n"


@each_loop
def test_the_end_of_the_loop_while_it_is_stopped(new_loop: Any, tmp_path: Path) -> None:
    """A loop that ends while a cancelled call gives its child time doesn't wait for ever: the stop is begun anew."""
    runner = ProcessRunner()

    async def main() -> None:
        with post(tmp_path) as said:
            script = f"trap 'echo term > {said.path}' TERM; echo up > {said.path}; while :; do sleep 0.01; done"
            call = asyncio.ensure_future(runner.run(shell(script, streams=NullIO(), stop=StopPolicy(grace=0.2))))
            await said.word()
            call.cancel()
            await said.word()

    run_in(new_loop, main())


@each_loop
def test_the_end_of_the_loop_while_it_is_waited_for(new_loop: Any, tmp_path: Path) -> None:
    """A process that somebody waits for, and closes, ends in its own way, in whatever order tasks are cancelled."""
    done = [tmp_path / str(number) for number in range(8)]

    async def wait_for(path: Path) -> None:
        script = f"sleep 0.1; touch {path}"
        process = await opened(shell(script, streams=NullIO(), stop=StopPolicy(patience=10)))
        try:
            await process.finish()
        finally:
            await process.aclose()

    async def main() -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(wait_for(path)) for path in done]
        for _ in range(200):
            await asyncio.sleep(0)
        return tasks

    run_in(new_loop, main())
    assert [path for path in done if not path.exists()] == []


@each_loop
def test_the_end_of_the_loop_with_an_open_process(new_loop: Any) -> None:
    """A process that was opened and forgotten is killed at the end of the loop."""
    process: list[RunningProcess] = []

    async def main() -> None:
        process.append(await opened(shell("exec sleep 100", streams=NullIO())))

    run_in(new_loop, main())
    assert not os.path.exists(f"/proc/{process[0].pid}")


@each_loop
def test_the_end_of_the_loop_with_an_open_workload(new_loop: Any, tmp_path: Path) -> None:
    """A process that a forgotten runc waits for isn't orphaned: it is killed with it."""

    async def main() -> int:
        with post(tmp_path) as said:
            script = f"sleep 100 & echo $! > {said.path}; wait"
            await ProcessRunner().open(shell(script, streams=NullIO(), stop=WORKLOAD))
            return int(await said.word())

    pid = run_in(new_loop, main())
    run_in(new_loop, asyncio.wait_for(gone(pid), 10))


@any_loop
async def test_what_runc_has_started_to_help_it(tmp_path: Path) -> None:
    """Where a command starts helpers, such as criu, they have ended when the call returns, by SIGKILL if need be."""
    with post(tmp_path) as said:
        script = f"(trap '' TERM; exec sleep 100) & echo $! > {said.path}; wait"
        stop = StopPolicy(grace=0.05, helpers=True)
        task = asyncio.create_task(run(shell(script, streams=NullIO(), stop=stop)))
        pid = int(await said.word())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not alive(pid)


TREE = """
trap '' TERM
sh -c "trap '' TERM; setsid sleep 1000 & echo \\$! >$2; wait" &
echo $! >$1.new
mv $1.new $1
wait
"""
"""Starts a process that has started another one, in a session of its own, and waits for it."""


async def test_a_tree_is_listed_before_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has started is killed with it, although it has another parent when the process is dead."""
    send_signal = Workload.send_signal

    def kill_at_once(workload: Workload, signum: int) -> None:
        """Send the signal, and let the kernel do all of it before the next step."""
        try:
            pidfd = os.pidfd_open(workload.pid)
        except ProcessLookupError:  # it is killed once more, to be sure
            return
        try:
            send_signal(workload, signum)
            assert select.select([pidfd], [], [], 20)[0]
        finally:
            os.close(pidfd)

    monkeypatch.setattr(Workload, "send_signal", kill_at_once)
    with post(tmp_path) as said:
        argv = ("/bin/sh", "-c", TREE, "sh", PidFile(), said.path)
        process = await opened(Invocation(command="run", argv=argv, streams=NullIO(), stop=WORKLOAD))
        assert await process.started() is None
        started = int(await said.word())
        await process.aclose()
    async with asyncio.timeout(20):
        await gone(started)


STARTING = """\
import ctypes, os, signal, sys, time

libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x20000000):  # CLONE_NEWPID
    raise OSError(ctypes.get_errno(), "unshare")
pid = os.fork()
if not pid:
    libc.prctl(15, b"runc:[2:INIT]", 0, 0, 0)  # PR_SET_NAME
    signal.signal(signal.SIGTERM, lambda *_: None)
    time.sleep(0.5)
    os.execvp("sleep", ["sleep", "600"])
signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
file = sys.argv[1]
with open(file + ".new", "w") as new:
    new.write(str(pid))
time.sleep(0.1)  # the first process has its name
os.rename(file + ".new", file)
_, status = os.waitpid(pid, 0)
sys.exit(128 - os.waitstatus_to_exitcode(status))
"""


@pytest.mark.root
async def test_a_limit_that_ends_while_the_program_is_being_executed() -> None:
    """A limit may end between the report of a start and execve(2): a program that SIGTERM can't reach gets no grace."""
    # The runtime's process in the container has handlers then, and the program has none.
    patient = StopPolicy(patience=20.0, grace=600.0, waits_for_process=True)
    argv = (sys.executable, "-ISc", STARTING, PidFile())
    async with asyncio.timeout(20):
        completed = await run(Invocation(command="run", argv=argv, streams=NullIO(), stop=patient, timeout=0.01))
    assert (completed.timed_out, completed.returncode) == (True, 128 + signal.SIGKILL)
