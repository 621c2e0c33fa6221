"""`EventStream`: the events of a container, as reported by runc."""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Literal, Self, TypeAlias

import anyio

from ._answers.decode import EVENT, StatsLine, decode_event
from ._events.backlog import Backlog
from ._events.latest import Latest
from ._events.reader import EventReader
from ._runtimes.dialect import UNDECODABLE
from ._shield import shielded
from .errors import DecodeError
from .event import Arrival, Event, OOMEvent, StatsEvent, StatsFailedEvent, UnknownEvent

__all__ = ["Event", "EventStream", "OOMEvent", "OnLag", "StatsEvent", "StatsFailedEvent", "UnknownEvent"]

OnLag: TypeAlias = Literal["block", "latest"]

_DECODE = EVENT.decode


class EventStream(AsyncIterator[Event]):
    """The events of one container, from `Runc.events`.

    Nothing is started before the stream is entered or iterated::

        runc = Runc()
        async with Bundle.busybox(["sleep", "1"]) as bundle, runc.open_container("web", bundle):
            async with runc.events("web", interval=0.1) as events:
                kinds = {type(event) async for event in events}
        print(kinds == {StatsEvent})  # True

    The iteration ends together with the container, or with `aclose()`. Errors of the iteration:

    - `DecodeError`: a line isn't an event, or is longer than the limit. The line is skipped; iterating again continues.
    - `RuncCrashed`: runc was killed from outside.
    - `ContainerNotFound`, `ContainerNotRunning` or another `CommandError`: runc failed, or had no metrics for three
      intervals in a row; `RuncTimeout` if runc can't even report the reason.
    - `RuncNotFound`, `OSError`: runc can't be started; entering raises them too.

    After all but the first error the stream has ended, with nothing left behind. A cancelled wait for the next event
    loses nothing. One task may iterate at a time. A stream that was neither ended nor closed is closed by the garbage
    collector, with a `ResourceWarning`.

    Attributes:
        container_id: The container's id.
        root: The runtime's root directory: together with the id it identifies the container.
    """

    def __init__(
        self,
        container_id: str,
        root: str,
        start: Callable[[], Awaitable[EventReader]],
        *,
        on_lag: OnLag,
        line_limit: int,
    ) -> None:
        """Store the arguments; see `Runc.events`."""
        self.container_id = container_id
        self.root = root
        self._start = start
        self._on_lag = on_lag
        self._line_limit = line_limit
        self._count = 0
        self._closed = False
        self._over = False
        self._lines: Iterator[bytes] = iter(())
        self._time, self._monotonic = Arrival.stamp()  # of those lines
        self._reader: EventReader | None = None
        self._backlog: Backlog | None = None
        self._error: BaseException | None = None
        self._turn = asyncio.Lock()  # to start, or to close
        self._iterating = anyio.ResourceGuard("iterating over")

    @property
    def skipped(self) -> int:
        """The number of metrics replaced by newer ones, with `on_lag="latest"`."""
        return 0 if self._backlog is None else self._backlog.skipped

    def __repr__(self) -> str:
        """Show the state and the number of events."""
        return f"<EventStream {self.container_id!r} {self._state}, {self._count} event{'s' * (self._count != 1)}>"

    @property
    def _state(self) -> str:
        """The state as one word."""
        if self._closed:
            return "closed"
        if self._over:
            return "ended"
        return "new" if self._reader is None else "open"

    async def __aenter__(self) -> Self:
        """Start runc."""
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return the stream: iterating may stop and continue later."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event: see the class for errors."""
        while (event := self.take()) is None:
            await self.wait()
        return event

    async def wait(self) -> None:
        """Wait until `take` may return an event; the first wait starts runc. Cancelling loses nothing.

        Iterating consists of `wait` and `take`. A consumer with its own order can wait first, and take the event later:
        with `on_lag="latest"`, `take` returns the newest at the time of the call.

        Raises:
            StopAsyncIteration: If the stream has ended.
            RuncError: As iterating does; see the class.
        """
        with self._iterating:
            if self._reader is None:
                await self._open()
            more = False
            if (backlog := self._backlog) is not None:
                try:
                    more = await backlog.wait()
                except anyio.ClosedResourceError:
                    pass  # by another task
                except Exception:
                    await shielded(self._release())
                    raise
            if not more or self._closed:
                await self._last()

    def take(self) -> Event | None:
        """Return the next event without waiting; None if there is none yet.

        Raises:
            DecodeError: If a line isn't an event, or is longer than the limit.
        """
        while True:
            for line in self._lines:
                event: Event
                try:
                    decoded = _DECODE(line)
                except UNDECODABLE:
                    if not line.strip():
                        continue
                    event = self._unusual(line)
                else:
                    if isinstance(decoded, StatsLine):
                        self._count += 1
                        return StatsEvent(decoded.id, decoded.data, self._time, self._monotonic, line)
                    event = OOMEvent(decoded.id)
                if type(event) is OOMEvent and self._reader is not None:
                    self._reader.told_of_oom()
                self._count += 1
                return event
            entry = None if self._backlog is None or self._closed else self._backlog.take()
            if entry is None:
                return None
            if isinstance(entry, StatsFailedEvent):
                self._count += 1
                return entry
            self._lines = iter(io.BytesIO(entry.block))  # finds lines a good deal faster than bytes.split
            self._time, self._monotonic = entry.arrival

    async def aclose(self) -> None:
        """End runc and the iteration, also in another task; drop unread events. Idempotent.

        Can't be cancelled: a cancellation is raised after the end.
        """
        self._closed = True
        self._error = None
        self._lines = iter(())
        await shielded(self._release())

    async def _open(self) -> None:
        """Start runc, unless started already."""
        async with self._turn:
            # Checked again under the lock: another task may have opened or closed the stream meanwhile.
            if self._reader is not None or self._over or self._closed:
                return
            try:
                self._reader = await self._start()
            except Exception:
                self._over = True
                raise
            latest = self._on_lag == "latest"
            self._backlog = Latest(self._reader, limit=self._line_limit) if latest else Backlog(self._reader)

    async def _release(self) -> None:
        """End runc, and close its resources."""
        async with self._turn:
            if self._reader is None:
                return
            if self._backlog is not None:
                await self._backlog.aclose()
            await self._reader.aclose()
            self._reader = None
            self._over = True

    async def _last(self) -> None:
        """Provide a missing OOM event first; then end, and raise the stream's error."""
        if self._reader is not None and not self._closed:
            # On cgroup v2 runc may end before it reports the last kill. The event is added here, before the end of the
            # stream.
            line = self._reader.untold_oom()
            if line is not None:
                self._lines = iter((line,))
                self._time, self._monotonic = Arrival.stamp()
                return
            self._error = self._reader.error
            await shielded(self._release())
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopAsyncIteration

    def _unusual(self, line: bytes) -> Event:
        """Decode a line of an unusual form, or raise the error."""
        line = line.rstrip(b"\n")
        limit = self._line_limit
        if len(line) > limit:
            raise DecodeError(f"a line of runc events is longer than {limit} bytes", line[:limit])
        return decode_event(line, Arrival(self._time, self._monotonic))

    def __del__(self) -> None:
        if self._reader is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._reader.kill()
