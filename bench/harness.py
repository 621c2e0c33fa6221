"""Measure several peers in turn, and judge the ratios.

Machines differ and are noisy, so no figure stands alone: all peers of a comparison are measured one after the other in
each of several rounds, a ratio is made of two measurements of one round, and what counts is the median of the ratios.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import msgspec

OURS = "runc_async"
TOLERANCE = 1.5
"""How much worse than its bar a ratio may be before it stops a build: half, for machines are noisy."""

Kind: TypeAlias = Literal["wall", "cpu", "memory"]


class Sample(NamedTuple):
    """One measurement of one peer: cost per operation, in seconds, or bytes for memory.

    Attributes:
        wall: Time that passed.
        cpu: Time that the client itself has computed; zero if that isn't known.
    """

    wall: float
    cpu: float = 0.0


Measure: TypeAlias = Callable[[], Sample]


class Bar(msgspec.Struct, frozen=True):
    """What a ratio has to reach.

    Attributes:
        peer: The peer beside which we are measured.
        limit: The largest cost, as a multiple of the peer's; or with `speed` the least speed, likewise.
        kind: What is compared.
        speed: Whether the ratio is one of speeds: the peer's cost as a multiple of ours.
        ceiling: Where a bar is known to be missed, what the ratio must not be worse than; None: by half worse.
        reason: Why it is missed.
    """

    peer: str
    limit: float
    kind: Kind = "wall"
    speed: bool = False
    ceiling: float | None = None
    reason: str = ""

    def reached(self, ratio: float) -> bool:
        """Tell whether a ratio reaches the bar."""
        return ratio >= self.limit if self.speed else ratio <= self.limit

    def tolerable(self, ratio: float) -> bool:
        """Tell whether a ratio is good enough for a build on a noisy machine."""
        limit = self.ceiling
        if limit is None:
            limit = self.limit / TOLERANCE if self.speed else self.limit * TOLERANCE
        return ratio >= limit if self.speed else ratio <= limit


class Comparison(msgspec.Struct, frozen=True):
    """Peers that do the same.

    Attributes:
        name: What they do.
        peers: How to measure each of them; `OURS` is one.
        bars: What is asked of us.
        missing: Peers that can't be measured here, with the reason.
        kind: What `Sample.wall` is, where it isn't time.
    """

    name: str
    peers: Mapping[str, Measure]
    bars: tuple[Bar, ...] = ()
    missing: Mapping[str, str] = {}
    kind: Kind = "wall"


class Row(msgspec.Struct, frozen=True):
    """One line of the table: our figure beside a peer's.

    Attributes:
        name: What was done.
        kind: What was measured.
        peer: The other one.
        ours: Our median: seconds, or bytes.
        theirs: The peer's median; None if it couldn't be measured.
        ratio: The median of the ratios of paired measurements.
        bar: What the ratio has to reach, if anything.
        note: Why there is no figure, or why the bar is missed.
    """

    name: str
    kind: Kind
    peer: str
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    bar: Bar | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the bar is reached; None without one."""
        return None if self.bar is None or self.ratio is None else self.bar.reached(self.ratio)

    @property
    def tolerable(self) -> bool:
        """Whether the ratio is good enough for a build."""
        return self.bar is None or self.ratio is None or self.bar.tolerable(self.ratio)


def compare(comparison: Comparison, rounds: int) -> list[Row]:
    """Measure all peers in turn, as often as told; the one that begins changes with each round."""
    names = list(comparison.peers)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(comparison.peers[name]())
    kinds: tuple[Kind, ...] = (comparison.kind,)
    if comparison.kind == "wall" and all(sample.cpu > 0 for sample in samples[OURS]):
        kinds = ("wall", "cpu")
    return [row for kind in kinds for row in _rows(comparison, samples, kind)]


def _rows(comparison: Comparison, samples: Mapping[str, Sequence[Sample]], kind: Kind) -> Generator[Row]:
    """Make the rows for one kind of figure."""
    bars = {bar.peer: bar for bar in comparison.bars if bar.kind == kind}
    ours = _figures(samples[OURS], kind)
    middle = statistics.median(ours)
    for peer in samples:
        theirs = _figures(samples[peer], kind)
        if peer == OURS or not all(theirs):
            continue
        bar = bars.get(peer)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        ratio = statistics.median(ratios)
        if bar is not None and bar.speed:
            ratio = 1 / ratio
        note = bar.reason if bar is not None and not bar.reached(ratio) else ""
        yield Row(comparison.name, kind, peer, middle, statistics.median(theirs), ratio, bar, note)
    for peer, reason in comparison.missing.items():
        yield Row(comparison.name, kind, peer, middle, bar=bars.get(peer), note=reason)


def _figures(samples: Sequence[Sample], kind: Kind) -> list[float]:
    return [sample.cpu if kind == "cpu" else sample.wall for sample in samples]


class Peer:
    """A peer that runs in a process of its own and answers lines: see `bench.peers.serve`."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def measure(self, concurrency: int, count: int, *words: str) -> Sample:
        """Let it do something `count` times, `concurrency` of them at once.

        Raises:
            RuntimeError: If it has failed; it has said why on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(concurrency, count, *words, file=self._process.stdin)
        answer = self._process.stdout.readline().split()
        if not answer:
            raise RuntimeError(f"{self._process.args!r} has failed at {' '.join(words)}")
        wall, cpu = map(float, answer)
        return Sample(wall / count, cpu / count)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


@contextlib.contextmanager
def peer(argv: Sequence[str]) -> Generator[Peer]:
    """Start a peer, and end it with the block."""
    started = Peer(argv)
    try:
        yield started
    finally:
        started.close()
