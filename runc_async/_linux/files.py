"""Files exposed to other processes: written whole, read within bounds, and removed as trees."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Generator, Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
"""Flags to open a directory, and never the target of a symbolic link in its place."""

REMOVAL_DESCRIPTORS = 3
"""Descriptors that `remove_tree` needs: the directory, one inside it, and the copy that Python lists either with."""

NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
"""Flags to open a file that must not exist yet."""

_PIECE = 1 << 16
"""Bytes of a read: more than most small files have."""

SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of a call for want of descriptors or memory, which say nothing of the file."""


@contextlib.contextmanager
def ignoring_absence() -> Generator[None]:
    """Leave the block silently if a file is gone or unreadable, but not if the current process has no descriptor left.

    Raises:
        OSError: If no descriptor or memory is left: the file may exist.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in SCARCE:
            raise


@contextlib.contextmanager
def opened(path: str, flags: int = DIRECTORY, dir_fd: int | None = None) -> Generator[int]:
    """Open a file while the block runs."""
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        yield fd
    finally:
        os.close(fd)


def reserved(count: int) -> contextlib.ExitStack:
    """Open `count` descriptors in reserve, for work that can't fail for lack of descriptors: close the reserve before.

    Raises:
        OSError: If fewer are free; then none stays open.
    """
    with contextlib.ExitStack() as opening:
        first = opening.enter_context(opened(os.devnull, os.O_RDONLY))
        for _ in range(count - 1):
            opening.callback(os.close, os.dup(first))  # a third of the time of open(2)
        return opening.pop_all()


def read_whole(path: str | os.PathLike[str]) -> bytes:
    """Return the contents of a small file, as of procfs, in half the time of `open`.

    Raises:
        OSError: If the file can't be read, or no descriptor is left.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_rest(fd)
    finally:
        os.close(fd)


def read_rest(fd: int) -> bytes:
    """Return the contents of a small file from the present offset on.

    Raises:
        OSError: If the file can't be read.
    """
    content = os.read(fd, _PIECE)
    while piece := os.read(fd, _PIECE):  # a file of procfs comes in pages
        content += piece
    return content


def read_words(path: str) -> list[str]:
    """Return the words of a small file, or none if unreadable."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().split()
    except OSError:
        return []


def write_private(directory: str, name: str, data: bytes, *, replace: bool, durable: bool = True) -> None:
    """Write a file readable only by its owner, whole or not at all.

    With `durable` the file is on the disk on return: 15 ms on a busy disk. A process killed meanwhile leaves the
    old file, or the new file, and perhaps a hidden temporary file in the directory.

    Raises:
        FileExistsError: If the name exists, and `replace` is False.
        OSError: If the file can't be written; then the directory is unchanged.
    """
    temporary = f".{name}.{os.urandom(8).hex()}"
    with opened(directory, os.O_RDONLY | os.O_DIRECTORY) as folder:
        try:
            with open(os.open(temporary, NEW_FILE, 0o600, dir_fd=folder), "wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if replace:
                os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            else:  # rename(2) would replace; link(2) lets only one of two writers win
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
        if durable:
            os.fsync(folder)


def read_bounded(path: str, limit: int) -> bytes:
    """Read at most `limit` + 1 bytes of a file; never blocks on a FIFO."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        return file.read(limit + 1) or b""


def remove_tree(path: str) -> None:
    """Remove a directory with all contents, following no symbolic link.

    Raises:
        OSError: If an entry can't be removed, such as a mount point, or no descriptor is left.
    """
    # shutil.rmtree recurses, and holds a descriptor for each level; a container can nest directories deeper than
    # Python's stack. Here each directory found is moved to the top first, so depth costs nothing.
    numbers = itertools.count()
    with opened(path) as top:
        while names := os.listdir(top):
            for name in names:
                _remove_entry(top, name, numbers)
    os.rmdir(path)


def _remove_entry(top: int, name: str, numbers: Iterator[int]) -> None:
    """Remove an entry of a directory; of a directory, move the subdirectories to the top first."""
    if _unlinked(top, name):
        return
    with opened(name, dir_fd=top) as folder:
        for inner in os.listdir(folder):
            if not _unlinked(folder, inner):
                place = f".{next(numbers)}.{os.urandom(8).hex()}"
                os.rename(inner, place, src_dir_fd=folder, dst_dir_fd=top)
    os.rmdir(name, dir_fd=top)


def _unlinked(folder: int, name: str) -> bool:
    """Remove an entry unless the entry is a directory."""
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        return False
    return True


def open_itself(path: str, flags: int) -> int:
    """Open a file itself, never the target of a symbolic link; doesn't wait for the other end of a FIFO."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
