"""The operations of the soak: what each does to a container, and what the container is afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeAlias

from runc_async import (
    Bundle,
    CapturedIO,
    PipedIO,
    PtyIO,
    Runc,
    RuncTimeout,
    Status,
    merge_events,
    rootfs,
    spec,
)

Possible: TypeAlias = frozenset[Status | None]
NONE: Possible = frozenset({None})

CODE = 7
"""The exit code of the container that copies its input."""


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


class Ground(Protocol):
    """What the operations work with.

    Attributes:
        sleeping: A bundle whose process sleeps.
        terminal: The same on a terminal.
        copying: A bundle whose process copies its input, and ends with `CODE`.
        base: A directory to put an overlay on.
    """

    sleeping: Path
    terminal: Path
    copying: Path
    base: Path

    def temporary(self) -> str:
        """Return an id for a container that ends with its operation."""
        ...


class Turn(NamedTuple):
    """One time that something is done.

    Attributes:
        ground: What there is to work with.
        client: The client, whose calls may have little time.
        name: The container.
        random: Whatever is left to chance.
    """

    ground: Ground
    client: Runc
    name: str
    random: random.Random


Act: TypeAlias = Callable[[Turn], Awaitable[object]]


class Kind(NamedTuple):
    """An operation.

    Attributes:
        act: What it does.
        becomes: What the container is afterwards; "same": what it was.
        between: What it may be besides, if the operation was cut short.
        undone: Whether nothing comes of it when it is cut short.
        needs_criu: Whether it takes a criu that suits the kernel.
    """

    act: Act
    becomes: Status | Literal["same"] | None = "same"
    between: Possible = frozenset()
    undone: bool = False
    needs_criu: bool = False

    def after(self, before: Possible) -> Possible:
        """Tell what a container is after it."""
        if self.becomes is None or isinstance(self.becomes, Status):
            return frozenset({self.becomes})
        return before


# containers that stay


async def create(turn: Turn) -> None:
    """Make a container."""
    await turn.client.create(turn.name, turn.ground.sleeping)


async def run_detached(turn: Turn) -> None:
    """Make a container, and start it."""
    await turn.client.run(turn.name, turn.ground.sleeping, detach=True)


async def start(turn: Turn) -> None:
    """Start it."""
    await turn.client.start(turn.name)


async def kill(turn: Turn) -> None:
    """Kill it."""
    await turn.client.kill(turn.name, "KILL")


async def pause(turn: Turn) -> None:
    """Freeze it."""
    await turn.client.pause(turn.name)


async def resume(turn: Turn) -> None:
    """Thaw it."""
    await turn.client.resume(turn.name)


async def delete(turn: Turn) -> None:
    """Delete it, by force."""
    await turn.client.delete(turn.name, force=True)


async def update(turn: Turn) -> None:
    """Change a limit."""
    pids = spec.LinuxPids(limit=turn.random.randint(50, 500))
    await turn.client.update(turn.name, spec.LinuxResources(pids=pids))


async def move(turn: Turn) -> None:
    """Write it into files, and make it anew from them."""
    with images() as place:
        await turn.client.checkpoint(turn.name, place)
        await turn.client.restore(turn.name, turn.ground.sleeping, place, detach=True)


async def checkpoint(turn: Turn) -> None:
    """Write it into files, and let it run on."""
    with images() as place:
        await turn.client.checkpoint(turn.name, place, leave_running=True)


@contextlib.contextmanager
def images() -> Generator[Path]:
    """Make a directory for a checkpoint; criu, run by root, writes files of root's."""
    place = Path(tempfile.mkdtemp(prefix="images-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


# questions


async def state(turn: Turn) -> None:
    """Ask for its state."""
    await turn.client.state(turn.name)


async def stats(turn: Turn) -> None:
    """Ask for its figures."""
    await turn.client.stats(turn.name)


async def list_all(turn: Turn) -> None:
    """Ask for all."""
    await turn.client.list()


async def events(turn: Turn) -> None:
    """Wait for an event of it."""
    async with turn.client.events(turn.name, interval=0.02) as stream:
        await anext(stream)


async def merged_events(turn: Turn) -> None:
    """Wait for events of it in two streams at once."""
    streams = [turn.client.events(turn.name, interval=0.02) for _ in range(2)]
    async with merge_events(streams) as merged:
        await anext(merged)
        await anext(merged)


async def wait(turn: Turn) -> None:
    """Wait for its end for a moment."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.03):
            await turn.client.container(turn.name).wait()


# processes in a container


async def execute(turn: Turn) -> None:
    """Run a process in it."""
    code = turn.random.randint(0, 200)
    response = await turn.client.exec(turn.name, ["sh", "-c", f"echo out; exit {code}"], io=CapturedIO())
    if (response.exit_code, response.stdout) != (code, b"out\n"):
        raise Violation(f"exec answers {response!r} instead of {code}")


async def execute_too_long(turn: Turn) -> None:
    """Run a process in it until its time is up."""
    seconds = turn.random.uniform(0.01, 0.1)
    with contextlib.suppress(RuncTimeout):
        response = await turn.client.exec(turn.name, ["sleep", "1000"], timeout=seconds, grace=0)
        raise Violation(f"exec answers {response!r} before its time is up")


async def open_exec(turn: Turn) -> None:
    """Talk to a process in it."""
    async with turn.client.open_exec(turn.name, ["cat"], io=PipedIO(), grace=0) as process:
        if process.stdin is None or process.stdout is None:
            raise Violation("there are no streams")
        await process.stdin.send(b"hello")
        if await process.stdout.receive() != b"hello":
            raise Violation("cat says something else")


# containers and bundles for the time of the operation


async def run(turn: Turn) -> None:
    """Run a container to its end, feed and capture it."""
    data = turn.random.randbytes(turn.random.choice((0, 1, 200_000)))
    name = turn.ground.temporary()
    response = await turn.client.run(name, turn.ground.copying, io=CapturedIO(), input=data, grace=0)
    if (response.exit_code, response.stdout) != (CODE, data):
        raise Violation(f"run answers {response!r} to {len(data)} bytes")


async def run_too_long(turn: Turn) -> None:
    """Run a container until its time is up."""
    seconds = turn.random.uniform(0.01, 0.2)
    with contextlib.suppress(RuncTimeout):
        response = await turn.client.run(turn.ground.temporary(), turn.ground.sleeping, timeout=seconds, grace=0)
        raise Violation(f"run answers {response!r} before its time is up")


async def open_container(turn: Turn) -> None:
    """Have a container for the time of a block."""
    name = turn.ground.temporary()
    async with turn.client.open_container(name, turn.ground.sleeping, io=PipedIO(), grace=0) as container:
        await container.state()


async def open_terminal(turn: Turn) -> None:
    """Have one on a terminal."""
    name = turn.ground.temporary()
    async with turn.client.open_container(name, turn.ground.terminal, io=PtyIO(), grace=0) as container:
        await container.ps()


async def bundle(turn: Turn) -> None:
    """Make a bundle, and remove it."""
    made = await Bundle.open(turn.ground.sleeping)
    async with Bundle.temporary(spec=made.spec):
        pass


async def overlay(turn: Turn) -> None:
    """Make a bundle with an overlay, and remove it."""
    async with Bundle.temporary(rootfs=rootfs.Overlay([turn.ground.base])) as made:
        (made.rootfs / "file").touch()


LOOKS = (Kind(state), Kind(list_all))

CHOICES: dict[Status | None, tuple[Kind, ...]] = {
    None: (
        Kind(create, Status.CREATED, undone=True),
        Kind(create, Status.CREATED, undone=True),
        Kind(run_detached, Status.RUNNING, undone=True),
        Kind(run_detached, Status.RUNNING, undone=True),
        *(Kind(act) for act in (run, run_too_long, open_container, open_terminal, bundle, overlay, list_all)),
    ),
    Status.CREATED: (Kind(start, Status.RUNNING), Kind(start, Status.RUNNING), Kind(delete, None), *LOOKS),
    Status.RUNNING: (
        *(Kind(act) for act in (execute, execute_too_long, open_exec, events, merged_events, wait, stats, update)),
        Kind(pause, Status.PAUSED),
        Kind(kill, Status.STOPPED),
        Kind(delete, None),
        Kind(checkpoint, needs_criu=True),
        Kind(move, Status.RUNNING, between=NONE, needs_criu=True),
        *LOOKS,
    ),
    Status.PAUSED: (Kind(resume, Status.RUNNING), Kind(delete, None), Kind(stats), *LOOKS),
    Status.STOPPED: (Kind(delete, None), *LOOKS),
}
