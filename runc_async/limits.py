"""`Limits` of a run: the argument `limits=` of `run` and `exec`."""

from __future__ import annotations

import math

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Limits for the program of a `run` or an `exec`, which is ended on reaching one.

    The end is a result: `Response.reason` names the limit. The program gets SIGKILL at once; in an `exec`, so do all
    descendants, unless `kill_tree` is False. None means no limit.

    Attributes:
        wall: Seconds from the runtime's report of the process. In contrast, `timeout` covers the whole call and raises.
        cpu: Seconds of CPU time for the program and all descendants, on all CPUs together, counted from the same
            moment. The kernel has no event for CPU time, so the cgroup is read when the rest could be used up on all
            CPUs, at most every 0.01 seconds.
        output: Bytes of stdout, and of stderr, that the program may write. The first bytes of each stream are kept.
            Only with `CapturedIO`.

    Raises:
        ValueError: If a limit is zero, negative or not finite, or `output` is no whole number.
    """

    wall: float | None = None
    cpu: float | None = None
    output: int | None = None

    def __post_init__(self) -> None:
        """Refuse invalid limits."""
        for name in ("wall", "cpu", "output"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be a positive number, or None: {value!r}")
        if self.output is not None and int(self.output) != self.output:
            raise ValueError(f"output must be a whole number of bytes, or None: {self.output!r}")
