"""The figures of a container: every field that runc's types/events.go has, and what runc leaves out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mirror import differences
from recorded import cases

from runc_async._answers.decode import EVENT, StatsLine, decode_stats
from runc_async.errors import DecodeError
from runc_async.stats import (
    CPU,
    Blkio,
    CPUSet,
    IntelRdt,
    Memory,
    MemoryEntry,
    NetworkInterface,
    Pids,
    Stats,
    Throttling,
)

BIGGEST = 2**64 - 1
PRESSURE = {
    "some": {"avg10": 1, "avg60": 1.01, "avg300": 0.5, "total": BIGGEST},
    "full": {"avg10": 0, "avg60": 0, "avg300": 0, "total": 7},
}
ENTRY = {"limit": BIGGEST, "usage": 11, "max": 12, "failcnt": 13}
TABLES = (
    "ioServiceBytesRecursive",
    "ioServicedRecursive",
    "ioQueueRecursive",
    "ioServiceTimeRecursive",
    "ioWaitTimeRecursive",
    "ioMergedRecursive",
    "ioTimeRecursive",
    "sectorsRecursive",
)
# All that runc 1.4 can print, with a value of its own in each place.
FULL: dict[str, Any] = {
    "cpu": {
        "usage": {
            "total": BIGGEST,
            "percpu": [1, BIGGEST],
            "percpu_kernel": [3, 4],
            "percpu_user": [5, 6],
            "kernel": 7,
            "user": 8,
        },
        "throttling": {"periods": 9, "throttledPeriods": 10, "throttledTime": BIGGEST},
        "psi": PRESSURE,
    },
    "cpuset": {
        "cpus": [0, 2],
        "cpu_exclusive": 1,
        "mems": [0, 1],
        "mem_hardwall": 2,
        "mem_exclusive": 3,
        "memory_migrate": 4,
        "memory_spread_page": 5,
        "memory_spread_slab": 6,
        "memory_pressure": 7,
        "sched_load_balance": 8,
        "sched_relax_domain_level": -1,
    },
    "memory": {
        "cache": 14,
        "usage": ENTRY,
        "swap": {**ENTRY, "usage": 15},
        "kernel": {**ENTRY, "usage": 16},
        "kernelTCP": {**ENTRY, "usage": 17},
        "raw": {"anon": BIGGEST, "file": 0},
        "psi": PRESSURE,
    },
    "pids": {"current": 18, "limit": 19},
    "blkio": {
        **{name: [{"major": 8, "minor": at, "op": "Read", "value": BIGGEST}] for at, name in enumerate(TABLES, 1)},
        "psi": PRESSURE,
    },
    "hugetlb": {"2MB": {"usage": 20, "max": 21, "failcnt": 22}, "1GB": {"failcnt": 0}},
    "intel_rdt": {
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fffff",
        "l3_cache_schema": "L3:0=ff",
        "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 11, "num_closids": 8},
        "mem_bw_schema_root": "MB:0=100",
        "mem_bw_schema": "MB:0=20",
        "schemata": ["L3:0=ff", "MB:0=20"],
        "mbm_stats": [{"mbm_total_bytes": 23, "mbm_local_bytes": 24}],
        "cmt_stats": [{"llc_occupancy": 25}],
    },
    "network_interfaces": [
        {
            "Name": "eth0",
            "RxBytes": 26,
            "RxPackets": 27,
            "RxErrors": 28,
            "RxDropped": 29,
            "TxBytes": 30,
            "TxPackets": 31,
            "TxErrors": 32,
            "TxDropped": 33,
        }
    ],
}


def stats(data: Any) -> Stats:
    """Decode the line that runc prints for these figures."""
    return decode_stats(json.dumps({"type": "stats", "id": "web", "data": data}).encode())


def test_every_field_of_runc_is_there() -> None:
    """All keys of runc's structs are attributes of the same name in snake_case, with their exact values."""
    assert differences(FULL, stats(FULL)) == []


def test_names_are_as_people_look_for_them() -> None:
    """The figures are where the JSON has them."""
    all_of_it = stats(FULL)
    assert all_of_it.cpu.usage.total == BIGGEST
    assert all_of_it.cpu.throttling.throttled_periods == 10
    assert all_of_it.memory.usage.limit == BIGGEST
    assert all_of_it.memory.kernel_tcp.usage == 17
    assert all_of_it.memory.raw["anon"] == BIGGEST
    assert all_of_it.blkio.io_service_bytes_recursive[0].value == BIGGEST
    assert all_of_it.hugetlb["2MB"].usage == 20
    assert all_of_it.network_interfaces[0].rx_bytes == 26


def test_what_go_leaves_out_is_zero_or_empty() -> None:
    """Figures of nothing at all decode to a complete tree of zeros and empty lists."""
    nothing = stats({})
    assert nothing == Stats()
    assert nothing.cpu == CPU()
    assert nothing.cpu.throttling == Throttling(periods=0, throttled_periods=0, throttled_time=0)
    assert nothing.cpu.psi is None
    assert nothing.cpuset == CPUSet()
    assert nothing.memory == Memory()
    assert nothing.pids == Pids(current=0, limit=0)
    assert nothing.blkio == Blkio()
    assert nothing.intel_rdt == IntelRdt()
    assert (nothing.hugetlb, nothing.network_interfaces) == ({}, [])


def test_old_and_new_runc_say_the_same_of_what_they_could_not_read() -> None:
    """The zeros of runc up to 1.3 and the missing key of runc 1.4 both are an entry that isn't known."""
    old = stats({"memory": {"kernel": {"limit": 0, "failcnt": 0}}, "cpu": {"throttling": {}}})
    new = stats({"memory": {}, "cpu": {}})
    assert old == new
    assert not old.memory.kernel.known


@pytest.mark.parametrize("field", ["limit", "usage", "max", "failcnt"])
def test_any_figure_makes_a_memory_entry_known(field: str) -> None:
    """An entry with any figure but 0 was measured."""
    assert stats({"memory": {"usage": {"limit": 0, "failcnt": 0, field: 1}}}).memory.usage.known
    assert not MemoryEntry().known


@pytest.mark.parametrize("key", ["hugetlb", "network_interfaces"])
def test_a_null_map_or_list_is_empty(key: str) -> None:
    """The null that Go prints for what it never filled is an empty map or list, and the rest is still read."""
    assert stats({**FULL, key: None}) == stats({name: value for name, value in FULL.items() if name != key})


def test_the_null_of_every_line_needs_no_second_look() -> None:
    """`network_interfaces: null`, which every runc prints, is decoded at once, and is an empty list of its own."""
    line = b'{"type":"stats","id":"web","data":{"network_interfaces":null}}'
    first, second = EVENT.decode(line), EVENT.decode(line)
    assert isinstance(first, StatsLine)
    assert isinstance(second, StatsLine)
    assert first == second == StatsLine("web", Stats())
    first.data.network_interfaces.append(NetworkInterface())
    assert second.data.network_interfaces == []


@pytest.mark.parametrize("total", [2**53 + 1, 2**63, 2**64 - 1])
def test_numbers_stay_exact(total: int) -> None:
    """Numbers that no float and no signed 64-bit integer holds come out as they went in, null beside them or not."""
    figures: dict[str, Any] = {"cpu": {"usage": {"total": total}}}
    assert stats(figures).cpu.usage.total == total
    assert stats({**figures, "network_interfaces": None}).cpu.usage.total == total


def test_a_number_that_is_none_is_an_error() -> None:
    """A float where runc counts is a DecodeError that says where."""
    with pytest.raises(DecodeError, match=r"expected `int`, got `float` - at `\$\.data\.pids\.current`"):
        stats({"pids": {"current": 1.5}})


def test_unlimited_is_what_the_kernel_calls_it() -> None:
    """Both cgroup versions have a number for "no limit"; each was recorded and is exact."""
    limits = {
        case.runtime.rpartition("-")[2]: decode_stats(case.stdout.encode()).memory.swap.limit
        for case in cases("runc-*", "events-stats")
    }
    assert limits == {"v1": 9223372036854771712, "v2": 0, "v2full": BIGGEST}


def test_each_cgroup_mode_knows_what_it_can() -> None:
    """v1 has kernel memory and CPUs, v2 hasn't; a cgroup without memory controller knows nothing of memory."""
    seen = {
        case.runtime.rpartition("-")[2]: decode_stats(case.stdout.encode()) for case in cases("runc-*", "events-stats")
    }
    assert {mode: figures.memory.usage.known for mode, figures in seen.items()} == {
        "v1": True,
        "v2": False,
        "v2full": True,
    }
    assert {mode: figures.memory.kernel.known for mode, figures in seen.items()} == {
        "v1": True,
        "v2": False,
        "v2full": False,
    }
    assert {mode: bool(figures.cpu.usage.percpu) for mode, figures in seen.items()} == {
        "v1": True,
        "v2": False,
        "v2full": False,
    }
