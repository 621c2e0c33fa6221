"""Where memory cgroups are found and what is read there, in trees as cgroup v1, hybrid and v2 have them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runc_async._linux import cgroup
from runc_async._linux.cgroup import memory_cgroup, read_oom_kills

V1 = "35 31 0:32 / {top}/memory rw,relatime - cgroup cgroup rw,memory"
CPU = "32 31 0:29 / {top}/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct"
UNIFIED = "41 31 0:38 / {top}/unified rw,relatime shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate"
V2 = "30 23 0:26 / {top} rw,nosuid - cgroup2 cgroup2 rw"
OTHER = "31 23 0:28 / {top} rw - tmpfs memory rw,mode=755"


class Proc:
    """A procfs with two processes: ourselves and a container's, 5."""

    def __init__(self, directory: Path, mounts: list[str], ours: str, theirs: str) -> None:
        """Write the files."""
        self.path = directory
        for name, content in (("self", ours), ("5", theirs)):
            (directory / name).mkdir()
            (directory / name / "cgroup").write_text(content)
        (directory / "self" / "mountinfo").write_text("\n".join(mounts).replace("{top}", "/top") + "\n")

    def found(self) -> Path | None:
        """Return what is found for the container's process."""
        return memory_cgroup(5, self.path)


def test_v1_has_a_memory_hierarchy(tmp_path: Path) -> None:
    """On cgroup v1 the memory hierarchy counts, whatever the others say."""
    proc = Proc(tmp_path, [OTHER, CPU, V1], "4:memory:/\n2:cpu,cpuacct:/\n", "4:memory:/c\n2:cpu,cpuacct:/d\n")
    assert proc.found() == Path("/top/memory/c")


def test_hybrid_counts_memory_in_v1(tmp_path: Path) -> None:
    """With a v2 hierarchy beside it, which is without the controller, v1 still counts."""
    proc = Proc(tmp_path, [V1, UNIFIED], "4:memory:/\n0::/\n", "4:hugetlb,memory:/a/c\n0::/z\n")
    assert proc.found() == Path("/top/memory/a/c")


def test_v2_has_one_hierarchy(tmp_path: Path) -> None:
    """On cgroup v2 there is one directory for everything."""
    proc = Proc(tmp_path, [OTHER, V2], "0::/\n", "1:name=systemd:/x\n0::/a:b/c\n")
    assert proc.found() == Path("/top/a:b/c")


def test_a_mount_may_show_a_part_of_the_hierarchy(tmp_path: Path) -> None:
    """Inside a container the mount begins below the root, and may have blanks in its name."""
    part = r"30 23 0:26 /docker/me /top/with\040blank rw - cgroup2 cgroup2 rw"
    proc = Proc(tmp_path, [part], "0::/docker/me\n", "0::/docker/me/c\n")
    assert proc.found() == Path("/top/with blank/c")


def test_the_usual_mount_counts(tmp_path: Path) -> None:
    """Of several mounts of a hierarchy it is that below /sys/fs/cgroup, whatever criu has mounted before."""
    usual = V2.replace("{top}", "/sys/fs/cgroup")
    proc = Proc(tmp_path, [V2, usual, V2.replace("{top}", "/other")], "0::/\n", "0::/c\n")
    assert proc.found() == Path("/sys/fs/cgroup/c")


@pytest.mark.parametrize("path", ["/docker/other", "/../c"])
def test_a_cgroup_outside_of_what_is_mounted_is_not_found(tmp_path: Path, path: str) -> None:
    """A cgroup that can't be seen from here has no directory."""
    part = "30 23 0:26 /docker/me /top rw - cgroup2 cgroup2 rw"
    assert Proc(tmp_path, [part], "0::/docker/me\n", f"0::{path}\n").found() is None


def test_a_hierarchy_that_is_not_mounted_has_no_directory(tmp_path: Path) -> None:
    """Without a mount nothing is found."""
    assert Proc(tmp_path, [CPU, OTHER], "4:memory:/\n", "4:memory:/c\n").found() is None


def test_our_own_cgroup_is_not_the_containers(tmp_path: Path) -> None:
    """A process in the very cgroup that we are in has none of its own: other processes are counted there too."""
    assert Proc(tmp_path, [V2], "0::/user\n", "0::/user\n").found() is None


@pytest.mark.parametrize("content", ["", "2:cpu:/\n"])
def test_a_process_without_memory_accounting_has_none(tmp_path: Path, content: str) -> None:
    """A kernel without the controller, or without cgroups, has no directory."""
    assert Proc(tmp_path, [V2], "0::/\n", content).found() is None


def test_a_process_that_is_gone_has_none(tmp_path: Path) -> None:
    """A process that doesn't exist is in no cgroup."""
    assert Proc(tmp_path, [V2], "0::/\n", "0::/c\n").found() is not None
    assert memory_cgroup(6, tmp_path) is None


def test_this_process_is_in_its_own_cgroup() -> None:
    """On the real procfs we are in the cgroup that we are in."""
    assert memory_cgroup(os.getpid()) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("memory.events", "low 0\nhigh 0\nmax 7\noom 5\noom_kill 3\noom_group_kill 9\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 3\n"),
    ],
    ids=["v2", "v1"],
)
def test_kills_are_counted_and_not_failures(tmp_path: Path, name: str, content: str) -> None:
    """The counter is that of kills, in either version."""
    (tmp_path / name).write_text(content)
    assert read_oom_kills(tmp_path) == 3


def test_an_old_kernel_does_not_count(tmp_path: Path) -> None:
    """A file without the counter, as before Linux 4.13, gives no number."""
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    assert read_oom_kills(tmp_path) is None


def test_a_cgroup_that_is_gone_has_no_count(tmp_path: Path) -> None:
    """A directory that was deleted gives no number."""
    assert read_oom_kills(tmp_path / "deleted") is None


@pytest.mark.skipif(not Path("/sys/fs/cgroup/memory/memory.oom_control").exists(), reason="needs cgroup v1")
def test_a_real_cgroup_is_read() -> None:
    """The kernel's own file is understood."""
    count = read_oom_kills(Path("/sys/fs/cgroup/memory"))
    assert count is not None
    assert count >= 0


def test_a_mount_that_has_moved_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mounts are remembered, and listed again when the cgroup isn't where they say."""
    proc = Proc(tmp_path, [V2.format(top=tmp_path / "old")], "0::/\n", "0::/c\n")
    monkeypatch.setattr(cgroup, "_PROC", tmp_path)
    monkeypatch.setattr(cgroup, "_known_mounts", {})
    (tmp_path / "old" / "c").mkdir(parents=True)
    assert proc.found() == tmp_path / "old" / "c"
    (tmp_path / "old").rename(tmp_path / "new")
    mounts = V2.format(top=tmp_path / "new")
    (tmp_path / "self" / "mountinfo").write_text(f"{mounts}\n")
    assert proc.found() == tmp_path / "new" / "c"
    (tmp_path / "self" / "mountinfo").unlink()
    assert proc.found() == tmp_path / "new" / "c"  # as it was remembered
