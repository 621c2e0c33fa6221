"""The comparisons: what is done, by whom, and what is asked of us."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from bench.harness import OURS, Bar, Comparison, Measure, Peer, Sample
from bench.stage import ASYNCIO, BY_HAND, FLOOR, GO_RUNC, SHELL, SUBPROCESS, UVLOOP, Stage


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        rounds: Measurements of each peer, in turn.
        calls: Calls of `/bin/true` in one measurement; of real commands a quarter.
        containers: Containers that `list` finds.
        cycles: Lives of containers in one measurement.
        events: Lines of events.
        blocks: 64 KiB each that a container writes.
        held: Things held at once where memory is measured.
        at_once: How many whole operations are under way at once, in turn.
    """

    rounds: int
    calls: int
    containers: int
    cycles: int
    events: int
    blocks: int
    held: int
    at_once: Sequence[int]


FULL = Size(rounds=5, calls=192, containers=100, cycles=8, events=20_000, blocks=8192, held=100, at_once=(1, 4, 50))
QUICK = Size(rounds=5, calls=48, containers=10, cycles=2, events=5_000, blocks=2048, held=20, at_once=(1,))

CONCURRENCY = (1, 8, 64)

# Why bars are missed, as profiles tell. What they must not be worse than is half more than what was measured.
SPAWN = (
    "asyncio.create_subprocess_exec alone, without a pipe, is 0.6 to 0.75 of the CPU time of bare asyncio; up to Python"
    " 3.11 it starts a thread for each child, and waits for it to begin. The rest is the task that keeps a cancelled"
    " call from losing its child, and three files in memory"
)
OWN_CPU = Bar(ASYNCIO, 0.6, "cpu", ceiling=1.6, reason=SPAWN)
MANY = 8
"""More at once than this is asked of `exec` alone: tasks of an agent share a container."""

COLD = (
    "what a call does beside the spawn is spread over a thousand lines of Python, each of which runs once for a call,"
    " and with the caches that the runtime has left: `python -m bench.shares` tells what they do"
)
READER = (
    "a configuration is decoded twice and encoded twice with msgspec, to know that nothing was dropped, repeated or"
    " taken for something else"
)
FIRST_CLIENT = "a client needs some fifty modules of ours, a quarter of a millisecond each, and more of anyio's own"


def _times(peer: Peer | None, concurrency: int, count: int, *words: str) -> Measure | None:
    return None if peer is None else functools.partial(peer.measure, concurrency, count, *words)


def _comparison(stage: Stage, name: str, peers: dict[str, Measure | None], bars: Iterable[Bar] = ()) -> Comparison:
    """Put together those that are here."""
    return Comparison(
        name,
        {peer: measure for peer, measure in peers.items() if measure is not None},
        tuple(bars),
        {peer: stage.missing[peer] for peer, measure in peers.items() if measure is None},
    )


def calls(stage: Stage, size: Size) -> Generator[Comparison]:
    """What a call costs beside the program's own time: a program that does nothing."""
    for at_once in CONCURRENCY:
        count = max(size.calls, at_once)
        run = "run" if at_once == 1 else "threads"
        yield _comparison(
            stage,
            f"/bin/true, {at_once} at once",
            {
                OURS: _times(stage.ours, at_once, count, "start", "/bin/true"),
                ASYNCIO: _times(stage.plain, at_once, count, "spawn", "/bin/true"),
                SUBPROCESS: _times(stage.plain, at_once, count, run, "/bin/true"),
                GO_RUNC: _times(stage.go, at_once, count, "start", "/bin/true"),
                FLOOR: _times(stage.floor, at_once, count, "/bin/true"),
            },
            [OWN_CPU],
        )


def states(stage: Stage, size: Size) -> Generator[Comparison]:
    """`runc state` of one container."""
    (name,) = stage.containers(1)
    bars = {
        1: [Bar(FLOOR, 1.10, ceiling=1.85, reason=SPAWN), OWN_CPU],
        8: [Bar(GO_RUNC, 1.0, ceiling=1.7, reason=SPAWN), OWN_CPU],
        64: [OWN_CPU],
    }
    for at_once in CONCURRENCY:
        count = max(size.calls // 2, at_once)
        yield _query(
            stage, f"state, {at_once} at once", ("state", name), at_once=at_once, count=count, bars=bars[at_once]
        )


def lists(stage: Stage, size: Size) -> Generator[Comparison]:
    """`runc list`."""
    stage.containers(size.containers)
    count = max(size.calls // 16, 2)
    yield _query(stage, f"list of {size.containers}", ("list", "--format=json"), at_once=1, count=count)


def _query(
    stage: Stage, name: str, command: tuple[str, str], *, at_once: int, count: int, bars: Iterable[Bar] = ()
) -> Comparison:
    """Compare a command of runc's that prints JSON."""
    root = str(stage.root)
    argv = ("runc", "--root", root, *command)
    words = ("list", root) if command[0] == "list" else (command[0], root, command[1])
    return _comparison(
        stage,
        name,
        {
            OURS: _times(stage.ours, at_once, count, *words),
            ASYNCIO: _times(stage.plain, at_once, count, "spawn", *argv),
            SUBPROCESS: _times(stage.plain, at_once, count, "run" if at_once == 1 else "threads", *argv),
            GO_RUNC: _times(stage.go, at_once, count, *words),
            FLOOR: _times(stage.floor, at_once, count, *argv),
        },
        bars,
    )


def execs(stage: Stage, size: Size) -> Generator[Comparison]:
    """`runc exec` of a program that does nothing."""
    (name,) = stage.containers(1)
    root = str(stage.root)
    argv = ("runc", "--root", root, "exec", name, "/bin/true")
    count = max(size.calls // 8, 8)
    for at_once in (1, 8):
        yield _comparison(
            stage,
            f"exec, {at_once} at once",
            {
                OURS: _times(stage.ours, at_once, count, "exec", root, name),
                ASYNCIO: _times(stage.plain, at_once, count, "spawn", *argv),
                GO_RUNC: _times(stage.go, at_once, count, "exec", root, name),
                FLOOR: _times(stage.floor, at_once, count, *argv),
            },
        )


def cycles(stage: Stage, size: Size) -> Generator[Comparison]:
    """The whole life of a container."""
    words = ("cycle", str(stage.root), stage.bundle("true"))
    yield _comparison(
        stage,
        "create, start, wait, delete",
        {
            OURS: _times(stage.ours, 1, size.cycles, *words),
            SHELL: _times(stage.shell, 1, size.cycles, *words),
            GO_RUNC: _times(stage.go, 1, size.cycles, *words),
        },
        [Bar(SHELL, 1.05, ceiling=1.65, reason=SPAWN)],
    )


def by_hand(stage: Stage, size: Size) -> Generator[Comparison]:
    """Whole operations beside the same commands written by hand with asyncio, and beside themselves on uvloop."""
    (name,) = stage.containers(1)
    root, bundle = str(stage.root), stage.bundle("true")
    state = ("runc", "--root", root, "state", name)
    execute = ("runc", "--root", root, "exec", name, "/bin/true")
    wall = Bar(BY_HAND, 1.05, ceiling=1.4, reason=COLD)
    for at_once in size.at_once:
        for what, count, ours, theirs, bars in (
            ("open_container", size.cycles, ("cycle", root, bundle), None, (wall, _cpu(1.4, 3.1))),
            ("run", size.cycles, ("foreground", root, bundle), None, (wall, _cpu(1.4, 3.5))),
            ("exec", size.calls // 8, ("output", root, name), ("spawn", *execute), (wall, _cpu(1.5, 3.1))),
            ("state", size.calls // 4, ("state", root, name), None, (wall,)),
            ("state, spawned alone", size.calls // 4, ("state", root, name), ("alone", *state), (_cpu(1.3, 2.0),)),
            ("submission of a judge", size.cycles, ("submission", root, stage.rootfs), None, (wall,)),
        ):
            if at_once > MANY and what != "exec":
                continue
            enough = max(count, 2 * at_once)
            peers = {
                OURS: _times(stage.ours, at_once, enough, *ours),
                BY_HAND: _times(stage.plain, at_once, enough, *(theirs or ours)),
                UVLOOP: _times(stage.on_uvloop, at_once, enough, *ours),
            }
            yield _comparison(stage, f"{what}, {at_once} at once", peers, bars)


def _cpu(limit: float, ceiling: float) -> Bar:
    return Bar(BY_HAND, limit, "cpu", ceiling=ceiling, reason=COLD)


def without_runtime(stage: Stage, size: Size) -> Generator[Comparison]:
    """What is done around the runtime: a bundle, a configuration."""
    for what, words, bars in (
        ("a temporary bundle", ("bundle", stage.rootfs), ()),
        (
            "a configuration of 10 kB",
            ("document", str(stage.document())),
            (Bar(BY_HAND, 1.5, ceiling=8, reason=READER),),
        ),
    ):
        peers = {OURS: _times(stage.ours, 1, size.calls, *words), BY_HAND: _times(stage.plain, 1, size.calls, *words)}
        yield _comparison(stage, what, peers, bars)


def events(stage: Stage, size: Size) -> Generator[Comparison]:
    """Lines of events: from memory, and from a process that prints them."""
    path = stage.events(size.events)
    once = [_times(peer, 1, 1, word, str(path)) for peer, word in ((stage.plain, "msgspec"), (stage.plain, "json"))]
    yield _comparison(
        stage,
        "events, framed and decoded",
        {
            OURS: _times(stage.ours, 1, 1, "decode", str(path)),
            "msgspec, cut lines": once[0],
            "json.loads, cut lines": once[1],
            GO_RUNC: _times(stage.go, 1, 1, "decode", str(path)),
        },
        [Bar(GO_RUNC, 5, speed=True), Bar("msgspec, cut lines", 0.7, speed=True)],
    )
    words = ("events", stage.fake_runc(path), str(size.events))
    yield _comparison(
        stage,
        "events, from a process",
        {OURS: _times(stage.ours, 1, 1, *words), GO_RUNC: _times(stage.go, 1, 1, *words)},
    )


def transfers(stage: Stage, size: Size) -> Generator[Comparison]:
    """Bytes out of a container."""
    words = ("bytes", str(stage.root), stage.bundle("dd", "if=/dev/zero", "bs=65536", f"count={size.blocks}"))
    bare = "bare os.read"
    yield _comparison(
        stage,
        f"{size.blocks // 16} MiB out of a container",
        {
            OURS: _times(stage.ours, 1, 1, *words),
            bare: _times(stage.plain, 1, 1, *words),
            GO_RUNC: _times(stage.go, 1, 1, *words),
        },
        [Bar(bare, 0.8, speed=True)],
    )


def imports(stage: Stage, _size: Size) -> Generator[Comparison]:
    """What an import costs a new interpreter, its own start included, with bytecode on the disk as once installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(stage.directory / "bytecode")
    dependencies = "asyncio, anyio, msgspec"
    bar = Bar(dependencies, 1.3)
    for name, statement, asked in (
        ("import runc_async", "import runc_async", bar),
        (
            "import and make a client",
            "import runc_async; runc_async.Runc()",
            msgspec.structs.replace(bar, ceiling=3.5, reason=FIRST_CLIENT),
        ),
    ):
        ours = functools.partial(_interpreter, statement, environment)
        theirs = functools.partial(_interpreter, f"import {dependencies}", environment)
        ours()  # writes the bytecode
        theirs()
        yield Comparison(name, {OURS: ours, dependencies: theirs}, (asked,))


def _interpreter(statement: str, environment: Mapping[str, str]) -> Sample:
    """Run a statement in an interpreter of its own."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    return Sample(time.perf_counter() - begin)


def memory(stage: Stage, size: Size) -> Generator[Comparison]:
    """Resident memory of the client, for each thing that it holds."""
    streams = ["idle event stream", OURS, "streams", ASYNCIO, "processes", str(size.held)]
    handles = ["handle, of 1,000", OURS, "handles", "dict", "dicts", "1000"]
    held = [streams, handles]
    if not stage.can_run:
        held.append(
            ["open container, with pipes", OURS, "containers", f"{ASYNCIO}, runc run", "runs", str(size.held // 5)]
        )
    for name, first, ours, second, theirs, count in held:
        argv = [str(stage.root), stage.sleeper if not stage.can_run else "none", count]
        yield Comparison(
            name,
            {first: functools.partial(_footprint, ours, *argv), second: functools.partial(_footprint, theirs, *argv)},
            kind="memory",
        )


def _footprint(*argv: str) -> Sample:
    """Ask a program of its own how much memory it takes to hold something."""
    command = [sys.executable, "-m", "bench.peers.footprint", *argv]
    return Sample(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


LIVE = {
    "hand": by_hand,
    "around": without_runtime,
    "state": states,
    "list": lists,
    "exec": execs,
    "cycle": cycles,
    "bytes": transfers,
}
SUITES = {"calls": calls, **LIVE, "events": events, "memory": memory, "import": imports}
