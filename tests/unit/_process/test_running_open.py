"""Processes that are open, and the process of a container's that a runc waits for."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest
from children import alive, gone, post, shell
from runtime import KERNEL_KEEPS

from runc_async._process.running import ProcessRunner
from runc_async.runner import Invocation, PidFile, StopPolicy
from runc_async.stdio import CapturedIO, NullIO, PipedIO, PtyIO

if TYPE_CHECKING:
    from pathlib import Path

    from runc_async._process.running import RunningProcess
    from runc_async.runner import Completed

any_loop = pytest.mark.any_loop

GRACEFUL = StopPolicy(grace=20.0)
WORKLOAD = StopPolicy(grace=0.05, waits_for_process=True)


async def run(invocation: Invocation) -> Completed:
    """Run it."""
    return await ProcessRunner().run(invocation)


async def opened(invocation: Invocation) -> RunningProcess:
    """Open it."""
    return await ProcessRunner().open(invocation)


@any_loop
async def test_an_open_process() -> None:
    """An open process has its streams; when it has ended they can be read on until they are closed."""
    process = await opened(shell("cat; echo err >&2; exit 4", streams=PipedIO()))
    assert repr(process) == f"<RunningProcess 'test' <Child {process.pid} running>>"
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    await process.stdin.send(b"text")
    await process.stdin.aclose()
    completed = await process.wait()
    assert (completed.returncode, completed.stdout, completed.pid) == (4, b"", process.pid)
    assert await process.stdout.receive() == b"text"
    assert await process.stderr.receive() == b"err\n"
    assert await process.wait() is completed
    await process.aclose()
    await process.aclose()
    assert process.stdout.closed


@any_loop
async def test_an_open_process_that_is_closed() -> None:
    """Closing stops the process by its policy."""
    process = await opened(shell("exec sleep 100", streams=PipedIO(), stop=GRACEFUL))
    await process.aclose()
    assert (await process.wait()).returncode == -signal.SIGTERM


@any_loop
async def test_signals() -> None:
    """A signal reaches the process; when it has ended nothing happens."""
    process = await opened(shell("exec sleep 100", streams=NullIO()))
    process.send_signal(signal.SIGHUP)
    assert (await process.wait()).returncode == -signal.SIGHUP
    process.send_signal(signal.SIGHUP)
    await process.aclose()


@any_loop
async def test_cancelling_a_wait() -> None:
    """A wait that is cancelled leaves the process running; several tasks can wait."""
    process = await opened(shell("exec sleep 100", streams=NullIO()))
    with anyio.move_on_after(0.01):
        await process.wait()
    assert alive(process.pid)
    waits = [asyncio.create_task(process.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    process.send_signal(signal.SIGTERM)
    assert len({(await wait).returncode for wait in waits}) == 1
    await process.aclose()


@any_loop
async def test_closing_cannot_be_cancelled() -> None:
    """A close that is cancelled goes on to its end, and raises the cancel then."""
    process = await opened(shell("exec sleep 100", streams=PipedIO(), stop=GRACEFUL))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await process.aclose()
    assert scope.cancelled_caught
    assert process.child.returncode == -signal.SIGTERM


@any_loop
async def test_a_live_terminal() -> None:
    """An open process can have a terminal as its stream."""
    process = await opened(shell("exec cat", streams=PtyIO()))
    assert process.pty is not None
    await process.pty.send(b"text\n")
    assert (await process.pty.receive()).startswith(b"text\r\n")
    await process.aclose()


@any_loop
async def test_dropping_a_process() -> None:
    """A process that is dropped is killed and its streams are closed, without waiting."""
    process = await opened(shell("exec sleep 100", streams=PipedIO()))
    process.drop()
    assert process.stdout is not None
    assert process.stdout.closed
    assert await process.child.wait() == -signal.SIGKILL
    other = await opened(shell("exec sleep 100", streams=NullIO()))
    other.drop()
    assert await other.child.wait() == -signal.SIGKILL


TELL = 'tell() { echo $1 > "$2.tmp"; mv "$2.tmp" "$2"; }; '


def runc(script: str, *, command: str = "exec", drain_timeout: float = 1.0, stop: StopPolicy = WORKLOAD) -> Invocation:
    """Return a runc that tells the pid of a process."""
    argv = ("/bin/sh", "-c", TELL + script, "sh", PidFile())
    return Invocation(command=command, argv=argv, streams=CapturedIO(), stop=stop, drain_timeout=drain_timeout)


@any_loop
async def test_a_runc_that_reports_in_time() -> None:
    """A runc that reports the end of the process some time after it is let do so, also without time to drain."""
    script = "sh -c 'exit 5' & tell $! $1; wait $!; code=$?; sleep 0.1; exit $code"
    completed = await run(runc(script, drain_timeout=0.0))
    assert (completed.returncode, completed.truncated) == (5, False)


@any_loop
async def test_a_runc_that_waits_for_others(tmp_path: Path) -> None:
    """A runc that waits for others than the process, which has ended, is ended, and nothing was lost by that."""
    with post(tmp_path) as said:
        process = f"sh -c 'read word < {said.path}; exit 5'"
        script = f"{process} & tell $! $1; echo up > {said.path}.up; wait $!; echo out; exec sleep 100"
        with post(tmp_path, "post.up") as up:
            task = asyncio.create_task(run(runc(script, drain_timeout=0.05)))
            await up.word()
        await asyncio.sleep(0.05)  # the news of the pid file comes by the loop
        said.tell("end")
        completed = await task
    assert completed.returncode in {5, None}
    assert (completed.stdout, completed.truncated) == (b"out\n", False)


@any_loop
@pytest.mark.parametrize("command", ["run", "restore"])
async def test_a_runc_that_has_a_container_to_delete(
    command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A runc that deletes its container after the end of the process is let do so, however long it takes."""
    monkeypatch.setattr("runc_async._process.running.REPORT_TIME", 0.02)
    deleted = tmp_path / "deleted"
    script = f"sh -c 'exit 5' & tell $! $1; wait $!; code=$?; sleep 0.5; : > {deleted}; exit $code"
    completed = await run(runc(script, command=command, drain_timeout=0.0))
    assert (completed.returncode, completed.process, completed.truncated) == (5, "ended", False)
    assert deleted.exists()


@any_loop
async def test_a_runc_without_a_process() -> None:
    """A runc that ends and has told none had none; of one that isn't asked to tell, nothing is known."""
    completed = await run(runc("exit 2"))
    assert (completed.returncode, completed.process) == (2, "none")
    completed = await run(shell("exit 2"))
    assert (completed.returncode, completed.process) == (2, None)


@any_loop
async def test_a_process_that_goes_on_without_its_runc() -> None:
    """It is lost, and killed at once: it is not waited for, though it holds the pipes."""
    completed = await run(runc("sleep 100 & tell $! $1; echo $!; exit 2", drain_timeout=50.0))
    assert (completed.returncode, completed.process, completed.truncated) == (2, "lost", False)
    await gone(int(completed.stdout))


@pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")
@any_loop
@pytest.mark.parametrize(("exit_code", "fate"), [(2, "ended"), (3, "lost")])
async def test_a_process_whose_end_is_told_wrongly(exit_code: int, fate: str, tmp_path: Path) -> None:
    """What its runc says of it is its own end: as by a runc that breaks down while it deletes the container."""
    with post(tmp_path) as said:
        script = f"sh -c 'read word < {said.path}; exit {exit_code}' & tell $! $1; wait $!; exit 2"
        process = await opened(runc(script, command="run"))
        assert process.workload is not None
        await process.workload.started
        said.tell("end")
        completed = await process.wait()
        await process.aclose()
    assert (completed.returncode, completed.process) == (2, fate)


@any_loop
async def test_the_start_of_the_process() -> None:
    """An open runc tells when the process has started, and its end when there is none."""
    process = await opened(runc("sleep 100 & trap 'kill $!' TERM; tell $! $1; wait; wait"))
    assert await process.started() is None
    await process.aclose()
    failed = await opened(runc("exit 3"))
    completed = await failed.started()
    assert completed is not None
    assert completed.returncode == 3
    assert await failed.ended() is None
    await failed.aclose()
    other = await opened(shell("exit 3", streams=NullIO()))
    completed = await other.started()
    assert completed is not None
    assert await other.ended() is None
    await other.aclose()


@pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")
async def test_a_runc_that_is_slow_to_reap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process that is stopped keeps its status, though its runc takes longer than usual, and then doesn't end."""
    monkeypatch.setattr("runc_async._process.running.REPORT_TIME", 0.02)
    with post(tmp_path) as said:
        script = f"trap '' TERM; sleep 100 & tell $! $1; read word < {said.path}; wait $!; exec sleep 100"
        process = await opened(runc(script, stop=StopPolicy(waits_for_process=True)))
        assert process.workload is not None
        await process.workload.started
        closing = asyncio.create_task(process.aclose())
        await process.workload.exited
        await asyncio.sleep(0.2)  # many times what runc gets otherwise
        said.tell("go on")
        await closing
    assert (await process.wait()).returncode == 128 + signal.SIGKILL


@any_loop
async def test_a_runc_that_waits_for_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runc whose output hasn't been read yet isn't ended: it may be waiting for us."""
    monkeypatch.setattr("runc_async._process.running.REPORT_TIME", 0.02)
    script = "sh -c 'exit 5' & tell $! $1; wait $!; echo unread; exec sleep 100"
    process = await opened(msgspec.structs.replace(runc(script, drain_timeout=0.0), streams=PipedIO()))
    assert process.stdout is not None
    wait = asyncio.create_task(process.wait())
    assert (await asyncio.wait([wait], timeout=0.5)) == (set(), {wait})
    assert await process.stdout.receive() == b"unread\n"
    completed = await wait
    assert completed.returncode in {5, None}
    await process.aclose()
