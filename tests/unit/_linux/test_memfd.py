"""Files in memory."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import NoReturn

import pytest
from children import is_open

from runc_async._linux.memfd import MemoryOutput, lifted, memory_file

PAGE = 4096


@pytest.mark.parametrize("data", [b"", b"document", b"x" * (3 << 20)], ids=["empty", "short", "long"])
def test_a_file_holds_its_data(data: bytes) -> None:
    """What was given is there for whoever opens the file by its descriptor, from the start."""
    fd = memory_file("name", data)
    try:
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            assert file.read() == data
        assert "runc_async:name" in os.readlink(f"/proc/self/fd/{fd}")
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_file_above_a_number() -> None:
    """A file's descriptor isn't below the number that it was asked to be above."""
    fd = memory_file("name", b"data", above=50)
    try:
        assert fd >= 50
        assert not os.get_inheritable(fd)
        assert os.pread(fd, 10, 0) == b"data"
    finally:
        os.close(fd)


def test_lifting() -> None:
    """A descriptor that is high enough stays; a lower one is moved, and closed."""
    read, write = os.pipe()
    assert lifted(read, 0) == read
    high = lifted(read, 60)
    assert high >= 60
    assert not is_open(read)
    os.close(high)
    with pytest.raises(OSError, match="Invalid argument"):
        lifted(write, 1 << 30)
    assert not is_open(write)


def test_a_file_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that can't take its data is closed again."""
    made: list[int] = []

    def fail(fd: int, *_: object) -> NoReturn:
        made.append(fd)
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="no space"):
        memory_file("name", b"data")
    assert not is_open(made[0])


def test_what_a_child_wrote() -> None:
    """An output has what was written through any descriptor that shares its offset."""
    output = MemoryOutput("stdout", 2 * PAGE)
    try:
        copy = os.dup(output.fd)
        os.write(copy, b"one ")
        os.write(copy, b"two")
        os.close(copy)
        assert output.data == b"one two"
        assert not output.dropped
    finally:
        output.close()


def test_writing_beyond_the_limit() -> None:
    """A write beyond the limit takes what fits and fails then, and the output says that there may have been more."""
    output = MemoryOutput("stdout", PAGE)
    try:
        assert os.write(output.fd, b"x" * (PAGE + 5)) == PAGE
        with pytest.raises(PermissionError):
            os.write(output.fd, b"x")
        assert output.data == b"x" * PAGE
        assert output.dropped
    finally:
        output.close()


@pytest.mark.parametrize("offset", [PAGE + 1, 1 << 40, (1 << 63) - 1])
def test_a_child_moves_the_offset(offset: int) -> None:
    """An offset beyond the end, to which a child can move it, takes no more memory than the output may have."""
    output = MemoryOutput("stdout", PAGE)
    try:
        os.write(output.fd, b"one")
        os.lseek(output.fd, offset, os.SEEK_SET)
        assert output.data == b"one" + bytes(PAGE - 3)
        assert output.dropped
    finally:
        output.close()


def test_the_size_of_an_output_is_sealed() -> None:
    """Nobody can make an output larger or smaller: neither fill the memory of the machine nor hide what was written."""
    output = MemoryOutput("stdout", PAGE)
    try:
        for size in (0, PAGE + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(output.fd, size)
    finally:
        output.close()


def test_an_output_that_cannot_be_sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An output that can't be set up is closed again."""
    made: list[int] = []

    def fail(fd: int, *_: object) -> NoReturn:
        made.append(fd)
        raise OSError(errno.EINVAL, "no seals")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", fail)
        with pytest.raises(OSError, match="no seals"):
            MemoryOutput("stdout", PAGE)
    assert not is_open(made[0])
