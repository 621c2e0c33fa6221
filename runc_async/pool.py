"""`Pool`: containers that are ready before they are needed, each used once."""

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
"""How many containers are made at once: two for each CPU. More don't come any sooner: docs/howto/warm-containers.md."""

HOLD: Final = 0.05
"""Seconds for which the replacement of a container waits: its caller's program starts or is executed in that time, and
would have to share the CPUs. It isn't prolonged by later takes, so the pool is filled under any load."""

_OF_ONE: Final = ("pid_file", "pidfd_socket")
"""Options of `create` that name a file of one container."""

logger: logging.Logger = logging.getLogger("runc_async")


class PoolStats(msgspec.Struct, frozen=True):
    """What a pool holds, and what it has done so far.

    Attributes:
        ready: Containers that can be taken now.
        taken: Containers in callers' blocks now.
        hits: Takes that got a container that was ready.
        misses: Takes that found the pool empty, and waited for a container to be made.
        failed: Attempts to make a container that have failed.
        died: Containers that have ended while they were ready.
    """

    ready: int
    taken: int
    hits: int
    misses: int
    failed: int = 0
    died: int = 0


class Pool:
    """Holds containers ready, so that a caller gets one in the time of a `start`, or at once.

    Each is used once and deleted afterwards: no container that has run a caller's code is given to another caller. The
    pool is filled in the background from the start of the block on, and again after each take::

        async with (
            Bundle.busybox(["cat"]) as bundle,
            Pool(Runc(), bundle, size=2, io=PipedIO()) as pool,
        ):
            async with pool.take() as container:
                await container.stdin.send(b"hello")
                print(await container.stdout.receive())  # b'hello'

    A container that ends while it waits is replaced, and never given to a caller. Where the runner reports no process,
    as `FakeRunner` does, that can't be noticed.

    On exit of the block everything is ended and deleted, whatever has happened in it: the containers that wait, those
    that are being made, and those that other tasks still use. No cancel interrupts that. What can't be deleted is named
    in a `CleanupWarning`.

    A container that can't be made, because its bundle, the runtime or `ready` fails, fails the take that waits for it.
    In the background the next attempt comes 0.1 seconds later, and the delay doubles with each failure, up to 30
    seconds; a take doesn't wait for it. Failures are logged to `logging.getLogger("runc_async")`.

    Args:
        runc: The client.
        bundle: What containers are made from. Either a `Bundle`, or the path of one, for all of them; their root
            filesystem should be read-only then. Or a function that returns an asynchronous context manager of a bundle,
            such as ``lambda: Bundle.temporary(rootfs=..., spec=...)``: each container gets one of its own, and the task
            that has entered it leaves it as soon as the container is deleted.
        size: How many containers are held ready.
        state: What they do while they wait. "created": the program starts when the container is taken. "running": it
            runs already, for work that comes by its streams or by `exec`. "paused": the same, but frozen, so that it
            uses no CPU.
        io: Their streams: see `Runc.open_container`.
        ready: Tests a container after its start, and returns as soon as it may be taken, for example when a server in
            it answers. An exception means that the container is of no use.
        at_once: How many containers are made at once, and how many are deleted at once: two for each CPU, if you don't
            say otherwise. None is made in advance while a caller waits for its own, and a container that was taken is
            replaced 0.05 seconds later, so that its program has the CPUs for its start.
        name: What ids of containers begin with. A random number and a counter follow.
        grace: Seconds between SIGTERM and SIGKILL for a container that was used: 5.0 if you don't say otherwise. The
            others get SIGKILL at once.
        timeout: Seconds for each `create`, `start`, `pause` and `resume`, or None for no limit; the client's own if
            left out.
        options: Those of `create`, but for `pid_file` and `pidfd_socket`.

    Raises:
        ValueError: If an argument can't be right: a number below 1, an unknown state, `ready` with "created", where no
            program runs, `CapturedIO`, or a file of one container for all.
        TypeError: If one is of a wrong type, or an option unknown.
        InvalidContainerID: If no id can begin with `name`.
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
        """Show what it holds."""
        return f"<Pool of {self._size} {self._kind.state}, {len(self._ready)} ready, {self._taken} taken>"

    async def __aenter__(self) -> Self:
        """Begin to fill it, and don't wait for that.

        Raises:
            RuntimeError: If it was entered before.
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
        """End and delete all of its containers."""
        await shielded(self._close())

    @contextlib.asynccontextmanager
    async def take(self) -> AsyncGenerator[Container]:
        """Take a container for the time of the block; it runs, and no other caller has had it.

        `Container.usage` counts from here on.

        If none is ready, one is made, and callers get theirs in the order in which they came. On exit of the block the
        container is ended and deleted in the background: the block doesn't wait for that. Its streams are closed then;
        how it ended can still be asked for with `Container.wait`.

        A container that was ready, and can't be started or resumed, is replaced once.

        Cancelled before the block begins, it leaves nothing behind: a container that wasn't touched goes to the next
        caller, and another one is deleted.

        Raises:
            anyio.ClosedResourceError: If the pool isn't open, or is closed while the caller waits.
            ContainerNotRunning: If the container that was made for this caller has ended at once.
            Exception: Whatever the bundle, `ready` or `Runc.open_container` raises, if no container can be made.
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
            Exception: What an attempt to make a container raises, if one fails meanwhile.
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
        """Return what it holds, and what it has done; any thread may ask."""
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
        """Take a container and let it run."""
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
        """Return a container, and whether it was ready; else wait until one is made."""
        while self._ready:
            warm = self._ready.popleft()
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
            if not future.cancelled() and future.exception() is None:
                self._put(future.result())  # it was given a container in the turn of the loop in which it was cancelled
            raise

    async def _let_run(self, warm: Warm) -> None:
        """Let a container run."""
        try:
            await self._kind.let_run(warm)
        except Exception as exc:
            self._note_failure(exc)
            raise
        self._delay.succeeded()
        self._fill()

    # what happens in the background

    def _fill(self) -> None:
        """Begin to make as many containers as are wanted now."""
        if not self._is_open:
            return
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
        """Make a container, keep it until it was used or has ended, and delete it: in one task, as its bundle needs."""
        is_made = False
        try:
            async with self._bundle() as bundle:
                warm = await self._made(bundle)
                try:
                    with warm.watched(lambda: self._look(warm)):
                        is_made = True
                        self._put(warm)
                        await warm.over
                finally:
                    self._kept.discard(warm)
                    await shielded(self._kind.delete(warm, self._deletions))
        except Exception as exc:  # noqa: BLE001 - it is a caller's, or is logged
            if not is_made:
                self._fail(exc)
            else:
                logger.warning("pool %s: a bundle could not be removed: %s", self._name, exc)

    async def _made(self, bundle: StrPath) -> Warm:
        """Make a container. The end of the pool cancels that, but not what comes after it."""
        try:
            container_id = f"{self._name}-{next(self._numbers)}"
            warm = await self._kind.make(container_id, bundle, pause=lambda: not self._waiting)
        finally:
            if task := asyncio.current_task():
                self._making.discard(task)
        self._kept.add(warm)
        return warm

    def _put(self, warm: Warm) -> None:
        """Give a container that no caller has touched to the one that waits longest, or keep it ready."""
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
        """Return whether a container has ended while it was ready; then it is deleted."""
        if warm.has_ended:
            self._died += 1
            warm.end()
            self._note_failure(f"container {warm.container.id!r} has ended")
        return warm.has_ended

    def _fail(self, exc: Exception) -> None:
        """Note that a container could not be made, and tell the caller that waits longest."""
        self._failed += 1
        self._note_failure(exc)
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(exc)
                break
        for filling in self._filling:
            _set(filling, exc)
        self._fill()

    def _note_failure(self, problem: Exception | str) -> None:
        """Make none in advance for a while, which is longer after each failure."""
        if self._is_open:
            self._delay.failed()
            reason = str(problem) or type(problem).__name__
            logger.warning("pool %s: no container is made for %.1f s: %s", self._name, self._delay.seconds, reason)

    async def _close(self) -> None:
        """End and delete all containers, and fail the calls that wait."""
        self._is_open = False
        self._delay.stop()
        if self._hold is not None:
            self._hold.cancel()
        for takes in self._waiting:
            _set(takes, anyio.ClosedResourceError("the pool was closed"))
        for filling in self._filling:
            _set(filling, anyio.ClosedResourceError("the pool was closed"))
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
    """Let a call go on that waits, unless it was cancelled."""
    if not future.done():
        if result is None:
            future.set_result(None)
        else:
            future.set_exception(result)
