"""`ChangeStream`: changes of all containers below a root directory."""

from __future__ import annotations

import asyncio
import os
import warnings
import weakref
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

import anyio

from .change import Change, ChangeKind
from .events import OnLag

if TYPE_CHECKING:
    from ._host.watching import HostWatch

T = TypeVar("T")

LIMIT: Final = 10_000
"""Maximal number of queued changes with `on_lag="block"`; then the kernel's queue fills."""


class ChangeStream(AsyncIterator[Change]):
    """Changes of all containers below one root directory, from `Runc.watch`.

    The stream starts with the present state: for each container, the changes that have led there. Then follow all
    changes as they happen, including those by other programs. Changes of one container are in order, each comes once,
    and `exited` comes before `deleted`::

        runc = Runc()
        async with Bundle.busybox(["true"]) as bundle, runc.watch() as changes:
            await runc.run("short", bundle)
            async for change in changes:
                if change.id == "short" and change.kind == "exited":
                    print(change.status)  # exited with 0
                    break

    The stream ends only with `aclose()`, or with an `OSError` if no descriptor or inotify watch is left. A cancelled
    wait for the next change loses nothing. One task may iterate at a time.

    Attributes:
        skipped: Number of changes replaced by newer ones, with `on_lag="latest"`.
    """

    def __init__(self, root: str, *, on_lag: OnLag, check: Callable[[], Awaitable[None]] | None = None) -> None:
        """Store the root directory, and a check of the runtime before the watch starts; see `Runc.watch`."""
        self._check = check
        self.skipped: int = 0
        self._root = root
        self._waiting: _Queue | _Latest = _Queue() if on_lag == "block" else _Latest()
        self._arrived = asyncio.Event()
        self._watch: HostWatch | None = None
        self._error: OSError | None = None
        self._closed = False
        self._iterating = anyio.ResourceGuard("iterating over")

    def __repr__(self) -> str:
        """Show the root directory and the state."""
        state = "closed" if self._closed else "new" if self._watch is None else "open"
        return f"<ChangeStream {self._root!r} {state}>"

    async def __aenter__(self) -> Self:
        """Start to watch."""
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the stream."""
        await self.aclose()

    def __aiter__(self) -> Self:
        """Return the stream: iterating may stop and continue later."""
        return self

    async def __anext__(self) -> Change:
        """Wait for the next change; see the class for errors."""
        with self._iterating:
            await self._begin()
            while not self._waiting and not self._closed:
                # No await between the look at the queue and the clear: a change in between can't be missed.
                self._arrived.clear()
                await self._arrived.wait()
            if self._closed:
                error, self._error = self._error, None
                if error is not None and not self._waiting:
                    raise error
                if not self._waiting:
                    raise StopAsyncIteration
            change = self._waiting.take()
            # Half of the limit, so that the reader of the event loop isn't switched for every change.
            if self._watch is not None and len(self._waiting) <= LIMIT // 2:
                self._watch.listen()
            return change

    async def aclose(self) -> None:
        """End the watch and the iteration, also in another task; drop queued changes. Idempotent."""
        self._waiting.clear()
        self._error = None
        self._close()

    async def _begin(self) -> None:
        """Check the runtime, once, and start to watch, unless started already."""
        if self._check is not None and not self._closed:
            await self._check()
            self._check = None
        self._open()

    def _open(self) -> None:
        """Start to watch, unless started already."""
        if self._watch is None and not self._closed:
            from ._host.watching import HostWatch  # noqa: PLC0415 - it loads ctypes, which takes milliseconds

            # The event loop refers to the watch. With a reference from the watch, a dropped stream would never be
            # closed.
            watch = HostWatch(os.path.abspath(self._root), _weakly(self._keep), _weakly(self._fail))
            watch.start()
            self._watch = watch

    def _close(self) -> None:
        """Close the watch, and wake the waiting task."""
        self._closed = True
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._arrived.set()

    def _keep(self, change: Change) -> None:
        """Queue a change."""
        self.skipped += self._waiting.put(change)
        self._arrived.set()
        if len(self._waiting) >= LIMIT and self._watch is not None and isinstance(self._waiting, _Queue):
            self._watch.pause()

    def _fail(self, error: OSError) -> None:
        """End with an error after the queued changes."""
        self._error = error
        self._close()

    def __del__(self) -> None:
        if getattr(self, "_watch", None) is not None:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self._close()


def _weakly(method: Callable[[T], None]) -> Callable[[T], None]:
    """Return a function that calls a method as long as its object lives."""
    reference = weakref.WeakMethod(method)

    def call(argument: T) -> None:
        if (alive := reference()) is not None:
            alive(argument)

    return call


class _Queue:
    """All queued changes."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()

    def __len__(self) -> int:
        return len(self._changes)

    def put(self, change: Change) -> int:
        """Add a change; return the number of replaced changes: 0."""
        self._changes.append(change)
        return 0

    def take(self) -> Change:
        """Return the oldest change."""
        return self._changes.popleft()

    def clear(self) -> None:
        """Drop all changes."""
        self._changes.clear()


class _Latest:
    """The newest queued change of each container; none for a container that has appeared and disappeared unread."""

    def __init__(self) -> None:
        self._changes: OrderedDict[str, Change] = OrderedDict()
        self._taken: set[str] = set()

    def __len__(self) -> int:
        return len(self._changes)

    def put(self, change: Change) -> int:
        """Add a change; return the number of replaced or dropped changes."""
        skipped = self._changes.pop(change.id, None) is not None
        # The consumer doesn't know the container, so its end would be news of nothing.
        if change.kind == ChangeKind.DELETED and change.id not in self._taken:
            return skipped + 1
        self._changes[change.id] = change
        return int(skipped)

    def take(self) -> Change:
        """Return the change that has waited longest."""
        container_id, change = self._changes.popitem(last=False)
        if change.kind == ChangeKind.DELETED:
            self._taken.discard(container_id)
        else:
            self._taken.add(container_id)
        return change

    def clear(self) -> None:
        """Drop all changes."""
        self._changes.clear()
