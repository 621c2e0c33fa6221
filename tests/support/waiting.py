"""Waiting for what the kernel doesn't report to us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Look again and again until something holds.

    Raises:
        TimeoutError: If it doesn't in that time.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.01)
