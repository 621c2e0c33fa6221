"""A root directory with a single container, for a runtime that takes the beginning of an id for the id.

Without a container `web-1`, such a runtime does to `web-10` what a command says of `web-1`. With both containers it
refuses each command for `web-1`.

The commands of a container share the directory. Each holds a shared lock, flock(2), until its end; the last command
removes the directory if the container is gone by then. A command about to start thus keeps the directory while another
command deletes the container, and finds the next container of the same id. The lock of a killed process is released by
the kernel, so that the next command for the container, or for a new one, removes the directory.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Generator
from typing import Final

from .._linux.scratch import scratch_directory
from ..runner import PrivateRoot

PLACE: Final = ".alone"
"""The directory below the runtime's root directory; a directory in it is named after the record of its container."""


@contextlib.contextmanager
def alone(root: PrivateRoot) -> Generator[str]:
    """Return a root directory with a single container visible to the runtime, existing or not, until the exit.

    Raises:
        OSError: If the directory can't be created.
    """
    with contextlib.ExitStack() as undo:
        try:
            place = _held(root, undo)
            _link(root, place)
        except OSError as exc:
            # There is no such container: its record would have too long a name, or there is no root directory.
            if exc.errno != errno.ENAMETOOLONG and os.path.isdir(root.path):
                raise
            place = root.path
            _discard(os.path.join(root.path, PLACE))
        yield place


def _held(root: PrivateRoot, undo: contextlib.ExitStack) -> str:
    """Return the directory of a container, which nobody removes before `undo`."""
    place = os.path.join(root.path, PLACE, root.record)
    while True:
        _make(root.path, place)
        try:
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # removed since
            continue
        with contextlib.ExitStack() as unused:
            unused.callback(os.close, fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # another command is removing the directory
                return undo.enter_context(scratch_directory(root.record, root.lock))
            if _is_same(fd, place):
                unused.pop_all()
                undo.callback(_release, fd, root.path, place)
                return place


def _make(root: str, place: str) -> None:
    """Create the directory of a container, and remove the unused directories of others first."""
    parent = os.path.dirname(place)
    if os.path.isdir(place):
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            if not os.path.exists(os.path.join(root, name)):
                _remove_unused(root, os.path.join(parent, name))
    with contextlib.suppress(FileExistsError):
        os.mkdir(parent, 0o700)
    # Another command may have removed the parent since, or created the directory.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.mkdir(place, 0o700)


def _is_same(fd: int, path: str) -> bool:
    """Return whether a descriptor is that of the directory at a path."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _link(root: PrivateRoot, place: str) -> None:
    """Link the record, and the lock of an existing container."""
    # Without a container, the runtime would create the lock behind the link, and the lock would stay. The record may
    # still appear before the command reads the link.
    exists = os.path.exists(os.path.join(root.path, root.record))
    for name in (root.record, root.lock) if exists else (root.record,):
        path = os.path.join(place, name)
        if not os.path.islink(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # the runtime has created a lock there while there was no container
            with contextlib.suppress(FileExistsError):
                os.symlink(os.path.join(root.path, name), path)


def _release(fd: int, root: str, place: str) -> None:
    """Release a directory, and remove it if the container is gone and no command uses it."""
    try:
        _remove(fd, root, place)
    finally:
        # A child that another thread is forking may have a copy of the descriptor.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _remove_unused(root: str, place: str) -> None:
    """Remove the directory of a container that is gone, if no command uses the directory."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _release(fd, root, place)


def _remove(fd: int, root: str, place: str) -> None:
    """Remove a directory unless its container exists, or another command uses it."""
    record = os.path.join(root, os.path.basename(place))
    with contextlib.suppress(OSError):
        if os.path.exists(record):
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(record) or not _is_same(fd, place):
            return
        for name in os.listdir(place):
            os.unlink(os.path.join(place, name))
        os.rmdir(place)
    _discard(os.path.dirname(place))


def _discard(directory: str) -> None:
    """Remove a directory if it is empty."""
    with contextlib.suppress(OSError):
        os.rmdir(directory)
