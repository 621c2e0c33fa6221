"""A stream of events: what comes of a runc's lines, and what is left when it ends, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
import uvloop
from containers import ended
from hypothesis import given, strategies as st
from recorded import RUNTIMES, cases

from runc_async import Invocation, ProcessRunner, Runc
from runc_async._client import streaming
from runc_async._containers import first_process
from runc_async._events import reader
from runc_async._events.backlog import BOUND, Backlog
from runc_async._linux.procfs import ProcessIdentity
from runc_async._process.running import RunningProcess
from runc_async.errors import (
    CommandError,
    ContainerNotRunning,
    DecodeError,
    InvalidContainerID,
    RuncCrashed,
    RuncNotFound,
)
from runc_async.events import Event, EventStream, OnLag, OOMEvent, StatsEvent, StatsFailedEvent, UnknownEvent
from runc_async.stats import Stats
from runc_async.testing import FakeProcess, FakeRunner

uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, for good: before any test counts descriptors

OOM = b'{"type":"oom","id":"web"}\n'
NOT_RUNNING = b'{"level":"error","msg":"container with id web is not running","time":"2026-11-23T12:36:42Z"}\n'


def stats_line(total: int) -> bytes:
    """Return a line of stats that has a number of its own."""
    data = {"cpu": {"usage": {"total": total}}, "network_interfaces": None}
    return json.dumps({"type": "stats", "id": "web", "data": data}, separators=(",", ":")).encode() + b"\n"


def total(event: Event) -> int:
    """Return the number of stats that `stats_line` made."""
    assert isinstance(event, StatsEvent)
    return event.data.cpu.usage.total


def fake(*pieces: bytes, hang: bool = False, exit_code: int = 0, log: bytes = b"") -> Runc:
    """Return a client whose `events` prints these pieces."""
    runner = FakeRunner()
    runner.reply("events", stdout=pieces, hang=hang, exit_code=exit_code, log=log)
    return Runc(runner=runner)


async def collected(stream: EventStream) -> list[Event | DecodeError]:
    """Return all events of a stream, and its decode errors."""
    found: list[Event | DecodeError] = []
    while True:
        try:
            async for event in stream:
                found.append(event)  # noqa: PERF401 - a comprehension would lose them at an error
        except DecodeError as error:
            found.append(error)
        else:
            return found


class Script:
    """A program that prints what is written into a named pipe, in the place of a runc."""

    def __init__(self, directory: Path) -> None:
        self.fifo = directory / "fifo"
        self.root = directory / "root"
        self.program = directory / "runc"
        os.mkfifo(self.fifo)
        self.root.mkdir()
        self.program.write_text(f"#!/bin/sh\nexec cat {self.fifo}\n")
        self.program.chmod(0o755)
        self.runc = Runc(self.program, root=self.root)
        self._end = os.open(self.fifo, os.O_RDWR | os.O_CLOEXEC)

    def print(self, data: bytes) -> None:
        """Let it print."""
        os.write(self._end, data)

    def end(self) -> None:
        """Let it end."""
        if self._end >= 0:
            os.close(self._end)
            self._end = -1

    def record(self, pid: int) -> None:
        """Say in the place of runc's own record that a process is the container's first."""
        directory = self.root / "web"
        directory.mkdir(exist_ok=True)
        identity = ProcessIdentity.of(pid)
        record = {"id": "web", "init_process_pid": identity.pid, "init_process_start": identity.start_time}
        (directory / "state.json").write_text(json.dumps(record))


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Return a program in the place of runc."""
    program = Script(tmp_path)
    yield program
    program.end()


@contextmanager
def sleeper() -> Generator[subprocess.Popen[bytes]]:
    """Run a process in the place of a container's first one."""
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        yield process
        process.kill()


class Opened(ProcessRunner):
    """A runner that tells which processes it has started."""

    def __init__(self) -> None:
        self.processes: list[RunningProcess] = []

    async def open(self, invocation: Invocation) -> RunningProcess:
        """Note the process."""
        process = await super().open(invocation)
        self.processes.append(process)
        return process


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.001)


# What comes of lines


@pytest.mark.any_loop
async def test_each_line_is_an_event_of_its_kind() -> None:
    """Stats, lack of memory, and what this library doesn't know are three types with the container's id."""
    new = b'{"type":"frozen","id":"web","data":[1]}'
    events = await collected(fake(stats_line(7), OOM, new + b"\n").events("web"))
    stats = Stats(cpu=msgspec.json.decode(b'{"usage":{"total":7}}', type=type(Stats().cpu)))
    assert events == [StatsEvent("web", stats), OOMEvent("web"), UnknownEvent("web", "frozen", new)]


async def test_an_unknown_event_may_lack_an_id() -> None:
    """Of an unknown type nothing is asked but the type; a null is the same as nothing."""
    line = b'{"type":"new","id":null,"id2":null}'
    assert await collected(fake(line + b"\n").events("web")) == [UnknownEvent("", "new", line)]


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if name.startswith("runc")])
async def test_recorded_streams_become_just_their_lines(runtime: str) -> None:
    """Each line of each recorded stream is one event, of the type and with the id and the CPU time that it says."""
    streams = [case for case in cases(runtime, "events-*") if case.stdout and "--stats" not in case.cmd]
    for case in streams:
        events = await collected(fake(case.stdout.encode()).events("web"))
        said = [json.loads(line) for line in case.stdout.splitlines()]
        assert [type(event) for event in events] == [
            {"stats": StatsEvent, "oom": OOMEvent}[line["type"]] for line in said
        ]
        for event, line in zip(events, said, strict=True):
            assert not isinstance(event, DecodeError)
            assert event.id == line["id"]
            if isinstance(event, StatsEvent):
                assert event.data.cpu.usage.total == line["data"]["cpu"]["usage"]["total"]
                assert event.data.network_interfaces == []


def recorded_stream() -> bytes:
    """Return a stream with several kinds of events that was recorded."""
    (case,) = cases("runc-1.3.6-v1", "events-oom")
    return case.stdout.encode() + b'{"type":"later","id":"web"}\n'


@given(st.lists(st.integers(0, len(recorded_stream())), max_size=12))
def test_events_are_the_same_wherever_the_stream_is_cut(places: list[int]) -> None:
    """The pieces in which a pipe happens to give the bytes make no difference."""
    data = recorded_stream()
    edges = [0, *sorted(places), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    expected = asyncio.run(collected(fake(data).events("web")))
    assert len(expected) == 6
    assert asyncio.run(collected(fake(*pieces).events("web"))) == expected


@given(st.lists(st.binary(max_size=60) | st.sampled_from([stats_line(1), OOM, b"\n"]), max_size=8))
def test_any_bytes_are_events_or_decode_errors(pieces: list[bytes]) -> None:
    """No bytes whatever raise anything but a DecodeError, and the stream goes on to its end."""
    found = asyncio.run(collected(fake(*pieces).events("web")))
    lines = [line for line in b"".join(pieces).split(b"\n") if line.strip()]
    assert len(found) == len(lines)


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b'{"type":"stats","id":"web"',
        b'{"type":"stats","id":"web","data":{"pids":{"current":1.5}}}',
        b'{"type":"stats"}{"type":"stats"}',
        b"\0\0\0",
        b'{"type":"oom","id":"\xff"}',
        b'{"type":"oom"}',
        b'{"id":"web"}',
        b'{"type":7}',
        b"[]",
        b"[" * 200_000,
    ],
    ids=lambda line: repr(line[:30]),
)
async def test_a_broken_line_is_an_error_and_the_next_one_an_event(line: bytes) -> None:
    """What is no event raises DecodeError with the line in it; iterating again goes on behind it."""
    stream = fake(stats_line(1) + line + b"\n" + stats_line(2)).events("web")
    assert total(await anext(stream)) == 1
    with pytest.raises(DecodeError) as caught:
        await anext(stream)
    assert caught.value.data == line
    assert total(await anext(stream)) == 2
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_json_may_be_odd() -> None:
    """Numbers beyond 64 bits, keys that come twice and blanks are JSON, and no error."""
    lines = [
        b'{"type":"stats","id":"web","data":{"cpu":{"usage":{"total":340282366920938463463374607431768211456}}}}\r\n',
        b'{"type":"oom","id":"one","id":"two"}\n',
        b"  \t\n\n",
        b' { "id" : "web" , "type" : "oom" } \n',
    ]
    first, *rest = await collected(fake(*lines).events("web"))
    assert isinstance(first, StatsEvent)
    assert first.data.cpu.usage.total == 2**128
    assert rest == [OOMEvent("two"), OOMEvent("web")]


async def test_a_line_without_an_end_counts_at_the_end() -> None:
    """What an ended runc left without a line's end is an event if it is whole, else an error."""
    assert await collected(fake(OOM.strip()).events("web")) == [OOMEvent("web")]
    (error,) = await collected(fake(OOM[:-5]).events("web"))
    assert isinstance(error, DecodeError)


async def test_an_event_of_a_megabyte_is_taken() -> None:
    """Lines far beyond the 64 KiB of asyncio's streams are events like others."""
    raw = {f"key{number}": number for number in range(60_000)}
    line = json.dumps({"type": "stats", "id": "web", "data": {"memory": {"raw": raw}}}).encode()
    assert len(line) > 1 << 20
    (event,) = await collected(fake(line + b"\n").events("web"))
    assert isinstance(event, StatsEvent)
    assert event.data.memory.raw == raw


async def test_an_endless_line_is_an_error_long_before_its_end() -> None:
    """A hundred megabytes without a line's end are one DecodeError, which holds the first bytes up to the limit."""
    piece = bytes(1 << 20)
    runc = fake(OOM, *[piece] * 100, b"\n", OOM)
    one, error, other = await collected(runc.events("web", line_limit=1000))
    assert one == other == OOMEvent("web")
    assert isinstance(error, DecodeError)
    assert error.data == piece[:1000]
    assert "longer than 1000 bytes" in str(error)


# How a stream ends, and what it leaves


@pytest.mark.any_loop
async def test_nothing_is_started_before_it_is_asked_for() -> None:
    """Making a stream starts no runc; entering does, and so does iterating."""
    runner = FakeRunner()
    runner.reply("events", stdout=OOM)
    stream = Runc(runner=runner).events("web", interval=0.25)
    assert repr(stream) == "<EventStream 'web' new, 0 events>"
    assert runner.invocations == []
    async with stream:
        assert [invocation.argv[-4:] for invocation in runner.invocations] == [("--interval", "250ms", "--", "web")]
        assert repr(stream) == "<EventStream 'web' open, 0 events>"
        assert [event async for event in stream] == [OOMEvent("web")]
        assert repr(stream) == "<EventStream 'web' ended, 1 event>"
    assert repr(stream) == "<EventStream 'web' closed, 1 event>"


async def test_a_failing_runc_is_a_typed_error() -> None:
    """What runc says becomes the error of its class; then the stream has ended."""
    stream = fake(exit_code=1, log=NOT_RUNNING).events("web")
    with pytest.raises(ContainerNotRunning, match="container with id web is not running"):
        await anext(stream)
    assert [event async for event in stream] == []


async def test_what_a_failing_runc_left_unfinished_is_no_event() -> None:
    """The beginning of a line, before the failure, hides the failure behind no DecodeError."""
    stream = fake(OOM, OOM[:9], exit_code=2).events("web")
    assert await anext(stream) == OOMEvent("web")
    with pytest.raises(CommandError):
        await anext(stream)


@pytest.mark.any_loop
async def test_a_runc_that_was_killed_is_said_to_be(script: Script) -> None:
    """A signal from elsewhere is no end of a stream but RuncCrashed, and says which signal."""
    runner = Opened()
    stream = Runc(script.program, runner=runner).events("web")
    async with stream:
        script.print(OOM + OOM[:7])
        assert await anext(stream) == OOMEvent("web")
        runner.processes[0].send_signal(9)
        with pytest.raises(RuncCrashed, match="signal 9"):
            await anext(stream)


async def test_a_missing_program_ends_the_stream(tmp_path: Path) -> None:
    """A runc that can't be started is told once, by entering or by iterating."""
    with pytest.raises(RuncNotFound):
        await Runc(tmp_path / "none").events("web").__aenter__()
    stream = Runc(tmp_path / "none").events("web")
    with pytest.raises(RuncNotFound):
        await anext(stream)
    assert [event async for event in stream] == []


@pytest.mark.any_loop
async def test_a_stream_ends_with_its_runc(script: Script) -> None:
    """When runc ends, so does the iteration, and nothing is left though nobody has closed the stream."""
    stream = script.runc.events("web")
    script.print(OOM)
    assert await anext(stream) == OOMEvent("web")
    script.print(stats_line(1))
    script.end()
    assert [total(event) async for event in stream] == [1]
    assert repr(stream) == "<EventStream 'web' ended, 2 events>"


@pytest.mark.any_loop
@pytest.mark.parametrize("on_lag", ["block", "latest"])
async def test_another_task_may_close_it(script: Script, on_lag: OnLag) -> None:
    """`aclose()` ends a wait of another task, in the middle of a line too; that iteration ends without an error."""
    stream = script.runc.events("web", on_lag=on_lag)
    async with asyncio.TaskGroup() as group:
        script.print(OOM + OOM[:9])
        assert await anext(stream) == OOMEvent("web")
        waiting = group.create_task(collected(stream))
        await asyncio.sleep(0)
        await stream.aclose()
    assert waiting.result() == []
    await stream.aclose()
    assert [event async for event in stream] == []


async def test_closing_drops_what_waits() -> None:
    """After `aclose()` no event comes any more, also none that was there already."""
    stream = fake(OOM * 3).events("web")
    async for event in stream:
        assert event == OOMEvent("web")
        await stream.aclose()
    assert repr(stream) == "<EventStream 'web' closed, 1 event>"


async def test_it_can_be_closed_while_it_starts(script: Script) -> None:
    """`aclose()` during the start waits for it, and leaves no runc."""
    stream = script.runc.events("web")
    async with asyncio.TaskGroup() as group:
        started = group.create_task(collected(stream))
        await asyncio.sleep(0)
        await stream.aclose()
    assert started.result() == []


async def test_it_can_be_closed_before_it_starts() -> None:
    """A closed stream starts nothing."""
    runner = FakeRunner()
    stream = Runc(runner=runner).events("web")
    await stream.aclose()
    assert [event async for event in stream] == []
    assert runner.invocations == []


@pytest.mark.parametrize("on_lag", ["block", "latest"])
async def test_a_cancelled_wait_loses_nothing(script: Script, on_lag: OnLag) -> None:
    """However often the wait for an event is cancelled, every event comes once and in order."""
    numbers: list[int] = []
    async with script.runc.events("web", on_lag=on_lag) as stream:
        for number in range(20):
            line = stats_line(number)
            with anyio.move_on_after(0.005):
                await anext(stream)
            script.print(line[:30])
            with anyio.move_on_after(0.002):
                await anext(stream)
            script.print(line[30:])
            numbers.append(total(await anext(stream)))
    assert numbers == list(range(20))


@pytest.mark.parametrize("on_lag", ["block", "latest"])
async def test_a_cancelled_block_leaves_nothing(script: Script, on_lag: OnLag) -> None:
    """A cancel inside the block closes the stream before it goes on."""
    stream = script.runc.events("web", on_lag=on_lag)
    with anyio.CancelScope() as scope:
        async with stream:
            asyncio.get_running_loop().call_later(0.01, scope.cancel)
            await anext(stream)
    assert scope.cancelled_caught
    assert repr(stream) == "<EventStream 'web' closed, 0 events>"


@pytest.mark.parametrize("on_lag", ["block", "latest"])
async def test_a_forgotten_stream_is_closed_by_the_collector(script: Script, on_lag: OnLag) -> None:
    """Breaking out of a bare loop and dropping the stream kills runc, with a warning that names the container."""
    runner = Opened()

    async def forget() -> None:
        async for _ in Runc(script.program, runner=runner).events("web", on_lag=on_lag):
            break

    script.print(OOM)
    with pytest.warns(ResourceWarning, match="unclosed <EventStream 'web' open, 1 event>"):
        await forget()
    assert await runner.processes[0].child.wait() == -9


async def test_a_forgotten_stream_ends_a_process_of_another_runner_too() -> None:
    """What isn't our child gets SIGKILL."""
    runner = FakeRunner()
    runner.reply("events", stdout=OOM, hang=True)
    with pytest.warns(ResourceWarning, match="unclosed"):
        await anext(Runc(runner=runner).events("web"))


async def test_one_task_iterates() -> None:
    """A second task that iterates at the same time is told so."""
    async with fake(hang=True).events("web") as stream, anyio.create_task_group() as group:
        group.start_soon(collected, stream)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await anext(stream)
        await stream.aclose()


async def test_a_runner_has_to_give_a_stdout() -> None:
    """A runner that opens no stdout is told what it lacks, and the stream has ended."""
    stream = Runc(runner=Mute()).events("web")
    with pytest.raises(TypeError, match="without a stdout"):
        await anext(stream)


class Mute(FakeRunner):
    """A runner whose processes have no stdout."""

    async def open(self, invocation: Invocation) -> FakeProcess:
        """Take the stdout away."""
        process = await super().open(invocation)
        process.__dict__.update(stdout=None, aclose=anyio.lowlevel.checkpoint)
        return process


# Slow consumers


async def test_a_slow_consumer_slows_runc(tmp_path: Path) -> None:
    """With `on_lag="block"` runc waits when its pipe and what was read ahead are full, and no event is lost."""
    runc, progress = endless(tmp_path)
    async with runc.events("web") as stream:
        assert total(await anext(stream)) == 0
        reached = -1
        while reached != progress():
            reached = progress()
            await asyncio.sleep(0.1)
        # What is read ahead, one read beyond it, what was taken of it, and the pipe, which grows while it is kept full.
        assert reached < 4 * (BOUND + len(stats_line(0))) / len(stats_line(0))
        assert [total(await anext(stream)) for _ in range(5000)] == list(range(1, 5001))
        assert stream.skipped == 0


async def test_the_latest_stats_take_the_place_of_older_ones(tmp_path: Path) -> None:
    """With `on_lag="latest"` runc never waits: a slow consumer gets what is new, and is told how much it missed."""
    runc, progress = endless(tmp_path)
    async with runc.events("web", on_lag="latest") as stream:
        seen = total(await anext(stream))
        for taken in range(1, 10):
            target = seen + 1000
            await until(lambda: progress() > target)  # noqa: B023 - it is awaited here
            await until(lambda: stream.skipped + taken > target)  # noqa: B023 - likewise
            seen = total(await anext(stream))
            assert seen >= target
            assert stream.skipped + taken >= seen


def endless(directory: Path) -> tuple[Runc, Callable[[], int]]:
    """Return a client whose runc prints numbered stats as fast as they are taken, and what tells the last number."""
    program, progress = directory / "runc", directory / "progress"
    line = stats_line(0).decode().strip().replace('"total":0', '"total":%d')
    progress.write_text("0")
    program.write_text(
        f"#!{sys.executable} -S\n"
        "import itertools, os\n"
        f"note = os.open({str(progress)!r}, os.O_WRONLY)\n"
        "for number in itertools.count():\n"
        f"    print({line!r} % number, flush=True)\n"
        "    os.pwrite(note, b'%d' % number, 0)\n"
    )
    program.chmod(0o755)
    return Runc(program), lambda: int(progress.read_text())


async def test_only_stats_are_skipped(script: Script) -> None:
    """Whatever else comes is kept, in order, and the stats that are left stand where they came."""
    async with script.runc.events("web", on_lag="latest") as stream:
        script.print(stats_line(1) + OOM + stats_line(2) + b"broken\n" + OOM + stats_line(3) + stats_line(4) + OOM)
        await until(lambda: stream.skipped == 3)
        script.print(OOM)
        script.end()
        assert await anext(stream) == OOMEvent("web")
        with pytest.raises(DecodeError):
            await anext(stream)
        assert await anext(stream) == OOMEvent("web")
        assert total(await anext(stream)) == 4
        assert [event async for event in stream] == [OOMEvent("web")] * 2
        assert stream.skipped == 3


async def test_what_is_never_skipped_is_bounded(script: Script) -> None:
    """When more than the limit is kept of other events, reading pauses until some were taken; none is lost."""
    async with script.runc.events("web", on_lag="latest", line_limit=100) as stream:
        lines = OOM * 2000 + stats_line(1)
        script.print(lines[:40_000])
        assert await anext(stream) == OOMEvent("web")
        script.print(lines[40_000:])
        script.end()
        *others, last = [event async for event in stream]
    assert others == [OOMEvent("web")] * 1999
    assert total(last) == 1


async def test_a_failure_comes_behind_what_was_kept() -> None:
    """With `on_lag="latest"` too runc's failure is raised when all events before it were taken."""
    stream = fake(OOM, exit_code=1, log=NOT_RUNNING).events("web", on_lag="latest")
    assert await anext(stream) == OOMEvent("web")
    with pytest.raises(ContainerNotRunning):
        await anext(stream)
    assert [event async for event in stream] == []


# The end of the container


class Watched:
    """A stream of a script, with a process in the place of the container's first, and a cgroup that is a directory."""

    def __init__(self, script: Script, init: subprocess.Popen[bytes], cgroup: Path) -> None:
        self.script = script
        self.runner = Opened()
        self.cgroup = cgroup
        self.stream = Runc(script.program, root=script.root, runner=self.runner).events("web")
        self.init = init

    def kills(self, number: int) -> None:
        """Set the kernel's counter."""
        (self.cgroup / "memory.events").write_text(f"oom 9\noom_kill {number}\n")

    async def end(self, data: bytes = b"", stream: EventStream | None = None) -> None:
        """Let runc print, and then the container end."""
        if data:
            self.script.print(data)
            await (stream or self.stream).wait()
        self.init.kill()


@pytest.fixture
def watched(script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Return a stream whose container can be ended, while its runc goes on."""
    cgroup = tmp_path / "cgroup"
    cgroup.mkdir()

    def memory_cgroup(pid: int) -> Path:
        del pid
        return cgroup

    monkeypatch.setattr(first_process, "memory_cgroup", memory_cgroup)
    with sleeper() as init:
        script.record(init.pid)
        yield Watched(script, init, cgroup)


@pytest.mark.any_loop
@pytest.mark.parametrize("on_lag", ["block", "latest"])
async def test_it_ends_with_the_container(watched: Watched, on_lag: OnLag) -> None:
    """A runc that goes on after the container's end is ended; what it had printed by then comes, but half a line."""
    stream = Runc(watched.script.program, root=watched.script.root, runner=watched.runner).events("web", on_lag=on_lag)
    async with stream:
        watched.script.print(OOM)
        assert await anext(stream) == OOMEvent("web")
        if on_lag == "block":
            await watched.end(stats_line(1) + stats_line(2)[:40], stream)
            assert [total(event) async for event in stream] == [1]
        else:
            watched.init.kill()
            assert [event async for event in stream] == []
        assert repr(stream).startswith("<EventStream 'web' ended")


async def test_a_kill_of_which_runc_says_nothing_is_told(watched: Watched) -> None:
    """If the kernel has killed for memory and no event told it by the container's end, the last event does."""
    watched.kills(3)
    async with watched.stream as stream:
        watched.kills(4)
        await watched.end(stats_line(1))
        events = [event async for event in stream]
    assert [type(event) for event in events] == [StatsEvent, OOMEvent]
    assert events[-1] == OOMEvent("web")


async def test_a_kill_that_runc_has_told_is_not_told_twice(watched: Watched) -> None:
    """One event for each kill, whether runc tells of it once or twice, and one for the last of which it doesn't."""
    watched.kills(0)
    async with watched.stream as stream:
        watched.kills(1)
        watched.script.print(OOM + OOM)
        assert [await anext(stream), await anext(stream)] == [OOMEvent("web")] * 2
        await watched.end()
        assert [event async for event in stream] == []


async def test_a_kill_after_one_that_was_told_is_told(watched: Watched) -> None:
    """Two events for a kill (cgroup v2) don't stand for the next one."""
    watched.kills(0)
    async with watched.stream as stream:
        watched.kills(1)
        watched.script.print(OOM + OOM)
        assert [await anext(stream), await anext(stream)] == [OOMEvent("web")] * 2
        watched.kills(2)
        await watched.end()
        assert [event async for event in stream] == [OOMEvent("web")]


async def test_on_cgroup_v1_the_event_comes_before_the_kill(watched: Watched) -> None:
    """An event that is taken before the kernel has counted the kill stands for it."""
    counter = watched.cgroup / "memory.oom_control"
    counter.write_text("under_oom 0\noom_kill 0\n")
    async with watched.stream as stream:
        watched.script.print(OOM)
        assert await anext(stream) == OOMEvent("web")
        counter.write_text("under_oom 1\noom_kill 1\n")
        await watched.end()
        assert [event async for event in stream] == []


async def test_a_cgroup_that_is_gone_tells_nothing(watched: Watched) -> None:
    """Who deletes a container takes the counter away; then nothing is made up."""
    watched.kills(0)
    async with watched.stream as stream:
        (watched.cgroup / "memory.events").unlink()
        await watched.end(stats_line(1))
        assert [total(event) async for event in stream] == [1]


async def test_a_container_that_has_ended_is_left_to_runc(watched: Watched) -> None:
    """Of a container that has ended before the stream began runc says so, and nobody else."""
    watched.init.kill()
    watched.init.wait()
    async with watched.stream as stream:
        watched.script.print(OOM)
        assert await anext(stream) == OOMEvent("web")


async def test_a_zombie_has_ended(watched: Watched) -> None:
    """A first process that nobody has reaped yet counts as ended."""
    watched.init.kill()
    await ended(watched.init.pid)
    async with watched.stream as stream:
        watched.script.print(OOM)
        assert await anext(stream) == OOMEvent("web")


async def test_another_process_of_the_same_number_is_not_watched(watched: Watched) -> None:
    """A pid that was given away since belongs to somebody else, whose end means nothing."""
    record = watched.script.root / "web" / "state.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "init_process_start": content["init_process_start"] - 1}))
    async with watched.stream as stream:
        watched.init.kill()
        watched.script.print(OOM)
        assert await anext(stream) == OOMEvent("web")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"init_process_pid": "1"}', b"\xff"])
async def test_a_record_that_cannot_be_read_is_left_to_runc(watched: Watched, content: bytes) -> None:
    """Where runc's record is broken, runc says what it has to say."""
    (watched.script.root / "web" / "state.json").write_bytes(content)
    async with watched.stream as stream:
        watched.script.print(OOM)
        assert await anext(stream) == OOMEvent("web")


async def test_a_forgotten_stream_watches_no_longer(watched: Watched) -> None:
    """The garbage collector ends the watch too; then the container's end calls nobody."""
    watched.script.print(OOM)
    assert await anext(watched.stream) == OOMEvent("web")
    with pytest.warns(ResourceWarning, match="unclosed"):
        del watched.stream
    watched.init.kill()
    assert await watched.runner.processes[0].child.wait() == -9


async def test_the_watch_ends_with_a_failed_start(watched: Watched) -> None:
    """Where runc can't be started, the container isn't watched any more."""
    watched.script.program.unlink()
    with pytest.raises(RuncNotFound):
        await anext(watched.stream)


def secret(state_directory: str, container_id: str) -> None:
    """Read runc's record of a container in the place of `read_record`."""
    raise PermissionError(state_directory, container_id)


@pytest.mark.parametrize("status", ["running", "stopped"])
async def test_runc_is_asked_where_its_record_is_secret(
    status: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the record may not be read, as with sudo before runc, `runc state` tells which process to watch."""
    monkeypatch.setattr(streaming, "read_record", secret)
    pid = watched.init.pid if status == "running" else 0
    state = json.dumps({"id": "web", "status": status, "pid": pid, "bundle": "/b"})
    program = watched.script.program
    program.write_text(
        f"#!/bin/sh\ncase \"$*\" in *state*) echo '{state}';; *) exec cat {watched.script.fifo};; esac\n"
    )
    async with watched.stream as stream:
        watched.script.print(OOM)
        assert await anext(stream) == OOMEvent("web")
        if status == "running":
            await watched.end()
            assert [event async for event in stream] == []


async def test_a_process_that_is_younger_than_runcs_answer_is_another(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has the pid but started after runc told it isn't watched."""
    runner = FakeRunner()
    runner.reply(
        "state", stdout=json.dumps({"id": "a", "status": "running", "pid": watched.init.pid, "bundle": "/"}).encode()
    )
    runner.reply("events", stdout=OOM)
    monkeypatch.setattr(streaming, "read_record", secret)
    monkeypatch.setattr(time, "clock_gettime", float)
    stream = Runc(runner=runner).events("web")
    assert [event async for event in stream] == [OOMEvent("web")]


# Containers that come and go while runc starts


async def test_a_container_that_is_made_while_runc_starts_is_watched(script: Script) -> None:
    """A stream that is begun before there is a container ends with the one that runc has found."""
    with sleeper() as init:
        async with asyncio.timeout(20), script.runc.events("web") as stream:
            script.record(init.pid)
            script.print(OOM)
            assert await anext(stream) == OOMEvent("web")
            init.kill()
            assert [event async for event in stream] == []


async def test_one_that_has_ended_when_the_first_line_comes_ends_the_stream(script: Script) -> None:
    """Figures of a dead container are the last, though there was nothing to watch before."""
    with sleeper() as init:
        async with asyncio.timeout(20), script.runc.events("web") as stream:
            script.record(init.pid)
            init.kill()
            await ended(init.pid)
            script.print(stats_line(1))
            assert [total(event) async for event in stream] == [1]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_container_that_is_made_anew_while_runc_starts_is_watched(watched: Watched, when: str) -> None:
    """The end of a container that runc hasn't seen is no end of the stream, which ends with the one that it sees."""
    if when == "before":
        watched.init.kill()
        await ended(watched.init.pid)
    async with asyncio.timeout(20), watched.stream as stream:
        watched.init.kill()
        watched.init.wait()
        with sleeper() as other:
            watched.script.record(other.pid)
            await asyncio.sleep(0)
            watched.script.print(stats_line(1))
            assert total(await anext(stream)) == 1
            other.kill()
            assert [event async for event in stream] == []


async def test_the_end_of_a_container_that_runc_has_found_ends_the_stream_before_any_line(watched: Watched) -> None:
    """From the moment on in which runc watches the container's memory, its end is that of the stream."""
    note = watched.script.fifo.parent / "memory.oom_control"
    note.touch()
    watched.script.program.write_text(f"#!/bin/sh\nexec cat {watched.script.fifo} 9< {note}\n")
    async with asyncio.timeout(20), watched.stream as stream:
        await until(lambda: first_process.watches_memory(watched.runner.processes[0].pid))
        watched.init.kill()
        assert [event async for event in stream] == []


async def test_a_container_that_ends_while_runc_starts_ends_the_stream(watched: Watched) -> None:
    """A runc that then finds no running container is no failure: there was one when the stream began."""
    watched.script.program.write_text(
        f"#!/bin/sh\nread word < {watched.script.fifo}\nprintf '%s' \"$word\" >&2\nexit 1\n"
    )
    async with asyncio.timeout(20), watched.stream as stream:
        watched.init.kill()
        await ended(watched.init.pid)
        await asyncio.sleep(0.05)  # for the turn of the loop in which the end is seen
        watched.script.print(NOT_RUNNING)
        assert [event async for event in stream] == []


def test_what_cannot_be_looked_at_is_taken_to_watch() -> None:
    """Of a runc that is gone, or another user's, nothing is known; then a container's end is the stream's."""
    assert first_process.watches_memory(2**22 + 1)


# Figures that can't be read


UNREADABLE = (
    b'{"level":"error","msg":"unable to get container cgroup stats: no such thing","time":"2026-11-23T12:36:42Z"}\n'
)
SORTING = """\
#!/bin/sh
case "$*" in *--stats*) {answer} ;; esac
while IFS= read -r line; do
    case $line in *level*) printf '%s\\n' "$line" >&2 ;; *) printf '%s\\n' "$line" ;; esac
done < {fifo}
"""


@pytest.fixture
def sorting(watched: Watched) -> Watched:
    """Return a stream whose runc writes to its stderr, as the log goes there, what is a record."""
    watched.script.program.write_text(SORTING.format(answer="exit 1", fifo=watched.script.fifo))
    return watched


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list of what streams have read and keep for their consumers."""
    found: list[object] = []

    def noting(keep: Callable[[Backlog, Any], None]) -> Callable[[Backlog, Any], None]:
        def kept(backlog: Backlog, entry: object) -> None:
            keep(backlog, entry)
            found.append(entry)

        return kept

    monkeypatch.setattr(Backlog, "keep", noting(Backlog.keep))
    monkeypatch.setattr(Backlog, "keep_failure", noting(Backlog.keep_failure))
    return found


@pytest.mark.any_loop
@pytest.mark.parametrize("on_lag", ["block", "latest"])
async def test_figures_that_cannot_be_read_are_reported_at_once(sorting: Watched, on_lag: OnLag) -> None:
    """What runc logs instead of figures is an event with its reason, and the stream goes on."""
    runc = Runc(sorting.script.program, root=sorting.script.root, runner=sorting.runner)
    async with asyncio.timeout(20), runc.events("web", interval=3600, on_lag=on_lag) as stream:
        for _ in range(3):
            sorting.script.print(UNREADABLE)
            event = await anext(stream)
            assert isinstance(event, StatsFailedEvent)
            assert event.id == event.error.container_id == "web"
            assert event.error.message == "unable to get container cgroup stats: no such thing"
            assert event.error.log[0].time is not None
            sorting.script.print(stats_line(1))
            assert total(await anext(stream)) == 1


async def test_three_intervals_without_figures_end_the_stream(sorting: Watched) -> None:
    """The third failure in a row is raised, and is the end; figures in between begin the count anew."""
    async with asyncio.timeout(20), sorting.stream as stream:
        sorting.script.print(UNREADABLE)
        assert isinstance(await anext(stream), StatsFailedEvent)
        sorting.script.print(stats_line(1))
        assert total(await anext(stream)) == 1
        for _ in range(2):
            sorting.script.print(UNREADABLE)
            assert isinstance(await anext(stream), StatsFailedEvent)
        sorting.script.print(UNREADABLE)
        with pytest.raises(CommandError, match="no such thing"):
            await anext(stream)
        assert [event async for event in stream] == []


async def test_failures_that_nobody_takes_make_one_event(sorting: Watched, kept: list[object]) -> None:
    """However many come to a slow consumer, the newest stands for those before it."""
    async with asyncio.timeout(20), sorting.stream as stream:
        sorting.script.print(UNREADABLE + UNREADABLE.replace(b"no such", b"another"))
        await until(lambda: len(kept) == 2)
        event = await anext(stream)
        assert isinstance(event, StatsFailedEvent)
        assert "another thing" in str(event.error)
        sorting.script.print(OOM)
        assert await anext(stream) == OOMEvent("web")


async def test_figures_of_a_container_that_has_ended_cannot_be_read(sorting: Watched) -> None:
    """That is the end of the stream, and no failure."""
    async with asyncio.timeout(20), sorting.stream as stream:
        sorting.script.print(stats_line(1))
        assert total(await anext(stream)) == 1
        sorting.init.kill()
        sorting.init.wait()  # and no turn of the loop, which would see the end first
        sorting.script.print(UNREADABLE * 3)
        assert [event async for event in stream] == []


async def test_what_else_runc_logs_is_no_event(sorting: Watched) -> None:
    """Warnings, debug lines by the megabyte and other errors hold nothing up; they are told if runc fails."""
    noise = b'{"level":"debug","msg":"' + b"x" * 900 + b'"}\n{"level":"error","msg":"something else"}\n'
    async with asyncio.timeout(20), sorting.stream as stream:
        for _ in range(20):
            sorting.script.print(noise * 20)
            sorting.script.print(stats_line(1))
            assert total(await anext(stream)) == 1
        sorting.runner.processes[0].send_signal(9)
        with pytest.raises(CommandError, match="something else") as caught:
            await anext(stream)
    assert caught.value.log[-1].msg == "something else"


@pytest.mark.parametrize("answer", ["fails", "succeeds"])
async def test_a_runc_that_says_nothing_is_asked(
    sorting: Watched, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """Silence for three intervals ends the stream with what `runc events --stats` fails with, if it fails."""
    monkeypatch.setattr(reader, "LEAST_SILENCE", 0.05)
    log = f"printf '%s' '{UNREADABLE.decode().strip()}' >&2; exit 1"
    sorting.script.program.write_text(
        SORTING.format(answer=log if answer == "fails" else "echo; exit 0", fifo=sorting.script.fifo)
    )
    runc = Runc(sorting.script.program, root=sorting.script.root, runner=sorting.runner)
    async with asyncio.timeout(20), runc.events("web", interval=0.001) as stream:
        if answer == "fails":
            with pytest.raises(CommandError, match="no such thing"):
                await anext(stream)
        else:
            await asyncio.sleep(0.3)
            sorting.script.print(stats_line(1))
            assert total(await anext(stream)) == 1


# When events came, and what they hold


@pytest.mark.any_loop
async def test_events_have_the_time_at_which_they_came(script: Script, kept: list[object]) -> None:
    """Their line is read at once, so that a consumer who comes later finds the intervals as they were."""
    async with asyncio.timeout(20), script.runc.events("web") as stream:
        before = dt.datetime.now(dt.UTC), time.monotonic()
        script.print(stats_line(1))
        await stream.wait()
        between = time.monotonic()
        await asyncio.sleep(0.2)
        script.print(stats_line(2))
        await until(lambda: len(kept) == 2)
        after = dt.datetime.now(dt.UTC), time.monotonic()
        await asyncio.sleep(0.2)
        first, second = await anext(stream), await anext(stream)
    assert isinstance(first, StatsEvent)
    assert isinstance(second, StatsEvent)
    assert before[1] <= first.monotonic <= between < between + 0.2 <= second.monotonic <= after[1]
    assert before[0] <= first.time < second.time <= after[0]
    assert second.monotonic - first.monotonic == pytest.approx((second.time - first.time).total_seconds(), abs=0.05)


async def test_the_newest_figures_have_their_time(script: Script) -> None:
    """With `on_lag="latest"` the time is that of the figures which are left."""
    async with asyncio.timeout(20), script.runc.events("web", on_lag="latest") as stream:
        script.print(stats_line(1))
        await stream.wait()
        between = time.monotonic()
        script.print(stats_line(2))
        await until(lambda: stream.skipped == 1)
        event = await anext(stream)
    assert total(event) == 2
    assert isinstance(event, StatsEvent)
    assert event.monotonic >= between


async def test_what_a_newer_runc_adds_is_kept() -> None:
    """The line is there as it was printed, and no key in it is taken for what the library adds."""
    line = (
        b'{"type":"stats","id":"web","data":{"cpu":{"new":[1]},"energy":7},"time":"now","monotonic":null,"raw":{},'
        b'"more":true}\n'
    )
    event = await anext(stream := fake(line).events("web"))
    await stream.aclose()
    assert isinstance(event, StatsEvent)
    assert json.loads(event.raw)["data"]["energy"] == 7
    assert event.raw == line
    assert isinstance(event.monotonic, float)
    assert event.time.tzinfo is not None


def test_equal_figures_are_equal_whenever_they_came() -> None:
    """Two events of the same figures are equal, have one hash, and show no line; times can be given by hand."""
    moment = dt.datetime(2026, 11, 28, tzinfo=dt.UTC)
    one, other = StatsEvent("web", Stats()), StatsEvent("web", Stats(), time=moment, monotonic=7.5, raw=b"x" * 1000)
    assert one == other != StatsEvent("api", Stats())
    assert len({one, other}) == 1
    assert one != "web"
    assert "2026-11-28T00:00:00+00:00" in repr(other)
    assert "xx" not in repr(other)
    assert pickle.loads(pickle.dumps(other)).monotonic == 7.5  # noqa: S301 - our own


async def test_waiting_and_taking_are_what_iterating_does() -> None:
    """`wait` ends when there is something, `take` never waits, and the end is that of an iteration."""
    stream = fake(OOM, b"\n", stats_line(1)).events("web")
    assert stream.take() is None
    found: list[Event] = []
    with contextlib.suppress(StopAsyncIteration):
        while True:
            await stream.wait()
            while (event := stream.take()) is not None:
                found.append(event)
    assert [type(event) for event in found] == [OOMEvent, StatsEvent]
    assert stream.take() is None


# What is refused


@pytest.mark.parametrize(
    "interval", [0, -1, 0.0009, 1e-9, float("nan"), float("inf"), -float("inf"), 2**63 / 1e9, 1e300]
)
def test_an_interval_that_runc_cannot_keep_is_refused(interval: float) -> None:
    """Nothing is started for an interval below a millisecond, without end, or that is no number."""
    with pytest.raises(ValueError, match="interval must be at least a millisecond"):
        fake().events("web", interval=interval)


@pytest.mark.parametrize(
    ("interval", "word"), [(0.001, "1ms"), (0.0025, "2ms"), (1, "1000ms"), (5.0, "5000ms"), (86400, "86400000ms")]
)
async def test_intervals_go_to_runc_in_milliseconds(interval: float, word: str) -> None:
    """Fractions of a second are kept down to the millisecond."""
    runner = FakeRunner()
    async with Runc(runner=runner).events("web", interval=interval):
        assert runner.invocations[0].argv[-3] == word


def test_other_arguments_are_checked_at_once() -> None:
    """An id that can't be one, a way to lag and a limit that don't exist are refused before anything starts."""
    with pytest.raises(InvalidContainerID):
        fake().events("..")
    with pytest.raises(InvalidContainerID):
        fake().events("a/b")
    with pytest.raises(ValueError, match="on_lag must be 'block' or 'latest', not 'drop'"):
        fake().events("web", on_lag="drop")  # type: ignore[arg-type]  # that is the fault
    with pytest.raises(ValueError, match="line_limit must be at least 1, not 0"):
        fake().events("web", line_limit=0)
