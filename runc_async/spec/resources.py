"""Limits on the resources of a container: config-linux.md, section "Control groups".

`LinuxResources` is also the whole document of ``runc update --resources``: absent limits stay unchanged.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ._base import SpecObject
from ._types import Int64, UInt16, UInt32, UInt64


class LinuxDeviceCgroup(SpecObject, kw_only=True):
    """A rule on access to devices; later rules override earlier ones: config-linux.md, "Allowed Device list".

    Attributes:
        allow: Whether the rule allows or denies.
        type: ``c`` (character), ``b`` (block) or ``a``; all when absent.
        major: Major number; all when absent.
        minor: Minor number; all when absent.
        access: Any of ``r`` (read), ``w`` (write) and ``m`` (mknod).
    """

    allow: bool
    type: str | None = None
    major: Int64 | None = None
    minor: Int64 | None = None
    access: str | None = None


class LinuxMemory(SpecObject, kw_only=True):
    """Limits on memory: config-linux.md, "Memory".

    Amounts are bytes, -1 is no limit.

    Attributes:
        limit: Maximum memory.
        reservation: Memory that stays with the container when the host runs short (soft limit).
        swap: Maximum of memory and swap together; at least `limit`.
        kernel: Maximum kernel memory; not recommended, ignored by newer kernels and by runc since 1.1.
        kernel_tcp: Maximum memory for TCP buffers; cgroup v1 only, not recommended.
        swappiness: How readily the kernel swaps, from 0 to 100; cgroup v1 only.
        disable_oom_killer: Whether a container at its limit waits instead of being killed; cgroup v1 only.
        use_hierarchy: Whether child cgroups count as well; cgroup v1 only. Since 1.0.2.
        check_before_update: Whether a limit below the present usage is refused, as cgroup v1 does by itself.
            Since 1.1.0.
    """

    limit: Int64 | None = None
    reservation: Int64 | None = None
    swap: Int64 | None = None
    kernel: Int64 | None = None
    kernel_tcp: Int64 | None = None
    swappiness: UInt64 | None = None
    disable_oom_killer: bool | None = None
    use_hierarchy: bool | None = None
    check_before_update: bool | None = None


class LinuxCPU(SpecObject, kw_only=True):
    """Limits on CPU time and the CPUs to run on: config-linux.md, "CPU".

    Attributes:
        shares: Weight against other cgroups; 1024 is the kernel's default.
        quota: Microseconds of CPU time in each period; -1 is no limit.
        burst: Microseconds that may be saved up for later periods; at most `quota`. Since 1.1.0.
        period: Microseconds of a period; the kernel's default is 100000.
        realtime_runtime: Microseconds of real-time scheduling in each real-time period; cgroup v1 only.
        realtime_period: Microseconds of a real-time period; cgroup v1 only.
        cpus: CPUs, as a list like ``0-3,7``.
        mems: Memory nodes, as a list like ``0-1``.
        idle: 1 schedules the container only when nothing else runs, 0 is normal. Since 1.1.0.
    """

    shares: UInt64 | None = None
    quota: Int64 | None = None
    burst: UInt64 | None = None
    period: UInt64 | None = None
    realtime_runtime: Int64 | None = None
    realtime_period: UInt64 | None = None
    cpus: str | None = None
    mems: str | None = None
    idle: Int64 | None = None


class LinuxPids(SpecObject, kw_only=True):
    """Limit on the number of tasks: config-linux.md, "PIDs".

    Attributes:
        limit: Maximum number of processes and threads; -1 is no limit. The meaning of 0 depends on the runtime: don't
            use it.
    """

    limit: Int64


class LinuxWeightDevice(SpecObject, kw_only=True):
    """I/O weight on one device: config-linux.md, "Block IO".

    Attributes:
        major: Major number of the device.
        minor: Minor number of the device.
        weight: Weight of the cgroup.
        leaf_weight: Weight of the cgroup's own tasks against its child cgroups; cgroup v1 only.
    """

    major: Int64
    minor: Int64
    weight: UInt16 | None = None
    leaf_weight: UInt16 | None = None


class LinuxThrottleDevice(SpecObject, kw_only=True):
    """I/O rate on one device: config-linux.md, "Block IO".

    Attributes:
        major: Major number of the device.
        minor: Minor number of the device.
        rate: Bytes, or operations, per second.
    """

    major: Int64
    minor: Int64
    rate: UInt64 | None = None


class LinuxBlockIO(SpecObject, kw_only=True):
    """Limits on block I/O: config-linux.md, "Block IO".

    On cgroup v1 rates hold for direct I/O only.

    Attributes:
        weight: Weight against other cgroups, from 10 to 1000; for all devices without a weight of their own.
        leaf_weight: Weight of the cgroup's own tasks against its child cgroups; cgroup v1 only.
        weight_device: Weights per device.
        throttle_read_bps_device: Bytes read per second, per device.
        throttle_write_bps_device: Bytes written per second, per device.
        throttle_read_iops_device: Reads per second, per device.
        throttle_write_iops_device: Writes per second, per device.
    """

    weight: UInt16 | None = None
    leaf_weight: UInt16 | None = None
    weight_device: list[LinuxWeightDevice] | None = None
    throttle_read_bps_device: list[LinuxThrottleDevice] | None = None
    throttle_write_bps_device: list[LinuxThrottleDevice] | None = None
    throttle_read_iops_device: list[LinuxThrottleDevice] | None = None
    throttle_write_iops_device: list[LinuxThrottleDevice] | None = None


class LinuxHugepageLimit(SpecObject, kw_only=True):
    """Limit on huge pages of one size: config-linux.md, "Huge page limits".

    Attributes:
        page_size: Size such as ``64KB``, ``2MB`` or ``1GB``, in powers of 1024.
        limit: Most bytes, reserved where the kernel counts reservations, else used.
    """

    page_size: Annotated[str, Meta(pattern="^[1-9][0-9]*[KMG]B$")]
    limit: UInt64


class LinuxInterfacePriority(SpecObject, kw_only=True):
    """Priority of traffic on one interface: config-linux.md, "Network".

    Attributes:
        name: Interface, in the runtime's network namespace.
        priority: Priority of the container's traffic there.
    """

    name: str
    priority: UInt32


class LinuxNetwork(SpecObject, kw_only=True):
    """Marks on network traffic; cgroup v1 only: config-linux.md, "Network".

    Attributes:
        class_id: Class tag of the container's packets (net_cls).
        priorities: Priorities per interface (net_prio).
    """

    class_id: UInt32 | None = None
    priorities: list[LinuxInterfacePriority] | None = None


class LinuxRdma(SpecObject, kw_only=True):
    """Limits on one RDMA device: config-linux.md, "RDMA". Since 1.0.2.

    At least one of the two is needed.

    Attributes:
        hca_handles: Maximum number of handles.
        hca_objects: Maximum number of objects.
    """

    hca_handles: UInt32 | None = None
    hca_objects: UInt32 | None = None


class LinuxResources(SpecObject, kw_only=True):
    """All limits of the container's cgroup: config-linux.md, "Control groups".

    Attributes:
        devices: Rules on access to devices, applied in order.
        memory: Limits on memory.
        cpu: Limits on CPU time, and the CPUs to run on.
        pids: Limit on the number of tasks.
        block_io: Limits on block I/O.
        hugepage_limits: Limits on huge pages, one for each size.
        network: Marks on network traffic; cgroup v1 only.
        rdma: Limits on RDMA, by device name. Since 1.0.2.
        unified: Files of the cgroup and their values, such as ``{"memory.high": "100000000"}``; cgroup v2 only. Since
            1.1.0.
    """

    devices: list[LinuxDeviceCgroup] | None = None
    memory: LinuxMemory | None = None
    cpu: LinuxCPU | None = None
    pids: LinuxPids | None = None
    block_io: LinuxBlockIO | None = None
    hugepage_limits: list[LinuxHugepageLimit] | None = None
    network: LinuxNetwork | None = None
    rdma: dict[str, LinuxRdma] | None = None
    unified: dict[str, str] | None = None
