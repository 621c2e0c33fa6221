"""The root filesystem of a container, as seen by its first process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from typing import NamedTuple

from runc_async.errors import ContainerNotRunning, UnsupportedError

_PROC = "/proc"
_NOBODY = 65534  # what the kernel shows for an id that isn't mapped: /proc/sys/fs/overflowuid


class IdMap(NamedTuple):
    """The ids of a user namespace: user_namespaces(7).

    Attributes:
        ranges: For each range the first id inside, the first id outside, and the number of ids.
    """

    ranges: tuple[tuple[int, int, int], ...]

    @classmethod
    def read(cls, path: str) -> IdMap:
        """Read /proc/PID/uid_map or gid_map.

        Raises:
            OSError: If the process is gone.
        """
        with open(path, encoding="ascii") as file:
            numbers = (tuple(map(int, line.split())) for line in file)
            return cls(tuple((inside, outside, count) for inside, outside, count in numbers))

    def outside(self, number: int) -> int:
        """Return the id outside for an id inside.

        Raises:
            ValueError: If the id isn't mapped.
        """
        for inside, outside, count in self.ranges:
            if inside <= number < inside + count:
                return outside + number - inside
        raise ValueError(f"there is no user or group {number} in the container's user namespace")

    def inside(self, number: int) -> int:
        """Return the id inside for an id outside; 65534 if not mapped."""
        for inside, outside, count in self.ranges:
            if outside <= number < outside + count:
                return inside + number - outside
        return _NOBODY


class Root(NamedTuple):
    """The open root filesystem of a container.

    Attributes:
        fd: The root directory, O_PATH; in the container's mount namespace.
        uids: The container's users.
        gids: The container's groups.
    """

    fd: int
    uids: IdMap
    gids: IdMap

    @classmethod
    def open(cls, container_id: str, pid: int, is_there: Callable[[], bool]) -> Root:
        """Open the root filesystem of a container.

        Args:
            container_id: The container's id, for errors.
            pid: The first process.
            is_there: Returns whether the process still exists, so that its pid belongs to no other process. Called
                afterwards.

        Raises:
            ContainerNotRunning: If the process has ended.
            UnsupportedError: If the container shares the root filesystem of the calling process.
            PermissionError: If the process belongs to another user.
        """
        with contextlib.ExitStack() as opening:
            root: Root | None = None
            own = False
            try:
                fd = os.open(f"{_PROC}/{pid}/root", os.O_PATH | os.O_DIRECTORY)
                opening.callback(os.close, fd)
                root = cls(fd, IdMap.read(f"{_PROC}/{pid}/uid_map"), IdMap.read(f"{_PROC}/{pid}/gid_map"))
                own = _is_our_own(fd, pid)
            except (FileNotFoundError, ProcessLookupError):
                root = None
            # The files of /proc/PID are opened first, and the process is checked afterwards: if it still exists, the
            # pid belonged to it all the time.
            if root is None or not is_there():
                raise ContainerNotRunning((), None, container_id=container_id, message="the container is not running")
            if own:  # a number from another pid namespace, perhaps: never the host's files for a container's
                raise UnsupportedError("root filesystem of its own", f"process {pid}")
            opening.pop_all()
        return root

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)


def _is_our_own(fd: int, pid: int) -> bool:
    """Return whether a process has the same root directory and mount namespace as this process."""
    namespaces = [os.readlink(f"{_PROC}/{process}/ns/mnt") for process in (pid, "self")]
    return namespaces[0] == namespaces[1] and os.path.samestat(os.fstat(fd), os.stat("/"))


@contextlib.contextmanager
def naming(path: str) -> Generator[None]:
    """Replace the path in errors of the block by the caller's path."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, path) from None
