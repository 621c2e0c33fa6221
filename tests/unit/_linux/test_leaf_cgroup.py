"""A cgroup of a process's own: made, listed, killed, removed."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import until

from runc_async._linux.leaf_cgroup import EXITING, LeafCgroup

HIERARCHIES = {"v1": Path("/sys/fs/cgroup/pids"), "v2": Path("/sys/fs/cgroup/unified")}

pytestmark = pytest.mark.root


@pytest.fixture(params=HIERARCHIES)
def parent(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a cgroup that stands for a container's, in either version; its processes are killed at the end."""
    top = HIERARCHIES[request.param]
    if not (top / "cgroup.procs").exists():
        pytest.skip(f"{top} is no hierarchy here")
    directory = top / f"rasync-leaf-{secrets.token_hex(4)}"
    directory.mkdir()
    yield directory
    directory.rmdir()


@pytest.fixture
def start() -> Iterator[Callable[[str], int]]:
    """Return a function that starts a process in a cgroup."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(group: str) -> int:
        process = subprocess.Popen(["sleep", "100"])  # noqa: S607 - a program of every host
        started.append(process)
        Path(group, "cgroup.procs").write_text(str(process.pid))
        return process.pid

    yield begin
    for process in started:
        process.kill()
        process.wait()


def gone(leaf: LeafCgroup) -> bool:
    """Wait until a cgroup has no process."""
    deadline = time.monotonic() + 10
    while leaf.members() and time.monotonic() < deadline:
        time.sleep(0.001)
    return not leaf.members()


def test_one_that_is_empty_is_removed(parent: Path) -> None:
    """One without processes is removed, and may be removed again."""
    leaf = LeafCgroup([str(parent)], "leaf")
    assert leaf.path == f"{parent}/leaf"
    assert os.path.isdir(leaf.path)
    assert leaf.members() == []
    assert leaf.remove()
    assert leaf.remove()
    assert not os.path.exists(leaf.path)


def test_members(parent: Path, start: Callable[[str], int]) -> None:
    """Processes in it, and in a cgroup below it, are its members, and no other process is."""
    leaf = LeafCgroup([str(parent)], f"leaf-{secrets.token_hex(4)}")
    below = Path(leaf.path, "below")
    below.mkdir()
    pids = {start(leaf.path), start(str(below))}
    other = start(str(parent))
    assert set(leaf.members()) == pids
    assert [leaf.is_member(pid) for pid in (*pids, other, os.getpid())] == [True, True, False, False]
    assert leaf.remove()


def test_what_is_left_goes_on(parent: Path, start: Callable[[str], int]) -> None:
    """Processes that are in it when it is removed go on in the cgroup above it, those of a cgroup below it too."""
    leaf = LeafCgroup([str(parent)], "leaf")
    below = Path(leaf.path, "below")
    below.mkdir()
    pids = {start(leaf.path), start(str(below))}
    assert leaf.remove()
    assert not os.path.exists(leaf.path)
    assert {int(pid) for pid in (parent / "cgroup.procs").read_text().split()} == pids


def test_sealed(parent: Path, start: Callable[[str], int]) -> None:
    """A sealed one is killed, or doesn't grow any more: a fork in it fails."""
    leaf = LeafCgroup([str(parent)], "leaf")
    start(leaf.path)
    if leaf.seal():
        assert gone(leaf)
    else:
        script = f"echo $$ >{leaf.path}/cgroup.procs; true & exit 0"
        refused = subprocess.run(["sh", "-c", script], capture_output=True, check=False)  # noqa: S607 - as above
        assert b"fork" in refused.stderr
    assert leaf.remove()


def test_one_that_cannot_be_made(parent: Path) -> None:
    """Where one of several can't be made, it is an error, and the others are removed again."""
    with pytest.raises(FileNotFoundError):
        LeafCgroup([str(parent), f"{parent}/absent"], "leaf")
    assert not (parent / "leaf").exists()


def test_a_zombie_is_no_member(parent: Path, start: Callable[[str], int]) -> None:
    """A process that has ended isn't listed, and doesn't keep the cgroup, although its parent hasn't reaped it."""
    leaf = LeafCgroup([str(parent)], "leaf")
    os.kill(start(leaf.path), 9)
    assert gone(leaf)
    assert leaf.remove()


@pytest.mark.parametrize(
    ("removed", "attempts", "told"),
    [
        ([True], 1, []),
        ([False, False, True], 3, []),
        ([False] * (len(EXITING) + 1), len(EXITING) + 1, ["/leaf"]),
    ],
    ids=["at once", "later", "never"],
)
async def test_one_that_goes_later(
    monkeypatch: pytest.MonkeyPatch, removed: list[bool], attempts: int, told: list[str]
) -> None:
    """One that can't be removed yet is tried again after each delay; only after the last it counts as left behind."""
    monkeypatch.setattr("runc_async._linux.leaf_cgroup.EXITING", [0.001] * len(EXITING))
    leaf = Unremovable(removed)
    answers: list[str] = []
    leaf.remove_soon(answers.append)
    await until(lambda: leaf.attempts == attempts)
    assert answers == told


def test_one_that_stays_without_a_loop() -> None:
    """At the end of a program, without an event loop, one that can't be removed counts as left behind at once."""
    answers: list[str] = []
    Unremovable([False]).remove_soon(answers.append)
    assert answers == ["/leaf"]


class Unremovable(LeafCgroup):
    """One that is removed only at one of several attempts.

    Args:
        removed: What the attempts return.
    """

    def __init__(self, removed: list[bool]) -> None:
        super().__init__([], "leaf")
        self.directories = ["/leaf"]
        self.attempts = 0
        self._removed = iter(removed)

    def remove(self) -> bool:
        """Count the attempt."""
        self.attempts += 1
        return next(self._removed)
