"""Limits of a run: the value that `run(limits=)` and `exec(limits=)` take."""

from __future__ import annotations

import math

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """Limits for the program of a `run` or an `exec`, which ends when it reaches one.

    The end is a result: `Response.reason` has the name of the limit. The program gets SIGKILL at once, and in an `exec`
    so does all that it has started, unless `kill_tree` is False.

    Attributes:
        wall: Seconds from the moment at which the runtime reports the program's process. `timeout` is for the whole
            call, and raises.
        cpu: Seconds of CPU time that the program and all that it has started may use, on all CPUs together. Counting
            begins at the same moment. The kernel reports no event for it, so the cgroup is read again: when the rest
            could be used up on all CPUs, and 0.01 seconds later at the earliest.
        output: Bytes of stdout, and of stderr, that the program may write. The first bytes are kept, so many of each
            stream. With `CapturedIO` alone.

    None is no limit.

    Raises:
        ValueError: If a limit is zero, negative or not finite, or `output` is no whole number.
    """

    wall: float | None = None
    cpu: float | None = None
    output: int | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be a limit."""
        for name in ("wall", "cpu", "output"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be a positive number, or None: {value!r}")
        if self.output is not None and int(self.output) != self.output:
            raise ValueError(f"output must be a whole number of bytes, or None: {self.output!r}")
