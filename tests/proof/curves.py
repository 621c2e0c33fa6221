"""Curves of what a process holds while it works for a long time, and whether they grow.

A curve grows if the median of its last quarter is above that of its second quarter (the first one warms up) by more
than three times the median deviation within that second quarter plus a margin: one for what is counted, a quarter of a
MiB for allocated memory, four MiB for resident memory. For memory one MiB is added for each minute less than four,
since a short run is not warm yet.

Resident memory goes up and down in steps, as an allocator takes and returns what it doesn't use at the moment. What is
lost and was allocated is seen in what is allocated. What was mapped otherwise comes in pages: one in every thirty of
the operations of ten minutes makes four MiB.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SECOND_QUARTER = 0.25, 0.5
LAST_QUARTER = 0.75, 1.0
LEAST_SAMPLES = 8


class Sample(NamedTuple):
    """This process at one quiet moment.

    Attributes:
        seconds: Since the beginning.
        operations: So far.
        descriptors: That are open.
        memory: Allocated, in MiB.
        resident: Memory in pages, in MiB.
        threads: Of this process.
        children: Of this process, zombies among them.
        tasks: Of the event loop.
    """

    seconds: float
    operations: int
    descriptors: int
    memory: float
    resident: float
    threads: int
    children: int
    tasks: int


CURVES = ("descriptors", "memory", "resident", "threads", "children", "tasks")

MARGINS = {"memory": 0.25, "resident": 4.0}
"""MiB that memory may grow in a long run."""


def growth(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """Tell by how much a curve has grown, and by how much it may: see the module."""

    def part(begin: float, end: float) -> list[float]:
        return [getattr(sample, name) for sample in samples[int(len(samples) * begin) : int(len(samples) * end)]]

    early = part(*SECOND_QUARTER)
    middle = statistics.median(early)
    noise = statistics.median(abs(value - middle) for value in early)
    minutes = samples[-1].seconds / 60
    margin = MARGINS[name] + max(0.0, 4.0 - minutes) if name in MARGINS else 1.0
    return statistics.median(part(*LAST_QUARTER)) - middle, 3 * noise + margin


def grown(samples: Sequence[Sample]) -> list[str]:
    """Name the curves that grow."""
    if len(samples) < LEAST_SAMPLES:
        return [f"there are {len(samples)} samples only: it takes {LEAST_SAMPLES} to judge"]
    found: list[str] = []
    for name in CURVES:
        by, allowed = growth(samples, name)
        if by > allowed:
            found.append(f"the curve of {name} grows by {by:.2f}, which is more than {allowed:.2f}")
    return found


def draw(samples: Sequence[Sample], title: str, path: Path) -> None:
    """Draw the curves into a picture."""
    importlib.import_module("matplotlib").use("agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(len(CURVES) + 1, 1, sharex=True, figsize=(8, 10), layout="constrained")
    minutes = [sample.seconds / 60 for sample in samples]
    for axis, name in zip(axes, ("operations", *CURVES), strict=True):
        values = [getattr(sample, name) for sample in samples]
        axis.plot(minutes, values, color="tab:blue")
        axis.set_ylabel(f"{name} (MiB)" if name in MARGINS else name)
        axis.set_ylim(0, max(values) * 1.2 + 1)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes")
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
