"""`EndReason`: the reason for the end of a program."""

from __future__ import annotations

import enum


class EndReason(enum.StrEnum):
    """The reason for the end of the program of a foreground `run` or `exec`.

    If several apply, the first one counts, in this order: a limit of the call, "oom", "signaled", "exited".

    Attributes:
        EXITED: The program exited by itself; `Response.exit_code` is its exit code.
        SIGNALED: A signal killed the program.
        OOM: The kernel has killed a process of the container meanwhile, because the memory of the cgroup was used up,
            and the exit code isn't 0. A program that survives and exits with 0 has "exited". Where the kills can't be
            counted, a program killed by the kernel has "signaled".
        WALL: The limit of wall-clock time was reached.
        CPU: The limit of CPU time was reached.
        OUTPUT: The limit of output was reached.
        UNKNOWN: The program ended with an unknown exit status.
    """

    EXITED = "exited"
    SIGNALED = "signaled"
    OOM = "oom"
    WALL = "wall"
    CPU = "cpu"
    OUTPUT = "output"
    UNKNOWN = "unknown"
