"""`EventStream`: the events of a container, as runc tells them, one by one."""

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

    The iteration ends when the container has ended, or with `aclose()`. The errors of the iteration are:

    - `DecodeError`: one line is no event, or longer than the limit. That line is gone; iterating again goes on behind
      it.
    - `RuncCrashed`: runc was killed, by somebody else than this stream.
    - `ContainerNotFound`, `ContainerNotRunning` or another `CommandError`: runc failed, or could give no figures for
      three intervals in a row; `RuncTimeout` if it can't even say why.
    - `RuncNotFound`, `OSError`: runc can't be started; entering raises them too.

    After all but the first the stream has ended, and nothing is left of it. A cancelled wait for the next event loses
    none. One task may iterate at a time.

    A stream that was iterated and neither ended nor closed is closed by the garbage collector, which warns of it.

    Attributes:
        container_id: The container.
        root: The directory in which the runtime keeps its containers: with the id, it tells containers apart.
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
        """Keep how to start; see `Runc.events`."""
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
        """How many stats made way for newer ones, with `on_lag="latest"`."""
        return 0 if self._backlog is None else self._backlog.skipped

    def __repr__(self) -> str:
        """Show the state, and how many events came."""
        return f"<EventStream {self.container_id!r} {self._state}, {self._count} event{'s' * (self._count != 1)}>"

    @property
    def _state(self) -> str:
        """One word for what it does."""
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
        """Close it."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return itself: iterating may stop and go on later."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event: see the class for what it raises."""
        while (event := self.take()) is None:
            await self.wait()
        return event

    async def wait(self) -> None:
        """Wait until `take` may have an event; the first wait starts runc. Cancelling loses nothing.

        The two are what iterating does. A consumer of its own order can wait first, and take the event when it is
        ready for it: with `on_lag="latest"` that is the newest at that moment.

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
            DecodeError: If a line is no event, or longer than the limit.
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
        """End runc at once, and the iteration, also that of another task; events that wait are dropped. Idempotent.

        It can't be cancelled: a cancel is raised again when nothing is left.
        """
        self._closed = True
        self._error = None
        self._lines = iter(())
        await shielded(self._release())

    async def _open(self) -> None:
        """Start runc, unless that has been done."""
        async with self._turn:
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
        """End runc, and close what belongs to it."""
        async with self._turn:
            if self._reader is None:
                return
            if self._backlog is not None:
                await self._backlog.aclose()
            await self._reader.aclose()
            self._reader = None
            self._over = True

    async def _last(self) -> None:
        """Provide what runc should have printed yet; then end, and raise what the iteration ends with."""
        if self._reader is not None and not self._closed:
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
        """Decode a line that isn't what every runc prints, or raise the error."""
        line = line.rstrip(b"\n")
        limit = self._line_limit
        if len(line) > limit:
            raise DecodeError(f"a line of runc events is longer than {limit} bytes", line[:limit])
        return decode_event(line, Arrival(self._time, self._monotonic))

    def __del__(self) -> None:
        if self._reader is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._reader.kill()
