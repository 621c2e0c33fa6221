"""The table of proofs counts what was tried, and doesn't hide a failure."""

from __future__ import annotations

from typing import Any

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


class Item:
    """A test as pytest collects it, with the mark `proof` or without."""

    def __init__(self, nodeid: str, every: int = 0) -> None:
        self.nodeid = nodeid
        self._mark = pytest.mark.proof(every=every).mark if every else None

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        """Return its mark."""
        return self._mark if name == "proof" else None


def test_a_sample_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a function with the mark it has every n-th parameter set, of tests on uvloop every fourth, of others all."""
    monkeypatch.setattr(proof, "WHOLE", False)
    items: list[Any] = [Item(f"a.py::marked[{number}]", every=3) for number in range(7)]
    items += [Item(f"a.py::both[{loop}-{number}]") for number in range(5) for loop in ("asyncio", "uvloop")]
    items += [Item("b.py::single", every=5), Item("b.py::plain")]
    left = {item.nodeid for item in proof.left_out(items)}
    assert [item.nodeid for item in items if item.nodeid not in left] == [
        *(f"a.py::marked[{number}]" for number in (0, 3, 6)),
        *("a.py::both[asyncio-0]", "a.py::both[uvloop-0]"),
        *(f"a.py::both[asyncio-{number}]" for number in (1, 2, 3, 4)),
        *("a.py::both[uvloop-4]", "b.py::single", "b.py::plain"),
    ]
    assert (proof.amount(100, 5), proof.chosen("abcdefg", 3), proof.chosen("ab", 3)) == (5, ["a", "c", "e"], ["a", "b"])


def test_the_whole_has_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--proof` no test and no thing is left out."""
    monkeypatch.setattr(proof, "WHOLE", True)
    items: list[Any] = [Item(f"a.py::marked[{number}]", every=3) for number in range(7)]
    assert (proof.left_out(items), proof.amount(100, 5), proof.chosen("abc", 1)) == ([], 100, ["a", "b", "c"])


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
