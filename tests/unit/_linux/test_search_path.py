"""Where a program is found in $PATH, and for how long a place is remembered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runc_async._linux import search_path
from runc_async._linux.search_path import find_executable


def put(directory: Path, mode: int = 0o755) -> str:
    """Put a program into a directory, and return its place."""
    directory.mkdir(exist_ok=True)
    program = directory / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(mode)
    return str(program)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A list of two directories, of which only the second exists."""
    (tmp_path / "second").mkdir()
    return f"{tmp_path}/first:{tmp_path}/second"


def test_the_first_executable_file_is_found(tmp_path: Path) -> None:
    """A file that can't be executed and a directory are passed by, as execvp(3) does."""
    put(tmp_path / "plain", 0o644)
    (tmp_path / "directory" / "program").mkdir(parents=True)
    place = put(tmp_path / "third")
    assert find_executable("program", f"{tmp_path}/plain:{tmp_path}/directory:{tmp_path}/third") == place


def test_a_relative_directory_ends_the_lookup(tmp_path: Path) -> None:
    """A relative directory means another place to a child with a working directory of its own."""
    put(tmp_path / "third")
    assert find_executable("program", f"{tmp_path}/none:relative:{tmp_path}/third") is None


def test_a_program_that_is_gone_is_looked_up_again(tmp_path: Path, path: str) -> None:
    """A remembered place counts only while it is executable."""
    second = put(tmp_path / "second")
    assert find_executable("program", path) == second
    os.remove(second)
    assert find_executable("program", path) is None
    first = put(tmp_path / "first")
    assert find_executable("program", path) == first


def test_a_program_put_before_is_seen_after_a_moment(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A remembered place is forgotten after `MOMENT`, so that an installation is seen without a restart."""
    put(tmp_path / "second")
    now = 1000.0
    monkeypatch.setattr("runc_async._linux.search_path.time.monotonic", lambda: now)
    find_executable("program", path)
    first = put(tmp_path / "first")
    now += search_path.MOMENT
    assert find_executable("program", path) == first


def test_few_places_are_remembered(tmp_path: Path) -> None:
    """A service with ever new values of $PATH doesn't grow."""
    place = put(tmp_path / "directory")
    for number in range(1000):
        assert find_executable("program", f"{tmp_path}/directory:/{number}") == place
    assert len(search_path._found) <= 64  # pyright: ignore[reportPrivateUsage]
