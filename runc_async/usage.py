"""`Usage`: the resources used by a container, from `Container.usage` and `run(usage=True)`."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The resources used by all processes of a container together, from the files of its cgroup.

    A value unknown on this host is None, and never 0: the controller is missing or not delegated to this user, the file
    was added in a later kernel, or the runtime's root directory or its cgroups can't be read.

    Attributes:
        wall_seconds: Seconds from the start of the program to the end of the first process, or until now. After
            `Runc.run`, the time of the runtime's run.
        cpu_seconds: CPU time of all CPUs together.
        user_seconds: CPU time in user mode. With cgroup v1 alone, the kernel reports steps of 0.01 seconds.
        system_seconds: CPU time in the kernel, likewise.
        peak_memory: Peak memory in bytes, including the page cache of the container's files. Never less than the memory
            of the runtime's own process in the container at the reset of the peak: 2.5 MB with runc 1.1.5, up to 10 MiB
            with later versions. On cgroup v2 before Linux 6.12 the kernel can't reset the peak.
        peak_pids: Peak number of processes and threads. The kernel can't reset the peak, so the value is never less
            than the number of threads of the runtime's own process, some 5 to 10. None before Linux 6.1.
        oom_kills: Number of processes killed by the kernel because the memory was used up.
        read_bytes: Bytes read from block devices.
        written_bytes: Bytes written to block devices. On cgroup v1 the kernel doesn't count buffered writes for the
            container.
        includes_runtime: Whether the start of the runtime's own process in the container is included: about 0.02
            seconds of CPU time, and the memory mentioned above. Not included if there was a moment between `create` and
            `start`.
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
