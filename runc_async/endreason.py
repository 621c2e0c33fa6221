"""Why a program has ended: `EndReason`."""

from __future__ import annotations

import enum


class EndReason(enum.StrEnum):
    """Why the program of a foreground `run` or `exec` ended.

    Where several apply, the first one counts in this order: a limit of the call's own, "oom", "signaled", "exited".

    Attributes:
        EXITED: It exited by itself; `Response.exit_code` is its exit code.
        SIGNALED: A signal killed it.
        OOM: The kernel has killed a process of its container, while it ran, because the memory of the cgroup was used
            up, and its exit code isn't 0. A program that survives that, and exits with 0, has "exited". Where the kills
            can't be counted, a program that was killed so has "signaled".
        WALL: It was ended because it had run for as long as it might.
        CPU: It was ended because it had used as much CPU time as it might.
        OUTPUT: It was ended because it had written as much as it might.
        UNKNOWN: It ended, and its exit status isn't known.
    """

    EXITED = "exited"
    SIGNALED = "signaled"
    OOM = "oom"
    WALL = "wall"
    CPU = "cpu"
    OUTPUT = "output"
    UNKNOWN = "unknown"
