"""Random operations of many tasks on many containers for a long time: `make soak`.

Each task has containers of its own, and a model of them: which of them there are, and in which status. Operations are
cut short at random: by cancels, by `asyncio.timeout`, and by the library's own `timeout=`. Again and again all tasks
stop; then `list` has to tell what the model does, and a sample of this process is taken: descriptors, memory (what is
allocated, and what is resident), threads, children, tasks. At the end none of these curves may grow: see `curves`.

With `--subreaper` all of that is done inside a `subreaper()`, so that the first process of each container is a child of
this process, as a zombie until the container is deleted. Only those children count that are more than containers.

Exit status: 0 if nothing was found; 1 if the model was violated, something was left, or a curve grows; 130 after
SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import mmap
import os
import random
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import containers
import criu
import leaks
from allocated import allocated, by_malloc, settle
from curves import CURVES, LEAST_SAMPLES, Sample, draw, grown, growth
from random_operations import CHOICES, CODE, NONE, Box, Kind, Turn, Violation

from runc_async import CleanupWarning, CommandError, Runc, RuncError, RuncTimeout, Status, subreaper

MIB = 1 << 20
CUT_SHORT = 0.35
"""The share of operations that are cut short."""

PLANTS = dict(zip(("descriptor", "memory", "pages", "thread", "child", "task"), CURVES, strict=True))
"""What can be leaked on purpose, and the curve that grows then."""


class Planted:
    """What is leaked on purpose, to show that it is found.

    Attributes:
        children: How many children.
        tasks: The tasks.
    """

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._descriptors: list[int] = []
        self._memory: list[bytearray] = []
        self._pages: list[mmap.mmap] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        self._end = threading.Event()

    @property
    def children(self) -> int:
        """How many children there are."""
        return len(self._children)

    def one_more(self, what: str) -> None:
        """Leak a descriptor, a task, four MiB of memory or eight of pages, a thread or a child."""
        match what:
            case "descriptor":
                self._descriptors.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            case "task":
                self.tasks.add(asyncio.create_task(asyncio.sleep(3600)))
            case "memory":
                self._memory.append(bytearray(os.urandom(4 * MIB)))
            case "pages":
                self._pages.append(mmap.mmap(-1, 8 * MIB))
                self._pages[-1].write(os.urandom(8 * MIB))
            case "thread":
                self._threads.append(threading.Thread(target=self._end.wait))
                self._threads[-1].start()
            case _:
                self._children.append(subprocess.Popen(["/bin/sleep", "3600"], stdin=subprocess.DEVNULL))

    def take_back(self) -> None:
        """End all of it."""
        for fd in self._descriptors:
            os.close(fd)
        for pages in self._pages:
            pages.close()
        for task in self.tasks:
            task.cancel()
        for child in self._children:
            child.kill()
            child.wait()
        self._end.set()
        for thread in self._threads:
            thread.join()


class Soak:
    """The operations, the model, and what was found.

    Attributes:
        sleeping: See `random_operations.Ground`, as for the next three.
        terminal: As above.
        copying: As above.
        base: As above.
        operations: How many were done.
        cut_short: How many of them were cut short.
        kinds: How often each was done.
        found: What is wrong.
        samples: Of this process, at the quiet points.
    """

    def __init__(self, client: Runc, directory: Path, mark: str, options: argparse.Namespace) -> None:
        """Make the bundles in a directory whose `rootfs` is there."""
        self.sleeping = make_bundle(directory, "sleeping", ["sleep", "100000"])
        self.terminal = make_bundle(directory, "terminal", ["sleep", "100000"], terminal=True)
        self.copying = make_bundle(directory, "copying", ["sh", "-c", f"cat; exit {CODE}"])
        self.base = directory / "rootfs"
        self.operations = 0
        self.cut_short = 0
        self.kinds: Counter[str] = Counter()
        self.found: list[str] = []
        self.samples: list[Sample] = []
        self._client = client
        self._mark = mark
        self._options = options
        self._number = 0
        self._containers = 0
        self._planted = Planted()
        self._choices = {status: usable(kinds) for status, kinds in CHOICES.items()}
        self._boxes = [[self._box() for _ in range(options.boxes)] for _ in range(options.tasks)]
        self._random = [random.Random(f"{options.seed}-{task}") for task in range(options.tasks)]  # noqa: S311

    def _box(self) -> Box:
        self._number += 1
        return Box(f"{self._mark}{self._number}")

    async def run(self) -> None:
        """Work until the time is over, and there are samples enough, in periods with a quiet point behind each."""
        begin = time.monotonic()
        period = min(5.0, max(0.25, self._options.seconds / 40))
        while not self.found and (
            time.monotonic() - begin < self._options.seconds or len(self.samples) < LEAST_SAMPLES
        ):
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
        kind = rnd.choice(self._choices[box.status])
        self.kinds[kind.act.__name__] += 1
        self.operations += 1
        way = rnd.choice(("cancel", "scope", "timeout")) if rnd.random() < CUT_SHORT else None
        after = rnd.uniform(0.0005, 0.08)
        before = box.possible
        box.possible = before | kind.after(before) | kind.between
        client = self._client if way != "timeout" else self._hasty(after)
        try:
            cut = await self._cut(kind.act(Turn(self, client, box.name, rnd)), way, after)
        except Exception as exc:
            if way is None or not isinstance(exc, RuncError):
                log = exc.log if isinstance(exc, CommandError) else ""
                raise Violation(f"{kind.act.__name__} on {before}, {way}: {exc!r} {log}") from exc
            cut = True
        self.cut_short += cut
        if not cut:
            box.possible = kind.after(before)
        elif kind.undone:
            box.possible = before
        if not cut and kind.becomes is Status.STOPPED:
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
        self._containers = len(there)
        for name in sorted(model.keys() | there.keys()):
            possible, status = model.get(name, NONE), there.get(name)
            if status not in possible:
                self.found.append(f"{name} is {status}, and may be {sorted(map(str, possible))}")
            elif status is Status.RUNNING and (others := await self._others(name)):
                self.found.append(f"in {name} there are also {others}")

    async def _others(self, name: str) -> list[str]:
        """Tell what there is in a container beside its first process, after a moment for what is ending."""
        first = (await self._client.state(name)).pid
        for _ in range(100):
            if set(await self._client.ps(name)) <= {first}:
                return []
            await asyncio.sleep(0.01)
        return [" ".join(row) for row in (await self._client.top(name)).rows]

    async def _sample(self, seconds: float) -> Sample:
        """Measure this process, when what ends a moment later has ended."""
        alone = {asyncio.current_task(), *self._planted.tasks}
        for _ in range(50):
            if asyncio.all_tasks() <= alone and self._children() == self._planted.children:
                break
            await asyncio.sleep(0.01)
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        return Sample(
            seconds,
            self.operations,
            len(list(leaks.descriptors())),
            allocated() / MIB,
            pages * resource.getpagesize() / MIB,
            len(os.listdir("/proc/self/task")),
            self._children(),
            len(asyncio.all_tasks()),
        )

    def _children(self) -> int:
        """Count the children of this process; as a subreaper, those that are more than there are containers."""
        return max(0, len(list(leaks.children())) - (self._containers if self._options.subreaper else 0))

    async def _plant(self) -> None:
        """Leak what `--plant` says, to show that it is found."""
        if self._options.plant == "container":
            await self._client.create(self._box().name, self.sleeping)
        elif self._options.plant:
            self._planted.one_more(self._options.plant)

    def temporary(self) -> str:
        """Return an id for a container that ends with its operation."""
        return self._box().name

    async def end(self) -> None:
        """Delete all containers, and take back what was planted."""
        self._planted.take_back()
        for name in list(leaks.containers(self._options.root)):
            try:
                await self._client.delete(name, force=True, timeout=20)
            except RuncError as exc:
                self.found.append(f"{name} can't be deleted: {exc!r}")


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
    parser.add_argument("--subreaper", action="store_true", help="be the parent of the containers")
    parser.add_argument("--plant", choices=(*PLANTS, "container"), help="leak it, to see it found")
    options = parser.parse_args(argv)
    if options.seed is None:
        options.seed = secrets.randbelow(1 << 32)
    return options


def usable(kinds: Sequence[Kind]) -> list[Kind]:
    """Leave those out that can't be done on this host."""
    return [kind for kind in kinds if not (kind.needs_criu and criu.missing())]


def make_bundle(place: Path, name: str, args: list[str], *, terminal: bool = False) -> Path:
    """Write a bundle around the root filesystem that is there already."""
    directory = place / name
    directory.mkdir()
    containers.runc("spec", "--bundle", directory).check_returncode()
    config = json.loads((directory / "config.json").read_bytes())
    config["root"]["path"] = str(place / "rootfs")
    config["process"] |= {"args": args, "terminal": terminal}
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


async def work(options: argparse.Namespace, directory: Path, mark: str) -> Soak:
    """Soak, and delete what is there at the end, also when it is interrupted."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2))
    soak = Soak(Runc(options.runc, root=options.root), directory, mark, options)
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
    settle()
    say("begun")
    with subreaper() if options.subreaper else contextlib.nullcontext():
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
        title = f"{soak.operations:,} random operations on containers, {soak.cut_short:,} of them cut short"
        draw(soak.samples, title, options.plot)


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
    os.environ["PATH"] = criu.search_path()
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
        for mount in sorted(leaks.mounts(str(directory)), reverse=True):
            subprocess.run(["/bin/umount", "--lazy", mount], check=True)
        shutil.rmtree(directory)


def _left(root: Path, made: Path, mark: str) -> list[str]:
    """Name what is left."""
    left = [*leaks.containers(root), *map(str, made.iterdir()), *leaks.left_on_host(mark), *leaks.children()]
    for name in left:
        say(f"left behind: {name}")
    return left


if __name__ == "__main__":
    by_malloc()
    sys.exit(main())
