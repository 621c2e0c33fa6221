"""What a container has used, from recorded files of cgroup v1 and v2."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from cgroup_trees import V1, V2, make

from runc_async._host.meter import Meter
from runc_async._host.metering import Metering, read_usage
from runc_async.errors import ContainerNotFound
from runc_async.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIRST = V1 | {
    "cpuacct/cpuacct.usage": "120000000\n",
    "memory/memory.max_usage_in_bytes": "2500000\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    "pids/pids.peak": "6\n",
    "blkio/blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 512\n8:16 Read 1\nTotal 4609\n",
}
UNIFIED = V2 | {"memory.events": "low 0\nhigh 0\nmax 0\noom 3\noom_kill 2\noom_group_kill 0\n", "pids.peak": "6\n"}


def meter(directory: Path, files: Mapping[str, str], *, unified: bool = False, running: bool = True) -> Meter:
    """Write files of a cgroup, and return their meter."""
    for path, content in files.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_text(content)
    controllers = {path.split("/")[0] for path in files}
    directories = {"": str(directory)} if unified else {each: str(directory / each) for each in controllers}
    return Meter(directories, lambda: running)


def test_version_1(tmp_path: Path) -> None:
    """All values of cgroup v1, with the runtime's own part in them; times of a mode are in hundredths of a second."""
    assert meter(tmp_path, FIRST).read() == Usage(
        cpu_seconds=0.12,
        user_seconds=0.07,
        system_seconds=0.05,
        peak_memory=2_500_000,
        peak_pids=6,
        oom_kills=1,
        read_bytes=4097,
        written_bytes=512,
    )


def test_version_2(tmp_path: Path) -> None:
    """All values of cgroup v2."""
    assert meter(tmp_path, UNIFIED, unified=True).read() == Usage(
        cpu_seconds=12e-6,
        user_seconds=7e-6,
        system_seconds=5e-6,
        peak_memory=20,
        peak_pids=6,
        oom_kills=2,
        read_bytes=4096,
        written_bytes=1,
    )


def test_both_versions(tmp_path: Path) -> None:
    """On a hybrid host the times are those of v2, which are more precise, and all else is of v1."""
    first = meter(tmp_path / "one", FIRST)
    second = meter(tmp_path / "two", {"cpu.stat": V2["cpu.stat"]}, unified=True)
    both = Meter({**vars(first)["_cgroups"], **vars(second)["_cgroups"]}, lambda: True).read()
    assert (both.cpu_seconds, both.user_seconds, both.peak_memory, both.oom_kills) == (12e-6, 7e-6, 2_500_000, 1)


@pytest.mark.parametrize("unified", [False, True])
def test_nothing_is_known(tmp_path: Path, unified: bool) -> None:  # noqa: FBT001 - of the table
    """What isn't there is None, and never 0."""
    assert meter(tmp_path, {}, unified=unified).read() == Usage()
    assert Meter({"memory": "/nonesuch", "": "/nonesuch"}, lambda: True).read() == Usage()


def test_what_the_runtime_has_used_is_taken_off(tmp_path: Path) -> None:
    """What was counted when the meter began isn't the program's; the peak of memory is reset."""
    made = meter(tmp_path, FIRST)
    made.begin()
    assert (tmp_path / "memory/memory.max_usage_in_bytes").read_text().startswith("0")
    later = {
        "cpuacct/cpuacct.usage": "170000000\n",
        "memory/memory.oom_control": "oom_kill 2\n",
        "memory/memory.max_usage_in_bytes": "9000000\n",
    }
    for name, content in later.items():
        (tmp_path / name).write_text(content)
    usage = made.read()
    assert (usage.cpu_seconds, usage.user_seconds, usage.oom_kills) == (0.05, 0.0, 1)
    assert (usage.peak_memory, usage.read_bytes, usage.includes_runtime) == (9_000_000, 0, False)


def test_the_peak_of_version_2_is_reset_for_one_descriptor(tmp_path: Path) -> None:
    """The descriptor that has reset the peak is the one that is read, and is closed with the meter."""
    made = meter(tmp_path, UNIFIED, unified=True)
    made.begin()
    assert (tmp_path / "memory.peak").read_text().startswith("reset")
    (tmp_path / "memory.peak").write_text("77\n")
    (tmp_path / "memory.peak").rename(tmp_path / "elsewhere")
    assert made.read().peak_memory == 77
    made.close()
    made.close()
    assert made.read().peak_memory == 77, "the last value"


def test_a_kernel_that_cannot_reset_the_peak(tmp_path: Path) -> None:
    """Then the peak is that of all the time."""
    made = meter(tmp_path, {name: text for name, text in UNIFIED.items() if name != "memory.peak"}, unified=True)
    made.begin()
    assert made.read().peak_memory is None
    (tmp_path / "memory.peak").write_text("20\n")
    assert made.read().peak_memory == 20


def test_a_cgroup_that_is_gone_leaves_the_last_values(tmp_path: Path) -> None:
    """Each value that was there stays when its file is gone."""
    made = meter(tmp_path, FIRST)
    before = made.read()
    (tmp_path / "memory/memory.max_usage_in_bytes").unlink()
    (tmp_path / "cpuacct/cpuacct.usage").write_text("130000000\n")
    assert made.read().peak_memory == before.peak_memory
    assert made.read().cpu_seconds == 0.13


def test_the_time_by_the_clock(tmp_path: Path) -> None:
    """It is the time until now of a program that runs, the time to an end that was seen, and else unknown."""
    running, ended = meter(tmp_path, {}), meter(tmp_path, {}, running=False)
    assert running.read().wall_seconds is None, "the start isn't known"
    running.started = ended.started = time.monotonic() - 5
    assert 5 <= (running.read().wall_seconds or 0) < 60
    assert ended.read().wall_seconds is None, "the end wasn't seen"
    ended.ended = ended.started + 2
    assert ended.read().wall_seconds == 2


def test_by_the_record(tmp_path: Path) -> None:
    """The cgroup is found by the runtime's record, also when the container has ended."""
    make(tmp_path, "web", FIRST)
    metering = Metering(str(tmp_path / "root"), "web", None, strict=True)
    assert metering.read().peak_memory == 2_500_000
    metering.keep()
    (tmp_path / "root/web/state.json").unlink()
    assert metering.read().peak_memory == 2_500_000, "the last values"
    with pytest.raises(ContainerNotFound, match="nonesuch"):
        Metering(str(tmp_path / "root"), "nonesuch", None, strict=True).read()
    assert Metering("/nonesuch", "web", None, strict=False).read() == Usage()


def test_another_container_of_the_same_id(tmp_path: Path) -> None:
    """A later container of the id has its own values, and none of the one before."""
    make(tmp_path, "web", FIRST)
    metering = Metering(str(tmp_path / "root"), "web", None, strict=True)
    assert metering.read().oom_kills == 1
    record = tmp_path / "root/web/state.json"
    record.write_text(record.read_text().replace("17:53:30", "18:53:30"))
    (tmp_path / "cgroups/web/memory/memory.oom_control").unlink()
    assert metering.read().oom_kills is None


def test_after_a_run(tmp_path: Path) -> None:
    """A run that has ended has a time, and what its cgroup has; without a record only the time."""
    make(tmp_path, "web", UNIFIED, unified=True)
    usage = read_usage(str(tmp_path / "root"), "web", started=1.0, ended=3.5)
    assert (usage.wall_seconds, usage.peak_memory, usage.includes_runtime) == (2.5, 20, True)
    assert read_usage(str(tmp_path / "root"), "nonesuch", started=1.0, ended=3.5) == Usage(wall_seconds=2.5)
