"""`ContainerCollector` on directories that look like cgroups."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from cgroup_trees import V1, V2, make
from prometheus_client import CollectorRegistry, generate_latest

from runc_async import Pool, Runc, prometheus
from runc_async._host import usage
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEMORY = (
    "cache 12\ntotal_cache 13\nrss 5\ntotal_rss 6\ntotal_swap 2\npgfault 3\ntotal_pgfault 4\ntotal_inactive_file 7\n"
)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CollectorRegistry]:
    """Return a registry with a collector of the containers that `make` has made."""
    monkeypatch.setattr(usage, "page_sizes", lambda: ("2MB",))
    collector = prometheus.ContainerCollector(Runc("runc", root=tmp_path / "root"))
    registry = CollectorRegistry()
    registry.register(collector)
    yield registry
    collector.close()


def test_cgroup_v1(tmp_path: Path, registry: CollectorRegistry) -> None:
    """All that is known of a container has cAdvisor's name and labels."""
    make(tmp_path, "web", V1 | {"memory/memory.stat": MEMORY, "memory/memory.memsw.limit_in_bytes": "100\n"})
    common = {"id": f"{tmp_path}/cgroups/web/cpu", "name": "web", "image": "/bundle"}

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, common | labels)

    assert value("container_cpu_usage_seconds_total", cpu="total") == pytest.approx((2**64 - 1) / 1e9)
    assert value("container_cpu_user_seconds_total") == 0.07
    assert value("container_cpu_system_seconds_total") == 0.05
    assert value("container_cpu_cfs_throttled_periods_total") == 2
    assert value("container_memory_usage_bytes") == 17
    assert value("container_memory_working_set_bytes") == 10
    assert value("container_memory_rss") == 6
    assert value("container_memory_cache") == 13
    assert value("container_memory_swap") == 2
    assert value("container_memory_failcnt") == 0
    assert value("container_spec_memory_limit_bytes") == 0
    assert value("container_memory_failures_total", failure_type="pgfault", scope="container") == 3
    assert value("container_memory_failures_total", failure_type="pgfault", scope="hierarchy") == 4
    assert value("container_threads") == 2
    assert value("container_threads_max") == 0
    assert value("container_hugetlb_usage_bytes", pagesize="2MB") == 2097152
    assert value("container_start_time_seconds") == pytest.approx(1795888410.633449)
    device = os.path.basename(os.path.realpath("/sys/dev/block/8:0"))
    device = "" if ":" in device else f"/dev/{device}"
    assert value("container_fs_reads_bytes_total", device=device) == 4096
    assert value("container_fs_reads_total", device=device) == 4
    assert value("container_blkio_device_usage_total", device=device, major="8", minor="0", operation="Read") == 4096
    assert value("container_memory_max_usage_bytes") is None
    assert value("container_pressure_cpu_waiting_seconds_total") is None


def test_cgroup_v2(tmp_path: Path, registry: CollectorRegistry) -> None:
    """The same with cgroup v2, where there is pressure too; what isn't measured is left out."""
    make(tmp_path, "web", V2, unified=True)
    # The children of one cgroup have the same controllers.
    make(tmp_path, "bare", {"cpu.stat": "usage_usec 1\n", "cgroup.procs": "1\n"}, unified=True, parent="other")

    def value(name: str, container: str = "web", **labels: str) -> float | None:
        common = {"id": f"{tmp_path}/cgroups/{container}", "name": os.path.basename(container), "image": "/bundle"}
        return registry.get_sample_value(name, common | labels)

    assert value("container_cpu_usage_seconds_total", cpu="total") == 12e-6
    assert value("container_memory_rss") == 5
    assert value("container_memory_cache") == 12
    assert value("container_memory_swap") == 3
    assert value("container_memory_max_usage_bytes") == 20
    assert value("container_pressure_cpu_waiting_seconds_total") == 9e-6
    assert value("container_memory_failcnt") is None
    assert value("container_hugetlb_max_usage_bytes", pagesize="2MB") is None
    assert value("container_memory_usage_bytes", "other/bare") is None
    assert value("container_threads", "other/bare") == 1


def test_many_scrape_at_once(tmp_path: Path, registry: CollectorRegistry) -> None:
    """Scrapes of many threads at once all get all containers, in a format that can be parsed."""
    for name in "abcdef":
        make(tmp_path, name, V1)
    found: list[set[str]] = []

    def scrape() -> None:
        text = generate_latest(registry).decode()
        found.append(set(re.findall(r'^container_threads\{.*name="(\w)"', text, re.MULTILINE)))

    threads = [threading.Thread(target=scrape) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [set("abcdef")] * 16


def test_an_annotation_names_the_image(tmp_path: Path, registry: CollectorRegistry) -> None:
    """The label `image` is the annotation's, where there is one."""
    make(tmp_path, "web", V1)
    record = tmp_path / "root" / "web" / "state.json"
    record.write_text(
        record.read_text().replace('"bundle=/bundle"', '"bundle=/b", "org.opencontainers.image.ref.name=app:1"')
    )
    assert 'image="app:1"' in generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("module", "library", "extra"),
    [
        ("runc_async.prometheus", "prometheus_client", "prometheus"),
        ("runc_async.opentelemetry", "opentelemetry", "opentelemetry"),
    ],
)
def test_without_the_extra(module: str, library: str, extra: str) -> None:
    """Without the library the import fails, and says which extra is missing; nothing else imports the module."""
    program = f"""
import pkgutil, sys, importlib
sys.modules[{library!r}] = None
import runc_async
for found in pkgutil.walk_packages(runc_async.__path__, "runc_async."):
    if found.name not in {{"runc_async.prometheus", "runc_async.opentelemetry", "runc_async.__main__"}}:
        importlib.import_module(found.name)
assert {module!r} not in sys.modules
try:
    importlib.import_module({module!r})
except ImportError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert f"install runc-async with the extra '{extra}'" in said


async def test_pools(tmp_path: Path) -> None:
    """What pools hold and have done is told by name, in the types of Prometheus."""
    registry = CollectorRegistry()
    client = Runc(runner=FakeRunner(), root=tmp_path)
    async with Pool(client, "/nonesuch", size=2) as one, Pool(client, "/nonesuch", size=1) as other:
        registry.register(prometheus.PoolCollector({"one": one, "other": other}))
        await one.filled()
        await other.filled()
        async with one.take():
            text = generate_latest(registry).decode()
    lines = text.splitlines()
    assert 'runc_async_pool_ready{pool="one"} 1.0' in lines
    assert 'runc_async_pool_taken{pool="one"} 1.0' in lines
    assert 'runc_async_pool_hits_total{pool="one"} 1.0' in lines
    assert 'runc_async_pool_misses_total{pool="other"} 0.0' in lines
    assert {line.split()[3] for line in lines if line.startswith("# TYPE runc_async_pool_died")} == {"counter"}
