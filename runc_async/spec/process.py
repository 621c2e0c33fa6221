"""The process of a container: config.md, sections "Process" and "POSIX process"."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from .._text import capability_name
from ._base import SpecObject
from ._types import Int32, UInt32, UInt64

CPUList = Annotated[str, Meta(pattern="^[0-9, -]*$")]

SchedulerPolicy = Literal[
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
]
"""Scheduling policies of `Scheduler`; sched(7)."""

SchedulerFlag = Literal[
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
]
"""Flags of `Scheduler`; sched_setattr(2)."""

IOPriorityClass = Literal["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]
"""Classes of `LinuxIOPriority`; ioprio_set(2)."""


_CAPABILITY_SETS: Final = ("bounding", "effective", "permitted", "inheritable", "ambient")


class Box(SpecObject, kw_only=True):
    """The size of a console: config.md, "Process".

    Attributes:
        height: Rows, in characters.
        width: Columns, in characters.
    """

    height: UInt64
    width: UInt64


class User(SpecObject, kw_only=True):
    """User and groups of the process: config.md, "User".

    Ids are as seen inside the container's user namespace.

    Attributes:
        uid: User id.
        gid: Group id.
        umask: File mode creation mask, as a number (0o022 is 18); the runtime's own when absent. Since 1.0.2.
        additional_gids: Supplementary groups.
        username: User name; Windows only.
    """

    uid: UInt32 | None = None
    gid: UInt32 | None = None
    umask: UInt32 | None = None
    additional_gids: list[UInt32] | None = None
    username: str | None = None


class LinuxCapabilities(SpecObject, kw_only=True):
    """The capability sets of the process, as names such as ``CAP_KILL``: config.md, "Linux Process".

    capabilities(7) describes the sets. An absent set is empty.

    Attributes:
        bounding: Limit on the capabilities that the process and its children can gain.
        effective: Capabilities checked by the kernel.
        inheritable: Capabilities kept across execve(2) of files with inheritable capabilities.
        permitted: Capabilities that the process may make effective.
        ambient: Capabilities kept across execve(2) without root; have to be in permitted and inheritable too.
    """

    bounding: list[str] | None = None
    effective: list[str] | None = None
    inheritable: list[str] | None = None
    permitted: list[str] | None = None
    ambient: list[str] | None = None

    def add(self, *names: str, ambient: bool = False) -> None:
        """Add capabilities to the bounding, effective and permitted sets.

        Args:
            names: Names such as ``CAP_NET_ADMIN``, or ``NET_ADMIN`` for short.
            ambient: Add to the inheritable and ambient sets too, so that a process without root keeps the capabilities.
        """
        for kind in _CAPABILITY_SETS if ambient else _CAPABILITY_SETS[:3]:
            held: list[str] = getattr(self, kind) or []
            setattr(self, kind, list(dict.fromkeys([*held, *map(capability_name, names)])))

    def drop(self, *names: str) -> None:
        """Remove capabilities from all sets.

        Args:
            names: Names such as ``CAP_KILL``, or ``KILL`` for short; ``ALL`` leaves none.
        """
        dropped = {capability_name(name) for name in names}
        for kind in _CAPABILITY_SETS:
            held: list[str] | None = getattr(self, kind)
            if held:
                setattr(self, kind, [n for n in held if n not in dropped and "CAP_ALL" not in dropped])


class POSIXRlimit(SpecObject, kw_only=True):
    """A resource limit of the process, setrlimit(2): config.md, "POSIX process".

    Each type may be in the list once.

    Attributes:
        type: Name of the resource, such as ``RLIMIT_NOFILE``.
        soft: The limit enforced by the kernel.
        hard: The maximum to which the process may raise the soft limit. Units are the resource's own; 2^64-1 is no
            limit.
    """

    type: Annotated[str, Meta(pattern="^RLIMIT_[A-Z]+$")]
    soft: UInt64
    hard: UInt64


class Scheduler(SpecObject, kw_only=True):
    """How the kernel schedules the process, sched_setattr(2): config.md, "Linux Process". Since 1.1.0.

    Attributes:
        policy: The scheduling policy.
        nice: Nice value, from -20 to 19; for SCHED_OTHER and SCHED_BATCH.
        priority: Static priority; for SCHED_FIFO and SCHED_RR.
        flags: Flags of the policy.
        runtime: Nanoseconds of CPU time in each period; for SCHED_DEADLINE.
        deadline: Nanoseconds within which the runtime has to be given; for SCHED_DEADLINE.
        period: Nanoseconds of a period; for SCHED_DEADLINE.
    """

    policy: SchedulerPolicy
    nice: Int32 | None = None
    priority: Int32 | None = None
    flags: list[SchedulerFlag] | None = None
    runtime: UInt64 | None = None
    deadline: UInt64 | None = None
    period: UInt64 | None = None


class LinuxIOPriority(SpecObject, kw_only=True):
    """The I/O priority of the container's processes, ioprio_set(2): config.md, "Linux Process". Since 1.1.0.

    Attributes:
        class_: The I/O scheduling class; ``class`` in JSON.
        priority: Level within the class, from 0 (highest) to 7.
    """

    class_: IOPriorityClass
    priority: Int32 | None = None


class ExecCPUAffinity(SpecObject, kw_only=True):
    """CPUs for a process of ``runc exec``: config.md, "Linux Process". Since 1.2.1.

    Lists are like ``0-3,7``. The container's init process is not affected.

    Attributes:
        initial: CPUs of the runtime's own process, before the container's cgroup is entered.
        final: CPUs of the process in the cgroup; the container's default when absent or empty.
    """

    initial: CPUList | None = None
    final: CPUList | None = None


class Process(SpecObject, kw_only=True):
    """The program to run, with user, environment and limits: config.md, "Process".

    Also the whole document of ``runc exec --process``.

    Attributes:
        cwd: Working directory, absolute, inside the container.
        terminal: Whether the process gets a pseudoterminal.
        console_size: Size of the terminal.
        user: User and groups of the process.
        args: Program and arguments, as for execvp(3); required by runc to start a container.
        command_line: The whole command line; Windows only. Since 1.0.2.
        env: Environment, as ``NAME=value``.
        capabilities: Capability sets.
        rlimits: Resource limits.
        no_new_privileges: Whether execve(2) can give no more privileges (set-uid programs, file capabilities).
        apparmor_profile: Name of an AppArmor profile.
        oom_score_adj: Value for /proc/PID/oom_score_adj, from -1000 to 1000; unchanged when absent.
        scheduler: Scheduling attributes. Since 1.1.0.
        selinux_label: SELinux label of the process.
        io_priority: I/O priority. Since 1.1.0.
        exec_cpu_affinity: CPUs of processes that are executed later. Since 1.2.1.
    """

    cwd: str
    terminal: bool | None = None
    console_size: Box | None = None
    user: User | None = None
    args: list[str] | None = None
    command_line: str | None = None
    env: list[str] | None = None
    capabilities: LinuxCapabilities | None = None
    rlimits: list[POSIXRlimit] | None = None
    no_new_privileges: bool | None = None
    apparmor_profile: str | None = None
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    selinux_label: str | None = None
    io_priority: LinuxIOPriority | None = None
    exec_cpu_affinity: ExecCPUAffinity | None = None
