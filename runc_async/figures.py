"""Percentages, rates and the working set, computed from `Stats`.

Pure functions of one reading, or of two readings of the same container and the time between them. The rules:

- Unknown values are None, never 0: no controller, nothing counted yet, or no time on the CPU.
- A reading is a `StatsEvent` or a `Stats`. The time between two events is known (`StatsEvent.monotonic`); between two
  `Stats` it is an argument, in seconds.
- A counter that decreased was reset: the container was restarted between the readings. Its new value counts as the
  growth, as in Prometheus' `increase()`: rather too little than nonsense.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

import msgspec

from .event import StatsEvent
from .stats import BlkioEntry, NetworkInterface, Stats

Reading: TypeAlias = Stats | StatsEvent
"""A container's resource usage at one moment; an event also has its time."""

# "Unlimited" is 2**63 less one page on cgroup v1 and 2**64 - 1 on v2. No host has half of either.
_UNLIMITED = 2**62


class BlkioRates(msgspec.Struct, frozen=True, kw_only=True):
    """Block I/O per second, of all devices together; None where the kernel counts nothing.

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
    """Traffic of one network interface per second.

    Attributes:
        rx_bytes: Bytes received.
        rx_packets: Packets received.
        rx_errors: Packets received with errors.
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


def cpu_percent(
    previous: Reading, current: Reading, seconds: float | None = None, *, cores: float = 1.0
) -> float | None:
    """Compute the CPU usage between two readings, in percent.

    It is 100 * growth of `cpu.usage.total` / (seconds * 10**9 * cores). By default 100 percent is one core fully used,
    as in top(1) and `docker stats`: a container on four cores can reach 400. For percent of the container's limit pass
    the limit as `cores`: quota / period of `linux.resources.cpu` (runtime-spec config-linux.md), which isn't part of
    runc's figures.

    Args:
        previous: The earlier reading.
        current: The later reading.
        seconds: The time between the readings; None for the time between two events.
        cores: The number of cores that make 100 percent.

    Returns:
        The percentage, or None if no CPU time was ever measured, or no time passed between two events.

    Raises:
        ValueError: If `seconds` or `cores` is not more than 0.
        TypeError: If `seconds` is None and a reading isn't an event.
    """
    elapsed = _elapsed(previous, current, seconds)
    _check_positive("cores", cores)
    used = _stats(current).cpu.usage.total
    if not used or elapsed is None:
        return None
    return 100 * _growth(_stats(previous).cpu.usage.total, used) / (elapsed * 1e9 * cores)


def throttled_share(previous: Reading, current: Reading) -> float | None:
    """Compute the share of periods in which a container was throttled between two readings: 0.0 to 1.0.

    It is growth of `cpu.throttling.throttled_periods` / growth of `cpu.throttling.periods`, as in the Kubernetes alert
    CPUThrottlingHigh (nr_throttled and nr_periods of cpu.stat; kernel: scheduler/sched-bwc.rst).

    Returns:
        The share, or None if no period passed: there is no quota, or the container was idle.
    """
    before, now = _stats(previous).cpu.throttling, _stats(current).cpu.throttling
    periods, throttled = now.periods, now.throttled_periods
    # Both counters begin again together, whichever of them shows it.
    if periods >= before.periods and throttled >= before.throttled_periods:
        periods -= before.periods
        throttled -= before.throttled_periods
    return throttled / periods if periods else None


def memory_working_set(reading: Reading) -> int | None:
    """Compute the memory that can't easily be reclaimed, in bytes.

    It is `memory.usage.usage` less the inactive page cache, and never below 0: cAdvisor reports the same as
    `container_memory_working_set_bytes`, and the kubelet evicts by it. The cache is `total_inactive_file` of
    memory.stat on cgroup v1, with the caches of child cgroups, and `inactive_file` on v2, where every key includes
    them.

    Returns:
        The bytes, or None if memory isn't measured.
    """
    memory = _stats(reading).memory
    usage, raw = memory.usage, memory.raw
    if not usage.known:
        return None
    # `total_` includes child cgroups on v1; v2 always includes them.
    inactive = raw.get("total_inactive_file", raw.get("inactive_file", 0))
    return max(usage.usage - inactive, 0)


def memory_limit(reading: Reading) -> int | None:
    """Return the memory limit in bytes, or None without a limit, or if memory isn't measured.

    It is `memory.usage.limit`, without the values for "unlimited": 2**63 less one page (cgroup v1), 2**64 - 1 (v2), and
    0 and less (gVisor).
    """
    usage = _stats(reading).memory.usage
    # gVisor reports 0 and negative numbers for "unlimited".
    return usage.limit if usage.known and 0 < usage.limit < _UNLIMITED else None


def blkio_rates(
    previous: Reading,
    current: Reading,
    seconds: float | None = None,
    *,
    devices: Collection[tuple[int, int]] | None = None,
) -> BlkioRates:
    """Compute the reads and writes of block devices between two readings, per second.

    It is the growth of the entries `Read` and `Write` (in any letter case) of `blkio.io_service_bytes_recursive`
    (bytes) and of `blkio.io_serviced_recursive` (requests), summed over the devices, / seconds. `Sync`, `Async` and
    `Total` of cgroup v1 count the same I/O again and are left out. A device without an earlier entry started at 0,
    because the kernel lists a device from its first request on.

    Where block devices are stacked (LVM, dm-crypt or RAID on disks), the kernel counts the same I/O for each of them,
    and their sum is too much: name the devices to count, or use `blkio_rates_by_device`.
    `/sys/dev/block/MAJOR:MINOR/slaves` lists the devices below a device.

    Args:
        previous: The earlier reading.
        current: The later reading.
        seconds: The time between the readings; None for the time between two events.
        devices: Major and minor number of each device to count; None for all.

    Returns:
        The rates. The rates of a table with neither `Read` nor `Write` in the later reading are None, and all rates are
        None if no time passed between two events.

    Raises:
        ValueError: If `seconds` is not more than 0.
        TypeError: If `seconds` is None and a reading isn't an event.
    """
    elapsed = _elapsed(previous, current, seconds)
    before, now = _stats(previous).blkio, _stats(current).blkio
    size = before.io_service_bytes_recursive, now.io_service_bytes_recursive
    count = before.io_serviced_recursive, now.io_serviced_recursive
    return BlkioRates(
        read_bytes=_blkio_rate(*size, "read", elapsed, devices),
        write_bytes=_blkio_rate(*size, "write", elapsed, devices),
        reads=_blkio_rate(*count, "read", elapsed, devices),
        writes=_blkio_rate(*count, "write", elapsed, devices),
    )


def blkio_rates_by_device(
    previous: Reading, current: Reading, seconds: float | None = None
) -> dict[tuple[int, int], BlkioRates]:
    """Compute the rates of `blkio_rates` for each device.

    Args:
        previous: The earlier reading.
        current: The later reading.
        seconds: The time between the readings; None for the time between two events.

    Returns:
        The rates by major and minor number. An unused device has no entry.

    Raises:
        ValueError: If `seconds` is not more than 0.
        TypeError: If `seconds` is None and a reading isn't an event.
    """
    blkio = _stats(current).blkio
    entries = (*blkio.io_service_bytes_recursive, *blkio.io_serviced_recursive)
    devices = sorted({(entry.major, entry.minor) for entry in entries})
    return {device: blkio_rates(previous, current, seconds, devices=(device,)) for device in devices}


def network_rates(previous: Reading, current: Reading, seconds: float | None = None) -> dict[str, NetworkRates]:
    """Compute the traffic of each network interface between two readings, per second.

    It is the growth of each counter of `network_interfaces` / seconds.

    Args:
        previous: The earlier reading.
        current: The later reading.
        seconds: The time between the readings; None for the time between two events.

    Returns:
        The rates by interface name. An interface missing in a reading is left out: its counters may have started long
        before it was moved into the container. Empty if no time passed between two events.

    Raises:
        ValueError: If `seconds` is not more than 0.
        TypeError: If `seconds` is None and a reading isn't an event.
    """
    elapsed = _elapsed(previous, current, seconds)
    if elapsed is None:
        return {}
    before = {interface.name: interface for interface in _stats(previous).network_interfaces}
    return {
        now.name: _network_rates(before[now.name], now, elapsed)
        for now in _stats(current).network_interfaces
        if now.name in before
    }


def _stats(reading: Reading) -> Stats:
    """Return the figures of a reading."""
    return reading.data if isinstance(reading, StatsEvent) else reading


def _elapsed(previous: Reading, current: Reading, seconds: float | None) -> float | None:
    """Return the seconds between two readings; None for two events that were read together."""
    if seconds is None:
        if not (isinstance(previous, StatsEvent) and isinstance(current, StatsEvent)):
            raise TypeError("seconds must be given unless both readings are events")
        elapsed = current.monotonic - previous.monotonic
        return elapsed if elapsed > 0 else None
    _check_positive("seconds", seconds)
    return seconds


def _check_positive(name: str, value: float) -> None:
    """Refuse a divisor that is not more than 0, or NaN, which compares false with everything."""
    if not value > 0:
        raise ValueError(f"{name} must be more than 0, not {value}")


def _growth(before: int, now: int) -> int:
    """Return the growth of a counter; a decreased counter is counted from 0."""
    return now - before if now >= before else now


def _blkio_rate(
    before: list[BlkioEntry],
    now: list[BlkioEntry],
    op: str,
    seconds: float | None,
    devices: Collection[tuple[int, int]] | None,
) -> float | None:
    """Return the rate of one operation in a table, or None if the table has neither reads nor writes."""
    now = [entry for entry in now if devices is None or (entry.major, entry.minor) in devices]
    if seconds is None or not any(entry.op.lower() in {"read", "write"} for entry in now):
        return None
    earlier = _by_device(before, op)
    return sum(_growth(earlier.get(device, 0), value) for device, value in _by_device(now, op).items()) / seconds


def _by_device(entries: list[BlkioEntry], op: str) -> dict[tuple[int, int], int]:
    """Return the counters of one operation by device."""
    return {(entry.major, entry.minor): entry.value for entry in entries if entry.op.lower() == op}


def _network_rates(before: NetworkInterface, now: NetworkInterface, seconds: float) -> NetworkRates:
    """Return the rates of one interface."""
    names = NetworkRates.__struct_fields__
    return NetworkRates(**{name: _growth(getattr(before, name), getattr(now, name)) / seconds for name in names})
