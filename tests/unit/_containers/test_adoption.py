"""Which processes become ours when a container is deleted under `subreaper()`: by what a runtime keeps, and left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from runc_async._containers import adoption
from runc_async._containers.adoption import adopt_processes
from runc_async._linux.subreaper import adopted, reap_adopted, subreaper
from runc_async._runtimes import crun

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

NONE = 1 << 30
"""The number of no process."""


@pytest.fixture
def program(tmp_path: Path) -> str:
    """Return a program that sleeps, and has crun's name."""
    return str(shutil.copy(shutil.which("sleep") or "", str(tmp_path / "crun")))


@pytest.fixture
def detached(program: str) -> Generator[int]:
    """Return an orphan of ours whose session has lost its leader, as crun's detached `run` leaves it."""
    with subreaper():
        script = ["setsid", "sh", "-c", '"$0" 600 >/dev/null & echo $!', program]
        pid = int(subprocess.run(script, stdout=subprocess.PIPE, check=True).stdout)
        yield pid
    adopted.clear()


def record(directory: Path, name: str, content: object) -> None:
    """Write what a runtime keeps about a container."""
    (directory / "web").mkdir()
    (directory / "web" / name).write_text(json.dumps(content))


def end(pid: int) -> None:
    """Kill a child of ours, and wait until it is a zombie."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_what_crun_leaves_of_itself(detached: int, program: str, tmp_path: Path) -> None:
    """A process of crun itself that nobody waits for is reaped; one that we have started is left to its owner."""
    record(tmp_path, "status", {"pid": NONE, "cgroup-path": "/no/such"})
    with (
        subprocess.Popen([program, "600"]) as shared,
        subprocess.Popen([program, "600"], start_new_session=True) as own,
    ):
        adopt_processes(str(tmp_path), "web")
        assert {process.pid for process in adopted} == {detached}
        end(detached)
        reap_adopted()
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_PID, detached, os.WEXITED | os.WNOHANG)
        shared.kill()
        own.kill()


def test_runc_leaves_no_such_process(detached: int, tmp_path: Path) -> None:
    """Beside a container of runc's, a process with crun's name is somebody else's."""
    record(tmp_path, "state.json", {"init_process_pid": NONE})
    adopt_processes(str(tmp_path), "web")
    assert not adopted
    end(detached)
    os.waitpid(detached, 0)


def test_members_of_the_cgroup_that_crun_names(detached: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the path in the hierarchies that crun keeps, whoever is in the cgroup is found, whatever its name."""

    def no(_pid: int, _name: bytes) -> bool:
        return False

    monkeypatch.setattr(adoption, "is_forsaken", no)
    monkeypatch.setattr(crun, "_CGROUPS", str(tmp_path))
    (tmp_path / "pids" / "c").mkdir(parents=True)
    (tmp_path / "pids" / "c" / "cgroup.procs").write_text(f"{detached}\n")
    record(tmp_path, "status", {"pid": NONE, "cgroup-path": "/c"})
    adopt_processes(str(tmp_path), "web")
    assert {process.pid for process in adopted} == {detached}
    end(detached)
    reap_adopted()
    assert not adopted
