"""Limits of time hold when somebody sets the clock: only monotonic clocks are read for them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import runc_async

ALLOWED = {
    "_containers/first_process.py": "when a process ended is told as a date",
    "_containers/ownership.py": "whether a container was made before a call is told by the runtime as a date",
    "_containers/workload.py": "when a process ended is told as a date",
    "_host/metering.py": "when a container was started is told by the file system as a date",
    "_host/watching.py": "when a container changed is told as a date",
    "_linux/exits.py": "when a process ended is told as a date",
    "event.py": "when a line arrived is told as a date",
    "keeper/sending.py": "when a container was started is recorded as a date",
    "prometheus.py": "a metric has the date of a container's last sight",
}
"""Where a wall clock is read, and what for."""


def wall_clocks(source: str) -> list[str]:
    """Name the calls of a program that read a clock which can be set."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            words = ast.unparse(node.func)
            if words.endswith((".now", ".utcnow", ".today")) or words in {"time.time", "time.time_ns"}:
                found.append(words)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            found += [f"from time import {name.name}" for name in node.names if name.name in {"time", "time_ns"}]
        if isinstance(node, ast.Attribute) and node.attr == "CLOCK_REALTIME":
            found.append("CLOCK_REALTIME")
    return found


def test_only_monotonic_clocks() -> None:
    """No module reads a clock that can be set, but for those that tell or compare dates."""
    package = Path(runc_async.__file__).parent
    modules = list(package.rglob("*.py"))
    found = {str(module.relative_to(package)) for module in modules if wall_clocks(module.read_text(encoding="utf-8"))}
    assert len(modules) > 40
    assert found == ALLOWED.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import time\ndeadline = time.time() + 5",
        "from time import time",
        "import datetime as dt\ndt.datetime.now(dt.UTC)",
        "import time\ntime.clock_gettime(time.CLOCK_REALTIME)",
    ],
)
def test_what_is_planted_is_found(source: str) -> None:
    """Each way to read such a clock is seen."""
    assert len(wall_clocks(source)) == 1
