"""`python -m bench`: measure, show, judge."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.harness import Row, compare
from bench.report import machine, table, write_json, write_plot
from bench.stage import stage
from bench.suites import FULL, LIVE, QUICK, SUITES

AGAIN = 3
"""How many times the rounds a comparison gets that the guard would stop a build for: a busy moment is no regression."""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure runc_async beside others.")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of five")
    parser.add_argument("--only", action="append", choices=sorted(SUITES), help="these suites alone")
    parser.add_argument("--rounds", type=int, help="measurements of each peer")
    parser.add_argument("--guard", action="store_true", help="fail if a ratio is worse than its bar by more than half")
    parser.add_argument("--json", type=Path, help="write the rows as JSON")
    parser.add_argument("--plot", type=Path, help="draw the rows; needs matplotlib")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace) -> list[Row]:
    """Run the suites."""
    size = QUICK if options.quick else FULL
    if options.rounds:
        size = size._replace(rounds=options.rounds)
    rows: list[Row] = []
    with stage() as made:
        for name in options.only or SUITES:
            if name in LIVE and made.can_run:
                print(f"{name} is left out: {made.can_run}", file=sys.stderr)
                continue
            begin = time.monotonic()
            for comparison in SUITES[name](made, size):
                found = compare(comparison, size.rounds)
                if options.guard and not all(row.tolerable for row in found):
                    print(f"{comparison.name}: too slow, so it is measured again", file=sys.stderr)
                    found = compare(comparison, AGAIN * size.rounds)
                rows += found
            print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and return the exit code."""
    options = arguments(argv)
    rows = measure(options)
    print(f"{machine()}; medians of paired measurements\n\n{table(rows)}")
    if options.json:
        write_json(rows, options.json)
    if options.plot:
        write_plot(rows, options.plot)
    slow = [row for row in rows if not row.tolerable]
    if options.guard:
        for row in slow:
            print(f"too slow: {row.name} ({row.kind}) beside {row.peer}: {row.ratio:.2f}", file=sys.stderr)
    return 1 if options.guard and slow else 0


if __name__ == "__main__":
    sys.exit(main())
