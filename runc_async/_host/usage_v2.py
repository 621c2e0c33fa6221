"""Convert the files of cgroup v2 to `Stats`, in the same way as runc (kernel: cgroup-v2.rst)."""

from __future__ import annotations

from runc_async.stats import (
    CPU,
    Blkio,
    BlkioEntry,
    CPUUsage,
    Hugetlb,
    Memory,
    MemoryEntry,
    Pids,
    PSIData,
    PSIStats,
    Stats,
    Throttling,
)

from .cgroup_files import CgroupFiles
from .parsing import UNLIMITED, key_values, number, numbers

_MEMORY = ("memory.max", "memory.current", "memory.peak", "memory.swap.max", "memory.swap.current")
_HUGETLB = ("rsvd.current", "current", "events")
_IO = {
    b"rbytes": ("io_service_bytes_recursive", "Read"),
    b"wbytes": ("io_service_bytes_recursive", "Write"),
    b"rios": ("io_serviced_recursive", "Read"),
    b"wios": ("io_serviced_recursive", "Write"),
}


def read_v2(files: CgroupFiles, page_sizes: tuple[str, ...]) -> Stats:
    """Read all counters of a cgroup: see `read_v1`.

    Raises:
        CgroupGoneError: If the cgroup was removed.
        OSError: If no descriptor is left.
    """
    return Stats(
        cpu=_cpu(files), memory=_memory(files), pids=_pids(files), blkio=_io(files), hugetlb=_hugetlb(files, page_sizes)
    )


def _cpu(files: CgroupFiles) -> CPU:
    """Read `cpu.stat`, which exists without the controller too."""
    counted = key_values(*files.read("", "cpu.stat"))
    return CPU(
        usage=CPUUsage(
            total=counted.get("usage_usec", 0) * 1000,
            kernel=counted.get("system_usec", 0) * 1000,
            user=counted.get("user_usec", 0) * 1000,
        ),
        throttling=Throttling(
            periods=counted.get("nr_periods", 0),
            throttled_periods=counted.get("nr_throttled", 0),
            throttled_time=counted.get("throttled_usec", 0) * 1000,
        ),
        psi=_pressure(files, "cpu.pressure"),
    )


def _memory(files: CgroupFiles) -> Memory:
    """Read the controller `memory`; swap is reported together with memory, as on v1."""
    psi = _pressure(files, "memory.pressure")
    stat, *others = files.read("", "memory.stat", *_MEMORY)
    if stat is None:
        return Memory(psi=psi)
    raw = key_values(stat)
    # Files of v2 count swap alone; runc adds both, so that the numbers of v1 and v2 can be compared.
    limit, used, peak, swap_limit, swap_used = numbers(others)
    usage = MemoryEntry(limit, used, peak)
    swap = MemoryEntry(min(UNLIMITED, swap_limit + limit), swap_used + used)
    return Memory(cache=raw.get("file", 0), usage=usage, swap=swap, raw=raw, psi=psi)


def _pids(files: CgroupFiles) -> Pids:
    """Read the controller `pids`; count the processes without it."""
    current, most = files.read("", "pids.current", "pids.max")
    if current is None:
        (members,) = files.read("", "cgroup.procs")
        return Pids(current=(members or b"").count(b"\n"))
    return Pids(number(current), number(most, unlimited=0))


def _io(files: CgroupFiles) -> Blkio:
    """Read the controller `io` into the tables of v1."""
    (data,) = files.read("", "io.stat")
    return Blkio(**io_tables(data), psi=_pressure(files, "io.pressure"))


def io_tables(data: bytes | None) -> dict[str, list[BlkioEntry]]:
    """Parse `io.stat` into the tables of v1, by their names in `Blkio`."""
    tables: dict[str, list[BlkioEntry]] = {}
    for line in (data or b"").splitlines():
        device, *counters = line.split()
        major, colon, minor = device.partition(b":")
        for counter in counters if colon else ():
            name, _, value = counter.partition(b"=")
            # Other counters, such as dbytes and dios (discards), have no table on v1.
            if name in _IO:
                table, operation = _IO[name]
                tables.setdefault(table, []).append(BlkioEntry(int(major), int(minor), operation, int(value)))
    return tables


def _hugetlb(files: CgroupFiles, page_sizes: tuple[str, ...]) -> dict[str, Hugetlb]:
    """Read the controller `hugetlb`: reserved pages if the kernel counts them, otherwise pages in use."""
    found: dict[str, Hugetlb] = {}
    for size in page_sizes:
        reserved, used, events = files.read("", *(f"hugetlb.{size}.{name}" for name in _HUGETLB))
        if used is not None:
            usage = used if reserved is None else reserved
            found[size] = Hugetlb(usage=number(usage), failcnt=key_values(events).get("max", 0))
    return found


def _pressure(files: CgroupFiles, name: str) -> PSIStats | None:
    """Read a pressure file; None if the kernel doesn't measure pressure."""
    (data,) = files.read("", name)
    # With psi=0 on the kernel's command line the file is missing, or reading fails with EOPNOTSUPP.
    if not data:
        return None
    lines: dict[str, PSIData] = {}
    for line in data.decode().splitlines():
        kind, *fields = line.split()
        values = dict(field.split("=", 1) for field in fields)
        lines[kind] = PSIData(
            avg10=float(values["avg10"]),
            avg60=float(values["avg60"]),
            avg300=float(values["avg300"]),
            total=int(values["total"]),
        )
    return PSIStats(some=lines.get("some", PSIData()), full=lines.get("full", PSIData()))
