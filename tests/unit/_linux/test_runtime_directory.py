"""$XDG_RUNTIME_DIR: a directory that can't be used is named before any process starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runc_async._linux import runtime_directory
from runc_async._linux.runtime_directory import can_write, check_runtime_directory
from runc_async.errors import PermissionDenied

PACKAGE = Path(runtime_directory.__file__).parents[2]
AS_A_USER = """\
import os, sys
from runc_async._linux.runtime_directory import can_write
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
print([can_write(path) for path in sys.argv[1:]])
"""


def test_a_directory_that_is_there_or_can_be_made_is_right(tmp_path: Path) -> None:
    """The runtime makes what is missing of the way itself."""
    check_runtime_directory(str(tmp_path), "runc", "web")
    check_runtime_directory(str(tmp_path / "not" / "there"), "runc", None)
    assert os.listdir(tmp_path) == []
    assert can_write("/") == os.access("/", os.W_OK)


@pytest.mark.parametrize("place", ["file", "file/below", "dangling"])
def test_what_is_no_directory_is_named(place: str, tmp_path: Path) -> None:
    """A file, or a link to nowhere, is a PermissionDenied that names the variable, the directory and the user."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(PermissionDenied) as caught:
        check_runtime_directory(str(tmp_path / place), "crun", "web")
    assert caught.value.container_id == "web"
    text = str(caught.value)
    for word in ("$XDG_RUNTIME_DIR", str(tmp_path / place), str(tmp_path / place / "crun"), str(os.geteuid()), "root="):
        assert word in text


@pytest.mark.root
def test_the_directory_of_another_user_is_not_right(tmp_path: Path) -> None:
    """Another user can write neither in it nor in a directory that is missing there."""
    run = subprocess.run(
        [sys.executable, "-c", AS_A_USER, tmp_path, tmp_path / "missing", "/run/runc", "/"],
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == ["[False,", "False,", "False,", "False]"]
