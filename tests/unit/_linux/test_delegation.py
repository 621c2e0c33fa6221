"""In which cgroups this user can limit containers, read from the mounts and from the cgroups of this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runc_async._linux.delegation import limits

ALL = ("cpu", "memory", "pids", "cpuset", "io")


def files(place: Path, mounts: str, own: str) -> dict[str, str]:
    """Write the table of mounts and the cgroups of a process, and return the arguments that name them."""
    (place / "mounts").write_text(mounts)
    (place / "own").write_text(own)
    return {"mounts": str(place / "mounts"), "own": str(place / "own"), "systemd": str(place / "systemd")}


def test_a_controller_that_is_missing_is_absent(tmp_path: Path) -> None:
    """Of the controllers that limit containers, each that isn't there is named."""
    named = files(tmp_path, "", "0::/\n")
    assert set(limits((), **named).absent) > {"memory", "pids"}
    assert limits(ALL, **named).absent == ()


@pytest.mark.parametrize("version", [1, 2])
def test_a_directory_that_this_user_cannot_write_is_named(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What counts is the cgroup of this process in the hierarchy of each controller."""
    own = "2:memory:/mine\n3:pids:/mine\n" if version == 1 else "0::/mine\n"
    if version == 1:
        mounts = "".join(f"cgroup {tmp_path}/{name} cgroup rw,{name} 0 0\n" for name in ("memory", "pids"))
        places = [tmp_path / name / "mine" for name in ("memory", "pids")]
    else:
        mounts, places = f"cgroup2 {tmp_path}/v2 cgroup2 rw 0 0\n", [tmp_path / "v2" / "mine"]
    for place in places:
        place.mkdir(parents=True)
        (place.parent / "cgroup.controllers").write_text("memory pids rdma\n")
    named = files(tmp_path, mounts, own)
    assert limits(ALL, **named).unwritable == ()
    asked: list[str] = []

    def access(path: str, mode: int) -> bool:
        asked.append(path)
        assert mode == os.W_OK
        return not path.endswith("memory/mine")

    monkeypatch.setattr(os, "access", access)
    assert limits(ALL, **named).unwritable == (("memory",) if version == 1 else ())
    assert set(asked) == {str(place) for place in places}

    def deny(_path: str, _mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", deny)
    assert limits(ALL, **named).unwritable == ("memory", "pids")


def test_systemd_runs_where_its_directory_is(tmp_path: Path) -> None:
    """As sd_booted(3) says."""
    named = files(tmp_path, "", "0::/\n")
    assert not limits(ALL, **named).systemd
    (tmp_path / "systemd").mkdir()
    assert limits(ALL, **named).systemd
