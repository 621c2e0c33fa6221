"""The protocol of the peers that are written in Python.

A peer reads lines "CONCURRENCY COUNT OPERATION ARGUMENT..." and answers each with "WALL CPU": seconds for all COUNT
operations, and the seconds that this process itself has computed meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

Operation: TypeAlias = Callable[[], Awaitable[float | None]]
"""Does something once; returns the seconds that count of it if not all of its time does."""


async def serve(operations: dict[str, Callable[..., Operation]]) -> None:
    """Answer all lines.

    Args:
        operations: By name, what takes the arguments of a line and returns the operation.
    """
    for line in sys.stdin:
        concurrency, count, name, *words = line.split()
        wall, cpu = await measured(operations[name](*words), int(concurrency), int(count))
        print(f"{wall:.9f} {cpu:.9f}", flush=True)


async def measured(operation: Operation, concurrency: int, count: int) -> tuple[float, float]:
    """Do something `count` times, `concurrency` of them at once; return the time that passed and was computed."""
    left = iter(range(count))
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    if concurrency == 1:
        counted = await _work(operation, left)
    else:
        counted = sum(await asyncio.gather(*(_work(operation, left) for _ in range(concurrency))))
    return counted or time.perf_counter() - wall, time.process_time() - cpu


async def _work(operation: Operation, left: Iterator[int]) -> float:
    """Do it for as long as any are left."""
    return sum([await operation() or 0.0 for _ in left])


def numbers(prefix: str) -> Iterator[str]:
    """Name containers."""
    return map(f"{prefix}{{}}".format, itertools.count())
