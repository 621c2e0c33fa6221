"""The files of owners: detection of dead owners, their records, and the removal of their bundles and directories.

All functions block. See `_linux/owner` for the files.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Generator, Iterator
from typing import Final, Self

import msgspec

from .._linux.cgroup import unescape
from .._linux.files import ignoring_absence, opened, remove_tree
from .._linux.libc import detach
from .._linux.owner import PREFIX, TAKEN, Held, HeldBundle, Line, closed_in_children, places
from .._runtimes.dialect import UNDECODABLE

_LIMIT: Final = 1 << 26
"""Maximal bytes read from a file; an owner rewrites its file long before."""

ROOTFS: Final = "rootfs"
"""Mount point of an overlay in a bundle."""

_WRITES: Final = "overlay"
"""Mount point of a file system in memory in a bundle, for written files."""

_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_LINE = msgspec.json.Decoder(Line)


class DeadOwner:
    """The locked file of a dead owner, so that no other sweeper works on it.

    Attributes:
        held: The owner's resources by number, as far as not removed yet.
    """

    def __init__(self, path: str, fd: int) -> None:
        """Take over a locked file."""
        self.held: dict[int, Held] = read(fd)
        self._path = path
        self._fd = fd
        closed_in_children.add(fd)

    @classmethod
    def take(cls, path: str) -> Self | None:
        """Lock the file of an owner; None if the owner lives, another sweeper works on it, or the file is gone."""
        fd = _open(path)
        if fd is None:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last sweeper, or an owner that ended in order, may have removed it before it was locked.
            if os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False)):
                taken = path.replace(PREFIX, TAKEN)
                os.rename(path, taken)  # from now on it isn't taken for a live owner's
                return cls(taken, fd)
        except OSError:
            pass
        os.close(fd)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Unlock the file, and remove it if all resources are gone."""
        if not self.held:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        closed_in_children.discard(self._fd)
        os.close(self._fd)

    def strike(self, number: int) -> None:
        """Record that a resource is gone, for later sweepers."""
        del self.held[number]
        with contextlib.suppress(OSError):  # it looks in vain then
            os.write(self._fd, b"\n" + msgspec.json.encode(Line(number)))


def files() -> list[str]:
    """List the files of the current user's owners, dead or alive.

    Raises:
        OSError: If no descriptor is left.
    """
    found: list[str] = []
    for place in places():
        with ignoring_absence():
            found += (os.path.join(place, name) for name in os.listdir(place) if name.startswith((PREFIX, TAKEN)))
    return sorted(found)


def held_by_living() -> Iterator[Held]:
    """Yield the resources of live owners.

    Raises:
        OSError: If no descriptor is left: an owner that can't be checked must not count as dead.
    """
    for path in files():
        with _looked_at(path) as (fd, lives):
            if lives and TAKEN not in path:
                yield from read(fd).values()


def count_dead() -> int:
    """Count the leftovers of dead owners of the current user."""
    count = 0
    for path in files():
        with _looked_at(path) as (fd, lives):
            count += 0 if lives or fd < 0 else len(read(fd))
    return count


def read(fd: int) -> dict[int, Held]:
    """Return the resources of an owner."""
    found: dict[int, Held] = {}
    for text in os.pread(fd, _LIMIT, 0).split(b"\n"):
        try:
            line = _LINE.decode(text)
        except UNDECODABLE:
            # The owner was killed while writing its last line: that resource wasn't created yet.
            continue
        if line.held is None:
            found.pop(line.n, None)
        else:
            found[line.n] = line.held
    return found


def remove_bundle(held: HeldBundle) -> bool:
    """Unmount the overlay of a bundle, and remove a temporary bundle; return whether there was an overlay.

    Raises:
        OSError: If a part can't be removed, or is foreign: another mount, another user's directory.
    """
    with _opened_parent(held.path) as (path, name):
        mounted = False
        if held.mounted:
            with opened(path, _STEP) as fd:  # it may be a link by now
                # The overlay first: its upper directory is on the tmpfs.
                mounted = _unmounted(fd, name, ROOTFS, "overlay")
                _unmounted(fd, name, _WRITES, "tmpfs")
                with contextlib.suppress(OSError):  # it is gone, or isn't empty since it was never a mount
                    os.rmdir(ROOTFS, dir_fd=fd)
        if held.temporary:
            _remove_own(path, name)
    return mounted


def remove_scratch(path: bytes) -> None:
    """Remove the private directory of a call.

    Raises:
        OSError: If the directory can't be removed, or belongs to another user.
    """
    with _opened_parent(path) as (place, name):
        _remove_own(place, name)


def is_open(directory: bytes) -> bool:
    """Return whether any visible process has a directory open, such as a runtime that writes its pid file.

    Raises:
        OSError: If no descriptor is left.
    """
    place = os.path.realpath(os.fsdecode(directory))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with ignoring_absence():
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") == place:
                        return True
    return False


def _open(path: str) -> int | None:
    """Open the file of an owner; None if it is gone, or belongs to another user.

    Raises:
        OSError: If no descriptor is left.
    """
    fd = -1
    with ignoring_absence():
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        return None
    found = os.fstat(fd)
    # The directory may be open to other users: a link or a file of theirs must not direct our removals.
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
        return fd
    os.close(fd)
    return None


@contextlib.contextmanager
def _looked_at(path: str) -> Generator[tuple[int, bool]]:
    """Open the file of an owner; yield the descriptor (-1 if gone), and whether an owner or a sweeper has locked it."""
    fd = _open(path)
    if fd is None:
        yield -1, False
        return
    try:
        try:
            # A shared lock: two processes that look at the same time don't take each other for the owner.
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            yield fd, True
        else:
            yield fd, False
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened_parent(path: bytes) -> Generator[tuple[str, str]]:
    """Open the parent directory of a path without following symbolic links; yield a path through it, and the true path.

    Raises:
        OSError: If there is a link, or no such directory.
    """
    parent, name = os.path.split(os.fsdecode(path))
    # A directory of the path that was replaced by a link meanwhile could lead anywhere.
    fd = os.open("/", _STEP)
    try:
        for part in parent.strip("/").split("/"):
            if part:
                step = os.open(part, _STEP, dir_fd=fd)
                os.close(fd)
                fd = step
        yield f"/proc/self/fd/{fd}/{name}", os.path.join(parent, name)
    finally:
        os.close(fd)


def _unmounted(folder: int, directory: str, name: str, kind: str) -> bool:
    """Unmount a directory, if it has exactly one mount, of this type.

    Raises:
        OSError: If unmounting fails.
    """
    target = os.path.join(directory, name)
    if _mounts_in(target) != [(target, kind)]:
        return False
    # Through the open directory: a path could lead elsewhere by now.
    detach(f"/proc/self/fd/{folder}/{name}")
    return True


def _remove_own(path: str, name: str) -> None:
    """Remove a directory of the current user with its contents, but never through a mount.

    Args:
        path: The directory.
        name: The same directory in the spelling of mountinfo.

    Raises:
        OSError: If the directory belongs to another user, or has mounts inside.
    """
    try:
        with opened(path) as fd:
            found = os.fstat(fd)
    except FileNotFoundError:
        return
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it is another user's", name)
    # Removing through a mount would delete files of another filesystem.
    if mounts := _mounts_in(name):
        raise OSError(errno.EBUSY, "something is mounted in it", mounts[0][0])
    remove_tree(path)


def _mounts_in(directory: str) -> list[tuple[str, str]]:
    """List the mounts at or below a directory with their file system types: proc_pid_mountinfo(5)."""
    found: list[tuple[str, str]] = []
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            before, _, after = os.fsdecode(line).partition(" - ")
            point = unescape(before.split(" ", 5)[4])
            if point == directory or point.startswith(directory + "/"):
                found.append((point, after.split(" ", 1)[0]))
    return found
