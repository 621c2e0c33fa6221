"""Percentages, rates and the working set: right across restarts and cgroup modes, and None for what isn't known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st
from recorded import Case, cases

from runc_async._answers.decode import decode_stats
from runc_async.event import StatsEvent
from runc_async.figures import (
    BlkioRates,
    NetworkRates,
    blkio_rates,
    blkio_rates_by_device,
    cpu_percent,
    memory_limit,
    memory_working_set,
    network_rates,
    throttled_share,
)
from runc_async.stats import (
    CPU,
    Blkio,
    BlkioEntry,
    CPUUsage,
    Memory,
    MemoryEntry,
    NetworkInterface,
    Stats,
    Throttling,
)

V1_UNLIMITED = 9223372036854771712
V2_UNLIMITED = 2**64 - 1


def used(nanoseconds: int) -> Stats:
    """Make figures of a container that used so much CPU time."""
    return Stats(cpu=CPU(usage=CPUUsage(total=nanoseconds)))


def throttled(periods: int, throttled_periods: int) -> Stats:
    """Make figures of a container with a CPU quota."""
    return Stats(cpu=CPU(throttling=Throttling(periods=periods, throttled_periods=throttled_periods)))


def memory(usage: int, limit: int = V2_UNLIMITED, **raw: int) -> Stats:
    """Make figures of a container that uses so much memory."""
    return Stats(memory=Memory(usage=MemoryEntry(usage=usage, limit=limit), raw=raw))


def io(size: dict[str, int], count: dict[str, int] | None = None, device: int = 0) -> Stats:
    """Make figures of a container that did so much I/O, by operation."""
    sizes, counts = (
        [BlkioEntry(major=8, minor=device, op=op, value=value) for op, value in (table or {}).items()]
        for table in (size, count)
    )
    return Stats(blkio=Blkio(io_service_bytes_recursive=sizes, io_serviced_recursive=counts))


def network(**rx_bytes: int) -> Stats:
    """Make figures of a container whose interfaces received so many bytes."""
    interfaces = [NetworkInterface(name=name, rx_bytes=value) for name, value in rx_bytes.items()]
    return Stats(network_interfaces=interfaces)


def test_one_busy_core_is_a_hundred_percent() -> None:
    """A second of CPU time in a second is 100 percent; two cores' worth of it is 200."""
    assert cpu_percent(used(5), used(5 + 10**9), 1) == 100
    assert cpu_percent(used(5), used(5 + 10**9), 0.5) == 200


def test_percent_of_a_limit() -> None:
    """With the limit as `cores` 100 percent is all that the container may have."""
    assert cpu_percent(used(10**9), used(2 * 10**9), 2, cores=0.5) == 100


def test_an_idle_container_uses_no_cpu() -> None:
    """CPU time that doesn't grow is 0 percent, which is known."""
    assert cpu_percent(used(7), used(7), 1) == 0


def test_cpu_time_that_was_never_measured_is_unknown() -> None:
    """A container without any CPU time has no percentage."""
    assert cpu_percent(used(0), used(0), 1) is None
    assert cpu_percent(used(7), used(0), 1) is None


def test_cpu_time_of_a_restarted_container_counts_from_zero() -> None:
    """A smaller total than before is all growth since the restart."""
    assert cpu_percent(used(10**12), used(5 * 10**8), 1) == 50


def test_throttling_is_a_share_of_the_periods() -> None:
    """Of ten periods three were cut short."""
    assert throttled_share(throttled(100, 50), throttled(110, 53)) == 0.3
    assert throttled_share(throttled(100, 50), throttled(110, 50)) == 0


def test_no_periods_no_share() -> None:
    """Without a quota, or without a period between the readings, there is no share."""
    assert throttled_share(Stats(), Stats()) is None
    assert throttled_share(throttled(9, 3), throttled(9, 3)) is None


@pytest.mark.parametrize("before", [(100, 1), (3, 9), (100, 100)])
def test_throttling_of_a_restarted_container_counts_from_zero(before: tuple[int, int]) -> None:
    """If either counter went down both count from 0, so that the share is never above 1."""
    assert throttled_share(throttled(*before), throttled(8, 2)) == 0.25


def test_the_working_set_leaves_out_idle_page_cache() -> None:
    """It stands, with the children's, under total_inactive_file on cgroup v1 and under inactive_file on v2."""
    assert memory_working_set(memory(1000, inactive_file=1, total_inactive_file=300)) == 700
    assert memory_working_set(memory(1000, inactive_file=400)) == 600
    assert memory_working_set(memory(1000)) == 1000


def test_the_working_set_is_never_below_zero() -> None:
    """The two counters aren't read at once: more cache than memory is 0."""
    assert memory_working_set(memory(100, inactive_file=300)) == 0


def test_memory_that_is_not_measured_is_unknown() -> None:
    """Without a memory controller there is neither a working set nor a limit."""
    assert memory_working_set(Stats()) is None
    assert memory_limit(Stats()) is None


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2**26, 2**26),
        (2**50, 2**50),
        (V1_UNLIMITED, None),
        (2**63 - 65536, None),
        (V2_UNLIMITED, None),
        (0, None),
        (-1, None),
    ],
)
def test_unlimited_is_no_limit(limit: int, expected: int | None) -> None:
    """The numbers for "unlimited" of both cgroup versions, at any page size, and of gVisor, are None."""
    assert memory_limit(memory(1, limit)) == expected


def test_block_io_by_second() -> None:
    """Bytes and requests are told apart, reads and writes too; v1's sums aren't counted twice."""
    before = io({"Read": 100, "Write": 0, "Sync": 50, "Async": 50, "Total": 100}, {"Read": 1, "Write": 2})
    after = io({"Read": 300, "Write": 50, "Sync": 100, "Async": 250, "Total": 350}, {"Read": 5, "Write": 2})
    assert blkio_rates(before, after, 2) == BlkioRates(read_bytes=100, write_bytes=25, reads=2, writes=0)


def test_block_io_of_all_devices_is_added_up() -> None:
    """A device that is new began at 0; one that is gone counts no more."""
    disk0, disk1 = io({"Read": 10}, device=0), io({"Read": 30}, device=1)
    both = Stats(
        blkio=Blkio(
            io_service_bytes_recursive=[
                *io({"Read": 15}, device=0).blkio.io_service_bytes_recursive,
                *disk1.blkio.io_service_bytes_recursive,
            ]
        )
    )
    assert blkio_rates(disk0, both, 1).read_bytes == 5 + 30
    assert blkio_rates(both, disk1, 1).read_bytes == 0


def test_block_io_of_a_restarted_container_counts_from_zero() -> None:
    """A smaller counter than before is all growth since the restart."""
    assert blkio_rates(io({"Read": 1000}), io({"Read": 10}), 1).read_bytes == 10


def test_block_io_that_is_not_counted_is_unknown() -> None:
    """An empty table gives None, not 0, and the other table still counts."""
    unknown = BlkioRates(read_bytes=None, write_bytes=None, reads=None, writes=None)
    assert blkio_rates(Stats(), Stats(), 1) == unknown
    assert blkio_rates(io({"Read": 5}), Stats(), 1) == unknown
    half = blkio_rates(io({"Read": 5}), io({"Read": 6}), 1)
    assert (half.read_bytes, half.write_bytes, half.reads, half.writes) == (1, 0, None, None)


def test_a_table_without_reads_and_writes_is_unknown() -> None:
    """Of a table that only has totals nothing is known, and never 0; letters may be small, as another runtime's."""
    totals = blkio_rates(io({"Total": 5}, {"Sync": 1}), io({"Total": 9}, {"Sync": 3}), 1)
    assert totals == BlkioRates(read_bytes=None, write_bytes=None, reads=None, writes=None)
    small = blkio_rates(io({"read": 5, "write": 1}), io({"read": 9, "write": 3}), 2)
    assert (small.read_bytes, small.write_bytes) == (2, 1)


def test_devices_that_stand_on_one_another_can_be_counted_once() -> None:
    """What is counted for a disk and for what stands on it has a rate for each, and the devices can be named."""

    def both(value: int) -> Stats:
        entries = [BlkioEntry(major=major, minor=0, op="Read", value=value) for major in (8, 253)]
        return Stats(blkio=Blkio(io_service_bytes_recursive=entries))

    assert blkio_rates(both(10), both(30), 2).read_bytes == 20
    assert blkio_rates(both(10), both(30), 2, devices={(8, 0)}).read_bytes == 10
    assert blkio_rates(both(10), both(30), 2, devices=()).read_bytes is None
    by_device = blkio_rates_by_device(both(10), both(30), 2)
    assert {device: rates.read_bytes for device, rates in by_device.items()} == {(8, 0): 10, (253, 0): 10}
    assert by_device[8, 0].reads is None
    assert blkio_rates_by_device(Stats(), Stats(), 1) == {}


def event(stats: Stats, monotonic: float) -> StatsEvent:
    """Make the event of a reading."""
    return StatsEvent("web", stats, monotonic=monotonic)


def test_events_know_the_time_between_them() -> None:
    """From two events every rate is computed by their own clock, and each other figure as from their readings."""
    one, other = event(used(10**9), 100.0), event(used(3 * 10**9), 102.0)
    assert cpu_percent(one, other) == 100
    assert cpu_percent(one, other, 4) == 50
    assert cpu_percent(one.data, other, 2) == 100
    assert blkio_rates(event(io({"Read": 1}), 1), event(io({"Read": 7}), 4)).read_bytes == 2
    assert blkio_rates_by_device(event(io({"Read": 1}), 1), event(io({"Read": 7}), 4))[8, 0].read_bytes == 2
    card = [NetworkInterface(name="eth0", rx_bytes=number) for number in (10, 30)]
    before, after = (event(Stats(network_interfaces=[each]), each.rx_bytes) for each in card)
    rates = network_rates(before, after)
    assert rates["eth0"].rx_bytes == 1
    assert throttled_share(event(throttled(0, 0), 1), event(throttled(4, 1), 2)) == 0.25
    assert memory_working_set(event(memory(10, inactive_file=3), 0)) == 7
    assert memory_limit(event(memory(10, 64), 0)) == 64


def test_events_that_came_together_give_no_rate() -> None:
    """Where no time lies between two events nothing is known; between readings without a time it has to be given."""
    one, other = event(used(1), 5.0), event(used(2), 5.0)
    assert cpu_percent(one, other) is None
    assert blkio_rates(event(io({"Read": 1}), 1), event(io({"Read": 7}), 1)).read_bytes is None
    assert network_rates(one, other) == {}
    for readings in ((one.data, other), (one, other.data), (one.data, other.data)):
        with pytest.raises(TypeError, match="seconds must be given"):
            cpu_percent(*readings)


def test_network_traffic_by_second() -> None:
    """Each counter of each interface has its rate."""
    before = NetworkInterface("eth0", 1, 2, 3, 4, 5, 6, 7, 8)
    after = NetworkInterface("eth0", 3, 6, 9, 12, 15, 18, 21, 24)
    rates = network_rates(Stats(network_interfaces=[before]), Stats(network_interfaces=[after]), 2)
    assert rates == {
        "eth0": NetworkRates(
            rx_bytes=1,
            rx_packets=2,
            rx_errors=3,
            rx_dropped=4,
            tx_bytes=5,
            tx_packets=6,
            tx_errors=7,
            tx_dropped=8,
        )
    }


def test_an_interface_of_one_reading_has_no_rate() -> None:
    """What came or went between the readings is left out, and a counter that went down counts from 0."""
    rates = network_rates(network(lo=5, gone=1, again=100), network(lo=6, new=9, again=7), 1)
    assert {name: rate.rx_bytes for name, rate in rates.items()} == {"lo": 1, "again": 7}
    assert network_rates(Stats(), Stats(), 1) == {}


@pytest.mark.parametrize("compute", [cpu_percent, blkio_rates, network_rates])
@pytest.mark.parametrize("seconds", [0, -1.5, math.nan])
def test_no_time_between_readings_is_refused(compute: Callable[..., Any], seconds: float) -> None:
    """A time of 0, below, or none at all is an error that names it."""
    with pytest.raises(ValueError, match=f"seconds must be more than 0, not {seconds}"):
        compute(used(1), used(2), seconds)


def test_a_limit_of_no_cores_is_refused() -> None:
    """So is a limit that leaves no CPU at all."""
    with pytest.raises(ValueError, match=r"cores must be more than 0, not 0\.0"):
        cpu_percent(used(1), used(2), 1, cores=0.0)


@given(*[st.integers(0, 2**64 - 1)] * 4)
def test_no_figure_is_ever_negative(a: int, b: int, c: int, d: int) -> None:
    """Whatever the kernel counts, restarts in between included, no figure is below 0."""
    assert (cpu_percent(used(a), used(b), 1) or 0) >= 0
    assert (throttled_share(throttled(a, b), throttled(c, d)) or 0) >= 0
    assert (memory_working_set(memory(a, inactive_file=b)) or 0) >= 0
    assert (blkio_rates(io({"Read": a}), io({"Read": b}), 1).read_bytes or 0) >= 0
    assert all(rate.rx_bytes >= 0 for rate in network_rates(network(lo=a), network(lo=b), 1).values())


@pytest.mark.parametrize("case", cases("runc-*", "events-interval-500ms"), ids=lambda case: case.runtime)
def test_recorded_readings_give_figures(case: Case) -> None:
    """Consecutive readings of a sleeping container are about 0 percent, its memory a few megabytes if known."""
    readings = [decode_stats(line) for line in case.stdout.encode().splitlines()]
    for before, now in itertools.pairwise(readings):
        percent = cpu_percent(before, now, 0.5)
        assert percent is not None
        assert 0 <= percent < 10
    for now in readings:
        working_set = memory_working_set(now)
        assert working_set is not None
        assert 0 < working_set <= now.memory.usage.usage
        assert memory_limit(now) == 64 * 1024 * 1024
