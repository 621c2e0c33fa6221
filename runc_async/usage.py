"""The resources that a container has used: the value that `Container.usage` and `run(usage=True)` return."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The resources that all processes of a container have used together, from the files of its cgroup.

    A value that this host can't tell is None, and never 0: the controller is missing or not delegated to this user, the
    file came with a later kernel, or the runtime's root directory or its cgroups can't be read from here.

    Attributes:
        wall_seconds: Time from the start of the program to the end of the first process, or until now if it runs. After
            `Runc.run`, the time that the runtime ran.
        cpu_seconds: CPU time of all CPUs together.
        user_seconds: The part of it in user mode. With cgroup v1 alone the kernel reports steps of 0.01 seconds.
        system_seconds: The part of it in the kernel, likewise.
        peak_memory: Largest amount of memory in bytes, with the page cache of the container's files. It is never less
            than the memory that the runtime's own process in the container held when the peak was reset: 2.5 MB
            with runc 1.1.5, up to 10 MiB with later versions. On cgroup v2 before Linux 6.12 the kernel can't reset it.
        peak_pids: Largest number of processes and threads at a time. The kernel can't reset it, so it is never less
            than the number of threads of the runtime's own process, some 5 to 10. None before Linux 6.1.
        oom_kills: Number of processes that the kernel has killed because the memory was used up.
        read_bytes: Bytes read from block devices.
        written_bytes: Bytes written to block devices. On cgroup v1 the kernel doesn't count buffered writes for the
            container.
        includes_runtime: Whether the start of the runtime's own process in the container is counted too: about 0.02
            seconds of CPU time, and the memory above. It isn't if there was a moment between `create` and `start`.
    """

    wall_seconds: float | None = None
    cpu_seconds: float | None = None
    user_seconds: float | None = None
    system_seconds: float | None = None
    peak_memory: int | None = None
    peak_pids: int | None = None
    oom_kills: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    includes_runtime: bool = True
