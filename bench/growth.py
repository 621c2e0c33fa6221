"""`python -m bench.growth`: how cost grows with calls at once, with containers, and with the limit of concurrency."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.harness import OURS, Measure
from bench.report import figure, machine, plots
from bench.stage import ASYNCIO, GO_RUNC, Stage, stage

AT_ONCE = (1, 10, 100, 1000)
OTHERS_AT_ONCE = 100
"""So many calls at once the others get at most: they have no limit, and a runc takes 10 MB."""

CONTAINERS = (1, 10, 50, 100, 200)
LIMITS = (1, 2, 4, 8, 16, 32, 0)
CALLS = 500

Curve = Mapping[int, float]


def medians(measures: Mapping[str, Measure], rounds: int) -> dict[str, float]:
    """Measure several things in turn, so that a noisy minute meets all of them."""
    walls = [{name: measure().wall for name, measure in measures.items()} for _ in range(rounds)]
    return {name: statistics.median(found[name] for found in walls) for name in measures}


def by_calls(made: Stage, rounds: int) -> dict[str, Curve]:
    """Seconds for each of so many calls of `state` at once."""
    (name,) = made.containers(1)
    root = str(made.root)
    curves: dict[str, dict[int, float]] = {}
    for at_once in AT_ONCE:
        count = max(at_once, 100)
        measures: dict[str, Measure] = {OURS: partial(made.ours.measure, at_once, count, "state", root, name)}
        if at_once <= OTHERS_AT_ONCE:
            argv = ("spawn", "runc", "--root", root, "state", name)
            measures[ASYNCIO] = partial(made.plain.measure, at_once, count, *argv)
            if made.go is not None:
                measures[GO_RUNC] = partial(made.go.measure, at_once, count, "state", root, name)
        for peer, wall in medians(measures, rounds).items():
            curves.setdefault(peer, {})[at_once] = wall
    return dict(curves)


def by_containers(made: Stage, rounds: int) -> dict[str, Curve]:
    """Seconds of `list`, and of `state` of one, with so many containers."""
    root = str(made.root)
    curves: dict[str, dict[int, float]] = {}
    for count in CONTAINERS:
        name = made.containers(count)[-1]
        argv = ("spawn", "runc", "--root", root, "list", "--format=json")
        measures: dict[str, Measure] = {
            f"list, {OURS}": partial(made.ours.measure, 1, 4, "list", root),
            f"list, {ASYNCIO}": partial(made.plain.measure, 1, 4, *argv),
            f"state, {OURS}": partial(made.ours.measure, 1, 20, "state", root, name),
        }
        for what, wall in medians(measures, rounds).items():
            curves.setdefault(what, {})[count] = wall
    return dict(curves)


def by_limit(made: Stage, rounds: int) -> dict[str, Curve]:
    """Seconds for 500 calls of `state` at once, with so many running at the same time; 0: with no limit."""
    (name,) = made.containers(1)
    found: dict[int, list[float]] = {limit: [] for limit in LIMITS}
    for _ in range(rounds):  # in turn, so that a noisy minute meets all of them
        for limit in LIMITS:
            sample = made.ours.measure(CALLS, CALLS, "limited", str(made.root), name, str(limit))
            found[limit].append(sample.wall * CALLS)
    return {OURS: {limit: statistics.median(walls) for limit, walls in found.items()}}


def table(title: str, curves: Mapping[str, Curve]) -> str:
    """Show curves as a table in Markdown."""
    points = sorted({point for found in curves.values() for point in found}, key=lambda point: (point == 0, point))
    lines = [f"| {title} | {' | '.join(curves)} |", f"|---{'|---' * len(curves)}|"]
    for point in points:
        cells = [figure(found[point], "wall") if point in found else "" for found in curves.values()]
        lines.append(f"| {point or 'no limit'} | {' | '.join(cells)} |")
    return "\n".join(lines)


GROWTHS = {
    "calls": ("calls at once", "seconds for each", by_calls),
    "containers": ("containers", "seconds for a call", by_containers),
    "limit": ("runc processes at once", f"seconds for {CALLS} calls", by_limit),
}


def draw(curves: Mapping[str, Curve], across: str, up: str, path: Path) -> None:
    """Draw curves."""
    plt = plots()
    picture, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    for name, found in curves.items():
        points = [point for point in found if point]
        axes.plot(points, [found[point] for point in points], marker="o", label=name)
        if 0 in found:
            axes.axhline(found[0], linestyle="--", color="gray", label="no limit")
    axes.set(xscale="log", xlabel=across, ylabel=up, ylim=(0, None), title=machine())
    axes.title.set_fontsize(8)
    axes.legend(fontsize=8)
    picture.savefig(path, dpi=80)
    plt.close(picture)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, draw, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="Measure how cost grows.")
    parser.add_argument("--only", action="append", choices=sorted(GROWTHS), help="these alone")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each point")
    parser.add_argument("--plots", type=Path, help="directory for plots; needs matplotlib")
    options = parser.parse_args(argv)
    with stage() as made:
        if made.can_run:
            print(made.can_run, file=sys.stderr)
            return 1
        for name in options.only or GROWTHS:
            across, up, grow = GROWTHS[name]
            curves = grow(made, options.rounds)
            print(f"{machine()}; {up}\n\n{table(across, curves)}\n")
            if options.plots:
                draw(curves, across, up, options.plots / f"performance-{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
