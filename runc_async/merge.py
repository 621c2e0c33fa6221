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
    """A stream has raised an error. It goes on after a `DecodeError`, and ends after any other error.

    Attributes:
        id: The container.
        error: The error.
        root: The runtime's root directory of the container; None if the event wasn't made by `merge_events`.
    """

    id: str
    error: Exception
    root: str | None = None


class StreamEnded(msgspec.Struct, frozen=True, gc=False):
    """A stream has ended, with its container or after an error: the last event of the stream.

    Attributes:
        id: The container.
        root: The runtime's root directory, to distinguish containers with the same id. None if the event wasn't
            made by `merge_events`.
    """

    id: str
    root: str | None = None


MergedEvent: TypeAlias = Event | StreamFailed | StreamEnded
"""The events of `merge_events`; distinguish them with `match`."""


class _Turn:
    """The entry of one stream in the queue. An event leaves its stream only when the consumer asks."""

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream
        self.over = asyncio.Event()

    def take(self) -> Event | StreamFailed | None:
        """Return the stream's next event, or a `StreamFailed`; None if there is none yet."""
        try:
            event = self.stream.take()
        except DecodeError as error:
            return StreamFailed(self.stream.container_id, error, self.stream.root)
        return None if event is None else msgspec.structs.replace(event, root=self.stream.root)


_Queue: TypeAlias = "asyncio.Queue[_Turn | StreamFailed | StreamEnded | None]"


class MergedEvents(AsyncIterator[MergedEvent]):
    """The events of many containers, from `merge_events`.

    Streams start on enter, or with the first iteration. The iteration ends when all streams have ended, or with
    `aclose()`, and raises no error of a stream. A cancelled wait for the next event loses no event. One task may
    iterate at a time.

    Each stream is read by a task owned by this object; the task ends with the stream, or on close. If an object is
    neither iterated to its end nor closed, the garbage collector closes it with a `ResourceWarning`.
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
        """Show the state, and the number of streams that haven't ended."""
        number = self._running + len(self._new)
        state = "closed" if self._closed else "new" if not self._started else "open" if number else "ended"
        return f"<MergedEvents {state}, {number} stream{'s' * (number != 1)}>"

    def add(self, stream: EventStream) -> None:
        """Take over one more stream, also while others are read. If all others have ended, iterate again.

        Raises:
            anyio.ClosedResourceError: If the object is closed.
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
        """Close the streams."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return the object: iteration may stop and continue later."""
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
                # The event is taken only now, so that `on_lag="latest"` gives the newest one.
                event = item.take()
                if event is not None:
                    self._queue.put_nowait(item)  # behind the others: each stream has its turn
                    return event
                item.over.set()

    async def aclose(self) -> None:
        """Close all streams at once, and end the iteration, also in another task. Idempotent.

        Cancelling doesn't stop it: the cancellation is raised again once the streams are closed.
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
        """Start the new streams."""
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
    """Merge the events of any number of containers into one stream, which takes over the streams.

    The result has the events of each container in order; a `StreamFailed` in the place of an error, which ends no other
    stream; and a `StreamEnded` at the end of each stream. Each has the `root` of its container besides the id. The
    streams take turns, and an event leaves its stream only when the consumer asks. So a slow consumer slows all runc
    processes, and from streams with `on_lag="latest"`, which don't slow runc, the consumer gets the newest usage of
    each container::

        runc = Runc()
        async with merge_events(runc.events(state.id) for state in await runc.list()) as events:
            async for event in events:
                print(event)

    Args:
        streams: Streams from `Runc.events`, not iterated elsewhere; of one client or of several.
    """
    return MergedEvents(streams)


async def _forward(stream: EventStream, queue: _Queue) -> None:
    """Queue a stream whenever it has events, until its end, and close it: the body of a task."""
    turn = _Turn(stream)
    try:
        with contextlib.suppress(StopAsyncIteration):
            while True:
                await stream.wait()
                # Before the entry is queued: the consumer may set it at once.
                turn.over.clear()
                queue.put_nowait(turn)
                await turn.over.wait()
    except Exception as error:  # noqa: BLE001 - it is handed over
        queue.put_nowait(StreamFailed(stream.container_id, error, stream.root))
    finally:
        await stream.aclose()
    # After the close: a consumer that has seen the end finds no runc process left.
    queue.put_nowait(StreamEnded(stream.container_id, stream.root))
