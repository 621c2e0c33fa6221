"""The benchmarks: how ratios are made and judged, and that each peer that can be had here runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import AGAIN, main
from bench.harness import OURS, Bar, Comparison, Row, Sample, compare
from bench.report import figure, table
from bench.suites import LIVE, QUICK, SUITES

PROJECT = Path(__file__).parents[2]


def series(*walls: float) -> Comparison:
    """Return a comparison in which we take these times and the peer a second, with a bar of 2."""
    ours = iter(walls)
    return Comparison("wait", {OURS: lambda: Sample(next(ours)), "peer": lambda: Sample(1.0)}, (Bar("peer", 2.0),))


def test_the_ratio_is_the_median_of_paired_measurements() -> None:
    """One bad round doesn't count."""
    (row,) = compare(series(1.5, 90.0, 1.0, 1.6, 1.4), rounds=5)
    assert (row.ratio, row.reached, row.ours) == (1.5, True, 1.5)


def test_a_cost_above_its_bar_is_missed() -> None:
    """It is missed above the bar, and not to be tolerated when it is worse by more than half."""
    assert [compare(series(cost), rounds=1)[0].reached for cost in (2.0, 2.1)] == [True, False]
    assert [compare(series(cost), rounds=1)[0].tolerable for cost in (3.0, 3.1)] == [True, False]


def test_a_speed_is_judged_the_other_way_round() -> None:
    """A bar for speed is reached by a ratio that is as large."""
    bar = Bar("peer", 5.0, speed=True)
    assert [bar.reached(ratio) for ratio in (4.9, 5.0)] == [False, True]
    assert [bar.tolerable(ratio) for ratio in (3.3, 3.4)] == [False, True]


def test_a_bar_that_is_known_to_be_missed_has_a_ceiling_of_its_own() -> None:
    """The guard then watches that it gets no worse, and the table says why it is missed."""
    bar = Bar("peer", 1.0, ceiling=4.0, reason="as expected")
    assert [bar.tolerable(ratio) for ratio in (4.0, 4.1)] == [True, False]
    (row,) = compare(Comparison("wait", {OURS: lambda: Sample(2.0), "peer": lambda: Sample(1.0)}, (bar,)), rounds=1)
    assert row.note == "as expected"


@pytest.mark.parametrize(("later", "exit_code"), [(1.0, 0), (9.0, 1)])
def test_the_guard_looks_twice(later: float, exit_code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build is stopped by what is too slow in a second, longer measurement too, and by nothing else."""
    costs = series(*[9.0] * QUICK.rounds, *[later] * (AGAIN * QUICK.rounds))

    def wait(_stage: object, _size: object) -> list[Comparison]:
        return [costs]

    monkeypatch.setitem(SUITES, "wait", wait)
    assert main(["--quick", "--guard", "--only", "wait"]) == exit_code


def test_own_time_is_compared_where_all_tell_it() -> None:
    """The client's own CPU time makes a row beside that of the time that passed."""
    ours, theirs = Sample(3.0, 2.0), Sample(1.0, 4.0)
    rows = compare(Comparison("wait", {OURS: lambda: ours, "peer": lambda: theirs}), rounds=1)
    assert [(row.kind, row.ratio) for row in rows] == [("wall", 3.0), ("cpu", 0.5)]


def test_a_peer_that_is_missing_is_named() -> None:
    """No figure is made up for it."""
    comparison = Comparison("wait", {OURS: lambda: Sample(1.0)}, missing={"go-runc": "needs Go"})
    (row,) = compare(comparison, rounds=1)
    assert (row.theirs, row.ratio, row.tolerable) == (None, None, True)
    assert "needs Go" in table([row])


def test_the_table_shows_figures_with_units() -> None:
    """Each row has the figures of both, the ratio and the verdict."""
    shown = table([Row("wait", "wall", "peer", 0.0021, 0.001, 2.1, Bar("peer", 2.0))])
    assert [word for word in ("2.10 ms", "1.00 ms", "2.10", "≤ 2.00", "missed") if word not in shown] == []
    assert [figure(value, "wall") for value in (2.0, 2e-5, 3e-9)] == ["2.00 s", "20.00 µs", "3 ns"]
    assert figure(2048.0, "memory") == "2.0 KiB"


@pytest.mark.proof(every=12)
@pytest.mark.parametrize(
    "suite",
    [pytest.param(suite, marks=pytest.mark.runc if suite in LIVE else ()) for suite in SUITES],
)
@pytest.mark.timeout(240)
def test_each_suite_runs(suite: str, tmp_path: Path) -> None:
    """Once round, it ends well, and writes rows as JSON."""
    result = tmp_path / "rows.json"
    command = [sys.executable, "-m", "bench", "--quick", "--rounds", "1", "--only", suite, "--json", str(result)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(result.read_text())["rows"]
    assert rows
    assert all(row["ours"] >= 0 for row in rows)


@pytest.mark.runc
@pytest.mark.timeout(120)
def test_the_host_benchmark_runs() -> None:
    """It measures the reader of all containers beside a bare one, and takes its cgroups away."""
    command = [sys.executable, "-m", "bench.host", "--number", "3", "--rounds", "1"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bare: the same system calls" in done.stdout
