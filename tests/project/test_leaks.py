"""Each planted leak is seen, and its absence too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import leaks
import pytest

TESTS = Path(__file__).parents[1]
pytest_plugins = ["pytester"]


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> subprocess.Popen[bytes]:
    """Start a child that waits for the end of its input and carries a mark in its environment."""
    monkeypatch.setenv("RUNC_ASYNC_PLANTED", "planted-mark")
    return subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # noqa: S607 - any cat will do


def finish(child: subprocess.Popen[bytes]) -> None:
    """End the planted child and reap it."""
    child.communicate()


def test_a_running_child_is_reported(sleeper: subprocess.Popen[bytes]) -> None:
    """A child that still runs is reported with its pid, name and state; after its end it isn't."""
    assert [child for child in leaks.children() if child.startswith(f"{sleeper.pid} ")]
    finish(sleeper)
    assert not [child for child in leaks.children() if child.startswith(f"{sleeper.pid} ")]


def test_a_zombie_is_reported() -> None:
    """A child that has ended and was not waited for is reported as a zombie."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert [child for child in leaks.children() if child.startswith(f"{pid} ") and child.endswith(" Z")]
    os.waitpid(pid, 0)


def test_a_descriptor_is_reported() -> None:
    """An open descriptor is reported with its target; a closed one isn't."""
    before = leaks.footprint()
    descriptor = os.memfd_create("planted")
    assert leaks.left_since(before, patience=0) == [f"descriptor {descriptor} /memfd:planted (deleted)"]
    os.close(descriptor)
    assert leaks.left_since(before) == []


def test_a_child_and_its_pipe_are_left_since(sleeper: subprocess.Popen[bytes]) -> None:
    """A footprint taken before a child ended is no complaint; one taken after it names the next child."""
    with_child = leaks.footprint()
    finish(sleeper)
    assert leaks.left_since(with_child) == []
    without_child = leaks.footprint()
    second = subprocess.Popen(["cat"], stdin=subprocess.PIPE)  # noqa: S607 - any cat will do
    left = leaks.left_since(without_child, patience=0)
    finish(second)
    assert [line.split()[0] for line in left] == ["child", "descriptor"]


def test_a_process_is_found_by_its_environment(sleeper: subprocess.Popen[bytes]) -> None:
    """A process anywhere on the host is found by a mark in the environment that it was started with."""
    found = leaks.left_on_host("planted-mark", patience=0)
    finish(sleeper)
    assert found == [f"process {sleeper.pid} cat"]
    assert leaks.left_on_host("planted-mark") == []


def test_a_mount_is_reported(tmp_path: Path) -> None:
    """A mount whose line holds the prefix is reported by its mount point."""
    table = tmp_path / "mountinfo"
    table.write_text("22 1 0:20 / /proc rw - proc proc rw\n23 1 0:21 / /tmp/rat-1-aa-x/rootfs rw - tmpfs tmpfs rw\n")
    assert list(leaks.mounts("rat-1-aa-", table)) == ["/tmp/rat-1-aa-x/rootfs"]
    assert list(leaks.mounts("rat-2-bb-", table)) == []


def test_cgroups_are_reported(tmp_path: Path) -> None:
    """A cgroup with the prefix is reported where runtimes make them, once, and not where criu copies them to."""
    own = tmp_path / "own"
    own.write_text("4:memory:/service\n0::/\n")
    top = tmp_path / "cgroup"
    ours = [
        "memory/rat-1-aa-root",
        "memory/service/rat-1-aa-below",
        "memory/system.slice/runc-rat-1-aa-sd.scope",
        "rat-1-aa-unified",
    ]
    for path in (*ours, "memory/other", "memory/rat-1-aa-root/rat-1-aa-inner", "memory/copies/rat-1-aa-root"):
        (top / path).mkdir(parents=True)
    assert sorted(leaks.cgroups("rat-1-aa-", top, own)) == [f"{top}/{path}" for path in ours]


def test_containers_of_a_root_are_reported(tmp_path: Path) -> None:
    """A root directory's containers are its directories, long names first; one that doesn't exist holds none."""
    for name in ("b", "a", "aa"):
        (tmp_path / name).mkdir()
    (tmp_path / "lock").touch()
    assert list(leaks.containers(tmp_path)) == ["aa", "a", "b"]
    assert list(leaks.containers(tmp_path / "missing")) == []


LEAKS = {
    "child process *": "import os\ndef test_it(): os.posix_spawn('/bin/cat', ['cat'], {})",
    "descriptor * /memfd:planted *": "import os\ndef test_it(): os.memfd_create('planted')",
    "tasks left behind by the test:": (
        "import asyncio\nasync def test_it(): test_it.kept = asyncio.ensure_future(asyncio.Event().wait())"
    ),
    "file /tmp/rat-*": "import tempfile\ndef test_it(): tempfile.mkdtemp()",
}


def test_a_leaking_test_fails(pytester: pytest.Pytester) -> None:
    """The suite's own fixtures fail a test, or a run, that leaves something."""
    pytester.makeconftest((TESTS / "conftest.py").read_text())
    pytester.makepyfile(**{f"test_{number}": code for number, code in enumerate(LEAKS.values())})
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as until_the_end:
        options = [
            "-p",
            "no:cacheprovider",
            "-s",
            "-o",
            "asyncio_mode=auto",
            "-o",
            f"pythonpath={TESTS}/support {TESTS}/proof",
        ]
        outcome = pytester.run(sys.executable, "-m", "pytest", *options, stdin=until_the_end)
    os.close(writing)  # a planted child reads from the pipe and ends with it
    outcome.stdout.fnmatch_lines_random([*LEAKS, f"*{len(LEAKS)} passed, {len(LEAKS)} errors*"])
