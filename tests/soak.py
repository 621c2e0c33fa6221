"""Random operations of many tasks on many containers for a long time: `python tests/soak.py --seconds 600`.

Each task has containers of its own, and a model of them: which of them there are, and in which status. Operations are
cut short at random: by cancels, by `asyncio.timeout`, and by the library's own `timeout=`. Again and again all tasks
stop; then `list` has to tell what the model does, and a sample of this process is taken: descriptors, memory, threads,
children, tasks.

A curve grows if the median of its last quarter is above that of its second quarter (the first one warms up) by more
than three times the median deviation within that second quarter plus a margin: one for what is counted; for memory
1 MiB, and as much again for each minute less than four, since a short run is not warm yet.

Exit status: 0 if nothing was found; 1 if the model was violated, something was left, or a curve grows; 130 after
SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import os
import random
import resource
import secrets
import shutil
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import containers
import leaks

from runc_async import Bundle, CapturedIO, CleanupWarning, PipedIO, PtyIO, Runc, RuncError, RuncTimeout, Status, spec

MIB = 1 << 20
SECOND_QUARTER = 0.25, 0.5
LAST_QUARTER = 0.75, 1.0
LEAST_SAMPLES = 8
CUT_SHORT = 0.35
"""The share of operations that are cut short."""

Possible = frozenset[Status | None]
NONE: Possible = frozenset({None})


class Sample(NamedTuple):
    """This process at one quiet moment.

    Attributes:
        seconds: Since the beginning.
        operations: So far.
        descriptors: That are open.
        memory: Resident, in MiB.
        threads: Of this process.
        children: Of this process, zombies among them.
        tasks: Of the event loop.
    """

    seconds: float
    operations: int
    descriptors: int
    memory: float
    threads: int
    children: int
    tasks: int


CURVES = ("descriptors", "memory", "threads", "children", "tasks")


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Tell by how much a curve has grown, and by how much it may: see the module."""

    def part(begin: float, end: float) -> list[float]:
        return [getattr(sample, name) for sample in samples[int(len(samples) * begin) : int(len(samples) * end)]]

    early = part(*SECOND_QUARTER)
    middle = statistics.median(early)
    noise = statistics.median(abs(value - middle) for value in early)
    minutes = samples[-1].seconds / 60
    margin = 1.0 if name != "memory" else 1.0 + max(0.0, 4.0 - minutes)
    return statistics.median(part(*LAST_QUARTER)) - middle, 3 * noise + margin


def grown(samples: Sequence[Sample]) -> list[str]:
    """Name the curves that grow."""
    if len(samples) < LEAST_SAMPLES:
        return [f"there are {len(samples)} samples only: it takes {LEAST_SAMPLES} to judge"]
    found: list[str] = []
    for name in CURVES:
        by, allowed = growth(samples, name)
        if by > allowed:
            found.append(f"the curve of {name} grows by {by:.1f}, which is more than {allowed:.1f}")
    return found


class Violation(Exception):  # noqa: N818 - it is what happened
    """Something isn't as the model says."""


class Box:
    """One container's place in the model.

    Attributes:
        name: Its id.
        possible: What it may be; more than one only after an operation was cut short.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.possible: Possible = NONE

    @property
    def status(self) -> Status | None:
        """What it is."""
        (status,) = self.possible
        return status


class Soak:
    """The operations, the model, and what was found.

    Attributes:
        operations: How many were done.
        cut_short: How many of them were cut short.
        kinds: How often each was done.
        found: What is wrong.
        samples: Of this process, at the quiet points.
    """

    def __init__(self, client: Runc, bundle: Path, terminal: Path, mark: str, options: argparse.Namespace) -> None:
        self.operations = 0
        self.cut_short = 0
        self.kinds: Counter[str] = Counter()
        self.found: list[str] = []
        self.samples: list[Sample] = []
        self._client = client
        self._bundle = bundle
        self._terminal = terminal
        self._mark = mark
        self._options = options
        self._number = 0
        self._descriptors: list[int] = []  # planted, as are these tasks
        self._tasks: list[asyncio.Task[None]] = []
        self._boxes = [[self._box() for _ in range(options.boxes)] for _ in range(options.tasks)]
        self._random = [random.Random(f"{options.seed}-{task}") for task in range(options.tasks)]  # noqa: S311

    def _box(self) -> Box:
        self._number += 1
        return Box(f"{self._mark}{self._number}")

    async def run(self) -> None:
        """Work until the time is over, in periods with a quiet point behind each."""
        begin = time.monotonic()
        period = min(5.0, max(0.25, self._options.seconds / 40))
        while time.monotonic() - begin < self._options.seconds and not self.found:
            until = time.monotonic() + period
            async with asyncio.TaskGroup() as group:
                for boxes, rnd in zip(self._boxes, self._random, strict=True):
                    group.create_task(self._work(boxes, rnd, until))
            await self._plant()
            await self._check()
            self.samples.append(await self._sample(time.monotonic() - begin))

    async def _work(self, boxes: list[Box], rnd: random.Random, until: float) -> None:
        """Do one thing after another, with one container or another."""
        while time.monotonic() < until and not self.found:
            box = rnd.choice(boxes)
            try:
                if len(box.possible) > 1:
                    await self._look(box)
                await self._something(box, rnd)
            except Violation as exc:
                self.found.append(f"{box.name} (seed {self._options.seed}): {exc}")

    async def _look(self, box: Box) -> None:
        """Find out what became of it when an operation was cut short."""
        try:
            status: Status | None = (await self._client.state(box.name)).status
        except RuncError:
            status = None
        if status not in box.possible:
            raise Violation(f"is {status}, and may be {sorted(map(str, box.possible))}")
        box.possible = frozenset({status})

    async def _something(self, box: Box, rnd: random.Random) -> None:
        """Do one of the things that its status allows, and cut it short perhaps."""
        choices = CHOICES[box.status]
        kind = rnd.choice(choices)
        act, becomes = kind.act, kind.becomes
        self.kinds[kind.act.__name__] += 1
        self.operations += 1
        way = rnd.choice(("cancel", "scope", "timeout")) if rnd.random() < CUT_SHORT else None
        after = rnd.uniform(0.0005, 0.08)
        before = box.possible
        after_all: Possible = before if becomes is SAME else frozenset({becomes})  # type: ignore[arg-type]
        box.possible = before | after_all
        client = self._client if way != "timeout" else self._hasty(after)
        work = act(self, client, box, rnd)
        try:
            cut = await self._cut(work, way, after)
        except Exception as exc:
            if way is None or not isinstance(exc, RuncError):
                raise Violation(f"{act.__name__} on {before}, {way}: {exc!r}") from exc
            cut = True
        self.cut_short += cut
        if not cut:
            box.possible = after_all
        elif kind.undone:
            box.possible = before
        if not cut and becomes is Status.STOPPED:
            await self._stopped(box)

    def _hasty(self, seconds: float) -> Runc:
        """Make a client whose calls take so many seconds at most."""
        return Runc(self._options.runc, root=self._options.root, timeout=seconds)

    async def _cut(self, work: Awaitable[object], way: str | None, after: float) -> bool:
        """Run something, cut it short in one of the ways, and tell whether it was."""
        if way == "cancel":
            task = asyncio.ensure_future(work)
            await asyncio.wait([task], timeout=after)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
            return task.cancelled()
        if way == "scope":
            scope = asyncio.timeout(after)
            try:
                async with scope:
                    await work
            except TimeoutError as exc:
                if isinstance(exc, RuncTimeout) or not scope.expired():
                    raise
                return True
            return False
        await work
        return False

    async def _stopped(self, box: Box) -> None:
        """Wait until a container that was killed is stopped."""
        for _ in range(500):
            if (await self._client.state(box.name)).status == Status.STOPPED:
                return
            await asyncio.sleep(0.02)
        raise Violation("isn't stopped ten seconds after SIGKILL")

    async def _check(self) -> None:
        """Compare `list` with the model."""
        model = {box.name: box.possible for boxes in self._boxes for box in boxes}
        there = {state.id: state.status for state in await self._client.list()}
        for name in sorted(model.keys() | there.keys()):
            possible, status = model.get(name, NONE), there.get(name)
            if status not in possible:
                self.found.append(f"{name} is {status}, and may be {sorted(map(str, possible))}")

    async def _sample(self, seconds: float) -> Sample:
        """Measure this process, when what ends a moment later has ended."""
        alone = {asyncio.current_task(), *self._tasks}
        for _ in range(50):
            if asyncio.all_tasks() <= alone and not list(leaks.children()):
                break
            await asyncio.sleep(0.01)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return Sample(
            seconds,
            self.operations,
            len(list(leaks.descriptors())),
            pages * resource.getpagesize() / MIB,
            len(os.listdir("/proc/self/task")),
            len(list(leaks.children())),
            len(asyncio.all_tasks()),
        )

    async def _plant(self) -> None:
        """Leak what `--plant` says, to show that it is found."""
        match self._options.plant:
            case "descriptor":
                self._descriptors.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            case "task":
                self._tasks.append(asyncio.create_task(asyncio.sleep(3600)))
            case "container":
                await self._client.create(self._box().name, self._bundle)
            case _:
                pass

    def temporary(self) -> str:
        """Return an id for a container that ends with its operation."""
        return self._box().name

    @property
    def bundle(self) -> Path:
        """The bundle of the containers."""
        return self._bundle

    @property
    def terminal(self) -> Path:
        """The same, with a terminal."""
        return self._terminal

    async def end(self) -> None:
        """Delete all containers, and take back what was planted."""
        for fd in self._descriptors:
            os.close(fd)
        for task in self._tasks:
            task.cancel()
        for name in list(leaks.containers(self._options.root)):
            await self._client.delete(name, force=True, timeout=20)


# operations: what they do to one container, and what it is afterwards


SAME = object()

Act = Callable[[Soak, Runc, Box, random.Random], Awaitable[object]]


class Kind(NamedTuple):
    """An operation.

    Attributes:
        act: What it does.
        becomes: What the container is afterwards.
        undone: Whether nothing comes of it when it is cut short.
    """

    act: Any
    becomes: object = SAME
    undone: bool = False


async def create(soak: Soak, client: Runc, box: Box, _: random.Random) -> None:
    """Make a container."""
    await client.create(box.name, soak.bundle)


async def run_detached(soak: Soak, client: Runc, box: Box, _: random.Random) -> None:
    """Make a container, and start it."""
    await client.run(box.name, soak.bundle, detach=True)


async def open_container(soak: Soak, client: Runc, _: Box, __: random.Random) -> None:
    """Have a container for the time of a block."""
    async with client.open_container(soak.temporary(), soak.bundle, io=PipedIO(), grace=0) as container:
        await container.state()


async def open_terminal(soak: Soak, client: Runc, _: Box, __: random.Random) -> None:
    """Have one on a terminal."""
    async with client.open_container(soak.temporary(), soak.terminal, io=PtyIO(), grace=0) as container:
        await container.ps()


async def start(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Start it."""
    await client.start(box.name)


async def kill(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Kill it."""
    await client.kill(box.name, "KILL")


async def pause(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Freeze it."""
    await client.pause(box.name)


async def resume(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Thaw it."""
    await client.resume(box.name)


async def delete(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Delete it, by force."""
    await client.delete(box.name, force=True)


async def state(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Ask for its state."""
    await client.state(box.name)


async def stats(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Ask for its figures."""
    await client.stats(box.name)


async def list_all(_: Soak, client: Runc, __: Box, ___: random.Random) -> None:
    """Ask for all."""
    await client.list()


async def update(_: Soak, client: Runc, box: Box, rnd: random.Random) -> None:
    """Change a limit."""
    await client.update(box.name, spec.LinuxResources(pids=spec.LinuxPids(limit=rnd.randint(50, 500))))


async def execute(_: Soak, client: Runc, box: Box, rnd: random.Random) -> None:
    """Run a process in it."""
    code = rnd.randint(0, 200)
    response = await client.exec(box.name, ["sh", "-c", f"echo out; exit {code}"], io=CapturedIO())
    if (response.exit_code, response.stdout) != (code, b"out\n"):
        raise Violation(f"exec answers {response!r} instead of {code}")


async def open_exec(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Talk to a process in it."""
    async with client.open_exec(box.name, ["cat"], io=PipedIO(), grace=0) as process:
        if process.stdin is None or process.stdout is None:
            raise Violation("there are no streams")
        await process.stdin.send(b"hello")
        if await process.stdout.receive() != b"hello":
            raise Violation("cat says something else")


async def events(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Wait for an event of it."""
    async with client.events(box.name, interval=0.02) as stream:
        async for _event in stream:
            return


async def wait(_: Soak, client: Runc, box: Box, __: random.Random) -> None:
    """Wait for its end for a moment."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.03):
            await client.container(box.name).wait()


async def bundle(soak: Soak, _: Runc, __: Box, ___: random.Random) -> None:
    """Make a bundle, and remove it."""
    made = await Bundle.open(soak.bundle)
    async with Bundle.temporary(spec=made.spec):
        pass


LOOKS = (Kind(state), Kind(list_all))
MAKES = (Kind(open_container), Kind(open_terminal), Kind(bundle))

CHOICES: dict[Status | None, tuple[Kind, ...]] = {
    None: (
        Kind(create, Status.CREATED, undone=True),
        Kind(run_detached, Status.RUNNING, undone=True),
        *MAKES,
        Kind(list_all),
    ),
    Status.CREATED: (Kind(start, Status.RUNNING), Kind(start, Status.RUNNING), Kind(delete, None), *LOOKS),
    Status.RUNNING: (
        *(Kind(act) for act in (execute, open_exec, events, wait, stats, update)),
        Kind(pause, Status.PAUSED),
        Kind(kill, Status.STOPPED),
        Kind(delete, None),
        *LOOKS,
    ),
    Status.PAUSED: (Kind(resume, Status.RUNNING), Kind(delete, None), Kind(stats), *LOOKS),
    Status.STOPPED: (Kind(delete, None), *LOOKS),
}


# the program


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Random operations on real containers for a long time.")
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (10 minutes)")
    parser.add_argument("--seed", type=int, help="of the random operations; a random one, which is printed")
    parser.add_argument("--tasks", type=int, default=6, help="how many work at once (6)")
    parser.add_argument("--boxes", type=int, default=3, help="how many containers each has (3)")
    parser.add_argument("--runc", default="runc", help="the runtime")
    parser.add_argument("--plot", type=Path, help="draw the curves; needs matplotlib")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--plant", choices=("descriptor", "task", "container"), help="leak it, to see it found")
    options = parser.parse_args(argv)
    if options.seed is None:
        options.seed = secrets.randbelow(1 << 32)
    return options


def make_bundle(directory: Path, rootfs: Path, *, terminal: bool) -> Path:
    """Write a bundle whose process sleeps."""
    directory.mkdir()
    containers.runc("spec", "--bundle", directory).check_returncode()
    config = json.loads((directory / "config.json").read_bytes())
    config["root"]["path"] = str(rootfs)
    config["process"] |= {"args": ["sleep", "100000"], "terminal": terminal}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


async def work(options: argparse.Namespace, directory: Path, mark: str) -> Soak:
    """Soak, and delete what is there at the end, also when it is interrupted."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    soak = Soak(
        Runc(options.runc, root=options.root),
        make_bundle(directory / "bundle", directory / "rootfs", terminal=False),
        make_bundle(directory / "terminal", directory / "rootfs", terminal=True),
        mark,
        options,
    )
    loop.set_exception_handler(lambda _, context: soak.found.append(f"the event loop says: {context}"))
    sys.unraisablehook = lambda unraisable: soak.found.append(f"unraisable: {unraisable.exc_value!r}")

    def warned(message: Warning | str, *_: Any, **__: Any) -> None:
        soak.found.append(f"warning: {message}")

    warnings.showwarning = warned
    for kind in (CleanupWarning, ResourceWarning, RuntimeWarning):
        warnings.simplefilter("always", kind)
    task = asyncio.current_task()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, lambda: task is not None and task.cancel())
    say("begun")
    try:
        await soak.run()
    finally:
        await soak.end()
    return soak


def report(soak: Soak, options: argparse.Namespace) -> None:
    """Print what was done, and write what was asked for."""
    kinds = ", ".join(f"{name} {number}" for name, number in soak.kinds.most_common())
    say(f"seed {options.seed}: {soak.operations} operations, {soak.cut_short} cut short: {kinds}")
    if len(soak.samples) >= LEAST_SAMPLES:
        for name in CURVES:
            by, allowed = growth(soak.samples, name)
            say(f"{name}: {getattr(soak.samples[-1], name):g} at the end, grown by {by:.2f} of at most {allowed:.2f}")
    for problem in soak.found:
        say(f"found: {problem}")
    if options.json:
        figures = {
            "operations": soak.operations,
            "cut_short": soak.cut_short,
            "found": soak.found,
            "samples": [sample._asdict() for sample in soak.samples],
        }
        options.json.write_text(json.dumps(figures), encoding="utf-8")
    if options.plot:
        draw(soak, options.plot)


def draw(soak: Soak, path: Path) -> None:
    """Draw the curves."""
    importlib.import_module("matplotlib").use("agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(len(CURVES) + 1, 1, sharex=True, figsize=(8, 9), layout="constrained")
    minutes = [sample.seconds / 60 for sample in soak.samples]
    for axis, name in zip(axes, ("operations", *CURVES), strict=True):
        values = [getattr(sample, name) for sample in soak.samples]
        axis.plot(minutes, values, color="tab:blue")
        axis.set_ylabel(f"{name} (MiB)" if name == "memory" else name)
        axis.set_ylim(0, max(values) * 1.2 + 1)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    figure.suptitle(f"{soak.operations:,} random operations on containers, {soak.cut_short:,} of them cut short")
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Soak, and return the exit status."""
    options = arguments(argv)
    say(f"seed {options.seed}")
    mark = f"soak-{os.getpid()}-{secrets.token_hex(3)}-"
    directory = Path(tempfile.mkdtemp(prefix=mark, dir="/tmp"))  # a socket's path has to be short
    options.root = directory / "root"
    made = directory / "tmp"
    for path in (options.root, made):
        path.mkdir()
    os.environ |= {"RUNC_ASYNC_SOAK": mark, "TMPDIR": str(made), "XDG_RUNTIME_DIR": str(made)}
    tempfile.tempdir = str(made)
    try:
        containers.make_rootfs(directory / "rootfs")
        try:
            soak = asyncio.run(work(options, directory, mark))
        except asyncio.CancelledError:
            say("interrupted")
            return 1 if _left(options.root, made, mark) else 130
        soak.found += [f"left behind: {left}" for left in _left(options.root, made, mark)] + grown(soak.samples)
        report(soak, options)
        return 1 if soak.found else 0
    finally:
        shutil.rmtree(directory)


def _left(root: Path, made: Path, mark: str) -> list[str]:
    """Name what is left."""
    left = [*leaks.containers(root), *map(str, made.iterdir()), *leaks.left_on_host(mark), *leaks.children()]
    for name in left:
        say(f"left behind: {name}")
    return left


if __name__ == "__main__":
    sys.exit(main())
