"""`StatsReader` on directories that look like cgroups."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
import time
from typing import TYPE_CHECKING

import pytest
from cgroup_trees import V1, V2, make

from runc_async import Runc, StatsReader
from runc_async._host import usage
from runc_async.stats import Hugetlb, MemoryEntry, PSIData, PSIStats

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StatsReader:
    """Return a reader of the containers that `make` has made, on a host with one size of huge pages."""
    monkeypatch.setattr(usage, "page_sizes", lambda: ("2MB",))
    return Runc("runc", root=tmp_path / "root").stats_reader()


async def test_v1(tmp_path: Path, reader: StatsReader) -> None:
    """All files of cgroup v1 come into their fields, exactly, and a file that isn't there is 0."""
    make(tmp_path, "web", V1)
    async with reader:
        await reader.read()
        stats = (await reader.read())["web"]
    assert (stats.cpu.usage.total, stats.cpu.usage.user, stats.cpu.usage.kernel) == (2**64 - 1, 70_000_000, 50_000_000)
    assert (stats.cpu.usage.percpu, stats.cpu.usage.percpu_user, stats.cpu.usage.percpu_kernel) == (
        [3, 7],
        [1, 3],
        [2, 4],
    )
    throttling = stats.cpu.throttling
    assert (throttling.periods, throttling.throttled_periods, throttling.throttled_time) == (3, 2, 1)
    assert (stats.cpuset.cpus, stats.cpuset.mems, stats.cpuset.sched_relax_domain_level) == ([0, 1, 2, 7], [], -1)
    assert (stats.memory.cache, stats.memory.raw) == (12, {"cache": 12, "rss": 5})
    assert stats.memory.usage == MemoryEntry(limit=9223372036854771712, usage=17)
    assert stats.memory.kernel_tcp == MemoryEntry(failcnt=4)
    assert not stats.memory.swap.known
    assert (stats.pids.current, stats.pids.limit) == (2, 0)
    serviced = stats.blkio.io_serviced_recursive
    assert [(entry.major, entry.minor, entry.op, entry.value) for entry in serviced] == [
        (8, 0, "Read", 4),
        (8, 16, "", 1),
    ]
    assert [entry.value for entry in stats.blkio.io_service_bytes_recursive] == [4096]
    assert stats.hugetlb == {"2MB": Hugetlb(usage=2097152, max=4194304, failcnt=1)}


async def test_v2(tmp_path: Path, reader: StatsReader) -> None:
    """All files of cgroup v2 come into the same fields; swap counts memory too, as runc has it."""
    make(tmp_path, "web", V2, unified=True)
    async with reader:
        stats = (await reader.read())["web"]
    assert (stats.cpu.usage.total, stats.cpu.usage.user, stats.cpu.usage.kernel) == (12_000, 7_000, 5_000)
    assert stats.cpu.throttling.throttled_time == 1000
    assert stats.cpu.psi == PSIStats(some=PSIData(avg10=1.5, avg60=0.25, total=9), full=PSIData(total=1))
    assert stats.memory.usage == MemoryEntry(limit=2**64 - 1, usage=17, max=20)
    assert stats.memory.swap == MemoryEntry(limit=2**64 - 1, usage=20)
    assert (stats.memory.cache, stats.memory.psi) == (12, None)
    assert (stats.pids.current, stats.pids.limit) == (2, 9)
    assert [(entry.op, entry.value) for entry in stats.blkio.io_service_bytes_recursive] == [
        ("Read", 4096),
        ("Write", 1),
    ]
    assert [entry.value for entry in stats.blkio.io_serviced_recursive] == [4, 1]
    assert stats.hugetlb == {"2MB": Hugetlb(usage=2097152, failcnt=3)}


async def test_v2_without_controllers(tmp_path: Path, reader: StatsReader) -> None:
    """Without the controllers memory isn't known, and processes are counted."""
    make(tmp_path, "web", {"cpu.stat": "usage_usec 1\n", "cgroup.procs": "12\n13\n"}, unified=True)
    async with reader:
        stats = (await reader.read())["web"]
    assert (stats.memory.usage.known, stats.memory.swap.known, stats.pids.current) == (False, False, 2)


async def test_what_has_no_cgroup_is_left_out(tmp_path: Path, reader: StatsReader) -> None:
    """A container without cgroup, a directory without a record, a broken record and a stray file are left out."""
    make(tmp_path, "none", {})
    make(tmp_path, "broken", V1)
    make(tmp_path, "web", V1)
    (tmp_path / "root" / "broken" / "state.json").write_text('{"id": ')
    (tmp_path / "root" / "empty").mkdir()
    (tmp_path / "root" / "file").touch()
    async with reader:
        assert (await reader.read()).keys() == {"web"}


async def test_no_root_directory_is_no_container(reader: StatsReader) -> None:
    """The runtime makes its root directory with the first container: before, there is none."""
    async with reader:
        assert await reader.read() == {}


async def test_one_id_is_no_collection(reader: StatsReader) -> None:
    """A string of ids is refused: its letters would be taken for ids."""
    with pytest.raises(TypeError, match="ids must be a collection"):
        await reader.read("web")


@pytest.mark.parametrize("readings", [1, 2])
async def test_a_removed_file_means_a_removed_cgroup(tmp_path: Path, reader: StatsReader, readings: int) -> None:
    """Figures that were there never turn into zeros: a container whose cgroup is being removed is left out."""
    make(tmp_path, "web", V1)
    reader._usage._descriptors.limit = 0  # pyright: ignore[reportPrivateUsage] - the limit of the process is all tests'
    async with reader:
        for _ in range(readings):
            assert (await reader.read()).keys() == {"web"}
        cgroup = tmp_path / "cgroups" / "web" / "memory"
        for path in cgroup.iterdir():
            path.unlink()
        cgroup.rmdir()
        assert await reader.read() == {}


@pytest.mark.parametrize("limit", [0, 60, 10_000])
async def test_descriptors_are_bounded(tmp_path: Path, reader: StatsReader, limit: int) -> None:
    """No more descriptors are kept than allowed, the figures are the same with few, and closing closes them all."""
    for name in "abcde":
        make(tmp_path, name, V1)
    before = len(os.listdir("/proc/self/fd"))
    reader._usage._descriptors.limit = limit  # pyright: ignore[reportPrivateUsage] - the limit of the process is all tests'
    async with reader:
        first = await reader.read()
        second = await reader.read()
        kept = len(os.listdir("/proc/self/fd")) - before
    assert first == second
    assert len(first) == 5
    assert kept <= limit
    assert (kept > 0) == (limit > 0)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_descriptors_are_given_back_when_the_process_has_none(tmp_path: Path, reader: StatsReader) -> None:
    """A reader that finds no descriptor closes half of its own and goes on."""
    for name in "abcde":
        make(tmp_path, name, V1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with reader:
        assert len(await reader.read(["a", "b", "c"])) == 3
        highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            assert len(await reader.read()) == 5
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_threads_and_tasks_read_at_once(tmp_path: Path, reader: StatsReader) -> None:
    """Any number of threads and tasks may read one reader at the same time."""
    for name in "abcdefgh":
        make(tmp_path, name, V1)
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(len(reader.read_now()))) for _ in range(8)]
    async with reader:
        for thread in threads:
            thread.start()
        tasks = await asyncio.gather(*(reader.read() for _ in range(8)))
        for thread in threads:
            await asyncio.to_thread(thread.join)
    assert results == [8] * 8
    assert [len(each) for each in tasks] == [8] * 8


async def test_the_event_loop_gets_its_turn(tmp_path: Path, reader: StatsReader) -> None:
    """A reading of many containers lets other tasks run in between, and can be cancelled."""
    for number in range(60):
        make(tmp_path, f"c{number}", V1)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with reader:
        task = asyncio.create_task(other())
        await reader.read()
        assert turns > 2
        reading = asyncio.create_task(reader.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        task.cancel()
        assert len(await reader.read()) == 60


async def test_an_absent_file_is_tried_again(
    tmp_path: Path, reader: StatsReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller that is enabled later is read within a minute."""
    make(tmp_path, "web", {"cpu.stat": "usage_usec 1\n", "cgroup.procs": "1\n"}, unified=True)
    async with reader:
        assert (await reader.read())["web"].pids.limit == 0
        (tmp_path / "cgroups" / "web" / "pids.current").write_text("1\n")
        (tmp_path / "cgroups" / "web" / "pids.max").write_text("5\n")
        assert (await reader.read())["web"].pids.limit == 0
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        assert (await reader.read())["web"].pids.limit == 5


def test_an_unclosed_reader_warns(tmp_path: Path, reader: StatsReader) -> None:
    """A reader that is dropped with open descriptors closes them, and warns."""
    del tmp_path
    other = StatsReader("/nowhere")
    other.read_now()
    with pytest.warns(ResourceWarning, match="unclosed <StatsReader '/nowhere'>"):
        del other
    reader.close()


def test_page_sizes(tmp_path: Path) -> None:
    """The sizes of huge pages are named as cgroup files name them."""
    for name in ("hugepages-2048kB", "hugepages-1048576kB", "hugepages-64kB", "other"):
        (tmp_path / name).mkdir()
    assert usage.page_sizes(str(tmp_path)) == ("1GB", "2MB", "64kB") == usage.page_sizes(str(tmp_path))
    assert usage.page_sizes(str(tmp_path / "missing")) == ()
