"""The resource usage of all containers for Prometheus, with cAdvisor's names: the extra `prometheus`.

Most dashboards and alerts for containers were made for cAdvisor, and work with these metrics. Metrics unknown on this
host are left out, and never reported as 0.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

try:
    from prometheus_client import Metric
    from prometheus_client.registry import Collector
except ImportError as _missing:
    raise ImportError(
        "runc_async.prometheus needs prometheus-client: install runc-async with the extra 'prometheus'"
    ) from _missing

from ._host.usage import HostUsage
from ._runtimes.dialect import Record
from .figures import memory_limit, memory_working_set
from .stats import BlkioEntry, PSIStats, Stats

if TYPE_CHECKING:
    from .client import Runc
    from .pool import Pool

_Sample: TypeAlias = tuple[str, dict[str, str], float]

_IMAGES: Final = ("org.opencontainers.image.ref.name", "io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName")
"""Annotations that name the image of a container."""

_NANOSECONDS: Final = 1e9
_MICROSECONDS: Final = 1e6

_COUNTERS: Final = {
    "container_cpu_usage_seconds": "CPU time used.",
    "container_cpu_user_seconds": "CPU time used in user mode.",
    "container_cpu_system_seconds": "CPU time used in kernel mode.",
    "container_cpu_cfs_periods": "Periods of the CPU quota in which the container ran.",
    "container_cpu_cfs_throttled_periods": "Periods in which the CPU quota was used up.",
    "container_cpu_cfs_throttled_seconds": "Time for which the CPU quota has held the container back.",
    "container_memory_failures": "Page faults.",
    "container_fs_reads": "Read requests.",
    "container_fs_reads_bytes": "Bytes read.",
    "container_fs_writes": "Write requests.",
    "container_fs_writes_bytes": "Bytes written.",
    "container_blkio_device_usage": "Bytes transferred, by device and operation.",
    "container_pressure_cpu_waiting_seconds": "Time in which a task has waited for a CPU.",
    "container_pressure_cpu_stalled_seconds": "Time in which all tasks have waited for a CPU.",
    "container_pressure_memory_waiting_seconds": "Time in which a task has waited for memory.",
    "container_pressure_memory_stalled_seconds": "Time in which all tasks have waited for memory.",
    "container_pressure_io_waiting_seconds": "Time in which a task has waited for I/O.",
    "container_pressure_io_stalled_seconds": "Time in which all tasks have waited for I/O.",
}
_GAUGES: Final = {
    "container_last_seen": "When the container was last seen, in seconds since 1970.",
    "container_start_time_seconds": "When the container was created, in seconds since 1970.",
    "container_memory_usage_bytes": "Memory in use, with all of the page cache.",
    "container_memory_working_set_bytes": "Memory in use, without page cache that could be dropped.",
    "container_memory_cache": "Page cache, in bytes.",
    "container_memory_rss": "Anonymous memory, in bytes.",
    "container_memory_swap": "Swap in use, in bytes.",
    "container_memory_mapped_file": "Mapped files, in bytes.",
    "container_memory_max_usage_bytes": "The most memory that was ever in use.",
    "container_memory_failcnt": "How often the memory limit was hit.",
    "container_spec_memory_limit_bytes": "The memory limit; 0 without one.",
    "container_threads": "Processes and threads.",
    "container_threads_max": "How many processes and threads there may be; 0 without a limit.",
    "container_hugetlb_usage_bytes": "Huge pages in use, in bytes.",
    "container_hugetlb_max_usage_bytes": "The most huge pages that were ever in use, in bytes.",
    "container_hugetlb_failcnt": "Allocations of huge pages that the limit has refused.",
}


class ContainerCollector(Collector):
    """Collects the resource usage of all containers below the root directory of a client, at each scrape.

    Register the collector, and let Prometheus scrape the registry, as with `start_http_server` of prometheus_client::

        from prometheus_client import CollectorRegistry, generate_latest
        from runc_async.prometheus import ContainerCollector

        registry = CollectorRegistry()
        registry.register(ContainerCollector(Runc()))
        text = generate_latest(registry)  # the reply to a scrape

    Each metric has cAdvisor's labels: `id`, the path of the cgroup; `name`, the container's id; `image`, from an
    annotation such as `org.opencontainers.image.ref.name`, otherwise the path of the bundle. The CPU time also has
    `cpu="total"`.

    No runtime process is started. A scrape reads the cgroup files, with descriptors that stay open: see `StatsReader`.
    A scrape blocks for a fifth of a millisecond for each container, so in an asyncio service scrape in a thread, as
    `start_http_server` does. Any number of threads may scrape at once.

    Args:
        runc: The client.
    """

    def __init__(self, runc: Runc) -> None:
        self._usage = HostUsage(runc.stats_reader().root)
        self._devices: dict[tuple[int, int], str] = {}

    def describe(self) -> list[Metric]:
        """Return all metrics without values: the registry asks for their names."""
        return list(_families().values())

    def collect(self) -> Iterator[Metric]:
        """Read all containers, and yield the metrics.

        Raises:
            OSError: If the root directory can't be read, or no descriptor is left.
        """
        families = _families()
        # One time for all containers: a scrape is one moment for Prometheus.
        now = time.time()
        for record, stats in self._usage.read():
            common = _labels(record)
            for name, labels, value in self._samples(record, stats, now):
                family = families[name]
                # `Metric` has the name without the suffix that the exposition format demands for counters.
                suffix = "_total" if family.type == "counter" else ""
                family.add_sample(name + suffix, common | labels, value)
        # A family without samples would show up as a metric without a value.
        yield from (family for family in families.values() if family.samples)

    def close(self) -> None:
        """Close the descriptors; a later scrape opens them again. Idempotent."""
        self._usage.close()

    def __del__(self) -> None:
        if hasattr(self, "_usage"):
            self.close()

    def _samples(self, record: Record, stats: Stats, now: float) -> Iterator[_Sample]:
        """Yield the known samples of a container: names, additional labels, values."""
        yield "container_last_seen", {}, now
        if record.created is not None:
            yield "container_start_time_seconds", {}, record.created.timestamp()
        yield from _cpu(stats)
        yield from _memory(stats)
        yield "container_threads", {}, stats.pids.current
        yield "container_threads_max", {}, stats.pids.limit
        yield from self._blkio(stats)
        for size, pages in stats.hugetlb.items():
            yield "container_hugetlb_usage_bytes", {"pagesize": size}, pages.usage
            yield "container_hugetlb_failcnt", {"pagesize": size}, pages.failcnt
            # v2 has no peak of huge pages.
            if record.unified is None:
                yield "container_hugetlb_max_usage_bytes", {"pagesize": size}, pages.max
        for resource, psi in (("cpu", stats.cpu.psi), ("memory", stats.memory.psi), ("io", stats.blkio.psi)):
            yield from _pressure(resource, psi)

    def _blkio(self, stats: Stats) -> Iterator[_Sample]:
        """Yield the I/O of each device."""
        for table, suffix in (
            (stats.blkio.io_service_bytes_recursive, "_bytes"),
            (stats.blkio.io_serviced_recursive, ""),
        ):
            for entry in table:
                device = self._device(entry)
                if entry.op in {"Read", "Write"}:
                    yield f"container_fs_{entry.op.lower()}s{suffix}", {"device": device}, entry.value
                if suffix:
                    labels = {"major": str(entry.major), "minor": str(entry.minor), "operation": entry.op}
                    yield "container_blkio_device_usage", labels | {"device": device}, entry.value

    def _device(self, entry: BlkioEntry) -> str:
        """Return the path of a device; empty for a removed device."""
        number = entry.major, entry.minor
        if number not in self._devices:
            name = os.path.basename(os.path.realpath(f"/sys/dev/block/{entry.major}:{entry.minor}"))
            # Without the symbolic link, realpath returns the name itself: MAJOR:MINOR.
            self._devices[number] = "" if ":" in name else f"/dev/{name}"
        return self._devices[number]


_POOL: Final = {
    "ready": ("gauge", "Containers that can be taken now."),
    "taken": ("gauge", "Containers in use."),
    "hits": ("counter", "Takes that got a container that was ready."),
    "misses": ("counter", "Takes that found the pool empty, and waited for a container."),
    "failed": ("counter", "Attempts to make a container that have failed."),
    "died": ("counter", "Containers that have ended while they were ready."),
}


class PoolCollector(Collector):
    """Collects the state and the counters of pools, at each scrape.

    The metrics are `runc_async_pool_ready`, `_taken`, and the counters `runc_async_pool_hits_total`, `_misses_total`,
    `_failed_total` and `_died_total`, as in `PoolStats`, with the label `pool`: a name chosen for each pool, as in
    ``registry.register(PoolCollector({"functions": pool}))``.

    A scrape reads six numbers of each pool, in any thread.

    Args:
        pools: The pools, by name.
    """

    def __init__(self, pools: Mapping[str, Pool]) -> None:
        self._pools = dict(pools)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of all pools."""
        stats = {name: pool.stats() for name, pool in self._pools.items()}
        for field, (kind, text) in _POOL.items():
            metric = Metric(f"runc_async_pool_{field}", text, kind)
            suffix = "_total" if kind == "counter" else ""
            for name, found in stats.items():
                metric.add_sample(metric.name + suffix, {"pool": name}, getattr(found, field))
            yield metric


def _families() -> dict[str, Metric]:
    """Return all metrics, without values."""
    return {
        name: Metric(name, text, kind)
        for kind, names in (("counter", _COUNTERS), ("gauge", _GAUGES))
        for name, text in names.items()
    }


def _labels(record: Record) -> dict[str, str]:
    """Return the labels common to all metrics of a container."""
    directory = record.unified or record.cgroups.get("cpu") or next(iter(record.cgroups.values()), "")
    # cAdvisor's `id` has no mount point, and on v1 no hierarchy, so that it is the same for all controllers.
    hierarchy = r"^/sys/fs/cgroup" if record.unified else r"^/sys/fs/cgroup/[^/]+"
    image = next((record.annotations[name] for name in _IMAGES if name in record.annotations), record.bundle)
    return {"id": re.sub(hierarchy, "", directory), "name": record.id, "image": image}


def _cpu(stats: Stats) -> Iterator[_Sample]:
    """Yield the CPU time, and the effects of a quota if there is one."""
    usage, throttling = stats.cpu.usage, stats.cpu.throttling
    # A cgroup without the controller has zeros, which would look like an idle container.
    if usage.total:
        yield "container_cpu_usage_seconds", {"cpu": "total"}, usage.total / _NANOSECONDS
        yield "container_cpu_user_seconds", {}, usage.user / _NANOSECONDS
        yield "container_cpu_system_seconds", {}, usage.kernel / _NANOSECONDS
    # Without a quota the kernel counts no periods; zeros would read as a quota that is never used up.
    if throttling.periods:
        yield "container_cpu_cfs_periods", {}, throttling.periods
        yield "container_cpu_cfs_throttled_periods", {}, throttling.throttled_periods
        yield "container_cpu_cfs_throttled_seconds", {}, throttling.throttled_time / _NANOSECONDS


def _memory(stats: Stats) -> Iterator[_Sample]:
    """Yield the memory, if measured; on cgroup v1 including child cgroups, as for all other values."""
    memory = stats.memory
    if not memory.usage.known:
        return
    raw = memory.raw
    yield "container_memory_usage_bytes", {}, memory.usage.usage
    working_set = memory_working_set(stats)
    if working_set is not None:
        yield "container_memory_working_set_bytes", {}, working_set
    yield "container_spec_memory_limit_bytes", {}, memory_limit(stats) or 0
    if memory.usage.max:
        yield "container_memory_max_usage_bytes", {}, memory.usage.max
    for metric, v1, v2 in (
        ("container_memory_cache", "total_cache", "file"),
        ("container_memory_rss", "total_rss", "anon"),
        ("container_memory_mapped_file", "total_mapped_file", "file_mapped"),
    ):
        if (value := raw.get(v1, raw.get(v2))) is not None:
            yield metric, {}, value
    # Only v1 has memory.failcnt, and only v1 has the keys that begin with total_.
    if "total_rss" in raw:
        yield "container_memory_failcnt", {}, memory.usage.failcnt
    if memory.swap.known:
        yield "container_memory_swap", {}, raw.get("total_swap", max(0, memory.swap.usage - memory.usage.usage))
    yield from _faults(raw)


def _faults(raw: Mapping[str, int]) -> Iterator[_Sample]:
    """Yield the page faults, without and with child cgroups; v2 counts only the latter."""
    for scope, prefix in (("container", ""), ("hierarchy", "total_")):
        for fault in ("pgfault", "pgmajfault"):
            if (count := raw.get(prefix + fault, raw.get(fault))) is not None:
                yield "container_memory_failures", {"failure_type": fault, "scope": scope}, count


def _pressure(resource: str, psi: PSIStats | None) -> Iterator[_Sample]:
    """Yield the time in which tasks have waited for a resource."""
    if psi is not None:
        yield f"container_pressure_{resource}_waiting_seconds", {}, psi.some.total / _MICROSECONDS
        yield f"container_pressure_{resource}_stalled_seconds", {}, psi.full.total / _MICROSECONDS
