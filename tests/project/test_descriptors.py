"""What `preserve_fds` takes."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from runc_async._commands.words import preserved

if TYPE_CHECKING:
    from pathlib import Path


def test_numbers_and_open_files(tmp_path: Path) -> None:
    """Descriptors come as numbers or as open files, in any mixture, and keep their order."""
    with open(tmp_path / "file", "w", encoding="utf-8") as file, socket.socket() as sock:
        assert preserved([sock, file, sock.fileno(), 1]) == (sock.fileno(), file.fileno(), sock.fileno(), 1)


def test_none() -> None:
    """Nothing is nothing."""
    assert preserved(()) == ()


@pytest.mark.parametrize("fd", [-1, 1 << 20, 1 << 70])
def test_descriptors_that_are_not_open(fd: int) -> None:
    """Under such a number runc would pass on a file of its own, so it is refused."""
    with pytest.raises(ValueError, match=f"open descriptors: {fd}"):
        preserved([fd])


def test_a_file_that_is_closed(tmp_path: Path) -> None:
    """A file that was closed is no descriptor."""
    with open(tmp_path / "file", "w", encoding="utf-8") as file:
        fd = os.dup(file.fileno())
    os.close(fd)
    with pytest.raises(ValueError, match="closed file"):
        preserved([file])
    with pytest.raises(ValueError, match="open descriptors"):
        preserved([fd])


@pytest.mark.parametrize("how_many", [0, 3, True])
def test_how_many_is_no_answer(how_many: Any) -> None:
    """A number, as runc's own option takes it, is refused with a sentence that says so."""
    with pytest.raises(TypeError, match="not how many"):
        preserved(how_many)
