"""`Pool`: containers created before they are needed, each used once."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Self, Unpack, get_args

import anyio
import msgspec

from ._client.calls import GRACE
from ._client.live import check_live
from ._commands.options import DEFAULT, CreateOptions, Timeout, check_timeout
from ._commands.words import StrPath, check_container_id
from ._pool.arguments import MakeBundle, at_least_one, bundle_maker
from ._pool.delay import Delay
from ._pool.warm import Kind, Warm, WarmState
from ._shield import shielded
from .errors import CommandError

if TYPE_CHECKING:
    from .client import Runc
    from .container import Container
    from .stdio import StdIO

AT_ONCE: Final = 2 * len(os.sched_getaffinity(0))
"""Number of containers created at once: two for each CPU. More don't help: docs/howto/warm-containers.md."""

HOLD: Final = 0.05
"""Seconds before the replacement of a taken container starts.

The caller's program starts in this time, and would have to share the CPUs. Later takes don't extend the time, so that
the pool is filled under any load.
"""

_OF_ONE: Final = ("pid_file", "pidfd_socket")
"""Options of `create` that name a file of one container."""

logger: logging.Logger = logging.getLogger("runc_async")


class PoolStats(msgspec.Struct, frozen=True):
    """The state of a pool, and its counters.

    Attributes:
        ready: Containers that can be taken now.
        taken: Containers in callers' blocks now.
        hits: Takes that got a ready container.
        misses: Takes that found the pool empty and waited for a new container.
        failed: Failed attempts to create a container.
        died: Containers that ended while they were ready.
    """

    ready: int
    taken: int
    hits: int
    misses: int
    failed: int = 0
    died: int = 0


class Pool:
    """Keeps containers ready, so that a caller gets one in the time of a `start`, or at once.

    Each container is used once and deleted afterwards: a container that has run code of one caller is never given to
    another. The pool is filled in the background, from the start of the block and again after each take::

        async with (
            Bundle.busybox(["cat"]) as bundle,
            Pool(Runc(), bundle, size=2, io=PipedIO()) as pool,
        ):
            async with pool.take() as container:
                await container.stdin.send(b"hello")
                print(await container.stdout.receive())  # b'hello'

    A container that ends while waiting is replaced, and never given to a caller. With a runner that reports no process,
    such as `FakeRunner`, the end isn't noticed.

    On exit of the block all containers are ended and deleted, including containers in progress and containers that
    other tasks still use. The cleanup can't be cancelled; leftovers are named in a `CleanupWarning`.

    If a container can't be created, because the bundle, the runtime or `ready` fails, the waiting take fails. In the
    background the next attempt follows after 0.1 seconds, and the delay doubles with each failure, up to 30 seconds; a
    take doesn't wait for the delay. Failures are logged to `logging.getLogger("runc_async")`.

    Args:
        runc: The client.
        bundle: The bundle of the containers. Either a `Bundle`, or its path, shared by all containers; the root
            filesystem should be read-only in this case. Or a function that returns an asynchronous context manager of a
            bundle, such as ``lambda: Bundle.temporary(rootfs=..., spec=...)``: each container gets its own bundle, and
            the task that has entered the manager leaves it after the deletion of the container.
        size: Number of containers to keep ready.
        state: The state of waiting containers. "created": the program starts when the container is taken. "running":
            the program already runs, for work that arrives through streams or `exec`. "paused": the same, but frozen,
            without using the CPU.
        io: The streams: see `Runc.open_container`.
        ready: Tests a container after its start, and returns as soon as it may be taken, for example when a server in
            the container answers (a health check). An exception means that the container can't be used.
        at_once: Number of containers created at once, and deleted at once: two for each CPU if left out. None is
            created in advance while a caller waits, and a taken container is replaced 0.05 seconds later, so that its
            program has the CPUs for the start.
        name: Prefix of the containers' ids, followed by a random number and a counter.
        grace: Seconds between SIGTERM and SIGKILL for a used container: 5.0 if left out. Unused containers get SIGKILL
            at once.
        timeout: Seconds for each `create`, `start`, `pause` and `resume`, or None for no limit; the client's default if
            left out.
        options: The options of `create`, except `pid_file` and `pidfd_socket`.

    Raises:
        ValueError: If an argument is invalid: a number below 1, an unknown state, `ready` with "created", where no
            program runs, `CapturedIO`, or a file of one container for all.
        TypeError: If an argument has a wrong type, or an option is unknown.
        InvalidContainerID: If `name` can't be the start of an id.
    """

    def __init__(
        self,
        runc: Runc,
        bundle: StrPath | MakeBundle,
        *,
        size: int,
        state: WarmState = "created",
        io: StdIO | None = None,
        ready: Callable[[Container], Awaitable[object]] | None = None,
        at_once: int = AT_ONCE,
        name: str = "pool",
        grace: float = GRACE,
        timeout: Timeout = DEFAULT,
        **options: Unpack[CreateOptions],
    ) -> None:
        if state not in get_args(WarmState):
            raise ValueError(f"state must be one of {', '.join(get_args(WarmState))}: {state!r}")
        if ready is not None and state == "created":
            raise ValueError("ready tests a program that runs, and in a created container none does")
        check_live(io)
        if unknown := options.keys() - CreateOptions.__annotations__.keys():
            raise TypeError(f"create has no such option: {', '.join(sorted(unknown))}")
        if named := [option for option in _OF_ONE if options.get(option) is not None]:
            raise ValueError(f"{named[0]} is of one container, and a pool has several")
        if not 0 <= grace < float("inf"):
            raise ValueError(f"grace must be a number of seconds, and not negative: {grace!r}")
        seconds = timeout if timeout is DEFAULT else check_timeout(timeout)
        self._kind = Kind(runc, state, io, ready, seconds, grace, options)
        self._bundle = bundle_maker(bundle)
        self._size = at_least_one("size", size)
        self._at_once = at_least_one("at_once", at_once)
        self._name = f"{check_container_id(name)}-{os.urandom(4).hex()}"
        self._numbers = itertools.count(1)
        self._delay = Delay(self._fill)
        self._was_opened = self._is_open = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._making: set[asyncio.Task[None]] = set()
        self._kept: set[Warm] = set()
        self._ready: deque[Warm] = deque()
        self._waiting: deque[asyncio.Future[Warm]] = deque()
        self._filling: set[asyncio.Future[None]] = set()
        self._hold: asyncio.TimerHandle | None = None
        self._is_filling = True
        self._taken = self._hits = self._misses = self._failed = self._died = 0

    def __repr__(self) -> str:
        """Show the size and the numbers of containers."""
        return f"<Pool of {self._size} {self._kind.state}, {len(self._ready)} ready, {self._taken} taken>"

    async def __aenter__(self) -> Self:
        """Start to fill the pool, without waiting.

        Raises:
            RuntimeError: If the pool was entered before.
        """
        if self._was_opened:
            raise RuntimeError("a pool can be entered once")
        self._loop = asyncio.get_running_loop()
        self._deletions = asyncio.Semaphore(self._at_once)
        # What is done in the background doesn't belong to the request in whose time it happens to begin.
        self._context = contextvars.copy_context()
        self._was_opened = self._is_open = True
        self._fill()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """End and delete all containers."""
        await shielded(self._close())

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncGenerator[Container]:
        """Take a container for the block: it runs, and no other caller has used it.

        `Container.usage` counts from here on.

        If no container is ready, one is created; callers are served in order. On exit of the block the container is
        ended and deleted in the background, without a wait. Its streams are closed then; `Container.wait` still returns
        the exit status. A ready container that can't be started or resumed is replaced once.

        Cancelled before the block begins, the call leaves nothing behind: an untouched container goes to the next
        caller, and another one is deleted.

        Raises:
            anyio.ClosedResourceError: If the pool isn't open, or is closed while the caller waits.
            ContainerNotRunning: If the container created for this caller has ended at once.
            Exception: Any error of the bundle, `ready` or `Runc.open_container`, if no container can be created.
        """
        warm = await self._take()
        self._taken += 1
        try:
            yield warm.container
        finally:
            self._taken -= 1
            warm.end()

    async def filled(self) -> None:
        """Wait until `size` containers are ready, for example before a service reports that it is up.

        Cancelling changes nothing.

        Raises:
            anyio.ClosedResourceError: If the pool isn't open, or is closed meanwhile.
            Exception: The error of a failed attempt to create a container.
        """
        self._check_open()
        if len(self._ready) < self._size:
            future = self._loop.create_future()
            self._filling.add(future)
            try:
                await future
            finally:
                self._filling.discard(future)

    def stats(self) -> PoolStats:
        """Return the state and the counters. Thread-safe."""
        return PoolStats(
            ready=len(self._ready),
            taken=self._taken,
            hits=self._hits,
            misses=self._misses,
            failed=self._failed,
            died=self._died,
        )

    # takes

    async def _take(self) -> Warm:
        """Take a container, and let its program run."""
        self._check_open()
        warm, was_ready = await self._obtain()
        try:
            await self._let_run(warm)
        except CommandError:
            if not was_ready:
                raise
            warm, was_ready = await self._obtain()
            await self._let_run(warm)
        self._hits += was_ready
        return warm

    async def _obtain(self) -> tuple[Warm, bool]:
        """Return a container, and whether it was ready; wait for a new one if necessary."""
        while self._ready:
            warm = self._ready.popleft()
            # The program may have ended since, and the event loop may not have noticed yet: look at the process itself.
            if not self._has_died(warm):
                self._fill()
                return warm, True
        self._misses += 1
        future: asyncio.Future[Warm] = self._loop.create_future()
        self._waiting.append(future)
        self._fill()
        try:
            return await future, False
        except asyncio.CancelledError:
            # The caller was cancelled after a container was assigned to it, and before it ran again. The container is
            # untouched, and goes to the next caller.
            if not future.cancelled() and future.exception() is None:
                self._put(future.result())
            raise

    async def _let_run(self, warm: Warm) -> None:
        """Let a container's program run."""
        try:
            await self._kind.let_run(warm)
        except Exception as exc:
            self._note_failure(exc)
            raise
        self._delay.succeeded()
        self._fill()

    # what happens in the background

    def _fill(self) -> None:
        """Start to create as many containers as needed now."""
        if not self._is_open:
            return
        # Waiting callers come first: while one waits, containers are created for callers only, and failures don't delay
        # them.
        if waiting := sum(not future.done() for future in self._waiting):
            wanted = waiting
        elif self._delay.pending:
            return
        elif not self._is_filling:
            if self._hold is None:
                self._hold = self._loop.call_later(HOLD, self._fill_on)
            return
        else:
            wanted = self._size - len(self._ready)
            self._is_filling = wanted > 0
        for _ in range(min(wanted, self._at_once) - len(self._making)):
            task = self._loop.create_task(self._live(), context=self._context.copy())
            for tasks in (self._making, self._tasks):
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    def _fill_on(self) -> None:
        """Fill the pool until it is full again."""
        self._hold = None
        self._is_filling = True
        self._fill()

    async def _live(self) -> None:
        """Create a container, keep it until it was used or has ended, and delete it, all in one task."""
        is_made = False
        try:
            # A bundle's context manager may have a task group or a cancel scope, which must be left by the task that
            # has entered.
            async with self._bundle() as bundle:
                warm = await self._made(bundle)
                try:
                    with warm.watched(lambda: self._look(warm)):
                        is_made = True
                        self._put(warm)
                        # The task stays in the block: its container, its bundle and its watch are left in reverse order
                        # by one task.
                        await warm.over
                finally:
                    self._kept.discard(warm)
                    await shielded(self._kind.delete(warm, self._deletions))
        except Exception as exc:  # noqa: BLE001 - it is a caller's, or is logged
            if not is_made:
                # The caller that gets the error may ask again before this task has ended, and needs its place.
                if task := asyncio.current_task():
                    self._making.discard(task)
                self._fail(exc)
            else:
                logger.warning("pool %s: a bundle could not be removed: %s", self._name, exc)

    async def _made(self, bundle: StrPath) -> Warm:
        """Create a container. The end of the pool cancels the creation, but not the later steps."""
        try:
            container_id = f"{self._name}-{next(self._numbers)}"
            warm = await self._kind.make(container_id, bundle, pause=lambda: not self._waiting)
        finally:
            if task := asyncio.current_task():
                # From here on the container exists, and is ended regularly instead of cancelling its task.
                self._making.discard(task)
        self._kept.add(warm)
        return warm

    def _put(self, warm: Warm) -> None:
        """Give an untouched container to the caller that waits longest, or keep it ready."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(warm)
                self._is_filling = False  # its program is to have the CPUs now
                self._fill()
                return
        if not self._is_open or (self._kind.state == "paused" and not warm.paused):
            warm.end()  # it was made for a caller that is gone
            return
        self._ready.append(warm)
        if len(self._ready) >= self._size:
            for filling in self._filling:
                _set(filling, None)
        self._fill()

    def _look(self, warm: Warm) -> None:
        """Replace a container that has ended while it was ready."""
        if warm in self._ready and self._has_died(warm):
            self._ready.remove(warm)
            self._fill()

    def _has_died(self, warm: Warm) -> bool:
        """Return whether a container has ended while it was ready; delete it in this case."""
        if warm.has_ended:
            self._died += 1
            warm.end()
            self._note_failure(f"container {warm.container.id!r} has ended")
        return warm.has_ended

    def _fail(self, exc: Exception) -> None:
        """Record a failed creation, and raise the error in the caller that waits longest."""
        self._failed += 1
        self._note_failure(exc)
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                # One failure goes to one caller. The others wait for further attempts.
                future.set_exception(exc)
                break
        for filling in self._filling:
            _set(filling, exc)
        self._fill()

    def _note_failure(self, problem: Exception | str) -> None:
        """Pause the creation in advance, longer after each failure."""
        if self._is_open:
            # Otherwise a broken bundle would start runtimes in a tight loop.
            self._delay.failed()
            reason = str(problem) or type(problem).__name__
            logger.warning("pool %s: no container is made for %.1f s: %s", self._name, self._delay.seconds, reason)

    async def _close(self) -> None:
        """End and delete all containers, and fail the waiting calls."""
        self._is_open = False
        self._delay.stop()
        if self._hold is not None:
            self._hold.cancel()
        for takes in self._waiting:
            _set(takes, anyio.ClosedResourceError("the pool was closed"))
        for filling in self._filling:
            _set(filling, anyio.ClosedResourceError("the pool was closed"))
        # In this order: no new containers, no waiting callers, cancel creations, end containers; then wait for all
        # tasks.
        self._ready.clear()
        for task in tuple(self._making):
            task.cancel()
        for warm in self._kept:
            warm.end()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _check_open(self) -> None:
        """Raise if the block of the pool isn't running."""
        if not self._is_open:
            raise anyio.ClosedResourceError("the pool isn't open")


def _set(future: asyncio.Future[Any], result: Exception | None) -> None:
    """Set the result of a waiting call, unless it was cancelled."""
    if not future.done():
        if result is None:
            future.set_result(None)
        else:
            future.set_exception(result)
