"""What only Linux has: config-linux.md."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from ._base import SpecObject
from ._types import Int64, UInt32
from .resources import LinuxResources
from .seccomp import LinuxSeccomp

LinuxNamespaceType = Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]
"""Kinds of namespace; namespaces(7). ``time`` since 1.1.0."""

LinuxPersonalityDomain = Literal["LINUX", "LINUX32"]
"""Execution domains; personality(2)."""

RootfsPropagation = Literal["private", "shared", "slave", "unbindable"]
"""How mount events pass the root; mount_namespaces(7)."""

MemoryPolicyMode = Literal[
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
]
"""Modes of `LinuxMemoryPolicy`; set_mempolicy(2)."""

MemoryPolicyFlag = Literal["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]
"""Flags of `LinuxMemoryPolicy`; set_mempolicy(2)."""


class LinuxNamespace(SpecObject, kw_only=True):
    """A namespace of the container: config-linux.md, "Namespaces".

    A kind that is not listed is shared with the runtime, and no kind may be listed twice.

    Attributes:
        type: Kind of namespace.
        path: Namespace file to join, absolute, such as ``/run/netns/a``; a new namespace when absent.
    """

    type: LinuxNamespaceType
    path: str | None = None


class LinuxIDMapping(SpecObject, kw_only=True):
    """A range of user or group ids: config-linux.md, "User namespace mappings".

    Attributes:
        container_id: First id inside.
        host_id: First id outside.
        size: How many ids.
    """

    container_id: UInt32
    host_id: UInt32
    size: UInt32


class LinuxDevice(SpecObject, kw_only=True):
    """A device node to make: config-linux.md, "Devices".

    Attributes:
        type: ``c`` or ``u`` (character), ``b`` (block) or ``p`` (FIFO).
        path: Where, absolute, inside the container.
        file_mode: Permissions, as a number (0o666 is 438).
        major: Major number; needed unless it is a FIFO.
        minor: Minor number; needed unless it is a FIFO.
        uid: Owner, inside the container.
        gid: Group, inside the container.
    """

    type: Annotated[str, Meta(pattern="^[cbup]$")]
    path: str
    file_mode: Annotated[int, Meta(ge=0, le=0o777)] | None = None
    major: Int64 | None = None
    minor: Int64 | None = None
    uid: UInt32 | None = None
    gid: UInt32 | None = None


class LinuxNetDevice(SpecObject, kw_only=True):
    """A network device that moves into the container: config-linux.md, "Network Devices". Since 1.3.0.

    Attributes:
        name: Its name inside; the same as outside when absent.
    """

    name: str | None = None


class LinuxIntelRdt(SpecObject, kw_only=True):
    """Cache and memory bandwidth (resctrl): config-linux.md, "IntelRdt".

    Attributes:
        clos_id: Class of service; named after the container when absent. Since 1.0.2.
        schemata: Lines for the ``schemata`` file, written last. Since 1.3.0.
        l3_cache_schema: L3 cache mask, such as ``L3:0=7f0;1=1f``.
        mem_bw_schema: Memory bandwidth, such as ``MB:0=20;1=70``: percent, or MBps under the software controller.
            Since 1.0.2.
        enable_monitoring: Whether the container gets a monitoring group. Since 1.3.0.
    """

    clos_id: str | None = None
    schemata: list[str] | None = None
    l3_cache_schema: str | None = None
    mem_bw_schema: Annotated[str, Meta(pattern="^MB:[^\\n]*$")] | None = None
    enable_monitoring: bool | None = None


class LinuxMemoryPolicy(SpecObject, kw_only=True):
    """NUMA policy of the container, set_mempolicy(2): config-linux.md, "Memory Policy". Since 1.3.0.

    Attributes:
        mode: The policy.
        nodes: Memory nodes, as a list like ``0-1,3``.
        flags: Flags of the policy.
    """

    mode: MemoryPolicyMode | None = None
    nodes: str | None = None
    flags: list[MemoryPolicyFlag] | None = None


class LinuxPersonality(SpecObject, kw_only=True):
    """Execution domain, personality(2): config-linux.md, "Personality". Since 1.0.2.

    Attributes:
        domain: The domain; ``LINUX32`` shows programs a 32 bit machine.
        flags: None are defined so far.
    """

    domain: LinuxPersonalityDomain | None = None
    flags: list[str] | None = None


class LinuxTimeOffset(SpecObject, kw_only=True):
    """Offset of a clock, time_namespaces(7): config-linux.md, "Offset for Time Namespace". Since 1.1.0.

    Attributes:
        secs: Seconds.
        nanosecs: Nanoseconds on top.
    """

    secs: Int64 | None = None
    nanosecs: UInt32 | None = None


class Linux(SpecObject, kw_only=True):
    """The Linux part of a configuration: config-linux.md.

    Attributes:
        uid_mappings: User ids of the user namespace.
        gid_mappings: Group ids of the user namespace.
        sysctl: Kernel parameters to set, such as ``{"net.core.somaxconn": "256"}``.
        resources: Limits of the container's cgroup.
        cgroups_path: Path of that cgroup, ``slice:prefix:name`` with the systemd driver; the runtime's choice when
            absent.
        namespaces: Namespaces to make or join; the others are shared with the runtime.
        devices: Device nodes to make, besides the default ones.
        net_devices: Network devices to move in, by their name outside. Since 1.3.0.
        seccomp: Filter on system calls.
        rootfs_propagation: How mount events pass the root.
        masked_paths: Absolute paths inside that can't be read.
        readonly_paths: Absolute paths inside that can't be written.
        mount_label: SELinux label of the mounts.
        intel_rdt: Cache and memory bandwidth.
        memory_policy: NUMA policy. Since 1.3.0.
        personality: Execution domain. Since 1.0.2.
        time_offsets: Offsets by clock, ``monotonic`` and ``boottime``. Since 1.1.0.
    """

    uid_mappings: list[LinuxIDMapping] | None = None
    gid_mappings: list[LinuxIDMapping] | None = None
    sysctl: dict[str, str] | None = None
    resources: LinuxResources | None = None
    cgroups_path: str | None = None
    namespaces: list[LinuxNamespace] | None = None
    devices: list[LinuxDevice] | None = None
    net_devices: dict[str, LinuxNetDevice] | None = None
    seccomp: LinuxSeccomp | None = None
    rootfs_propagation: RootfsPropagation | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    mount_label: str | None = None
    intel_rdt: LinuxIntelRdt | None = None
    memory_policy: LinuxMemoryPolicy | None = None
    personality: LinuxPersonality | None = None
    time_offsets: dict[str, LinuxTimeOffset] | None = None
