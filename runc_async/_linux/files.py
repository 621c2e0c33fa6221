"""Files that others may tamper with: written whole, read within bounds, and trees removed to the bottom."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
"""Flags to open a directory, and never what a symbolic link in its place leads to."""

REMOVAL_DESCRIPTORS = 3
"""How many `remove_tree` needs: the directory, one inside it, and the copy by which Python lists either of them."""

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
"""Flags to open a file that must not be there yet."""


@contextlib.contextmanager
def opened(path: str, flags: int = DIRECTORY, dir_fd: int | None = None) -> Generator[int]:
    """Open something for as long as the block runs."""
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def reserved(count: int) -> contextlib.ExitStack:
    """Open so many descriptors, for work that has to be done also when there are no more: close them before it.

    Raises:
        OSError: If there aren't so many; then none is open.
    """
    with contextlib.ExitStack() as opening:
        for _ in range(count):
            opening.enter_context(opened(os.devnull, os.O_RDONLY))
        return opening.pop_all()


def write_private(directory: str, name: str, data: bytes, *, replace: bool) -> None:
    """Put a file that only its owner can read into a directory, whole or not at all.

    It is on the disk when this returns. A process that is killed meanwhile leaves the old file, or the new one; a
    hidden temporary file may stay beside it.

    Raises:
        FileExistsError: If there is one of that name, and it shall not be replaced.
        OSError: If it can't be written; then the directory is as it was.
    """
    temporary = f".{name}.{os.urandom(8).hex()}"
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as folder:
        try:
            with open(os.open(temporary, NEW_FILE, 0o600, dir_fd=folder), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            else:  # rename(2) would replace; link(2) lets only one of two writers win
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)


def read_bounded(path: str, limit: int) -> bytes:
    """Read a file, but not much more than `limit` bytes of it; a FIFO in its place holds up nobody."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        return file.read(limit + 1) or b""


def remove_tree(path: str) -> None:
    """Remove a directory with all that is in it, following no symbolic link.

    `shutil.rmtree` recurses: a container can nest directories deeper than Python's stack, and holds a descriptor for
    each level. Here every directory that is found is first moved to the top, so depth costs nothing.

    Raises:
        OSError: If something can't be removed, such as a mount point, or if there is no descriptor for it.
    """
    numbers = itertools.count()
    with opened(path) as top:
        while names := os.listdir(top):
            for name in names:
                _remove_entry(top, name, numbers)
    os.rmdir(path)


def _remove_entry(top: int, name: str, numbers: Iterator[int]) -> None:
    """Remove one entry of a directory; if it is a directory, move those that are in it to the top."""
    if _unlinked(top, name):
        return
    with opened(name, dir_fd=top) as folder:
        for inner in os.listdir(folder):
            if not _unlinked(folder, inner):
                place = f".{next(numbers)}.{os.urandom(8).hex()}"
                os.rename(inner, place, src_dir_fd=folder, dst_dir_fd=top)
    os.rmdir(name, dir_fd=top)


def _unlinked(folder: int, name: str) -> bool:
    """Remove an entry unless it is a directory."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True


def open_itself(path: str, flags: int) -> int:
    """Open a file, and not what a link in its place leads to; without waiting for the other end of a FIFO."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
