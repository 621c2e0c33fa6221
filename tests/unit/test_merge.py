"""The events of many containers in one iteration: nothing is lost, no failure ends the others, nothing is left."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import anyio
import pytest

from runc_async import Invocation, Runc
from runc_async.errors import CommandError, DecodeError, RuncNotFound
from runc_async.events import EventStream, OOMEvent, StatsEvent, UnknownEvent
from runc_async.merge import MergedEvent, MergedEvents, StreamEnded, StreamFailed, merge_events
from runc_async.testing import FakeProcess, FakeRunner


def line(container_id: str, number: int) -> bytes:
    """Return an event of a type of its own."""
    return f'{{"type":"n{number}","id":"{container_id}"}}\n'.encode()


def stream(container_id: str, *pieces: bytes, hang: bool = False, exit_code: int = 0) -> EventStream:
    """Return the stream of a container whose runc prints these pieces."""
    runner = FakeRunner()
    runner.reply("events", stdout=pieces, hang=hang, exit_code=exit_code)
    return Runc(runner=runner).events(container_id)


def of(container_id: str, events: list[MergedEvent]) -> list[str]:
    """Return what came of one container, in a word each."""
    return [
        event.type if isinstance(event, UnknownEvent) else type(event).__name__
        for event in events
        if event.id == container_id
    ]


class Gradual(FakeRunner):
    """A runner whose `events` prints figures when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces = asyncio.Queue[bytes]()

    def print(self, number: int) -> None:
        """Let it print figures of so many processes."""
        data = {"type": "stats", "id": "a", "data": {"pids": {"current": number}}}
        self._pieces.put_nowait(json.dumps(data, separators=(",", ":")).encode() + b"\n")

    async def open(self, invocation: Invocation) -> FakeProcess:
        """Put the pieces to come in the place of the reply's."""
        process = await super().open(invocation)

        async def receive(max_bytes: int) -> bytes:
            del max_bytes
            return await self._pieces.get()

        vars(process.stdout)["receive"] = receive
        return process


async def test_all_events_of_all_streams_come_in_order() -> None:
    """Each event comes once, in its stream's order, with an end behind the last; then the iteration ends."""
    numbers = range(150)
    streams = [stream(name, *(line(name, number) for number in numbers)) for name in ("a", "b", "c")]
    events = [event async for event in merge_events(streams)]
    for name in ("a", "b", "c"):
        assert of(name, events) == [*(f"n{number}" for number in numbers), "StreamEnded"]
    assert len(events) == 3 * 151
    assert {repr(each).split()[2] for each in streams} == {"closed,"}


async def test_nothing_merged_is_nothing() -> None:
    """An iteration over no streams ends at once."""
    assert [event async for event in merge_events([])] == []


async def test_a_failure_is_an_event_and_ends_no_other_stream() -> None:
    """A runc that fails, or can't be started, is told in the place of its events; the others go on."""
    missing = Runc("/nonexistent/runc").events("missing")
    events = [e async for e in merge_events([stream("bad", exit_code=1), missing, stream("good", line("good", 1))])]
    assert of("good", events) == ["n1", "StreamEnded"]
    assert of("bad", events) == of("missing", events) == ["StreamFailed", "StreamEnded"]
    errors = {event.id: event.error for event in events if isinstance(event, StreamFailed)}
    assert isinstance(errors["bad"], CommandError)
    assert isinstance(errors["missing"], RuncNotFound)


async def test_a_broken_line_ends_not_even_its_own_stream() -> None:
    """Behind a DecodeError the stream goes on."""
    events = [event async for event in merge_events([stream("a", line("a", 1), b"broken\n", line("a", 2))])]
    assert of("a", events) == ["n1", "StreamFailed", "n2", "StreamEnded"]
    assert isinstance(events[1], StreamFailed)
    assert isinstance(events[1].error, DecodeError)


async def test_nothing_is_started_before_it_is_asked_for() -> None:
    """Merging starts nothing; entering does. Closing closes what was started and what wasn't."""
    first, second = stream("a", hang=True), stream("b", hang=True)
    merged = merge_events([first])
    assert repr(merged) == "<MergedEvents new, 1 stream>"
    assert "new" in repr(first)
    await merged.aclose()
    assert "closed" in repr(first)
    async with merge_events([second]) as merged:
        await anyio.wait_all_tasks_blocked()
        assert "open" in repr(second)
        assert repr(merged) == "<MergedEvents open, 1 stream>"
    assert repr(merged) == "<MergedEvents closed, 0 streams>"
    assert "closed" in repr(second)


async def test_another_task_may_close_it() -> None:
    """`aclose()` ends the wait of another task without an error, and all streams."""
    streams = [stream(name, line(name, 1), hang=True) for name in "abc"]
    merged = merge_events(streams)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(collected(merged))
        await anyio.wait_all_tasks_blocked()
        await merged.aclose()
    assert len(task.result()) == 3
    assert {repr(each).split()[2] for each in streams} == {"closed,"}
    await merged.aclose()
    assert await collected(merged) == []


async def collected(events: AsyncIterator[MergedEvent]) -> list[MergedEvent]:
    """Return all events."""
    return [event async for event in events]


async def test_what_waits_is_dropped_when_it_is_closed() -> None:
    """Closing while streams wait for their turn leaves no task and no stream behind."""
    streams = [stream(name, *[line(name, 1)] * 100) for name in "abc"]
    merged = merge_events(streams)
    async for _ in merged:
        await anyio.wait_all_tasks_blocked()
        await merged.aclose()
    assert {repr(each).split()[2] for each in streams} == {"closed,"}


async def test_streams_can_be_added_while_it_runs() -> None:
    """A stream that is added comes among the others, also when all others have ended, but not after the close."""
    merged = merge_events([])
    merged.add(stream("a", line("a", 1)))
    seen = [await anext(merged)]
    merged.add(stream("b", line("b", 1)))
    seen += [event async for event in merged]
    assert repr(merged) == "<MergedEvents ended, 0 streams>"
    merged.add(stream("c", line("c", 1)))
    seen += [event async for event in merged]
    assert sorted(of(name, seen) == ["n1", "StreamEnded"] for name in "abc") == [True] * 3
    await merged.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        merged.add(stream("d"))


async def test_a_cancelled_wait_loses_nothing() -> None:
    """However often the wait for an event is cancelled, all come."""
    merged = merge_events([stream("a", *(line("a", number) for number in range(200)))])
    words: list[str] = []
    while "StreamEnded" not in words:
        with anyio.move_on_after(0):
            words += of("a", [await anext(merged)])
        words += of("a", [await anext(merged)])
    assert words == [*(f"n{number}" for number in range(200)), "StreamEnded"]


async def test_an_event_is_taken_no_earlier_than_it_is_asked_for() -> None:
    """None waits between a stream and the consumer, so that a slow consumer slows the streams, and runc."""
    endless = stream("a", *[line("a", 1)] * 5000)
    async with merge_events([endless]) as merged:
        for taken in range(3):
            await anyio.wait_all_tasks_blocked()
            assert int(repr(endless).split()[3]) == taken
            assert isinstance(await anext(merged), UnknownEvent)


async def test_the_newest_figures_of_each_container_come() -> None:
    """With `on_lag="latest"` the figures that come are the newest at that moment, however many containers there are."""
    runners = [Gradual() for _ in range(5)]
    streams = [Runc(runner=runner).events("a", on_lag="latest") for runner in runners]
    async with merge_events(streams) as merged:
        for number in range(1, 20):
            for runner in runners:
                runner.print(number)
            await anyio.wait_all_tasks_blocked()
            event = await anext(merged)
            assert isinstance(event, StatsEvent)
            assert event.data.pids.current == number


async def test_the_streams_take_turns() -> None:
    """A stream that always has events keeps no other one waiting."""
    streams = [stream(name, *(line(name, number) for number in range(50))) for name in "abc"]
    async with merge_events(streams) as merged:
        await anyio.wait_all_tasks_blocked()
        events = [await anext(merged) for _ in range(30)]
    assert {name: len(of(name, events)) for name in "abc"} == dict.fromkeys("abc", 10)


async def test_two_containers_of_one_id_are_told_apart() -> None:
    """Each event of any kind names the root directory too, in which the id is the container's own."""
    lines = [b'{"type":"oom","id":"a","root":7}\n', b'{"type":"stats","id":"a","data":{},"root":"/"}\n', line("a", 1)]
    streams: list[EventStream] = []
    for number in range(2):
        runner = FakeRunner()
        runner.reply("events", stdout=[*lines, b"broken\n"] if number else lines, exit_code=number)
        streams.append(Runc(root=f"/run/{number}", runner=runner).events("a"))
    assert [each.root for each in streams] == ["/run/0", "/run/1"]
    events = [event async for event in merge_events(streams)]
    kinds = {
        root: [type(event) for event in events if (event.id, event.root) == ("a", root)]
        for root in ("/run/0", "/run/1")
    }
    given: list[type] = [OOMEvent, StatsEvent, UnknownEvent]
    assert kinds["/run/0"] == [*given, StreamEnded]
    assert kinds["/run/1"] == [*given, StreamFailed, StreamFailed, StreamEnded]
    oom = OOMEvent("a", "/run/0")
    assert oom in events
    assert oom != OOMEvent("a", "/run/1") != OOMEvent("a")
    assert repr(oom) == "OOMEvent(id='a', root='/run/0')"
    stats = [event for event in events if isinstance(event, StatsEvent)]
    assert stats[0] != stats[1]
    assert repr(stats[0]).endswith("root='/run/0')")


async def test_one_task_iterates() -> None:
    """A second task that iterates at the same time is told so."""
    async with merge_events([stream("a", hang=True)]) as merged, anyio.create_task_group() as group:
        group.start_soon(collected, merged)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await anext(merged)
        await merged.aclose()


async def test_a_forgotten_one_is_closed_by_the_collector() -> None:
    """Dropping it without closing ends its tasks and closes its streams, with a warning."""
    streams = [stream(name, b'{"type":"oom","id":"a"}\n', hang=True) for name in "ab"]

    async def forget() -> None:
        async for event in merge_events(streams):
            assert isinstance(event, OOMEvent)
            break

    with pytest.warns(ResourceWarning, match="unclosed <MergedEvents open, 2 streams>"):
        await forget()
    await anyio.wait_all_tasks_blocked()
    assert {repr(each).split()[2] for each in streams} == {"closed,"}


def test_its_events_say_where_they_come_from() -> None:
    """Ends and failures are values with the container's id."""
    error = DecodeError("no JSON", b"x")
    assert StreamFailed("a", error) == StreamFailed("a", error) != StreamFailed("b", error)
    assert StreamEnded("a").id == "a"
    assert issubclass(MergedEvents, AsyncIterator)
