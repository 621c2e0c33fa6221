"""The events of any number of containers as one stream: `merge_events`."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Self, TypeAlias

import anyio
import msgspec

from ._shield import shielded
from .errors import DecodeError
from .event import Event
from .events import EventStream


class StreamFailed(msgspec.Struct, frozen=True, gc=False):
    """One of the streams has raised an error. After a `DecodeError` it goes on, after any other it ends.

    Attributes:
        id: The container.
        error: The error.
        root: The directory in which the runtime keeps it; None if the event wasn't made by `merge_events`.
    """

    id: str
    error: Exception
    root: str | None = None


class StreamEnded(msgspec.Struct, frozen=True, gc=False):
    """One of the streams has ended, because its container has, or after an error: the last that comes of it.

    Attributes:
        id: The container.
        root: The directory in which the runtime keeps it: two containers of one id are told apart by it. None if the
            event wasn't made by `merge_events`.
    """

    id: str
    root: str | None = None


MergedEvent: TypeAlias = Event | StreamFailed | StreamEnded
"""What `merge_events` gives; `match` tells which it is."""


class _Turn:
    """One stream, when it may have events: it stands in the queue, and takes the event as late as that comes."""

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream
        self.over = asyncio.Event()

    def take(self) -> Event | StreamFailed | None:
        """Return the stream's next event, or the error in its place; None if there is none yet."""
        try:
            return self.stream.take()
        except DecodeError as error:
            return StreamFailed(self.stream.container_id, error, self.stream.root)


_Queue: TypeAlias = "asyncio.Queue[_Turn | StreamFailed | StreamEnded | None]"


class MergedEvents(AsyncIterator[MergedEvent]):
    """The events of many containers, from `merge_events`.

    Nothing is started before it is entered or iterated. The iteration ends when all streams have ended, or with
    `aclose()`, and raises no error of a stream's. A cancelled wait for the next event loses none. One task may iterate
    at a time.

    Each stream is read by a task that belongs to this object and ends with the stream, or when this is closed; where it
    is neither iterated to its end nor closed, the garbage collector closes it and warns of it.
    """

    def __init__(self, streams: Iterable[EventStream]) -> None:
        """Take over the streams; see `merge_events`."""
        self._new = list(streams)
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue: _Queue = asyncio.Queue()  # two entries of a stream at most
        self._running = 0
        self._started = False
        self._closed = False
        self._iterating = anyio.ResourceGuard("iterating over")

    def __repr__(self) -> str:
        """Show the state, and how many streams haven't ended."""
        number = self._running + len(self._new)
        state = "closed" if self._closed else "new" if not self._started else "open" if number else "ended"
        return f"<MergedEvents {state}, {number} stream{'s' * (number != 1)}>"

    def add(self, stream: EventStream) -> None:
        """Take over one more stream, also while others are read. Where all others have ended, iterate again.

        Raises:
            anyio.ClosedResourceError: If this is closed.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        self._new.append(stream)
        if self._started:
            self._start()

    async def __aenter__(self) -> Self:
        """Start the streams."""
        self._start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close it, and them."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return itself: iterating may stop and go on later."""
        return self

    async def __anext__(self) -> MergedEvent:
        """Wait for the next event of any stream."""
        with self._iterating:
            self._start()
            while True:
                item = await self._queue.get() if self._running else None
                if item is None or self._closed:
                    raise StopAsyncIteration
                if not isinstance(item, _Turn):
                    self._running -= isinstance(item, StreamEnded)
                    return item
                event = item.take()
                if event is not None:
                    self._queue.put_nowait(item)  # behind the others: each stream has its turn
                    return event
                item.over.set()

    async def aclose(self) -> None:
        """Close all streams at once, and end the iteration, also that of another task. Idempotent.

        It can't be cancelled: a cancel is raised again when nothing is left.
        """
        self._closed = True
        await shielded(self._release())

    async def _release(self) -> None:
        """End the tasks, and with them the streams."""
        self._running = 0
        for stream in self._new:
            await stream.aclose()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)  # for a task that waits

    def _start(self) -> None:
        """Start what is new."""
        if self._closed:
            return
        self._started = True
        for stream in self._new:
            task = asyncio.create_task(_forward(stream, self._queue))
            task.add_done_callback(self._tasks.discard)
            self._tasks.add(task)
            self._running += 1
        self._new.clear()

    def __del__(self) -> None:
        if tasks := [task for task in self._tasks if not task.done()]:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            for task in tasks:
                task.cancel()


def merge_events(streams: Iterable[EventStream]) -> MergedEvents:
    """Merge the events of any number of containers into one stream, which owns the streams from now on.

    What comes are events, in the order in which they came from each container; a `StreamFailed` in the place of an
    error, which ends no other stream; and at the end of each stream a `StreamEnded`. The streams take turns, and an
    event is taken from its stream no earlier than it is asked for. So a slow consumer slows all runcs, and gets from
    streams with `on_lag="latest"`, which don't slow them, the newest figures of each container::

        runc = Runc()
        async with merge_events(runc.events(state.id) for state in await runc.list()) as events:
            async for event in events:
                print(event)

    Args:
        streams: Streams from `Runc.events` that nobody else iterates; of one client or of several.
    """
    return MergedEvents(streams)


async def _forward(stream: EventStream, queue: _Queue) -> None:
    """Queue one stream whenever it has events, until its end, and close it: the body of a task."""
    turn = _Turn(stream)
    try:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await stream.wait()
                turn.over.clear()
                queue.put_nowait(turn)
                await turn.over.wait()
    except Exception as error:  # noqa: BLE001 - it is handed over
        queue.put_nowait(StreamFailed(stream.container_id, error, stream.root))
    finally:
        await stream.aclose()
    queue.put_nowait(StreamEnded(stream.container_id, stream.root))
