"""How curves are judged."""

from __future__ import annotations

from collections.abc import Sequence

import curves
import pytest


def sample(**figures: float) -> curves.Sample:
    """Return a sample with these figures."""
    usual = {
        "seconds": 600.0,
        "operations": 1,
        "descriptors": 8,
        "memory": 30.0,
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
    assert len(curves.grown(curve(name, [10 + number / 8 for number in range(40)]))) == 1
    assert len(curves.grown(curve(name, [10.0] * 4))) == 1


def test_a_short_run_may_warm_up() -> None:
    """Memory has a margin that is the smaller, the longer the run."""
    values = [30.0] * 20 + [33.0] * 20
    assert len(curves.grown(curve("memory", values))) == 1
    assert curves.grown([sample(memory=value, seconds=20.0) for value in values]) == []
