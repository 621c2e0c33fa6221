"""The function of this example. Any module with `handle` will do: it is loaded before the request arrives."""

from __future__ import annotations

import statistics
from typing import Any


def handle(event: Any) -> Any:
    """Return what is known of some numbers."""
    numbers = event["numbers"]
    return {"mean": statistics.fmean(numbers), "largest": max(numbers)}
