"""Events of real containers: figures, lack of memory, and the end of the stream with the container."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import re
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest
import uvloop
from containers import MakeContainer, ended
from runtime import Runtime, is_cgroup2

from runc_async import ContainerNotFound, ContainerNotRunning, NullIO, RuncCrashed, Status
from runc_async._containers.first_process import watches_memory
from runc_async.client import Runc
from runc_async.events import Event, OOMEvent, StatsEvent
from runc_async.figures import cpu_percent
from runc_async.merge import StreamEnded, merge_events
from runc_async.stats import CPU, CPUUsage, Stats

if TYPE_CHECKING:
    from containers import MakeBundle

# On cgroup v2 runc watches memory.events in any case, and has no events without it.
pytestmark = [pytest.mark.runc, pytest.mark.needs("events"), pytest.mark.needs("memory controller")]

uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, for good: before any test counts descriptors

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT = 16 << 20
LITTLE_MEMORY: dict[str, Any] = {"linux": {"resources": {"memory": {"limit": LIMIT, "swap": LIMIT}}}}
# Doubles a string until the kernel steps in.
GREEDY = "x=x; while :; do x=$x$x; done"


def running(*words: str) -> int | None:
    """Return the pid of a process that has all these words in its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            if set(words) <= set(path.read_text(errors="replace").split("\0")):
                return int(path.parent.name)
    return None


async def watched(name: str) -> int:
    """Wait until a runc prints the events of a container, and return its pid."""
    async with asyncio.timeout(45):
        while (pid := running("events", name)) is None:  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.05)
    return pid


@pytest.mark.any_loop
async def test_figures_come_in_each_interval(client: Runc, make_container: MakeContainer) -> None:
    """At 100 ms no figures come early or torn, each is of this container, and counters never go down."""
    name = await make_container(Status.RUNNING, ["sh", "-c", "while :; do :; done"])
    begun = time.monotonic()
    async with client.events(name, interval=0.1) as stream:
        events = [await anext(stream) for _ in range(20)]
    assert time.monotonic() - begun > 1.99
    used: list[int] = []
    for event in events:
        assert isinstance(event, StatsEvent)
        assert event.id == name
        used.append(event.data.cpu.usage.total)
    # On a busy machine the container may get no time at all between two of them.
    assert all(earlier <= later for earlier, later in itertools.pairwise(used))
    assert used[0] < used[-1]


async def test_figures_come_of_a_created_and_a_paused_container(client: Runc, make_container: MakeContainer) -> None:
    """A container needn't run to be watched; and a pause in between doesn't end the stream."""
    name = await make_container(Status.CREATED)
    async with client.events(name, interval=0.05) as stream:
        assert isinstance(await anext(stream), StatsEvent)
        await client.start(name)
        for change in (client.pause, client.resume):
            await change(name)
            for _ in range(3):
                assert isinstance(await anext(stream), StatsEvent)


@pytest.mark.any_loop
async def test_the_stream_ends_with_the_container(client: Runc, make_container: MakeContainer) -> None:
    """It ends when the container has ended, though nobody deletes the container."""
    name = await make_container()
    async with client.events(name, interval=0.05) as stream:
        assert isinstance(await anext(stream), StatsEvent)
        pid = (await client.state(name)).pid
        await client.kill(name, "KILL")
        await ended(pid)
        async with asyncio.timeout(20):
            rest = [event async for event in stream]
    assert all(isinstance(event, StatsEvent) for event in rest)
    assert (await client.state(name)).status == Status.STOPPED


async def test_the_stream_ends_when_the_container_is_deleted(client: Runc, make_container: MakeContainer) -> None:
    """Deleting the container ends the stream too."""
    name = await make_container()
    async with client.events(name, interval=0.05) as stream:
        await anext(stream)
        await client.delete(name, force=True)
        async with asyncio.timeout(20):
            assert all([isinstance(event, StatsEvent) async for event in stream])


@pytest.mark.needs("host kernel")
async def test_the_container_may_have_been_started_anew(client: Runc, make_container: MakeContainer) -> None:
    """A stream belongs to a container and not to its id: it ends though there is another of that id by then."""
    name = await make_container()
    async with client.events(name, interval=60) as stream:
        bundle = (await client.state(name)).bundle
        pid = await watched(name)
        async with asyncio.timeout(20):
            while not watches_memory(pid):  # noqa: ASYNC110 - runc sets no event
                await asyncio.sleep(0.01)
        await client.delete(name, force=True)
        await client.run(name, bundle, detach=True)
        async with asyncio.timeout(20):
            assert [event async for event in stream] == []


SLOW = """\
#!/bin/sh
case "$*" in *" events "*) read -r _ < {gate};; esac
exec {command} "$@"
"""


class Slow(NamedTuple):
    """A client whose runc looks at a container whose events it is to print when the gate is opened, and not before."""

    runc: Runc
    gate: int

    def open(self) -> None:
        """Let it go on, and the runc that is asked for the reason of a long silence too."""
        os.write(self.gate, b"\n" * 100)


@pytest.fixture
def slow(runtime: Runtime, root: Path, tmp_path: Path) -> Iterator[Slow]:
    """Return a client whose `events` is slow to start."""
    os.mkfifo(tmp_path / "gate")
    program = tmp_path / "runc"
    program.write_text(SLOW.format(command=runtime.command, gate=tmp_path / "gate"))
    program.chmod(0o755)
    gate = os.open(tmp_path / "gate", os.O_RDWR | os.O_CLOEXEC)
    yield Slow(Runc(program, root=root), gate)
    os.close(gate)


@pytest.mark.parametrize("before", ["nothing", "another"])
async def test_a_stream_that_is_begun_before_its_container_ends_with_it(
    before: str, client: Runc, slow: Slow, make_container: MakeContainer
) -> None:
    """A runc that is slow to start finds a container that is made meanwhile; the end of that is the stream's."""
    name = await make_container()
    bundle = (await client.state(name)).bundle
    if before == "nothing":
        await client.delete(name, force=True)
    async with asyncio.timeout(30), slow.runc.events(name, interval=0.05) as stream:
        if before == "another":
            await client.delete(name, force=True)
        await client.run(name, bundle, io=NullIO(), detach=True)
        slow.open()
        assert isinstance(await anext(stream), StatsEvent)
        await client.kill(name, "KILL")
        assert all([isinstance(event, StatsEvent) async for event in stream])
    assert (await client.state(name)).status == Status.STOPPED


UNREADABLE = """\
import asyncio, subprocess, sys, tempfile
from runc_async import CommandError, Runc, StatsFailedEvent

async def main(command, root, name, cgroup):
    runc = Runc(command, root=root)
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"unlimited\\n")
        file.flush()
        subprocess.run(["mount", "--bind", file.name, cgroup + "/pids.max"], check=True)
        failed = []
        try:
            async with runc.events(name, interval=0.1) as stream:
                async for event in stream:
                    failed.append(event)
        except CommandError as error:
            print(len(failed), {type(event) for event in failed} == {StatsFailedEvent}, error.container_id, error)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.skipif(is_cgroup2(), reason="there it is known by a test without a container")
@pytest.mark.needs("host kernel")
async def test_figures_that_runc_cannot_read_are_told(
    runtime: Runtime, root: Path, client: Runc, make_container: MakeContainer
) -> None:
    """What a kernel prints and runc can't parse is reported at once, and ends the stream after three intervals."""
    name = await make_container()
    memberships = Path(f"/proc/{(await client.state(name)).pid}/cgroup").read_text().splitlines()
    (path,) = (line.partition(":pids:")[2] for line in memberships if ":pids:" in line)
    cgroup = f"/sys/fs/cgroup/pids{path}"
    command = ["unshare", "-m", sys.executable, "-c", UNREADABLE, runtime.command, str(root), name, cgroup]
    run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=50, check=False)
    assert run.stdout, run.stderr
    events, rest = run.stdout.split(maxsplit=1)  # of two that come together on a busy host the later one is left
    assert events in {"1", "2"}, run.stderr
    assert rest.startswith(f"True {name} container '{name}': unable to get container cgroup stats")


async def test_one_busy_core_is_one_hundred_percent_whoever_is_slow(
    client: Runc, make_container: MakeContainer
) -> None:
    """Between figures that a slow consumer takes together, as much time lies as lay between runc's lines."""
    name = await make_container(Status.RUNNING, ["sh", "-c", "while :; do :; done"])
    events: list[StatsEvent] = []
    async with client.events(name, interval=0.2) as stream:
        for number in range(12):
            event = await anext(stream)
            assert isinstance(event, StatsEvent)
            events.append(event)
            if number % 4 == 0:
                await asyncio.sleep(1)
    gaps = [later.monotonic - earlier.monotonic for earlier, later in itertools.pairwise(events)]
    # A busy host gives the container less than a core, and lets lines be read late; but without the times most gaps
    # would be none, and a gap of none has no share.
    shares = [cpu_percent(earlier, later) or math.inf for earlier, later in itertools.pairwise(events)]
    assert statistics.median(gaps) > 0.05
    assert statistics.median(shares) < 150


async def test_a_killed_process_is_told_and_figures_go_on(client: Runc, make_container: MakeContainer) -> None:
    """A process inside that is killed for memory gives an OOMEvent; the container and its stream go on."""
    name = await make_container(Status.RUNNING, ["sleep", "60"], **LITTLE_MEMORY)
    if (await client.stats(name)).memory.usage.limit != LIMIT:
        pytest.skip("memory isn't counted here")
    async with client.events(name, interval=0.1) as stream:
        await anext(stream)
        response = await client.exec(name, ["sh", "-c", GREEDY])
        assert response.exit_code == 137
        kinds: list[type[Event]] = []
        async with asyncio.timeout(30):
            while OOMEvent not in kinds or kinds[-3:] != [StatsEvent] * 3:
                kinds.append(type(await anext(stream)))


@pytest.mark.parametrize("attempt", range(3))
async def test_a_killed_init_is_told_before_the_end(attempt: int, client: Runc, make_container: MakeContainer) -> None:
    """A container whose first process is killed for memory gives one OOMEvent, and then its stream ends."""
    del attempt
    name = await make_container(Status.CREATED, ["sh", "-c", GREEDY], **LITTLE_MEMORY)
    if (await client.stats(name)).memory.usage.limit != LIMIT:
        pytest.skip("memory isn't counted here")
    async with client.events(name, interval=0.05) as stream:
        await client.start(name)
        async with asyncio.timeout(20):
            events = [event async for event in stream]
    assert [event for event in events if not isinstance(event, StatsEvent)] == [OOMEvent(name)]


async def test_a_foreground_run_can_be_watched(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A container that its own runc deletes at its end ends its stream like others."""
    name = container_id()
    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        run = group.create_task(client.run(name, make_bundle(["sleep", "600"])))
        events: list[Event] = []
        while not events:
            stream = client.events(name, interval=0.1)
            with contextlib.suppress(ContainerNotFound):  # it isn't there yet
                async for event in stream:
                    if not events:
                        await client.kill(name, "KILL")
                    events.append(event)
    assert run.result().exit_code == 137


async def test_a_stopped_container_has_no_events_and_no_figures(client: Runc, make_container: MakeContainer) -> None:
    """Events and figures of a stopped container are an error of their own, and so are those of none."""
    name = await make_container(Status.STOPPED)
    with pytest.raises(ContainerNotRunning):
        await anext(client.events(name))
    with pytest.raises(ContainerNotRunning):
        await client.stats(name)
    await client.delete(name)
    with pytest.raises(ContainerNotFound):
        await anext(client.events(name))
    with pytest.raises(ContainerNotFound):
        await client.stats(name)


async def test_a_runc_that_is_killed_is_an_error(client: Runc, make_container: MakeContainer) -> None:
    """Who kills the runc of a stream doesn't end it silently."""
    name = await make_container()
    async with client.events(name, interval=0.05) as stream:
        await anext(stream)
        os.kill(await watched(name), 9)
        with pytest.raises(RuncCrashed, match="signal 9"):
            [event async for event in stream]


@pytest.mark.needs("fast events")
async def test_a_slow_consumer_gets_the_latest(client: Runc, make_container: MakeContainer) -> None:
    """Of figures that come every millisecond, one that takes its time gets new ones and is told what it missed."""
    name = await make_container()
    async with asyncio.timeout(40), client.events(name, interval=0.001, on_lag="latest") as stream:
        while stream.skipped < 50:
            await asyncio.sleep(0.1)
            assert isinstance(await anext(stream), StatsEvent)


async def test_many_containers_make_one_stream(client: Runc, make_container: MakeContainer) -> None:
    """Figures of several containers come in one iteration, until the last has ended; one that ends is told."""
    names = [await make_container() for _ in range(3)]
    async with merge_events(client.events(name, interval=0.05) for name in names) as events:
        seen = dict.fromkeys(names, 0)
        while min(seen.values()) < 3:
            seen[(await anext(events)).id] += 1
        for name in names:
            await client.kill(name, "KILL")
        rest = [event async for event in events]
    assert sorted(event.id for event in rest if isinstance(event, StreamEnded)) == sorted(names)


async def test_closing_in_the_middle_leaves_nothing(client: Runc, make_container: MakeContainer) -> None:
    """However a stream is left, at whatever moment, its runc is gone."""
    name = await make_container()
    for delay in (0, 0.001, 0.005, 0.01, 0.02, 0.05):
        with anyio.move_on_after(delay):
            async with client.events(name, interval=0.001) as stream:
                async for _ in stream:
                    pass
        stream = client.events(name, interval=0.001)
        with anyio.move_on_after(delay):
            [event async for event in stream]
        await stream.aclose()


def example(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run one of the examples."""
    command = [sys.executable, str(EXAMPLES / name), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.needs("host kernel")
async def test_the_example_of_events_shows_a_table(root: Path, client: Runc, make_container: MakeContainer) -> None:
    """The example shows CPU, a dash before it is known, and memory of each container until its end, and no longer."""
    names = [await make_container() for _ in range(2)]
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / "events.py"), str(root)),
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"},  # as on a terminal: live
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    dash = re.escape("\N{EN DASH}")
    try:
        async with asyncio.timeout(50):
            shown = ""
            for name in names:
                shown = await shown_until(rf"{name} *│ [\d.]+ % *│ [\d.]+ MiB", run, shown)
            assert re.search(rf"{names[0]} *│ {dash} *│ [\d.]+ MiB", shown)
            for name in names:
                await client.kill(name, "KILL")
                shown = await shown_until(rf"{name} [\d.]+ % [\d.]+ MiB has ended", run, shown)
            assert run.stdout is not None
            last_table = (await run.stdout.read()).decode().rpartition("┡")[2]
            assert await run.wait() == 0
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
    assert not any(name in last_table for name in names)


@pytest.mark.usefixtures("runtime")
def test_the_example_of_events_takes_the_time_from_the_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second of CPU time between lines that were read two seconds apart is 25 percent."""
    monkeypatch.setattr(sys, "argv", ["events.py"])

    def close(main: Coroutine[Any, Any, None]) -> None:
        main.close()

    monkeypatch.setattr(asyncio, "run", close)
    row = runpy.run_path(str(EXAMPLES / "events.py"))["row"]
    before, now = (
        StatsEvent("web", Stats(cpu=CPU(usage=CPUUsage(total=total))), monotonic=seconds)
        for total, seconds in ((10**9, 100.0), (15 * 10**8, 102.0))
    )
    assert row(before, now) == ("web", "25.0 %", "\N{EN DASH}")


async def shown_until(pattern: str, run: asyncio.subprocess.Process, shown: str) -> str:
    """Read what a program draws, without the colours, until it has drawn something."""
    while not re.search(pattern, shown):
        assert run.stdout is not None
        line = await run.stdout.readline()
        assert line, shown
        shown += re.sub(r"\x1b\[[\d;?]*\w", "", line.decode())
    return shown


@pytest.mark.needs("host kernel")
async def test_the_example_of_oom_watch_names_the_container(
    root: Path, client: Runc, make_container: MakeContainer
) -> None:
    """The example prints which container ran out of memory, and ends with it."""
    name = await make_container(Status.CREATED, ["sh", "-c", GREEDY], **LITTLE_MEMORY)
    if (await client.stats(name)).memory.usage.limit != LIMIT:
        pytest.skip("memory isn't counted here")
    example_run = asyncio.create_task(asyncio.to_thread(example, "oom_watch.py", str(root)))
    await watched(name)
    await client.start(name)
    ended_run = await example_run
    assert ended_run.stderr == ""
    assert f"{name} ran out of memory" in ended_run.stdout
