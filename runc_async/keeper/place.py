"""The directory of a keeper: the socket, the lock, and a file for each container.

PATH/socket          the listening socket, mode 0600
PATH/lock            locked by flock(2) while the keeper lives, released by the kernel in any case
PATH/containers/ID   the record of a container
PATH/scratch         a link to the directory for temporary files
PATH/log             the log of a keeper in the background
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import io
import os
import socket
import stat
from collections.abc import Generator, Iterator
from typing import Self

from .._linux.scratch import discard
from .channel import KIND
from .errors import KeeperError
from .protocol import Record, decode_record, encode

BACKLOG = 128
"""Number of connections waiting to be accepted, as during an upgrade."""

_SOCKET = "socket"
_LOCK = "lock"
_RECORDS = "containers"
_SCRATCH = "scratch"
_UNFINISHED = "~"  # a character that no id has


class Place:
    """The directory, held open and used through the descriptor: the path may be longer than a socket address."""

    def __init__(self, path: str) -> None:
        """Open the directory.

        Raises:
            KeeperError: If the path isn't a directory of this user with mode 0700.
            OSError: If there is no such directory.
        """
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        # The open directory is checked and not the path, which could be replaced in between.
        found = os.fstat(self._fd)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            self.close()
            mode = stat.S_IMODE(found.st_mode)
            raise KeeperError(f"{path} must be a directory of user {os.geteuid()} with mode 0700, not {mode:04o}")

    @classmethod
    def make(cls, path: str) -> Self:
        """Create the directory and the directory of the records if missing, and open the directory.

        Raises:
            KeeperError: If the path isn't a directory of this user with mode 0700.
            OSError: If the directory can't be created.
        """
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        place = cls(path)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(_RECORDS, 0o700, dir_fd=place._fd)
        except BaseException:
            place.close()
            raise
        return place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the directory."""
        self.close()

    def close(self) -> None:
        """Close the directory. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def address(self) -> str:
        """The path of the socket, always short enough."""
        return f"/proc/self/fd/{self._fd}/{_SOCKET}"

    def lock(self) -> int:
        """Lock the place, and return the descriptor that holds the lock.

        Raises:
            BlockingIOError: If another keeper has the lock.
            OSError: If the file can't be created.
        """
        fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._fd)
        try:
            # Held until the process ends, in any way: a killed keeper leaves no lock behind.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def listen(self) -> socket.socket:
        """Listen, as the holder of the lock: an existing socket belongs to a dead keeper.

        Raises:
            OSError: If the socket can't be created.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_SOCKET, dir_fd=self._fd)
        listener = socket.socket(socket.AF_UNIX, KIND)
        try:
            # bind(2) creates the socket with the umask: mode 0600 from the start, without a moment for others.
            before = os.umask(0o177)
            try:
                listener.bind(self.address)
            finally:
                os.umask(before)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        return listener

    def note_scratch(self, directory: str) -> None:
        """Record the directory of the keeper's temporary files.

        Raises:
            OSError: If the link can't be created.
        """
        os.symlink(directory, _SCRATCH, dir_fd=self._fd)

    def remove_scratch(self) -> None:
        """Remove the recorded directory with its contents."""
        with contextlib.suppress(OSError):
            discard(os.readlink(_SCRATCH, dir_fd=self._fd))
            os.unlink(_SCRATCH, dir_fd=self._fd)

    def write(self, record: Record) -> None:
        """Write the record of a container, atomically.

        Raises:
            OSError: If the record can't be written.
        """
        data = encode(record)
        with self._records() as directory:
            # rename(2) replaces the old record atomically, so that a crash leaves either the old or the new one.
            unfinished = record.id + _UNFINISHED
            try:
                with open(unfinished, "wb", buffering=0, opener=functools.partial(_open_in, directory)) as file:
                    _write(file, data)
                os.rename(unfinished, record.id, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(unfinished, dir_fd=directory)
                raise

    def remove(self, container_id: str) -> None:
        """Remove the record of a container, if there is one.

        Raises:
            OSError: If the record can't be removed.
        """
        with self._records() as directory, contextlib.suppress(FileNotFoundError):
            os.unlink(container_id, dir_fd=directory)

    def records(self) -> Iterator[Record]:
        """Yield the records of all containers; other files stay untouched.

        Raises:
            OSError: If the records can't be read.
        """
        with self._records() as directory:
            for name in sorted(os.listdir(directory)):
                if name.endswith(_UNFINISHED):
                    os.unlink(name, dir_fd=directory)
                    continue
                with contextlib.suppress(KeeperError, IsADirectoryError):
                    with open(name, "rb", opener=functools.partial(_open_in, directory)) as file:
                        record = decode_record(file.read())
                    # A copied or renamed file isn't the record of another container.
                    if record.id == name:
                        yield record

    @contextlib.contextmanager
    def _records(self) -> Generator[int]:
        """Open the directory of the records."""
        fd = os.open(_RECORDS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            yield fd
        finally:
            os.close(fd)


def _open_in(directory: int, name: str, flags: int) -> int:
    """Open a file in a directory, for its owner alone, without following links."""
    return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory)


def _write(file: io.FileIO, data: bytes) -> None:
    """Write all of a record: a nearly full disk takes a part without an error."""
    if file.write(data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
