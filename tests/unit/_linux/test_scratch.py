"""Private directories."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runc_async._linux import scratch
from runc_async._linux.scratch import scratch_directory


def test_a_directory_of_our_own() -> None:
    """The directory is ours alone while the block lasts, and gone afterwards with its files."""
    with scratch_directory("pid") as directory:
        assert os.stat(directory).st_mode & 0o777 == 0o700
        assert Path(directory).parent == Path(tempfile.gettempdir())
        Path(directory, "pid").touch()
        Path(directory, "unexpected").mkdir()
        Path(directory, "unexpected", "file").touch()
    assert not os.path.exists(directory)


def test_it_is_removed_when_the_block_fails() -> None:
    """An exception goes on when the directory is removed."""
    with pytest.raises(LookupError), scratch_directory() as directory:
        raise LookupError
    assert not os.path.exists(directory)


def test_it_is_removed_without_a_descriptor() -> None:
    """It is removed even where no descriptor is left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with scratch_directory("pid") as directory:
        Path(directory, "pid").touch()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not os.path.exists(directory)


def test_it_is_in_memory_unless_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a choice it is where no disk is waited for; without such a place, where tempfile puts things."""
    monkeypatch.delenv("TMPDIR")
    with scratch_directory() as directory:
        assert Path(directory).parent == Path("/dev/shm")
    monkeypatch.setattr(scratch, "MEMORY", "/no/such/place")
    with scratch_directory() as directory:
        assert Path(directory).parent == Path(tempfile.gettempdir())


def test_it_says_nothing_at_the_end_of_the_interpreter(tmp_path: Path) -> None:
    """A block left only by the end of the interpreter, where no module can be loaded, is no error."""
    script = (
        "import os, sys\n"
        "from runc_async._linux.scratch import scratch_directory\n"
        "block = scratch_directory('pid')\n"
        "open(os.path.join(block.__enter__(), 'stray'), 'x').close()\n"
        "sys.modules.pop('shutil', None)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert ended.stderr == b""
