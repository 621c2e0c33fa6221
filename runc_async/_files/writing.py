"""A file of a container's, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from .._linux.files import NEW_FILE
from .openat2 import act_as, look_at, open_inside
from .root import Root, naming

_PIECE = 1 << 20
_FOLDER = os.O_PATH | os.O_DIRECTORY
_PARENT_MODE = 0o755
_ATTEMPTS = 100
"""How often a name is tried again that a container makes and removes meanwhile."""


class Destination(NamedTuple):
    """Where a file goes, and what it is there.

    Attributes:
        path: Its path, as the caller gave it.
        mode: Its permissions.
        uid: Its owner, as seen inside.
        gid: Its group, as seen inside.
        parents: Whether directories that aren't there are made.
    """

    path: str
    mode: int
    uid: int
    gid: int
    parents: bool


class NewFile:
    """A file without a name, in the directory where it gets one when it is whole.

    Args:
        root: The container.
        destination: Where it goes.

    Raises:
        OSError: If it can't be made there.
        ValueError: If its owner isn't known in the container's user namespace.
    """

    def __init__(self, root: Root, destination: Destination) -> None:
        self._path = destination.path
        self._mode = destination.mode
        self._owner = root.uids.outside(destination.uid), root.gids.outside(destination.gid)
        folder, _, self._name = destination.path.rstrip("/").rpartition("/")
        act_as(*self._owner)  # so that no owner has to be changed afterwards, of what may be another directory by then
        with naming(self._path), contextlib.ExitStack() as opening:
            self._folder = _open_folder(root, f"/{folder}", make=destination.parents)
            opening.callback(os.close, self._folder)
            # A directory there is no reason to write all the content first.
            self._is_taken()
            self._temporary: str | None = None
            self._fd = self._create()
            opening.pop_all()

    def write(self, data: bytes | memoryview) -> None:
        """Write some of its content."""
        view = memoryview(data).cast("B")
        with naming(self._path):
            while view:
                view = view[os.write(self._fd, view) :]

    def write_all(self, data: bytes | bytearray | memoryview, check: Callable[[], None]) -> None:
        """Write the whole content and give it its name; `check` is called often, and raises to give it up."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            check()
            self.write(view[start : start + _PIECE])
        check()
        self.commit()

    def commit(self) -> None:
        """Give it its name, in the place of whatever file or link has it.

        Raises:
            OSError: If a directory has it, or something is mounted there (EBUSY).
        """
        with naming(self._path):
            status = os.fstat(self._fd)
            if (status.st_uid, status.st_gid) != self._owner:  # as in a directory that gives its group to what is in it
                os.fchown(self._fd, *self._owner)
            os.fchmod(self._fd, self._mode)  # after the last write, which would take setuid away
            for _ in range(_ATTEMPTS):
                if not self._is_taken() and self._temporary is None:
                    with contextlib.suppress(FileExistsError):
                        self._link(self._name)
                        return
                else:
                    self._replace()
                    return
            raise BlockingIOError(errno.EAGAIN, "it comes and goes too often")

    def _replace(self) -> None:
        """Take the place of the file or link that has the name."""
        if self._temporary is None:
            self._temporary = _unique()
            self._link(self._temporary)
        os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._temporary = None

    def close(self) -> None:
        """Close it; without a name it is gone then."""
        os.close(self._fd)
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
        os.close(self._folder)

    def _create(self) -> int:
        """Make it, without a name where the file system can."""
        try:
            return os.open(".", os.O_WRONLY | os.O_TMPFILE, 0o600, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
                raise
        self._temporary = _unique()
        return os.open(self._temporary, NEW_FILE, 0o600, dir_fd=self._folder)

    def _is_taken(self) -> bool:
        """Return whether a file or a link has the name; they may be replaced, and nothing else."""
        mode = look_at(self._folder, self._name)
        if mode is None:
            return False
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return True

    def _link(self, name: str) -> None:
        """Give it a name that is free."""
        os.link(f"/proc/self/fd/{self._fd}", name, dst_dir_fd=self._folder, follow_symlinks=True)


def _unique() -> str:
    """Make a name that nothing has, and that is short enough whatever the file's own is."""
    return f".runc_async-{os.urandom(8).hex()}"


def _open_folder(root: Root, path: str, *, make: bool) -> int:
    """Open a directory; make it, and those above it, if it isn't there.

    Raises:
        OSError: If that can't be done.
    """
    try:
        return open_inside(root.fd, path, _FOLDER)
    except FileNotFoundError:
        if not make:
            raise
    parts = [part for part in path.split("/") if part]
    folder = open_inside(root.fd, "/", _FOLDER)
    for count in range(1, len(parts) + 1):
        try:
            below = _step(root, folder, parts[:count])
        finally:
            os.close(folder)
        folder = below
    return folder


def _step(root: Root, folder: int, parts: list[str]) -> int:
    """Open the directory `parts`, the last of them in `folder`, and make it if it isn't there."""
    path = "/" + "/".join(parts)
    try:
        return open_inside(root.fd, path, _FOLDER)  # by its whole path, for links above it lead where they do inside
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # a link to nowhere, or another has made it meanwhile
            os.mkdir(parts[-1], _PARENT_MODE, dir_fd=folder)
    return open_inside(root.fd, path, _FOLDER)
