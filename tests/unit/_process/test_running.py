"""Calls from their start to their end on small children: exits, output, files, and limits of time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import tempfile
from typing import TYPE_CHECKING

import leaks
import pytest
from children import alive, gone, post, shell

from runc_async._process.argument_files import LOG_LIMIT
from runc_async._process.running import ProcessRunner
from runc_async.errors import RuncNotFound
from runc_async.limits import Limits
from runc_async.runner import (
    Document,
    Invocation,
    OwnOutput,
    PidFile,
    PrivateLog,
    Setting,
    StopPolicy,
    StreamedOutput,
)
from runc_async.stdio import CapturedIO, InheritedIO, NullIO, PipedIO, PtyIO, RedirectIO

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from runc_async._process.running import RunningProcess
    from runc_async.runner import Completed, Streams

any_loop = pytest.mark.any_loop


async def run(invocation: Invocation) -> Completed:
    """Run it."""
    return await ProcessRunner().run(invocation)


async def opened(invocation: Invocation) -> RunningProcess:
    """Open it."""
    return await ProcessRunner().open(invocation)


# --- exits and output


@any_loop
@pytest.mark.parametrize("streams", [OwnOutput(), CapturedIO(), PipedIO()], ids=repr)
async def test_both_streams_come_apart(streams: Streams) -> None:
    """Stdout and stderr are captured apart from each other, with the exit code and the pid."""
    completed = await run(shell("echo $$; echo err >&2; exit 5", streams=streams))
    assert completed.stdout == b"%d\n" % completed.pid
    assert completed.stderr == b"err\n"
    assert (completed.returncode, completed.truncated, completed.timed_out) == (5, False, False)


@any_loop
@pytest.mark.parametrize("streams", [NullIO(), InheritedIO(), RedirectIO()], ids=repr)
async def test_nothing_is_captured(streams: Streams) -> None:
    """Streams that go elsewhere leave the result empty."""
    completed = await run(shell("exit 0", streams=streams))
    assert (completed.stdout, completed.stderr, completed.returncode) == (b"", b"", 0)


@any_loop
async def test_a_terminal_is_captured() -> None:
    """What goes to a terminal is captured as one stream, and the terminal has the size that was asked for."""
    completed = await run(shell("stty size; echo err >&2; test -t 0", streams=PtyIO(rows=10, cols=20)))
    assert completed.stdout == b"10 20\r\nerr\r\n"
    assert completed.returncode == 0


async def test_stdin_is_empty() -> None:
    """Without input a child reads nothing, and never the caller's stdin."""
    for streams in (OwnOutput(), CapturedIO(), PipedIO(), InheritedIO(), NullIO()):
        assert (await run(shell('test -z "$(cat)"', streams=streams))).returncode == 0


@any_loop
async def test_a_signal_that_ended_it() -> None:
    """A child that a signal ended has a negative code."""
    assert (await run(shell("kill -TERM $$"))).returncode == -signal.SIGTERM


@any_loop
async def test_the_last_bytes_of_much_output() -> None:
    """Of output without end the last bytes are kept, and the child is never held up."""
    completed = await run(shell("seq 1 1000000; seq 1 10 >&2", streams=CapturedIO(limit=15)))
    assert completed.stdout == b"\n999999\n1000000\n"[-15:]
    assert completed.stderr == b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"[-15:]
    assert completed.truncated


async def test_too_much_output_of_runcs_own() -> None:
    """A command that prints more than its file in memory takes gets an error for it, and the loss is told."""
    completed = await run(shell("head -c 10000 /dev/zero", streams=OwnOutput(limit=4096)))
    assert completed.stdout == bytes(4096)
    assert completed.truncated
    assert completed.returncode != 0


@any_loop
async def test_megabytes_both_ways() -> None:
    """Input and output of many megabytes go through at once, whatever the order in which they are taken."""
    data = os.urandom(5 << 20)
    completed = await run(shell("exec cat", input=data, streams=CapturedIO(limit=8 << 20)))
    assert completed.stdout == data
    assert not completed.truncated


@any_loop
@pytest.mark.parametrize("script", ["exit 3", "exec 0<&-; exit 3", "head -c 1 >/dev/null; exit 3"])
async def test_input_that_nobody_reads(script: str) -> None:
    """A child that doesn't read its input, or only the first of it, ends with its own code."""
    completed = await run(shell(script, input=b"x" * (5 << 20), streams=CapturedIO()))
    assert completed.returncode == 3
    assert completed.stderr == b""


async def test_input_for_a_command_of_runcs_own() -> None:
    """Input goes with any streams; no input is an end of file at once."""
    assert (await run(shell("exec cat", input=b"text"))).stdout == b"text"
    assert (await run(shell("exec cat", input=b""))).stdout == b""


# --- files that go along


@any_loop
async def test_the_files_of_an_invocation() -> None:
    """Documents and the private log are files that the child reaches by the path in their place."""
    completed = await run(
        Invocation(
            command="x",
            argv=(
                *("/bin/sh", "-c", 'echo "$4" $(cat $1 $2); echo logged > $3', "sh"),
                *(Document("a.json", b"A"), Document("b.json", b"B"), PrivateLog(), Setting("NAME", "value")),
            ),
        )
    )
    assert completed.stdout == b"NAME=value AB\n"
    assert completed.log == b"logged\n"


async def test_the_end_of_a_long_log() -> None:
    """Of a log without end the last bytes are read, where the reason of a failure stands."""
    script = "head -c 2000000 /dev/zero > $1; echo reason >> $1"
    completed = await run(Invocation(command="x", argv=("/bin/sh", "-c", script, "sh", PrivateLog())))
    assert len(completed.log) == LOG_LIMIT
    assert completed.log.endswith(b"\0reason\n")


async def test_no_log() -> None:
    """Without a private log there is nothing of it."""
    assert (await run(shell("exit 1"))).log == b""


async def test_our_files_are_above_those_of_the_caller() -> None:
    """Files of ours never have the numbers that `preserve_fds` promises."""
    argv = ("/bin/sh", "-c", "echo $1; cat $1 <&5", "sh", Document("a.json", b"A"))
    read, write = os.pipe()
    os.close(write)
    completed = await run(Invocation(command="x", argv=argv, preserve_fds=(read,) * 40))
    os.close(read)
    path, text = completed.stdout.split(b"\n")
    assert int(path.rpartition(b"/")[2]) >= 43
    assert text == b"A"


# --- pipes that others hold


@any_loop
async def test_a_grandchild_that_keeps_the_pipes() -> None:
    """The exit of the process ends a call, and not the end of its pipes; what is missing is said."""
    completed = await run(shell("sleep 100 & echo $!", streams=CapturedIO(), drain_timeout=0.05))
    pid = int(completed.stdout)
    assert completed.truncated
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)


@any_loop
async def test_no_drain_time(tmp_path: Path) -> None:
    """With no time to drain a call ends with its process, with all that was written; whether that was all is exact."""
    completed = await run(shell("echo all", streams=CapturedIO(), drain_timeout=0.0))
    assert (completed.stdout, completed.truncated) == (b"all\n", False)
    with post(tmp_path) as said:
        completed = await run(
            shell(f"exec 3< {said.path}; read word <&3 & echo out", streams=CapturedIO(), drain_timeout=0.0)
        )
        said.tell("end")
    assert (completed.stdout, completed.truncated) == (b"out\n", True)


@any_loop
async def test_a_grandchild_that_writes_on(tmp_path: Path) -> None:
    """What a grandchild writes within the drain time belongs to the output."""
    with post(tmp_path) as said:
        script = f"exec 3< {said.path}; (read word <&3; echo $word) & echo up > {said.path}.2"
        with post(tmp_path, "post.2") as up:
            task = asyncio.create_task(run(shell(script, streams=CapturedIO(), drain_timeout=50.0)))
            await up.word()
        said.tell("later")
        completed = await task
    assert (completed.stdout, completed.truncated) == (b"later\n", False)


# --- what can't be started


@any_loop
@pytest.mark.parametrize("streams", [OwnOutput(), CapturedIO(), PipedIO(), PtyIO(), StreamedOutput()], ids=repr)
async def test_a_program_that_does_not_exist(streams: Streams) -> None:
    """A missing program is a RuncNotFound, and nothing is left open."""
    before = leaks.footprint()
    invocation = Invocation(command="x", argv=("no-such-program", PrivateLog()), streams=streams, input=b"x")
    with pytest.raises(RuncNotFound):
        await run(invocation)
    with pytest.raises(RuncNotFound):
        await opened(invocation)
    assert leaks.left_since(before) == []


async def test_a_stream_that_cannot_be_opened(tmp_path: Path) -> None:
    """A file that can't be opened is an OSError of its own, before anything is started."""
    with pytest.raises(FileNotFoundError) as caught:
        await run(shell("exit", streams=RedirectIO(stdout=tmp_path / "missing" / "out")))
    assert not isinstance(caught.value, RuncNotFound)


async def test_a_pid_file_that_cannot_be_watched(tmp_path: Path) -> None:
    """A pid file in a directory that isn't there keeps nothing from being run: it is for runc to report."""
    argv = ("/bin/true", PrivateLog(), PidFile(str(tmp_path / "missing" / "pid")))
    assert (await run(Invocation(command="x", argv=argv))).returncode == 0


@contextlib.contextmanager
def descriptors_left(count: int) -> Generator[None]:
    """Let exactly `count` more descriptors be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]
    top = max(map(int, os.listdir("/proc/self/fd")))
    while taken[-1] < top:
        taken.append(os.dup(0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


STREAMS_OF_ALL_KINDS: list[Streams] = [
    NullIO(),
    OwnOutput(),
    StreamedOutput(),
    CapturedIO(),
    PipedIO(),
    RedirectIO(stdin="/dev/null", stdout="/dev/null", stderr="/dev/zero"),
    PtyIO(),
]


@pytest.mark.parametrize("streams", STREAMS_OF_ALL_KINDS, ids=repr)
@pytest.mark.parametrize("live", [False, True])
async def test_no_descriptor_left(streams: Streams, live: bool) -> None:  # noqa: FBT001 - of the table
    """At whichever descriptor of a call the limit is met, it is an OSError or a success, and nothing stays open."""
    argv = ("/bin/true", PrivateLog(), Document("a.json", b"{}"), PidFile())
    invocation = Invocation(command="x", argv=argv, streams=streams, input=b"x" if not live else None)
    await run(invocation)  # what is imported or opened once and for all is there now
    before = leaks.footprint()
    files_before = os.listdir(tempfile.gettempdir())
    outcomes: list[bool] = []
    for count in range(30):
        with descriptors_left(count):
            try:
                process = await opened(invocation) if live else None
                if process is None:
                    await run(invocation)
                else:
                    await process.wait()
                    await process.aclose()
            except OSError:
                outcomes.append(False)
            else:
                outcomes.append(True)
        assert leaks.left_since(before) == []
        assert os.listdir(tempfile.gettempdir()) == files_before
    assert outcomes == sorted(outcomes)
    assert {False, True} == set(outcomes)


# --- limits of time


@any_loop
async def test_a_limit_of_time() -> None:
    """A child whose time is up is stopped, and its output so far is there."""
    completed = await run(shell("echo out; echo err >&2; exec sleep 100", streams=CapturedIO(), timeout=1.0))
    assert completed.timed_out
    assert (completed.stdout, completed.stderr, completed.returncode) == (b"out\n", b"err\n", -signal.SIGKILL)


async def test_output_of_runcs_own_when_its_time_is_up() -> None:
    """The output so far is there for commands of runc's own too."""
    completed = await run(shell("echo out; exec sleep 100", timeout=1.0))
    assert completed.timed_out
    assert completed.stdout == b"out\n"


@any_loop
async def test_a_limit_that_is_not_reached() -> None:
    """A limit that isn't reached changes nothing."""
    assert not (await run(shell("exit", timeout=60))).timed_out


async def test_a_limit_of_output_that_is_reached_before_the_process_is_reported() -> None:
    """A runtime whose process was killed before it was reported, and could be looked at, tells the exit code."""
    script = 'yes & wait $!; code=$?; printf %d $! > "$1"; exit $code'
    invocation = Invocation(
        command="exec",
        argv=("/bin/sh", "-c", script, "sh", PidFile()),
        streams=CapturedIO(limit=100, keep="first"),
        stop=StopPolicy(waits_for_process=True),
        limits=Limits(output=100),
    )
    completed = await run(invocation)
    assert (completed.exceeded, completed.returncode) == ("output", 128 + signal.SIGKILL)
    assert completed.stdout == b"y\n" * 50


async def test_a_limit_of_output_that_is_reached_by_a_process_that_is_never_reported() -> None:
    """A runtime that ends by itself tells the exit code of a process that was too quick to be looked at."""
    invocation = Invocation(
        command="exec",
        argv=("/bin/sh", "-c", "head -c 200 /dev/zero; sleep 100; exit 5", "sh", PidFile()),
        streams=CapturedIO(limit=100, keep="first"),
        stop=StopPolicy(waits_for_process=True),
        limits=Limits(output=100),
    )
    completed = await run(invocation)
    assert (completed.exceeded, completed.returncode) == ("output", 5)


async def test_cancelled_while_it_is_stopped_for_its_time(tmp_path: Path) -> None:
    """A cancel that comes while a child is stopped because its time was up is raised when the child is gone."""
    with post(tmp_path) as said:
        script = f"trap 'echo term > {said.path}' TERM; while :; do sleep 0.01; done"
        task = asyncio.create_task(run(shell(script, streams=NullIO(), timeout=1.0, stop=StopPolicy(grace=0.2))))
        assert await said.word() == "term"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
