"""Convert the files of cgroup v1 to `Stats`, in the same way as runc (kernel: cgroup-v1/)."""

from __future__ import annotations

from typing import Any, Final

from runc_async.stats import (
    CPU,
    Blkio,
    BlkioEntry,
    CPUSet,
    CPUUsage,
    Hugetlb,
    Memory,
    MemoryEntry,
    Pids,
    Stats,
    Throttling,
)

from .cgroup_files import CgroupFiles
from .parsing import key_values, number, numbers, ranges

_TICK: Final = 10_000_000
"""Nanoseconds: cpuacct.stat counts in USER_HZ, which is 100 on all architectures of Linux with runc."""

# The place of block device counters depends on the I/O scheduler. The first set whose first file has an entry is used,
# up to the first file without one.
_FULL: Final = (
    ("sectors_recursive", "sectors_recursive"),
    ("io_service_time_recursive", "io_service_time_recursive"),
    ("io_wait_time_recursive", "io_wait_time_recursive"),
    ("io_merged_recursive", "io_merged_recursive"),
    ("io_queued_recursive", "io_queue_recursive"),
    ("time_recursive", "io_time_recursive"),
    ("io_serviced_recursive", "io_serviced_recursive"),
    ("io_service_bytes_recursive", "io_service_bytes_recursive"),
)
_BASE: Final = tuple((name.removesuffix("_recursive"), field) for name, field in _FULL[-2:])
_BLKIO: Final = tuple(
    tuple((f"blkio.{prefix}{name}", field) for name, field in names)
    for prefix, names in (
        ("bfq.", _FULL),
        ("bfq.", _FULL[-2:]),
        ("", _FULL),
        ("throttle.", _FULL[-2:]),
        ("throttle.", _BASE),
    )
)


_CPUACCT: Final = ("cpuacct.usage", "cpuacct.stat", "cpuacct.usage_all", "cpuacct.usage_percpu")
_CPUSET: Final = (
    "cpuset.cpus",
    "cpuset.mems",
    "cpuset.cpu_exclusive",
    "cpuset.mem_hardwall",
    "cpuset.mem_exclusive",
    "cpuset.memory_migrate",
    "cpuset.memory_spread_page",
    "cpuset.memory_spread_slab",
    "cpuset.memory_pressure",
    "cpuset.sched_load_balance",
    "cpuset.sched_relax_domain_level",
)
_ENTRY: Final = ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
_MEMORY: Final = tuple(f"memory.{kind}{name}" for kind in ("", "memsw.", "kmem.", "kmem.tcp.") for name in _ENTRY)


def read_v1(files: CgroupFiles, page_sizes: tuple[str, ...]) -> Stats:
    """Read all counters of a cgroup.

    Args:
        files: The cgroup.
        page_sizes: The host's sizes of huge pages, such as `2MB`.

    Raises:
        CgroupGoneError: If the cgroup was removed.
        OSError: If no descriptor is left.
    """
    current, most = files.read("pids", "pids.current", "pids.max")
    return Stats(
        cpu=_cpu(files),
        cpuset=_cpuset(files),
        memory=_memory(files),
        pids=Pids(number(current), number(most, unlimited=0)),
        blkio=_blkio(files),
        hugetlb=_hugetlb(files, page_sizes),
    )


def _cpu(files: CgroupFiles) -> CPU:
    """Read the controllers `cpu` and `cpuacct`."""
    quota = key_values(*files.read("cpu", "cpu.stat"))
    total, modes, by_mode, by_cpu = files.read("cpuacct", *_CPUACCT)
    mode = key_values(modes)
    # The first line is the heading: cpu user system.
    table = [line.split() for line in (by_mode or b"").splitlines()[1:]]
    return CPU(
        usage=CPUUsage(
            total=number(total),
            kernel=mode.get("system", 0) * _TICK,
            user=mode.get("user", 0) * _TICK,
            percpu=[int(word) for word in (by_cpu or b"").split()],
            percpu_kernel=[int(kernel) for _, _, kernel in table],
            percpu_user=[int(user) for _, user, _ in table],
        ),
        throttling=Throttling(
            periods=quota.get("nr_periods", 0),
            throttled_periods=quota.get("nr_throttled", 0),
            throttled_time=quota.get("throttled_time", 0),
        ),
    )


def _cpuset(files: CgroupFiles) -> CPUSet:
    """Read the controller `cpuset`."""
    cpus, mems, *others = files.read("cpuset", *_CPUSET)
    exclusive, *rest = [int(other) if other else 0 for other in others]
    return CPUSet(ranges(cpus), exclusive, ranges(mems), *rest)


def _memory(files: CgroupFiles) -> Memory:
    """Read the controller `memory`."""
    stat, *entries = files.read("memory", "memory.stat", *_MEMORY)
    raw = key_values(stat)
    found = [int(entry) if entry else 0 for entry in entries]
    usage, swap, kernel, kernel_tcp = (MemoryEntry(*found[at : at + 4]) for at in range(0, len(found), 4))
    return Memory(cache=raw.get("cache", 0), usage=usage, swap=swap, kernel=kernel, kernel_tcp=kernel_tcp, raw=raw)


def _blkio(files: CgroupFiles) -> Blkio:
    """Read the controller `blkio`."""
    for group in _BLKIO:
        # Known to be missing: the names depend on the I/O scheduler, and each try would cost a system call.
        if files.lacks("blkio", group[0][0]):
            continue
        tables: dict[str, Any] = {}
        for name, field in group:
            if not (entries := blkio_entries(*files.read("blkio", name))):
                break
            tables[field] = entries
        if tables:
            return Blkio(**tables)
    return Blkio()


def blkio_entries(data: bytes | None) -> list[BlkioEntry]:
    """Parse lines such as `8:0 Read 4096`, or `8:0 4096`; the last may be the total of all devices."""
    entries: list[BlkioEntry] = []
    for line in (data or b"").decode().splitlines():
        device, *operation, value = line.split()
        major, colon, minor = device.partition(":")
        # The total of all devices begins with a word instead of MAJOR:MINOR.
        if colon:
            entries.append(BlkioEntry(int(major), int(minor), "".join(operation), int(value)))
    return entries


def _hugetlb(files: CgroupFiles, page_sizes: tuple[str, ...]) -> dict[str, Hugetlb]:
    """Read the controller `hugetlb`: reserved pages if the kernel counts them (5.7), otherwise pages in use."""
    found: dict[str, Hugetlb] = {}
    for size in page_sizes:
        for prefix in (f"hugetlb.{size}.rsvd", f"hugetlb.{size}"):
            if files.lacks("hugetlb", f"{prefix}.usage_in_bytes"):
                continue
            names = (f"{prefix}.{name}" for name in ("usage_in_bytes", "max_usage_in_bytes", "failcnt"))
            usage, *others = files.read("hugetlb", *names)
            if usage is not None:
                found[size] = Hugetlb(number(usage), *numbers(others))
                break
    return found
