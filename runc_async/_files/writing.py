"""Write a file of a container atomically."""

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
"""Maximal number of tries with a name that a container creates and removes meanwhile."""


class Destination(NamedTuple):
    """The place and the properties of a new file.

    Attributes:
        path: The path, as passed by the caller.
        mode: The permissions.
        uid: The owner, as seen inside.
        gid: The group, as seen inside.
        parents: Whether missing directories are created.
    """

    path: str
    mode: int
    uid: int
    gid: int
    parents: bool


class NewFile:
    """A file without a name, in the directory where it gets its name when complete.

    Args:
        root: The container.
        destination: The destination.

    Raises:
        OSError: If the file can't be created there.
        ValueError: If the owner is unknown in the container's user namespace.
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
            # Fail for a directory with this name before all the contents are written.
            self._is_taken()
            self._temporary: str | None = None
            self._fd = self._create()
            opening.pop_all()

    def write(self, data: bytes | memoryview) -> None:
        """Write a part of the contents."""
        view = memoryview(data).cast("B")
        with naming(self._path):
            while view:
                view = view[os.write(self._fd, view) :]

    def write_all(self, data: bytes | bytearray | memoryview, check: Callable[[], None]) -> None:
        """Write the contents and name the file; `check` is called often, and raises to stop the work."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE):
            check()
            self.write(view[start : start + _PIECE])
        check()
        self.commit()

    def commit(self) -> None:
        """Name the file, replacing a file or link with this name.

        Raises:
            OSError: If there is a directory with this name, or a mount point (EBUSY).
        """
        with naming(self._path):
            status = os.fstat(self._fd)
            if (status.st_uid, status.st_gid) != self._owner:  # as in a directory that gives its group to what is in it
                os.fchown(self._fd, *self._owner)
            os.fchmod(self._fd, self._mode)  # after the last write, which would take setuid away
            # link(2) fails if the name exists, and rename(2) needs a source with a name. So a free name is linked, and
            # a used one is replaced through a temporary name; a process inside may create or remove the name in
            # between.
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
        """Replace the file or link with the name."""
        if self._temporary is None:
            self._temporary = _unique()
            self._link(self._temporary)
        os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._temporary = None

    def close(self) -> None:
        """Close the file; without a name it vanishes."""
        os.close(self._fd)
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
        os.close(self._folder)

    def _create(self) -> int:
        """Create the file, without a name if the file system supports this."""
        try:
            return os.open(".", os.O_WRONLY | os.O_TMPFILE, 0o600, dir_fd=self._folder)
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
                raise
        self._temporary = _unique()
        return os.open(self._temporary, NEW_FILE, 0o600, dir_fd=self._folder)

    def _is_taken(self) -> bool:
        """Return whether a file or a link has the name; only these may be replaced."""
        mode = look_at(self._folder, self._name)
        if mode is None:
            return False
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        return True

    def _link(self, name: str) -> None:
        """Give the file an unused name."""
        os.link(f"/proc/self/fd/{self._fd}", name, dst_dir_fd=self._folder, follow_symlinks=True)


def _unique() -> str:
    """Return a short unique name."""
    return f".runc_async-{os.urandom(8).hex()}"


def _open_folder(root: Root, path: str, *, make: bool) -> int:
    """Open a directory; create it and its parents if missing.

    Raises:
        OSError: If a directory can't be opened or created.
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
    """Open the directory `parts`, whose last part is in `folder`, and create it if missing."""
    path = "/" + "/".join(parts)
    try:
        return open_inside(root.fd, path, _FOLDER)  # by its whole path, for links above it lead where they do inside
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):  # a link to nowhere, or another has made it meanwhile
            os.mkdir(parts[-1], _PARENT_MODE, dir_fd=folder)
    return open_inside(root.fd, path, _FOLDER)
