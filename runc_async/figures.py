"""The figures that everybody computes from `Stats`: percentages, rates and the working set.

Pure functions of one reading, or of two of the same container and the seconds between them. They hold these rules:

- What can't be known is None, never 0: no controller, nothing counted yet, or no time on the CPU.
- A counter that went down began again at 0, for the container was started anew between the readings. What it shows
  now is then taken as its growth, as Prometheus does in `increase()`: too little rather than nonsense.
"""

from __future__ import annotations

import msgspec

from .stats import BlkioEntry, NetworkInterface, Stats

# "Unlimited" is 2**63 less one page on cgroup v1 and 2**64 - 1 on v2. No host has half of either.
_UNLIMITED = 2**62


class BlkioRates(msgspec.Struct, frozen=True, kw_only=True):
    """Block I/O by second, all devices together; None where the kernel counts nothing.

    Attributes:
        read_bytes: Bytes read.
        write_bytes: Bytes written.
        reads: Read requests.
        writes: Write requests.
    """

    read_bytes: float | None
    write_bytes: float | None
    reads: float | None
    writes: float | None


class NetworkRates(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic of one network interface by second.

    Attributes:
        rx_bytes: Bytes received.
        rx_packets: Packets received.
        rx_errors: Packets received broken.
        rx_dropped: Packets received and dropped.
        tx_bytes: Bytes sent.
        tx_packets: Packets sent.
        tx_errors: Packets that couldn't be sent.
        tx_dropped: Packets dropped instead of sent.
    """

    rx_bytes: float
    rx_packets: float
    rx_errors: float
    rx_dropped: float
    tx_bytes: float
    tx_packets: float
    tx_errors: float
    tx_dropped: float


def cpu_percent(previous: Stats, current: Stats, seconds: float, *, cores: float = 1.0) -> float | None:
    """Compute how much CPU was used between two readings, in percent.

    It is 100 * growth of `cpu.usage.total` / (seconds * 10**9 * cores). With the default 100 is one core fully
    used, as in top(1) and `docker stats`, so that a container on four cores can reach 400. For percent of the
    container's limit give the limit as `cores`: quota / period of `linux.resources.cpu` (runtime-spec
    config-linux.md), which runc doesn't print among its figures.

    Args:
        previous: The earlier reading.
        current: The later one.
        seconds: The time between them.
        cores: How many cores make 100 percent.

    Returns:
        The percentage, or None if no CPU time was ever measured.

    Raises:
        ValueError: If `seconds` or `cores` is not more than 0.
    """
    _check_positive("seconds", seconds)
    _check_positive("cores", cores)
    used = current.cpu.usage.total
    if not used:
        return None
    return 100 * _growth(previous.cpu.usage.total, used) / (seconds * 1e9 * cores)


def throttled_share(previous: Stats, current: Stats) -> float | None:
    """Compute in which share of its periods a container was throttled between two readings: 0.0 to 1.0.

    It is growth of `cpu.throttling.throttled_periods` / growth of `cpu.throttling.periods`, which is what the
    Kubernetes alert CPUThrottlingHigh watches (nr_throttled and nr_periods of cpu.stat; kernel:
    scheduler/sched-bwc.rst).

    Returns:
        The share, or None if no period went by: there is no quota, or nothing ran.
    """
    before, now = previous.cpu.throttling, current.cpu.throttling
    periods, throttled = now.periods, now.throttled_periods
    # Both counters begin again together, whichever of them shows it.
    if periods >= before.periods and throttled >= before.throttled_periods:
        periods -= before.periods
        throttled -= before.throttled_periods
    return throttled / periods if periods else None


def memory_working_set(stats: Stats) -> int | None:
    """Compute the memory that can't be taken back easily, in bytes.

    It is `memory.usage.usage` less the page cache not used of late, and never below 0: what cAdvisor reports as
    `container_memory_working_set_bytes` and the kubelet evicts by. That cache is `total_inactive_file` of
    memory.stat on cgroup v1, which has children's in it, and `inactive_file` on v2, where every key does.

    Returns:
        The bytes, or None if memory isn't measured.
    """
    usage, raw = stats.memory.usage, stats.memory.raw
    if not usage.known:
        return None
    inactive = raw.get("total_inactive_file", raw.get("inactive_file", 0))
    return max(usage.usage - inactive, 0)


def memory_limit(stats: Stats) -> int | None:
    """Return the memory limit in bytes, or None if there is none or memory isn't measured.

    It is `memory.usage.limit` without the numbers that stand for "unlimited": 2**63 less one page (cgroup v1) and
    2**64 - 1 (v2).
    """
    usage = stats.memory.usage
    return usage.limit if usage.known and usage.limit < _UNLIMITED else None


def blkio_rates(previous: Stats, current: Stats, seconds: float) -> BlkioRates:
    """Compute how much was read from and written to block devices between two readings, by second.

    It is the growth of the entries `Read` and `Write` of `blkio.io_service_bytes_recursive` (bytes) and of
    `blkio.io_serviced_recursive` (requests), summed over the devices, / seconds. `Sync`, `Async` and `Total` of
    cgroup v1 count the same I/O again and are left out. A device without an earlier entry began at 0, because
    the kernel shows it from its first request on.

    Args:
        previous: The earlier reading.
        current: The later one.
        seconds: The time between them.

    Returns:
        The rates; those of a table that is empty in the later reading are None.

    Raises:
        ValueError: If `seconds` is not more than 0.
    """
    _check_positive("seconds", seconds)
    size = previous.blkio.io_service_bytes_recursive, current.blkio.io_service_bytes_recursive
    count = previous.blkio.io_serviced_recursive, current.blkio.io_serviced_recursive
    return BlkioRates(
        read_bytes=_blkio_rate(*size, "Read", seconds),
        write_bytes=_blkio_rate(*size, "Write", seconds),
        reads=_blkio_rate(*count, "Read", seconds),
        writes=_blkio_rate(*count, "Write", seconds),
    )


def network_rates(previous: Stats, current: Stats, seconds: float) -> dict[str, NetworkRates]:
    """Compute the traffic of each network interface between two readings, by second.

    It is the growth of each counter of `network_interfaces` / seconds.

    Args:
        previous: The earlier reading.
        current: The later one.
        seconds: The time between them.

    Returns:
        The rates by name of interface. One that is missing in either reading is left out: it may have counted
        long before it came into the container.

    Raises:
        ValueError: If `seconds` is not more than 0.
    """
    _check_positive("seconds", seconds)
    before = {interface.name: interface for interface in previous.network_interfaces}
    return {
        now.name: _network_rates(before[now.name], now, seconds)
        for now in current.network_interfaces
        if now.name in before
    }


def _check_positive(name: str, value: float) -> None:
    """Refuse a divisor that gives no figure; NaN among them, which compares false with everything."""
    if not value > 0:
        raise ValueError(f"{name} must be more than 0, not {value}")


def _growth(before: int, now: int) -> int:
    """Return by how much a counter grew, with one that went down counted from 0."""
    return now - before if now >= before else now


def _blkio_rate(before: list[BlkioEntry], now: list[BlkioEntry], op: str, seconds: float) -> float | None:
    """Return the rate of one operation in a table, or None if the table is empty."""
    if not now:
        return None
    earlier = _by_device(before, op)
    return sum(_growth(earlier.get(device, 0), value) for device, value in _by_device(now, op).items()) / seconds


def _by_device(entries: list[BlkioEntry], op: str) -> dict[tuple[int, int], int]:
    """Return the counters of one operation by device."""
    return {(entry.major, entry.minor): entry.value for entry in entries if entry.op == op}


def _network_rates(before: NetworkInterface, now: NetworkInterface, seconds: float) -> NetworkRates:
    """Return the rates of one interface."""
    names = NetworkRates.__struct_fields__
    return NetworkRates(**{name: _growth(getattr(before, name), getattr(now, name)) / seconds for name in names})
