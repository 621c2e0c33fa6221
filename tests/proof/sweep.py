"""Cuts an operation short at each point of its way, and looks at what it leaves behind.

A task runs in steps: from one suspension to the next. `stepped` stands between a task and its operation and counts
them, exactly, since each step is one call of `send` or `throw`. A cancel can come at several moments of a suspension:

- at once: the future that the task waits for is cancelled before anybody else has run;
- some turns of the event loop later: other tasks, such as the one that spawns, have got so far by then;
- some time later: in the middle of what a child process does;
- at its end: the future is done, and the task hasn't heard of it, so that its result is lost. That is where descriptors
  and children get lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import sys
import types
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import anyio
import leaks
import proof

T = TypeVar("T")

Work: TypeAlias = Callable[[], Coroutine[Any, Any, object]]

ALL = bool(os.environ.get("SWEEP_ALL"))
"""Whether every point is tried in every way, instead of a sample: `SWEEP_ALL=1`."""

TURNS = 8
"""Turns of the event loop after a suspension that are points of their own: a spawn takes fewer."""

LONG = 0.004
"""Seconds from which on a suspension has points in time."""

FRACTIONS = (0.2, 0.5, 0.8)
"""Where in the time of a long suspension they are."""

PATIENCE = 3.0
"""Seconds for what is cleaned up by threads and kernel workers, before it counts as left behind."""

SHORT = 32
"""Points that an operation has at most to be cut short at each of them, and not at a sample."""

FEW = 3
"""Points at which a run without `--proof` cuts each operation short."""

SIBLING = "the sibling"


class Point(NamedTuple):
    """Where an operation is cut short.

    Attributes:
        step: The suspension, counted from 1.
        turns: Turns of the event loop after it; 0: at once.
        seconds: Time after it; 0: none.
        at_end: When what the task waits for is done.
    """

    step: int
    turns: int = 0
    seconds: float = 0.0
    at_end: bool = False

    def __str__(self) -> str:
        """Say it in words."""
        if self.at_end:
            when = "at its end"
        elif self.seconds:
            when = f"after {self.seconds * 1000:.1f} ms"
        else:
            when = f"after {self.turns} turns" if self.turns else "at once"
        return f"in suspension {self.step} {when}"


@types.coroutine
def stepped(
    work: Coroutine[Any, Any, T],
    suspended: Callable[[int, asyncio.Future[Any] | None], object],
    resumed: Callable[[], object],
) -> Generator[Any, Any, T]:
    """Run `work` as the task would, and tell of each of its suspensions.

    Args:
        work: The operation.
        suspended: Called in the task with the number of the suspension and the future that it waits for; None is a bare
            yield.
        resumed: Called when the task goes on.
    """
    step: Callable[[Any], Any] = work.send
    argument: Any = None
    for number in itertools.count(1):
        try:
            future = step(argument)
        except StopIteration as end:
            result: T = end.value
            return result
        suspended(number, future)
        try:
            argument = yield future
            step = work.send
        except BaseException as error:  # noqa: BLE001 - it is handed on, whatever it is
            argument = error
            step = work.throw
        resumed()
    raise AssertionError("there is always one more number")


# where to cut


class _Recorder:
    """Notes how many turns and how long each suspension lasts."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._turns = 0
        self._since = 0.0
        self._has_end = False
        self._next: asyncio.Handle | None = None

    def suspended(self, number: int, future: asyncio.Future[Any] | None) -> None:
        """Begin to count."""
        self._number, self._turns, self._has_end = number, 0, future is not None
        self._since = self._loop.time()
        self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Count one turn; not all of them, for that keeps the loop busy."""
        self._turns += 1
        self._next = self._loop.call_soon(self._turn) if self._turns < TURNS else None

    def resumed(self) -> None:
        """Write the points down."""
        if self._next is not None:
            self._next.cancel()
        lasted = self._loop.time() - self._since
        fractions = FRACTIONS if lasted > LONG else ()
        self.points += (
            Point(self._number),
            *(Point(self._number, turns=turns + 1) for turns in range(self._turns)),
            *(Point(self._number, seconds=lasted * fraction) for fraction in fractions),
            *([Point(self._number, at_end=True)] if self._has_end else []),
        )


async def points_of(work: Work) -> list[Point]:
    """Run an operation to its end, and return all points at which it can be cut short."""
    recorder = _Recorder()

    async def recorded() -> None:
        await stepped(work(), recorder.suspended, recorder.resumed)

    await asyncio.create_task(recorded())
    return recorder.points


def sample(points: Sequence[Point], number: int) -> list[Point]:
    """Take `number` points, evenly, the first and the last among them."""
    if number >= len(points):
        return list(points)
    if number == 1:
        return [points[len(points) // 2]]
    return [points[round(index * (len(points) - 1) / (number - 1))] for index in range(number)]


# the ways to cut


class Cut:
    """Cuts one operation short at one point; given to a way, which says what that means.

    Attributes:
        happened: Whether the point was reached.
    """

    def __init__(self, work: Work, point: Point) -> None:
        self.happened = False
        self._work = work
        self._point = point
        self._loop = asyncio.get_running_loop()
        self._cut: Callable[[], object] = lambda: None
        self._again = 0
        self._turns = 0
        self._handles: list[asyncio.Handle] = []

    async def run(self, cut: Callable[[], object], again: int = 0) -> None:
        """Run the operation, and call `cut` at the point, and in so many of the following suspensions again."""
        self._cut, self._again = cut, again
        try:
            await stepped(self._work(), self._suspended, lambda: None)
        finally:
            for handle in self._handles:
                handle.cancel()

    def _suspended(self, number: int, future: asyncio.Future[Any] | None) -> None:
        """See whether this is the suspension, and prepare the moment."""
        point = self._point
        if self.happened:
            if self._again:
                self._again -= 1
                self._cut()
        elif number == point.step:
            if point.at_end and future is not None:
                future.add_done_callback(lambda _: self._now())  # before the task adds its own
            elif point.seconds:
                self._handles.append(self._loop.call_later(point.seconds, self._now))
            elif point.turns or point.at_end:
                self._turns = point.turns
                self._handles.append(self._loop.call_soon(self._turn))
            else:
                self._now()

    def _turn(self) -> None:
        """Let one turn go by."""
        self._turns -= 1
        if self._turns > 0:
            self._handles.append(self._loop.call_soon(self._turn))
        else:
            self._now()

    def _now(self) -> None:
        """Cut."""
        self.happened = True
        self._cut()


Way: TypeAlias = Callable[[Cut], Coroutine[Any, Any, bool]]
"""Runs an operation with a cut, and returns whether it was cut short; raises what it raises beside that."""


async def by_cancel(cut: Cut, again: int = 0) -> bool:
    """Cancel the task; one that goes on as if nothing had happened has swallowed the cancel."""

    def cancel() -> None:
        task.cancel()

    task = asyncio.create_task(cut.run(cancel, again))
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
        if cut.happened:
            raise AssertionError("the cancel was swallowed")
    return task.cancelled()


async def by_two_cancels(cut: Cut) -> bool:
    """Cancel the task, and again in the next suspensions, while it still works on the first one."""
    return await by_cancel(cut, again=3)


async def by_scope(cut: Cut) -> bool:
    """Cancel the scope of anyio that it runs in."""

    async def scoped() -> bool:
        with anyio.CancelScope() as scope:
            await cut.run(scope.cancel)
        return scope.cancelled_caught

    return await asyncio.create_task(scoped())


async def by_timeout(cut: Cut) -> bool:
    """Let the time of asyncio's run out."""

    async def limited() -> bool:
        limit = asyncio.timeout(None)
        try:
            async with limit:
                await cut.run(lambda: limit.reschedule(0))
        except TimeoutError:
            if not limit.expired():
                raise
        return limit.expired()

    return await asyncio.create_task(limited())


async def by_sibling(cut: Cut) -> bool:
    """Let another task of the same group fail."""
    failing = asyncio.Event()

    async def fail() -> None:
        await failing.wait()
        raise LookupError(SIBLING)

    async def alone(sibling: asyncio.Task[None]) -> None:
        await cut.run(failing.set)
        if not cut.happened:
            sibling.cancel()

    async def grouped() -> bool:
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks.append(group.create_task(alone(group.create_task(fail()))))
        except* LookupError as failures:
            if [str(failure) for failure in failures.exceptions] != [SIBLING]:
                raise
        return tasks[0].cancelled()

    return await asyncio.create_task(grouped())


WAYS: dict[str, Way] = {
    "cancel": by_cancel,
    "two cancels": by_two_cancels,
    "scope": by_scope,
    "timeout": by_timeout,
    "sibling": by_sibling,
}


SHARES: list[tuple[str, ...]] = [(way,) for way in WAYS] if ALL else [tuple(WAYS)]
"""The ways by which one test cuts: one after the other where all points are tried, for that takes long."""


def name_of(ways: Sequence[str]) -> str:
    """Name such a share."""
    return "sampled" if len(ways) == len(WAYS) else " ".join(ways)


def plan(points: Sequence[Point], number: int, ways: Sequence[str]) -> list[tuple[str, Point]]:
    """Choose where and how: all points in each way; or all in the first way if they are few, else a sample.

    A sample is of about `number` points, half of them in the first way. Each of the other ways has an even sample of
    its own, and the samples lie beside each other. Without `--proof` it has `FEW` points, each in another way.
    """
    if ALL:
        return list(itertools.product(ways, points))
    if not proof.WHOLE:
        turned = itertools.islice(itertools.cycle(ways), len(points) % len(ways), None)  # each operation in other ways
        return list(zip(turned, sample(points, FEW), strict=False))
    first, *others = ways
    sampled = sample(points, max(3, number // 2))
    chosen = [(first, point) for point in (points if len(points) <= SHORT else sampled)]
    each = max(2, round((number - len(sampled)) / len(others)))
    for offset, way in enumerate(others):
        shifted = points[offset : len(points) - len(others) + offset + 1]
        chosen += [(way, point) for point in sample(shifted or points, each)]
    return chosen


# what is left behind


class Stock(NamedTuple):
    """What there is at one moment.

    Attributes:
        things: By name.
        pids: All processes of this machine.
    """

    things: frozenset[str]
    pids: frozenset[str]


class Place:
    """What an operation may leave something in, beside this process.

    Attributes:
        mark: What its processes, or their cgroups, carry in their environment or name, as in `leaks.processes`.
        around: The directory in which everything is: no mount may be left in it.
        directories: Those whose entries count, at any depth.
    """

    def __init__(self, mark: str, around: Path, directories: Sequence[Path] = ()) -> None:
        self.mark = mark
        self.around = around
        self.directories = tuple(directories)

    def stock(self) -> Stock:
        """Take stock of all that is there now."""
        return Stock(frozenset(self._things()), frozenset(filter(str.isdecimal, os.listdir(leaks.PROC))))

    def _things(self) -> Iterator[str]:
        """Name the descriptors, tasks, files, mounts and cgroups."""
        yield from (f"descriptor {descriptor}" for descriptor in leaks.descriptors())
        for task in asyncio.all_tasks():
            work = task.get_coro()
            yield f"task {task.get_name()} {getattr(work, '__qualname__', work)} {id(task):#x}"
        for directory in self.directories:
            yield from (f"file {path}" for path in directory.rglob("*"))
        yield from (f"mount {mount}" for mount in leaks.mounts(str(self.around)))
        yield from (f"cgroup {cgroup}" for cgroup in leaks.cgroups(self.mark))

    def _processes(self, before: Stock) -> Iterator[str]:
        """Name the processes that are new since `before`, and are children of ours or carry the mark.

        Only the new ones are looked at, for there may be a thousand others. A zombie of others is not our matter.
        """
        for pid in filter(str.isdecimal, os.listdir(leaks.PROC)):
            if pid not in before.pids:
                with contextlib.suppress(OSError):
                    yield from self._process(leaks.PROC / pid)

    def _process(self, directory: Path) -> Iterator[str]:
        """Name a process if it is our child, or carries the mark."""
        name, _, rest = (directory / "stat").read_text().partition("(")[2].rpartition(")")
        state, parent = rest.split()[:2]
        if parent == str(os.getpid()):
            yield f"child process {directory.name} {name} {state}"
            return
        carrier = (directory / "environ").read_bytes() + (directory / "cgroup").read_bytes()
        command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if self.mark.encode() in carrier and command:
            yield f"process {directory.name} {command.strip()}"

    async def left_since(self, before: Stock) -> list[str]:
        """Name what is there beyond `before`, and stays."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while found := {*self._things()} - before.things | {*self._processes(before)}:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.005)
        return sorted(found)


@contextlib.contextmanager
def complaints() -> Generator[list[str]]:
    """Collect what the event loop and the interpreter complain of, and nobody hears: lost exceptions."""
    said: list[str] = []
    loop = asyncio.get_running_loop()
    handler, hook = loop.get_exception_handler(), sys.unraisablehook

    def of_the_loop(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        said.append(f"the event loop says: {context['message']}: {context.get('exception')!r}")

    def of_the_interpreter(unraisable: sys.UnraisableHookArgs) -> None:
        said.append(f"unraisable: {unraisable.exc_value!r} in {unraisable.object!r}")

    loop.set_exception_handler(of_the_loop)
    sys.unraisablehook = of_the_interpreter
    gc.collect()
    try:
        yield said
    finally:
        sys.unraisablehook = hook
        loop.set_exception_handler(handler)


# the sweep


class Sweep:
    """One operation, cut short again and again.

    Attributes:
        tried: How many times it was.
        found: What was left behind, or went wrong, and where.
    """

    def __init__(
        self,
        work: Work,
        place: Place,
        *,
        ready: Work | None = None,
        done: Callable[[bool], Coroutine[Any, Any, object]] | None = None,
    ) -> None:
        """Keep what is to be done.

        Args:
            work: The operation, which can be run any number of times.
            place: Where to look.
            ready: Run before each attempt.
            done: Run after each attempt, with whether the operation was cut short, before anybody looks: it takes away
                what the operation is there to make.
        """
        self.tried = 0
        self.found: list[str] = []
        self._work = work
        self._place = place
        self._ready = ready
        self._done = done

    async def points(self) -> list[Point]:
        """Run the operation to its end, twice, since the first time it may load or ask for what it then knows."""
        points: list[Point] = []
        for _ in range(2):
            await self._prepare()
            points = await points_of(self._work)
            await self._finish(cut_short=False)
        return points

    async def over(self, chosen: Sequence[tuple[str, Point]], check: Work | None = None) -> None:
        """Cut it short at each of these points, and see that `check` succeeds afterwards."""
        with complaints() as said:
            for name, point in chosen:
                where = f"{name} {point}: "
                self.found += [where + problem for problem in await self._attempt(WAYS[name], point, check)]
                gc.collect()
                self.found += [where + problem for problem in said]
                said.clear()

    async def _attempt(self, way: Way, point: Point, check: Work | None) -> list[str]:
        """Cut it short once, and name what is wrong afterwards."""
        problems: list[str] = []
        await self._prepare()
        before = self._place.stock()
        cut = Cut(self._work, point)
        cut_short = False
        try:
            cut_short = await way(cut)
        except Exception as error:  # noqa: BLE001 - whatever it is, it should have been none
            problems.append(f"raised {error!r}")
        self.tried += cut.happened
        await self._finish(cut_short=cut_short)
        problems += [f"left {left}" for left in await self._place.left_since(before)]
        if check is not None:
            try:
                await check()
            except Exception as error:  # noqa: BLE001 - as above
                problems.append(f"the next call raised {error!r}")
        return problems

    async def _prepare(self) -> None:
        if self._ready is not None:
            await self._ready()

    async def _finish(self, *, cut_short: bool) -> None:
        if self._done is not None:
            await self._done(cut_short)
