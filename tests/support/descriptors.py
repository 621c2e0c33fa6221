"""What happens when a process runs out of descriptors, at each point at which it can."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Awaitable, Callable, Generator

from waiting import until

ATTEMPTS = 60


@contextlib.contextmanager
def spare(count: int) -> Generator[None]:
    """Leave this process so many descriptors that it may still open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.open(os.devnull, os.O_RDONLY)]
    highest = max(map(int, os.listdir("/proc/self/fd")))
    try:
        while held[-1] < highest:
            held.append(os.dup(held[0]))
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1] + 1 + count, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)


async def sweep(attempt: Callable[[], Awaitable[object]]) -> list[Exception]:
    """Attempt something with no descriptor to spare, with one, and so on until it succeeds; return the failures.

    One that a thread has yet to close, as those of inotify, would be one more to spare, so that is waited for.
    """
    failures: list[Exception] = []
    before = len(os.listdir("/proc/self/fd"))
    for count in range(ATTEMPTS):
        await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
        with spare(count):
            try:
                await attempt()
            except Exception as exc:  # noqa: BLE001 - to be judged by the caller
                failures.append(exc)
            else:
                return failures
    raise AssertionError(f"{ATTEMPTS} descriptors aren't enough: {failures[-1]!r}")
