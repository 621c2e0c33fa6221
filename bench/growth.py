"""`python -m bench.growth`: how cost grows with calls at once, with containers, and with the limit of concurrency."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
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


def median(measure: Measure, rounds: int) -> float:
    """Measure several times."""
    return statistics.median(measure().wall for _ in range(rounds))


def by_calls(made: Stage, rounds: int) -> dict[str, Curve]:
    """Seconds for each of so many calls of `state` at once."""
    (name,) = made.containers(1)
    root = str(made.root)

    def ours(at_once: int) -> float:
        return median(lambda: made.ours.measure(at_once, max(at_once, 100), "state", root, name), rounds)

    def bare(at_once: int) -> float:
        argv = ("spawn", "runc", "--root", root, "state", name)
        return median(lambda: made.plain.measure(at_once, 100, *argv), rounds)

    curves = {OURS: curve(ours, AT_ONCE), ASYNCIO: curve(bare, AT_ONCE[:-1])}
    if made.go is not None:
        peer = made.go
        curves[GO_RUNC] = curve(
            lambda at_once: median(lambda: peer.measure(at_once, 100, "state", root, name), rounds), AT_ONCE[:-1]
        )
    return curves


def by_containers(made: Stage, rounds: int) -> dict[str, Curve]:
    """Seconds of `list`, and of `state` of one, with so many containers."""
    root = str(made.root)

    def listing(count: int) -> float:
        made.containers(count)
        return median(lambda: made.ours.measure(1, 4, "list", root), rounds)

    def bare(count: int) -> float:
        del count
        argv = ("spawn", "runc", "--root", root, "list", "--format=json")
        return median(lambda: made.plain.measure(1, 4, *argv), rounds)

    def state(count: int) -> float:
        (name,) = made.containers(count)[-1:]
        return median(lambda: made.ours.measure(1, 20, "state", root, name), rounds)

    curves: dict[str, dict[int, float]] = {f"list, {OURS}": {}, f"list, {ASYNCIO}": {}, f"state, {OURS}": {}}
    for count in CONTAINERS:
        for name, measure in zip(curves, (listing, bare, state), strict=True):
            curves[name][count] = measure(count)
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


def curve(cost: Callable[[int], float], points: Sequence[int]) -> Curve:
    """Measure at each point."""
    return {point: cost(point) for point in points}


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
