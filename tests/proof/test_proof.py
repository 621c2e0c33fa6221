"""The table of proofs counts what was tried, and doesn't hide a failure."""

from __future__ import annotations

import proof
import pytest


def report(name: str, *tried: tuple[str, int], when: str = "call", outcome: str = "passed") -> pytest.TestReport:
    """Return the report of a test that has tried something."""
    return pytest.TestReport(
        nodeid=name,
        location=(name, 0, name),
        keywords={},
        outcome=outcome,  # type: ignore[arg-type]
        longrepr=None,
        when=when,  # type: ignore[arg-type]
        user_properties=[(proof.PROPERTY, list(entry)) for entry in tried],
    )


def test_numbers_are_summed_up() -> None:
    """Tests of one kind make one row, and a test that tells two numbers counts once."""
    table = proof.rows({"passed": [report("a", ("points", 3), ("points", 4)), report("b", ("points", 5))]})
    assert list(proof.lines(table)) == [
        "tried      number   tests  result",
        "points         12       2  nothing left behind",
    ]


def test_what_was_left_behind_is_told() -> None:
    """A test that passes and leaves something behind fails when it is torn down; its row says so."""
    called = report("a", ("points", 3))
    torn_down = report("a", ("points", 3), when="teardown", outcome="failed")
    table = proof.rows({"passed": [called, report("b", ("seeds", 1))], "error": [torn_down]})
    assert [line.partition("  ")[2].split(maxsplit=2)[2] for line in proof.lines(table)] == [
        "result",
        "FAILED tests: 1",
        "nothing left behind",
    ]


def test_no_table_without_proofs() -> None:
    """A run of other tests prints none."""
    assert list(proof.lines(proof.rows({"passed": [report("a")]}))) == []
