"""`EventStream`: the events of a container, as runc tells them, one by one."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Literal, Self, TypeAlias

import anyio

from ._answers.decode import EVENT, UNDECODABLE, decode_event
from ._events.latest import Latest
from ._events.reader import EventReader
from ._shield import shielded
from .errors import DecodeError
from .event import Event, OOMEvent, StatsEvent, UnknownEvent

__all__ = ["Event", "EventStream", "OOMEvent", "OnLag", "StatsEvent", "UnknownEvent"]

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
    - `ContainerNotFound`, `ContainerNotRunning` or another `CommandError`: runc failed.
    - `RuncNotFound`, `OSError`: runc can't be started; entering raises them too.

    After all but the first the stream has ended, and nothing is left of it. A cancelled wait for the next event loses
    none. One task may iterate at a time.

    A stream that was iterated and neither ended nor closed is closed by the garbage collector, which warns of it.

    Attributes:
        container_id: The container.
    """

    def __init__(
        self, container_id: str, start: Callable[[], Awaitable[EventReader]], *, on_lag: OnLag, line_limit: int
    ) -> None:
        """Keep how to start; see `Runc.events`."""
        self.container_id = container_id
        self._start = start
        self._on_lag = on_lag
        self._line_limit = line_limit
        self._count = 0
        self._closed = False
        self._over = False
        self._lines: Iterator[bytes] = iter(())
        self._reader: EventReader | None = None
        self._latest: Latest | None = None
        self._error: BaseException | None = None
        self._turn = asyncio.Lock()  # to start, or to close
        self._iterating = anyio.ResourceGuard("iterating over")

    @property
    def skipped(self) -> int:
        """How many stats made way for newer ones, with `on_lag="latest"`."""
        return 0 if self._latest is None else self._latest.skipped

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
        while True:
            for line in self._lines:
                try:
                    event: Event = _DECODE(line)
                except UNDECODABLE:
                    if not line.strip():
                        continue
                    event = self._unusual(line)
                if type(event) is OOMEvent and self._reader is not None:
                    self._reader.told_of_oom()
                self._count += 1
                return event
            self._lines = iter(await self._receive())

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
            if self._on_lag == "latest":
                self._latest = Latest(self._reader, limit=self._line_limit)

    async def _release(self) -> None:
        """End runc, and close what belongs to it."""
        async with self._turn:
            if self._reader is None:
                return
            if self._latest is not None:
                await self._latest.aclose()
            await self._reader.aclose()
            self._reader = None
            self._over = True

    async def _receive(self) -> Iterable[bytes]:
        """Wait for the next lines; raise if there won't be any more."""
        with self._iterating:
            if self._reader is None:
                await self._open()
            lines = None
            if (source := self._latest or self._reader) is not None:
                try:
                    lines = await source.read()
                except anyio.ClosedResourceError:
                    pass  # by another task
                except Exception:
                    await shielded(self._release())
                    raise
            return await self._last() if lines is None or self._closed else lines

    async def _last(self) -> Iterable[bytes]:
        """Return what runc should have printed yet; then end, and raise what the iteration ends with."""
        if self._reader is not None and not self._closed:
            line = self._reader.untold_oom()
            if line is not None:
                return (line,)
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
        return decode_event(line)

    def __del__(self) -> None:
        if self._reader is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._reader.kill()
