"""The table at the end of a run: what the proofs have tried, and how many of them found something."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import pytest

PROPERTY = "tried"

Tried: TypeAlias = "Callable[[str, int], None]"
"""Says in a test what it has tried, and how many of it: `tried("cancellation points, live", 120)`."""


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
