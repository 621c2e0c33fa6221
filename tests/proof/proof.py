"""How much the proofs try, and the table at the end of a run: how many things, and how many of them found something.

A run tries a small sample of each proof, the same one each time; with `--proof` it tries all. A test is sampled in one
of three ways: `@pytest.mark.proof(every=5)` runs every fifth of its parameter sets, `amount` gives how often it tries
something, and `chosen` leaves out things that one test tries. A test with `@pytest.mark.proof` alone is in no sample.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeVar

    import pytest

    T = TypeVar("T")

WHOLE: bool = False
"""Whether everything is tried; `--proof` sets it before the tests are collected."""

UVLOOP = 4
"""Of how many tests on uvloop one is in the sample; all are run on asyncio's own loop."""

PROPERTY = "tried"

Tried: TypeAlias = "Callable[[str, int], None]"
"""Says in a test what it has tried, and how many of it: `tried("cancellation points, live", 120)`."""


def amount(whole: int, sample: int) -> int:
    """Return how often something is tried: the one number with `--proof`, the other without."""
    return whole if WHOLE else sample


def chosen(things: Sequence[T], number: int) -> list[T]:
    """Return all of these with `--proof`, and without it `number` of them, evenly spaced, with the first one."""
    if WHOLE or number >= len(things):
        return list(things)
    return [things[place * len(things) // number] for place in range(number)]


def left_out(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return the tests that a sample leaves out.

    Of each function with the mark `proof(every=n)` it has every n-th parameter set, of one with `proof` alone none, and
    of the tests that run on both kinds of event loop every `UVLOOP`-th on uvloop.
    """
    seen: dict[str, int] = defaultdict(int)
    left: list[pytest.Item] = []
    for item in items if not WHOLE else ():
        function, _, parameters = item.nodeid.partition("[")
        if mark := item.get_closest_marker("proof"):
            group, every = function, cast("int", mark.kwargs.get("every", 0))
        elif parameters.startswith("uvloop"):
            group, every = "uvloop", UVLOOP
        else:
            continue
        if not every or seen[group] % every:
            left.append(item)
        seen[group] += 1
    return left


class Row:
    """One kind of things tried.

    Attributes:
        tests: How many tests did.
        number: How many things they tried, all together.
        failed: How many of the tests failed, be it in their own words or because something was left behind.
    """

    def __init__(self) -> None:
        self.tests: int = 0
        self.number: int = 0
        self.failed: int = 0


def rows(stats: Mapping[str, Sequence[pytest.TestReport]]) -> dict[str, Row]:
    """Sum up what the reports of a run carry, by what was tried."""
    failed = {report.nodeid for outcome in ("failed", "error") for report in stats.get(outcome, ())}
    found: dict[str, Row] = defaultdict(Row)
    for report in (*stats.get("passed", ()), *stats.get("failed", ())):
        if report.when == "call":
            told: dict[str, int] = defaultdict(int)
            for name, value in report.user_properties:
                if name == PROPERTY:
                    what, number = cast("tuple[str, int]", value)
                    told[what] += number
            for what, number in told.items():
                row = found[what]
                row.tests += 1
                row.number += number
                row.failed += report.nodeid in failed
    return dict(sorted(found.items()))


def lines(table: Mapping[str, Row]) -> Iterable[str]:
    """Yield the table's lines, its head first; none if nothing was tried."""
    if table:
        width = max(map(len, table))
        yield f"{'tried':{width}}  {'number':>9}  {'tests':>6}  result"
        for what, row in table.items():
            result = f"FAILED tests: {row.failed}" if row.failed else "nothing left behind"
            yield f"{what:{width}}  {row.number:>9,}  {row.tests:>6}  {result}"
