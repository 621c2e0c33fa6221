"""Resource usage of a container: the figures of `events --stats`, part by part.

The structs are the structs of runc's types/events.go, with its JSON names in snake_case. Times are nanoseconds and
sizes are bytes unless a field says otherwise; every number is exact up to 2**64 - 1.

runc omits zeros, and up to 1.3 prints zeros for unreadable figures. So a missing figure is 0 here with every runc
version. Unknown figures can be distinguished from a real 0 as follows:

- `MemoryEntry.known` is false where the kernel gave nothing (no memory controller; kernel memory on cgroup v2).
- Parts of some kernels or runc versions only (`psi`, Intel RDT's monitoring) are None without them.
- Lists and maps (`blkio`, `hugetlb`, `memory.raw`, `network_interfaces`) are empty.

`runc_async.figures` computes percentages and rates from two `Stats`, with these rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

_set = msgspec.structs.force_setattr  # found at once: it is called for each event of a stream

# Go prints null for a slice that was never made. `Stats` puts an empty list in its place.
if TYPE_CHECKING:
    Nullable: TypeAlias = Annotated[T, "may be null in JSON"]
else:
    Nullable = Optional

# `gc=False`: the structs can't be part of a cycle, and a stream makes thousands of them in a second that the garbage
# collector would look through.


class PSIData(msgspec.Struct, frozen=True, gc=False):
    """One line of a pressure file (kernel: accounting/psi.rst).

    Attributes:
        avg10: Percent of the last 10 seconds in which tasks were stalled.
        avg60: Percent of the last 60 seconds.
        avg300: Percent of the last 300 seconds.
        total: Time stalled since the cgroup was made, in microseconds.
    """

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total: int = 0


class PSIStats(msgspec.Struct, frozen=True, gc=False):
    """Pressure stall information of one resource; cgroup v2 with runc 1.2 and later.

    Attributes:
        some: While at least one task was stalled.
        full: While all tasks were stalled at once.
    """

    some: PSIData = PSIData()
    full: PSIData = PSIData()


class CPUUsage(msgspec.Struct, frozen=True, gc=False):
    """CPU time used since the cgroup was created, in nanoseconds.

    Attributes:
        total: Kernel and user mode together.
        kernel: In kernel mode.
        user: In user mode.
        percpu: `total` by CPU; cgroup v1 only.
        percpu_kernel: `kernel` by CPU; cgroup v1 only.
        percpu_user: `user` by CPU; cgroup v1 only.
    """

    total: int = 0
    kernel: int = 0
    user: int = 0
    percpu: list[int] = []
    percpu_kernel: list[int] = []
    percpu_user: list[int] = []


class Throttling(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Effects of a CPU quota; all 0 without a quota.

    Attributes:
        periods: Periods of the quota in which the container ran.
        throttled_periods: Periods in which the container used up its quota.
        throttled_time: Time its tasks were held back, in nanoseconds.
    """

    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class CPU(msgspec.Struct, frozen=True, gc=False):
    """CPU time and throttling.

    Attributes:
        usage: CPU time used.
        throttling: Effects of a quota.
        psi: CPU pressure, where the kernel measures it.
    """

    usage: CPUUsage = CPUUsage()
    throttling: Throttling = Throttling()
    psi: PSIStats | None = None


class CPUSet(msgspec.Struct, frozen=True, gc=False):
    """The CPUs and memory nodes a container may use; cgroup v1 only (cgroup-v1/cpusets.rst).

    Attributes:
        cpus: Numbers of the CPUs.
        cpu_exclusive: 1: no sibling cgroup shares these CPUs.
        mems: Numbers of the memory nodes.
        mem_hardwall: 1: kernel allocations keep to these nodes too.
        mem_exclusive: 1: no sibling cgroup shares these nodes.
        memory_migrate: 1: pages move when the nodes change.
        memory_spread_page: 1: page cache is spread over the nodes.
        memory_spread_slab: 1: slab caches are spread over the nodes.
        memory_pressure: Recent direct reclaims, in thousandths of one a second.
        sched_load_balance: 1: load is balanced over these CPUs.
        sched_relax_domain_level: How far load balancing searches; -1 is the system's own setting.
    """

    cpus: list[int] = []
    cpu_exclusive: int = 0
    mems: list[int] = []
    mem_hardwall: int = 0
    mem_exclusive: int = 0
    memory_migrate: int = 0
    memory_spread_page: int = 0
    memory_spread_slab: int = 0
    memory_pressure: int = 0
    sched_load_balance: int = 0
    sched_relax_domain_level: int = 0


class MemoryEntry(msgspec.Struct, frozen=True, gc=False):
    """The counters of one kind of memory, in bytes.

    Attributes:
        limit: The limit. Without a limit cgroup v1 has 9223372036854771712, v2 has 18446744073709551615.
        usage: In use now.
        max: The peak; on cgroup v2 from Linux 5.19 on and only by newer runc, else 0.
        failcnt: Number of times the limit was hit; cgroup v1 only.
    """

    limit: int = 0
    usage: int = 0
    max: int = 0
    failcnt: int = 0

    @property
    def known(self) -> bool:
        """Whether the kernel gave figures. An entry of zeros alone means that it gave none.

        A container with measured memory has a limit other than 0, if only "unlimited". runc up to 1.3 prints the zeros,
        runc 1.4 leaves the entry out.
        """
        return bool(self.limit or self.usage or self.max or self.failcnt)


class Memory(msgspec.Struct, frozen=True, gc=False):
    """Memory in use, by kind.

    Attributes:
        cache: Page cache, in bytes (v1 `cache`, v2 `file` of memory.stat).
        usage: User memory and page cache.
        swap: Memory *and* swap together: on cgroup v2 runc adds the two, for the same meaning as on v1.
        kernel: Kernel memory; cgroup v1 only.
        kernel_tcp: Buffers of TCP sockets; cgroup v1 only.
        raw: The kernel's memory.stat, under its own keys: `rss`, `total_inactive_file`... (v1), `anon`,
            `file`... (v2).
        psi: Memory pressure, where the kernel measures it.
    """

    cache: int = 0
    usage: MemoryEntry = MemoryEntry()
    swap: MemoryEntry = MemoryEntry()
    kernel: MemoryEntry = MemoryEntry()
    kernel_tcp: MemoryEntry = msgspec.field(default=MemoryEntry(), name="kernelTCP")
    raw: dict[str, int] = {}
    psi: PSIStats | None = None


class Pids(msgspec.Struct, frozen=True, gc=False):
    """Number of tasks (processes and threads).

    Attributes:
        current: Tasks in the cgroup; 0 if it is empty or the kernel doesn't report them.
        limit: The highest number allowed; 0 means no limit.
    """

    current: int = 0
    limit: int = 0


class BlkioEntry(msgspec.Struct, frozen=True, gc=False):
    """One counter of one device.

    Attributes:
        major: Major number of the device.
        minor: Minor number of the device.
        op: What is counted: `Read`, `Write`, `Discard`; on cgroup v1 also `Sync`, `Async` and `Total`.
        value: The count, in the unit of the table.
    """

    major: int = 0
    minor: int = 0
    op: str = ""
    value: int = 0


class Blkio(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Block I/O since the cgroup was made, one table for each kind of counter.

    cgroup v2 fills the first two; so do most v1 kernels (the others need a CFQ or BFQ scheduler). A device that
    was not used has no entry.

    Attributes:
        io_service_bytes_recursive: Bytes transferred.
        io_serviced_recursive: Requests done.
        io_queue_recursive: Requests waiting now.
        io_service_time_recursive: Time between dispatch and completion, in nanoseconds.
        io_wait_time_recursive: Time spent in the scheduler's queues, in nanoseconds.
        io_merged_recursive: Requests merged into others.
        io_time_recursive: Time that the device was at the cgroup's disposal, in milliseconds.
        sectors_recursive: Sectors transferred.
        psi: I/O pressure, where the kernel measures it.
    """

    io_service_bytes_recursive: list[BlkioEntry] = []
    io_serviced_recursive: list[BlkioEntry] = []
    io_queue_recursive: list[BlkioEntry] = []
    io_service_time_recursive: list[BlkioEntry] = []
    io_wait_time_recursive: list[BlkioEntry] = []
    io_merged_recursive: list[BlkioEntry] = []
    io_time_recursive: list[BlkioEntry] = []
    sectors_recursive: list[BlkioEntry] = []
    psi: PSIStats | None = None


class Hugetlb(msgspec.Struct, frozen=True, gc=False):
    """Huge pages of one size, in bytes.

    Attributes:
        usage: In use now.
        max: The most ever in use; cgroup v1 only.
        failcnt: Allocations that the limit refused.
    """

    usage: int = 0
    max: int = 0
    failcnt: int = 0


class L3CacheInfo(msgspec.Struct, frozen=True, gc=False):
    """Capabilities of the host's L3 cache allocation (kernel: arch/x86/resctrl.rst).

    Attributes:
        cbm_mask: The bitmask of the whole cache, hexadecimal.
        min_cbm_bits: The fewest bits that may be set in a row.
        num_closids: Number of classes of service.
    """

    cbm_mask: str = ""
    min_cbm_bits: int = 0
    num_closids: int = 0


class MemBwInfo(msgspec.Struct, frozen=True, gc=False):
    """Capabilities of the host's memory bandwidth allocation (kernel: arch/x86/resctrl.rst).

    Attributes:
        bandwidth_gran: Granularity, in percent.
        delay_linear: 1: the delay is linear to the bandwidth.
        min_bandwidth: The lowest value that can be requested, in percent.
        num_closids: Number of classes of service.
    """

    bandwidth_gran: int = 0
    delay_linear: int = 0
    min_bandwidth: int = 0
    num_closids: int = 0


class MBMNumaNodeStats(msgspec.Struct, frozen=True, gc=False):
    """Memory traffic of one L3 domain, in bytes.

    Attributes:
        mbm_total_bytes: To all memory.
        mbm_local_bytes: To memory of the same node.
    """

    mbm_total_bytes: int = 0
    mbm_local_bytes: int = 0


class CMTNumaNodeStats(msgspec.Struct, frozen=True, gc=False):
    """L3 occupancy of one L3 domain.

    Attributes:
        llc_occupancy: Bytes of the cache in use.
    """

    llc_occupancy: int = 0


class IntelRdt(msgspec.Struct, frozen=True, gc=False):
    """Intel RDT: cache and memory bandwidth; all empty for a container without `linux.intelRdt`.

    Attributes:
        l3_cache_info: Capabilities of the host's L3 cache allocation.
        l3_cache_schema_root: The host's own L3 line of `schemata`.
        l3_cache_schema: The container's L3 line.
        mem_bw_info: Capabilities of the host's memory bandwidth allocation.
        mem_bw_schema_root: The host's own MB line of `schemata`.
        mem_bw_schema: The container's MB line.
        schemata: All lines of `schemata` of the container's class; runc 1.4 and later.
        mbm_stats: Memory traffic by L3 domain, if monitored.
        cmt_stats: Cache occupancy by L3 domain, if monitored.
    """

    l3_cache_info: L3CacheInfo | None = None
    l3_cache_schema_root: str = ""
    l3_cache_schema: str = ""
    mem_bw_info: MemBwInfo | None = None
    mem_bw_schema_root: str = ""
    mem_bw_schema: str = ""
    schemata: list[str] = []
    mbm_stats: list[MBMNumaNodeStats] | None = None
    cmt_stats: list[CMTNumaNodeStats] | None = None


class NetworkInterface(msgspec.Struct, frozen=True, gc=False, rename="pascal"):
    """Counters of one network interface, seen from inside the container.

    Attributes:
        name: Name of the interface.
        rx_bytes: Bytes received.
        rx_packets: Packets received.
        rx_errors: Packets received broken.
        rx_dropped: Packets received and dropped.
        tx_bytes: Bytes sent.
        tx_packets: Packets sent.
        tx_errors: Packets that couldn't be sent.
        tx_dropped: Packets dropped instead of sent.
    """

    name: str = ""
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class Stats(msgspec.Struct, frozen=True, gc=False):
    """Resource usage of one container at one moment (runc-events(8)). Only runc reports it; crun doesn't.

    Attributes:
        cpu: CPU time.
        cpuset: CPUs and memory nodes; cgroup v1 only.
        memory: Memory.
        pids: Number of tasks.
        blkio: Block I/O.
        hugetlb: Huge pages by size: `2MB`, `1GB`.
        intel_rdt: Intel RDT.
        network_interfaces: Network interfaces set up by runc itself; it sets up none for a config.json, so
            nearly always empty.
    """

    cpu: CPU = CPU()
    cpuset: CPUSet = CPUSet()
    memory: Memory = Memory()
    pids: Pids = Pids()
    blkio: Blkio = Blkio()
    hugetlb: dict[str, Hugetlb] = {}
    intel_rdt: IntelRdt = IntelRdt()
    network_interfaces: Nullable[list[NetworkInterface]] = []

    def __post_init__(self) -> None:
        if not self.network_interfaces:
            _set(self, "network_interfaces", [])
