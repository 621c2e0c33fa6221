"""Which cgroups of a half-made container are removed, in trees as cgroup v1, hybrid and v2 have them."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest

from runc_async._containers import leftovers
from runc_async._containers.leftovers import mounted_in, remove_cgroups, remove_files
from runc_async._containers.state_mounts import forget_copy, spare_root

LAYOUTS = {
    "v1": ("4:memory:/ours\n2:cpu,cpuacct:/\n1:name=systemd:/\n", ["memory/ours", "cpu", "cpu,cpuacct", "systemd"]),
    "hybrid": ("1:cpuset:/\n0::/ours\n", ["cpuset", "unified"]),
    "v2": ("0::/our.slice/ours\n", ["our.slice"]),
    "v2, in its root": ("0::/\n", ["."]),
}


@pytest.mark.parametrize(("own", "parents"), LAYOUTS.values(), ids=LAYOUTS)
async def test_removed(tmp_path: Path, own: str, parents: list[str]) -> None:
    """The cgroups that runc makes by default go; others of that name, or with another, stay."""
    (tmp_path / "own").write_text(own)
    top = tmp_path / "top"
    for place in parents:
        (top / place / "box").mkdir(parents=True)
        (top / place / "other").mkdir()
    (top / "other.slice" / "box").mkdir(parents=True)
    assert await remove_cgroups("box", top, tmp_path / "own") == []
    assert [path.relative_to(top) for path in top.rglob("box")] == [Path("other.slice/box")]
    assert len(list(top.rglob("other"))) == len(parents)


async def test_not_ours(tmp_path: Path) -> None:
    """A cgroup that has cgroups of its own is passed over, and so is a process that can't tell its cgroups."""
    (tmp_path / "own").write_text("1:pids:/\n")
    (tmp_path / "pids" / "box" / "inner").mkdir(parents=True)
    assert await remove_cgroups("box", tmp_path, tmp_path / "own") == []
    assert (tmp_path / "pids" / "box" / "inner").exists()
    assert await remove_cgroups("box", tmp_path, tmp_path / "nothing") == []


async def test_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is a process in one, it is tried again for a bounded time; then it is returned."""
    (tmp_path / "own").write_text("1:pids:/\n")
    cgroup = tmp_path / "pids" / "box"
    cgroup.mkdir(parents=True)
    tries = 0
    rmdir = Path.rmdir

    def busy(path: Path) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError(errno.EBUSY, "busy")
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", busy)
    assert await remove_cgroups("box", tmp_path, tmp_path / "own") == []
    assert not cgroup.exists()

    cgroup.mkdir()
    tries = -(10**9)
    monkeypatch.setattr(leftovers, "PATIENCE", 0.03)
    async with asyncio.timeout(5):
        assert await remove_cgroups("box", tmp_path, tmp_path / "own") == [cgroup]


def test_what_criu_has_left_mounted(tmp_path: Path) -> None:
    """Of all mounts only those count in which criu has its hierarchies, and of each only the outermost."""
    work = tmp_path / "the images"
    escaped = str(work).replace(" ", "\\040")
    table = tmp_path / "mountinfo"
    table.write_text(
        f"80 22 0:51 / {escaped}/.criu.cgyard.b1 rw - tmpfs none rw\n"
        f"81 80 0:29 / {escaped}/.criu.cgyard.b1/pids rw - cgroup none rw,pids\n"
        f"82 22 0:52 / {escaped}/.criu.cgyard.a1 rw - tmpfs none rw\n"
        f"83 22 0:53 / {escaped}/other rw - tmpfs none rw\n"
        f"84 22 0:54 / {tmp_path}/.criu.cgyard.c1 rw - tmpfs none rw\n"
    )
    assert mounted_in(str(work), table) == [f"{work}/.criu.cgyard.a1", f"{work}/.criu.cgyard.b1"]
    assert mounted_in(str(tmp_path / "elsewhere"), table) == []


def test_a_root_filesystem_that_is_still_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is mounted on top of each other goes; what can't be taken away is an error."""
    place, mounts = tmp_path / "criu-root", 2
    spare_root(str(place))
    place.mkdir()

    def detach(target: str) -> None:
        nonlocal mounts
        assert target == str(place)
        if not mounts:
            raise OSError(errno.EINVAL, "not mounted")
        mounts -= 1

    def refused(target: str) -> None:
        raise OSError(errno.EPERM, "no", target)

    monkeypatch.setattr("runc_async._containers.state_mounts.detach", detach)
    spare_root(str(place))
    assert mounts == 0
    monkeypatch.setattr("runc_async._containers.state_mounts.detach", refused)
    with pytest.raises(PermissionError):
        spare_root(str(place))
    forget_copy(str(place))


async def test_at_the_root_of_each_hierarchy(tmp_path: Path) -> None:
    """A runtime that doesn't look at its own cgroup has the container's at the root."""
    (tmp_path / "own").write_text("4:memory:/ours\n2:cpu:/\n")
    for place in ("memory/box", "memory/ours/box", "cpu/box"):
        (tmp_path / place).mkdir(parents=True)
    assert await remove_cgroups("box", tmp_path, tmp_path / "own", at_root=True) == []
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("box")] == ["memory/ours/box"]


def test_files_without_a_record(tmp_path: Path) -> None:
    """Those of the container go, by their patterns; others stay, and one that isn't there is no error."""
    for name in ("box.lock", "other.lock", "box.sock"):
        (tmp_path / name).touch()
    remove_files(str(tmp_path), "box", ["{id}.lock", "{id}.none"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box.sock", "other.lock"]
