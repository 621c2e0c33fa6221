"""Every public coroutine is cut short at each of its steps, with a runtime that is a small script."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TypeAlias, cast

import leaks
import proof
import pytest
import scripted
import sweep
from operations import OPERATIONS, Operation, Stage
from runtime import is_cgroup2

import runc_async
from runc_async import Runc, testing
from runc_async._process.running import ProcessRunner, RunningProcess

POINTS = 8
"""How often a long operation of weight 1 is cut short, unless `SWEEP_ALL` asks for all points."""

LONG = "exec sleep 1000"
SHORT = "exec cat"

MEANT = {"Process": RunningProcess, "Runner": ProcessRunner}
"""What stands for the protocols."""

WAITING = ("Async", "EventStream", "MergedEvents")
"""What a function returns that isn't a coroutine, and gives something that is awaited."""


@pytest.fixture
def stage(scratch: Path, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Stage, sweep.Place]]:
    """Return a stage with the scripted runtime, and the place to look at."""
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        directory = Path(made)
        own, root, runtime = directory / "own", directory / "root", directory / "runtime"
        for new in (own, root, runtime):
            new.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
        monkeypatch.setattr(tempfile, "tempdir", str(own))
        mark = f"{prefix}sweep-"
        command = scripted.write_runtime(runtime)
        bundles = {
            name: scripted.write_bundle(directory / name, script)
            for name, script in {"long": LONG, "short": SHORT, "terminal": SHORT}.items()
        }

        def make_client(**options: Any) -> Runc:
            return Runc(command, root=root, env={"RUNC_ASYNC_SWEEP": mark}, **options)

        made_stage = Stage(make_client, mark, directory, **bundles)
        yield made_stage, sweep.Place(mark, directory, [own, root, made_stage.place])


def can_run(operation: Operation) -> bool:
    """Say whether this host has what an operation needs; the script has everything but files."""
    return operation.needs != "files" and (operation.needs != "root" or os.geteuid() == 0)


@pytest.mark.timeout(60 if not sweep.ALL else 170)
@pytest.mark.parametrize("ways", sweep.SHARES, ids=sweep.name_of)
@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.needs != "files"], ids=str)
async def test_cut_short(
    operation: Operation,
    ways: tuple[str, ...],
    stage: tuple[Stage, sweep.Place],
    tried: Callable[[str, int], None],
) -> None:
    """Cut short at any point and in any way, it leaves nothing, and the client works."""
    if not can_run(operation):
        pytest.skip("needs root")
    scene, place = stage
    sweeping = await scene.sweep(operation, place, round(POINTS * operation.weight), ways)
    tried("cancellation points, scripted", sweeping.tried)
    assert not sweeping.found, "\n".join(sweeping.found)


# that it is every coroutine


NOT_SWEPT = {
    "Bundle.saved": "the saving that it waits for is swept as Bundle.save; commands enter it",
    **dict.fromkeys(
        ("Container.read_file", "Container.write_file", "Container.get_archive", "Container.put_archive"),
        "needs a container that a script can't play; swept by test_live_cancel_sweep.py",
    ),
    "Container.fork": "needs a runtime that can checkpoint; its end is in tests/live/test_runsc.py",
}
"""What no operation calls, and why: what isn't here has to be swept."""


def public() -> dict[tuple[CodeType, type | None], str]:
    """Tell the code of each public function that waits, and of the class that it is called on, with its name."""
    names = [
        name for name in dir(runc_async) if not name.startswith("_") and name not in {"Crun", "Runsc"}
    ]  # are `Runc`
    values: dict[str, object] = {name: MEANT.get(name, getattr(runc_async, name)) for name in names}
    values |= {name: value for name, value in vars(testing).items() if not name.startswith("_")}
    found: dict[tuple[CodeType, type | None], str] = {}
    for name, value in values.items():
        if not getattr(value, "__module__", "").startswith("runc_async"):
            continue  # what the module of the fake imports from elsewhere
        if not inspect.isclass(value):
            if code := waiting(value):
                found[code, None] = name
        elif not issubclass(value, BaseException) and not getattr(value, "_is_protocol", False):
            for member in dir(value):
                if not member.startswith("_") or member in {"__aenter__", "__aexit__", "__anext__"}:
                    code = waiting(getattr(value, member))
                    if code is not None:
                        found[code, value] = f"{name}.{member}"
    return found


def waiting(function: object) -> CodeType | None:
    """Return the code of a function whose result is awaited; None for one that isn't."""
    if not callable(function):
        return None
    innermost = inspect.unwrap(function)
    code: CodeType | None = getattr(innermost, "__code__", None)
    returns = str(getattr(innermost, "__annotations__", {}).get("return", ""))
    waits = inspect.iscoroutinefunction(innermost) or inspect.isasyncgenfunction(innermost)
    return code if waits or any(word in returns for word in WAITING) else None


async def test_every_public_coroutine_is_swept(stage: tuple[Stage, sweep.Place]) -> None:
    """What is public and waits is called by some operation, each on its own class, but for what says why not."""
    scene, _ = stage
    missing = public()
    assert len(missing) > 70
    of_code: dict[CodeType, list[type | None]] = {}
    for code, owner in missing:
        of_code.setdefault(code, []).append(owner)

    def called(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (owners := of_code.get(frame.f_code)):
            variables = frame.f_locals
            caller = cast("type", variables["cls"] if "cls" in variables else type(variables.get("self")))
            for owner in owners:
                if owner is None or issubclass(caller, owner):
                    missing.pop((frame.f_code, owner), None)

    for operation in filter(can_run, OPERATIONS):
        await scene.ready(operation)
        sys.setprofile(called)
        try:
            await operation.work(scene)
        finally:
            sys.setprofile(None)
        await scene.done(operation, cut_short=False)
        if operation.fresh:
            await scene.discard()
    await scene.end()
    assert sorted(missing.values()) == sorted(NOT_SWEPT)


# which points

MANY = [sweep.Point(step) for step in range(1, sweep.SHORT + 2)]


@pytest.mark.skipif(sweep.ALL, reason="all points are tried")
def test_a_short_operation_is_cut_short_at_each_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """All points of a short operation are tried in the first way; of a longer one a sample with both ends."""
    monkeypatch.setattr(proof, "WHOLE", True)
    first = next(iter(sweep.WAYS))
    chosen = {
        number: [point for way, point in sweep.plan(MANY[:number], 8, list(sweep.WAYS)) if way == first]
        for number in (1, sweep.SHORT, sweep.SHORT + 1)
    }
    assert chosen[1] == MANY[:1]
    assert chosen[sweep.SHORT] == MANY[:-1]
    assert len(chosen[sweep.SHORT + 1]) == 4
    assert (chosen[sweep.SHORT + 1][0], chosen[sweep.SHORT + 1][-1]) == (MANY[0], MANY[-1])


# that it finds what is left


Pause: TypeAlias = Callable[[], Awaitable[object]]

Leak: TypeAlias = Callable[[Pause], Coroutine[Any, Any, None]]


async def descriptor(pause: Pause) -> None:
    """Lose a descriptor."""
    fd = os.open(os.devnull, os.O_RDONLY)
    await pause()
    os.close(fd)


async def child(pause: Pause) -> None:
    """Lose a child."""
    process = subprocess.Popen(["/bin/true"])  # noqa: ASYNC220 - it is there to be lost
    await pause()
    process.wait()


async def marked_orphan(pause: Pause) -> None:
    """Lose a process that is nobody's child."""
    script = "sleep 1000 >&- 2>&- & echo $!"
    mark = {"RUNC_ASYNC_SWEEP": mark_of_the_place()}
    shell = ["/bin/sh", "-c", script]
    pid = int(subprocess.run(shell, env=mark, capture_output=True, check=True).stdout)  # noqa: ASYNC221 - it is short
    await pause()
    os.kill(pid, 9)


async def a_file(pause: Pause) -> None:
    """Lose a temporary file."""
    fd, path = tempfile.mkstemp()
    os.close(fd)
    await pause()
    os.unlink(path)


async def a_mount(pause: Pause) -> None:
    """Lose a mount, and the directory that it is on."""
    place = tempfile.mkdtemp()
    subprocess.run(["/bin/mount", "-t", "tmpfs", "none", place], check=True)  # noqa: ASYNC221 - it is short
    await pause()
    take_away_mount(place)
    os.rmdir(place)


async def a_cgroup(pause: Pause) -> None:
    """Lose a cgroup."""
    made = tempfile.mkdtemp(dir=leaks.CGROUPS if is_cgroup2() else leaks.CGROUPS / "pids", prefix=mark_of_the_place())
    await pause()
    os.rmdir(made)


async def a_task(pause: Pause) -> None:
    """Lose a task."""
    task = asyncio.create_task(asyncio.sleep(1000), name="lost")
    await pause()
    task.cancel()


async def an_exception(pause: Pause) -> None:
    """Lose the exception of a future."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(LookupError("lost"))
    await pause()
    future.exception()


async def a_finalizer(pause: Pause) -> None:
    """Lose an object whose finalizer complains."""

    class Complaining:
        def __del__(self) -> None:
            if not self.closed:
                raise LookupError("lost")

        closed = False

    thing = Complaining()
    await pause()
    thing.closed = True


async def the_cancel(pause: Pause) -> None:
    """Go on as if nothing had happened."""
    with contextlib.suppress(asyncio.CancelledError):
        await pause()


async def another_error(pause: Pause) -> None:
    """Raise something else instead of the cancel."""
    try:
        await pause()
    except asyncio.CancelledError:
        raise LookupError("lost") from None


PLANTED: dict[Leak, str] = {
    descriptor: "left descriptor",
    child: "left child process",
    marked_orphan: "left process",
    a_file: "left file",
    a_mount: "left mount",
    a_cgroup: "left cgroup",
    a_task: "left task lost",
    an_exception: "never retrieved",
    a_finalizer: "unraisable: LookupError('lost')",
    the_cancel: "the cancel was swallowed",
    another_error: "raised LookupError('lost')",
}


FOR_ROOT = {a_mount, a_cgroup}


def mark_of_the_place() -> str:
    """Return what processes and cgroups carry that belong to this test and to no other run of it."""
    return Path(tempfile.gettempdir()).name


@pytest.fixture
def directory(scratch: Path, prefix: str) -> Iterator[Path]:
    """Make a directory whose name nothing else on this machine carries."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix=f"{prefix}planted-") as made:
        yield Path(made)


@pytest.mark.parametrize("leak", PLANTED, ids=lambda leak: leak.__name__)
async def test_a_planted_leak_is_found(leak: Leak, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left behind in one step of three is named, with that step and no other."""
    if leak in FOR_ROOT and os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.setattr(sweep, "PATIENCE", 0.05)
    monkeypatch.setattr(sweep, "LONG", 1000)

    async def work() -> None:
        await one_turn()
        await leak(one_turn)
        await one_turn()

    place = sweep.Place(mark_of_the_place(), directory, [directory])
    sweeping = sweep.Sweep(work, place)
    points = await sweeping.points()
    assert len(points) == 9
    assert sweeping.found == []
    before = place.stock()
    await sweeping.over([("cancel", point) for point in points])
    await tidy_up(place, before)
    for point in points:
        named = [found for found in sweeping.found if found.startswith(f"cancel {point}: ")]
        assert any(PLANTED[leak] in found for found in named) == (point.step == 2), sweeping.found
        assert bool(named) == (point.step == 2)
    assert sweeping.tried == len(points)


async def test_a_client_that_does_not_work_any_more_is_found(tmp_path: Path) -> None:
    """Where the next call fails, the point after which it does is named."""
    cuts = 0

    async def work() -> None:
        nonlocal cuts
        try:
            await one_turn()
        except asyncio.CancelledError:
            cuts += 1
            raise

    async def check() -> None:
        if cuts == 1:
            raise LookupError("broken")

    sweeping = sweep.Sweep(work, sweep.Place(tmp_path.name, tmp_path, [tmp_path]))
    first, *others = await sweeping.points()
    await sweeping.over([("cancel", first), *(("cancel", point) for point in others)], check)
    assert sweeping.found == [f"cancel {first}: the next call raised LookupError('broken')"]


async def one_turn() -> None:
    """Wait for a future that is done in the next turn of the loop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    loop.call_soon(settle, done)
    await done


def settle(future: asyncio.Future[None]) -> None:
    """End the wait for a future, if there is one still."""
    if not future.cancelled():
        future.set_result(None)


async def tidy_up(place: sweep.Place, before: sweep.Stock) -> None:
    """Take away what was planted: a mount before the directory that it is on."""
    for found in reversed(await place.left_since(before)):
        kind, what = found.split(" ", 1)
        match kind:
            case "descriptor":
                os.close(int(what.split()[0]))
            case "child":
                os.waitpid(int(what.split()[1]), 0)  # noqa: ASYNC222 - it has ended
            case "process":
                os.kill(int(what.split()[0]), 9)
            case "task":
                await end_lost_tasks()
            case "mount":
                take_away_mount(what)
            case _ if os.path.isdir(what):
                os.rmdir(what)
            case _:
                os.unlink(what)


async def end_lost_tasks() -> None:
    """Cancel the planted tasks, and wait for their end."""
    for task in asyncio.all_tasks():
        if task.get_name() == "lost" and task.cancel():
            await asyncio.wait((task,))


def take_away_mount(place: str) -> None:
    """Unmount what is there."""
    subprocess.run(["/bin/umount", place], check=True)


async def test_a_task_counts_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each suspension is seen once, and each moment of it is where it says."""
    monkeypatch.setattr(sweep, "LONG", 1000)
    seen: list[tuple[int, str]] = []

    async def work() -> None:
        for number in (1, 2, 3):
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(settle, done)
            try:
                await done
            except asyncio.CancelledError:
                seen.append((number, "cancelled" if done.cancelled() else "lost"))
                raise

    points = await sweep.points_of(work)
    assert [str(point) for point in points if point.step == 2] == [
        "in suspension 2 at once",
        "in suspension 2 after 1 turns",
        "in suspension 2 at its end",
    ]
    for point in points:
        assert await sweep.by_cancel(sweep.Cut(work, point))
    assert seen == [(number, how) for number in (1, 2, 3) for how in ("cancelled", "lost", "lost")]
