"""How curves are judged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import curves
import pytest


def sample(**figures: float) -> curves.Sample:
    """Return a sample with these figures."""
    usual = {
        "seconds": 600.0,
        "operations": 1,
        "descriptors": 8,
        "memory": 30.0,
        "resident": 30.0,
        "threads": 3,
        "children": 0,
        "tasks": 1,
    }
    return curves.Sample(**(usual | figures))  # type: ignore[arg-type]


def curve(name: str, values: Sequence[float]) -> list[curves.Sample]:
    """Return samples in which one figure takes these values."""
    return [sample(**{name: value}) for value in values]


@pytest.mark.parametrize("name", curves.CURVES)
def test_what_grows(name: str) -> None:
    """A slow leak is seen in each curve, noise and a warm-up are not, and too few samples are no proof."""
    assert curves.grown(curve(name, [10.0] * 40)) == []
    assert curves.grown(curve(name, [2.0] * 10 + [10.0, 12.0] * 15)) == []
    step = curves.MARGINS.get(name, 1.0) / 8
    assert len(curves.grown(curve(name, [10 + number * step for number in range(40)]))) == 1
    assert len(curves.grown(curve(name, [10.0] * 4))) == 1


@pytest.mark.parametrize("name", curves.MARGINS)
def test_a_short_run_may_warm_up(name: str) -> None:
    """Memory has a margin that is the smaller, the longer the run."""
    values = [30.0] * 20 + [30.1 + curves.MARGINS[name]] * 20
    assert len(curves.grown(curve(name, values))) == 1
    assert curves.grown([sample(**{name: value, "seconds": 20.0}) for value in values]) == []


ALLOCATING = """\
from allocated import allocated, by_malloc
by_malloc()
objects = [object() for _ in range(1 << 16)]
before = allocated()
objects += [object() for _ in range(1 << 16)]
big = bytearray(1 << 23)
during = allocated()
del objects, big
print(during - before >= (1 << 20) + (1 << 23), allocated() < before)
"""


def said(script: str, *arguments: str) -> str:
    """Run a script beside the tests' modules, and return what it prints."""
    words = [sys.executable, "-c", script, *arguments]
    return subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout


def test_memory_is_counted_to_the_byte() -> None:
    """Objects of every size count as soon as they are made, and no longer when they are gone."""
    assert said(ALLOCATING) == "True True\n"


INTERNING = """\
import sys
from allocated import allocated, by_malloc, settle
by_malloc()
import runc_async, unittest.mock, http.client
if "settled" in sys.argv:
    settle()
before = allocated()
for number in range(100_000):
    sys.intern(f"another {number}")
print(allocated() - before > 1 << 18)
"""


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="Python 3.12 gives no interned string back (gh-113993)")
@pytest.mark.parametrize(("arguments", "steps"), [([], "True\n"), (["settled"], "False\n")], ids=["new", "settled"])
def test_interned_strings_are_no_step(arguments: list[str], steps: str) -> None:
    """Those that come and go make Python's table of them grow once: before the curve begins, and not in its middle."""
    assert said(INTERNING, *arguments) == steps
