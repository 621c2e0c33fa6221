"""The resources held by the current process, in a file beyond the life of the process, for cleaning up after a crash.

The file is on a tmpfs. The current process holds a lock, flock(2), released by the kernel when the process ends, in any
way: a dead owner is recognized without clocks or pids. `_host/owners` reads the files of dead owners.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import logging
import os
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

MEMORY = "/dev/shm"  # noqa: S108 - shm_overview(7); only its owner can read or replace a file there
PREFIX: Final = "runc_async-owner-"
TAKEN: Final = "runc_async-swept-"
"""Prefix of a dead owner's file that a sweeper has renamed and locked."""

_ROOM: Final = 1 << 16
"""Bytes of a file before it is rewritten without released resources."""

_logger = logging.getLogger("runc_async")


class HeldContainer(msgspec.Struct, frozen=True, tag="container"):
    """A container of a block.

    Attributes:
        root: The runtime's root directory.
        id: The container's id.
        bundle: Absolute path of the bundle.
        foreground: Whether the runtime process lives as long as the container, as in `run`.
        pid: The first process; 0 until known.
        start_time: The start time of the process: see `ProcessIdentity`.
    """

    root: bytes
    id: str
    bundle: bytes
    foreground: bool = False
    pid: int = 0
    start_time: int = 0


class HeldBundle(msgspec.Struct, frozen=True, tag="bundle"):
    """A temporary bundle, or a bundle with a mounted overlay.

    Attributes:
        path: The directory, absolute and without symbolic links.
        temporary: Whether the directory is removed at the end of the block.
        mounted: Whether an overlay is mounted at `rootfs`.
        roots: The root directories of the clients of the bundle.
    """

    path: bytes
    temporary: bool
    mounted: bool = False
    roots: tuple[bytes, ...] = ()


class HeldScratch(msgspec.Struct, frozen=True, tag="scratch"):
    """A private directory for the files of a call.

    Attributes:
        path: The directory, absolute and without symbolic links.
    """

    path: bytes


Held: TypeAlias = HeldContainer | HeldBundle | HeldScratch


class Line(msgspec.Struct, frozen=True):
    """A line of the file: the latest line with a number counts.

    Attributes:
        n: The number of the resource.
        held: The resource; None after the release.
    """

    n: int
    held: Held | None = None


class Claim:
    """A resource in the current process's file, recorded from before the creation until after the removal."""

    def __init__(self, held: Held | None) -> None:
        """Record the resource; no effect if None."""
        self.held = held
        # Recording never raises: without a tmpfs, or with a full one, less can be cleaned up after a crash, but no call
        # fails.
        self._number = 0 if held is None else _owner.add(held)
        if isinstance(held, HeldBundle):
            _bundles[held.path] = self

    def change(self, held: Held) -> None:
        """Record new facts about the resource."""
        self.held = held
        _owner.change(self._number, held)

    def release(self) -> None:
        """Delete the record, because the resource is gone. Idempotent."""
        _owner.remove(self._number)
        if isinstance(self.held, HeldBundle):
            _bundles.pop(self.held.path, None)


def note_use(path: str, root: str) -> None:
    """Record the use of a bundle by a client with the root directory, if the current process holds the bundle."""
    if not _bundles:
        return
    # A container may outlive this process, and then the bundle has to stay: a sweeper looks for the container below
    # this root directory.
    claim = _bundles.get(os.fsencode(os.path.realpath(path)))
    if claim is not None and isinstance(held := claim.held, HeldBundle):
        place = os.fsencode(root)
        if place not in held.roots:
            claim.change(msgspec.structs.replace(held, roots=(*held.roots, place)))


class _Owner:
    """The file of the current process, kept while any resource is held."""

    def __init__(self) -> None:
        self._warned = False
        self._begin()

    def _begin(self) -> None:
        """Start without a file."""
        self._fd: int = -1
        self._path: str = ""
        self._size: int = 0
        self._live: int = 0  # bytes of the lines that count
        self._held: dict[int, bytes] = {}
        # The numbers of a forked child differ from its parent's, which it may still release.
        self._numbers = itertools.count(os.getpid() << 40)
        self._lock = threading.RLock()

    def forget(self) -> None:
        """Leave the file to the parent, in a forked child: otherwise the lock would outlive the parent."""
        for fd in (*closed_in_children, *([self._fd] if self._fd >= 0 else [])):
            os.close(fd)
        closed_in_children.clear()
        self._begin()

    def add(self, held: Held) -> int:
        """Record a resource, and return the number."""
        number = next(self._numbers)
        self.change(number, held, new=True)
        return number

    def change(self, number: int, held: Held, *, new: bool = False) -> None:
        """Record a resource, or new facts about the resource."""
        line = b"\n" + msgspec.json.encode(Line(number, held))
        with self._lock:
            if not new and number not in self._held:
                return
            # Lines are only appended. When old ones outweigh the rest, the file is written again.
            self._live += len(line) - len(self._held.get(number, b""))
            self._held[number] = line
            try:
                if self._fd < 0:
                    self._open()
                else:
                    self._write(line)
            except OSError as error:
                if not self._warned:
                    _logger.warning("can't record what is held, for a clean-up after a crash: %s", error)
                self._warned = True
            if self._size > max(_ROOM, 4 * self._live):
                with contextlib.suppress(OSError):
                    self._open()

    def remove(self, number: int) -> None:
        """Delete the record of a resource; the last deletion removes the file."""
        with self._lock:
            line = self._held.pop(number, None)
            if line is None:
                return
            self._live -= len(line)
            with contextlib.suppress(OSError):
                if not self._held:
                    self._close()
                elif self._fd >= 0:
                    self._write(b"\n" + msgspec.json.encode(Line(number)))

    def _open(self) -> None:
        """Create a file with all resources, replacing the old file.

        Raises:
            OSError: If there is no place for the file.
        """
        failure = OSError(errno.ENOENT, "there is no tmpfs for it: neither /dev/shm nor $XDG_RUNTIME_DIR")
        for place in places():
            try:
                fd = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
            except OSError as error:
                failure = error
                continue
            path = os.path.join(place, PREFIX + os.urandom(8).hex())
            old = self._fd, self._path
            try:
                # The lock is held, and the contents are there, before the name is: no sweeper sees it without them.
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._fd, self._size = fd, 0
                self._write(b"".join(self._held.values()))
                # linkat(2), which follows the link of procfs, is called if there is a directory; it isn't looked at.
                os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
            except OSError as error:
                self._fd, self._path = old
                os.close(fd)
                failure = error
                continue
            self._path = path
            _discard(*old)
            return
        raise failure

    def _write(self, data: bytes) -> None:
        """Append lines. Each starts with a line feed, so an incomplete line doesn't damage the next.

        Raises:
            OSError: If the lines can't be written.
        """
        self._size += len(data)
        if os.write(self._fd, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _close(self) -> None:
        """Remove the file."""
        old = self._fd, self._path
        self._fd, self._path = -1, ""
        _discard(*old)


def make_directory(prefix: str, parent: str, held: Callable[[bytes], Held] | None) -> tuple[str, Claim]:
    """Create a directory with a random name, accessible only to the owner; the record is written before.

    Args:
        prefix: The prefix of the name.
        parent: The parent directory.
        held: Returns the resource to record, from the path; None for no record.

    Raises:
        OSError: If the directory can't be created.
    """
    parent, place = os.path.abspath(parent), os.path.realpath(parent)
    while True:
        name = prefix + os.urandom(4).hex()
        path = os.path.join(parent, name)
        claim = Claim(None if held is None else held(os.fsencode(os.path.join(place, name))))
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            claim.release()
        except BaseException:
            claim.release()
            raise
        else:
            return path, claim


def places() -> list[str]:
    """Return the directories for owners' files, the best first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return [MEMORY, *([runtime] if os.path.isabs(runtime) else [])]


def _discard(fd: int, path: str) -> None:
    """Remove a file before the release of the lock."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(fd)


closed_in_children: Final[set[int]] = set()
"""Descriptors to close in a forked child, where they would keep a lock that has to end together with the parent."""

_bundles: Final[dict[bytes, Claim]] = {}
_owner: Final = _Owner()
os.register_at_fork(after_in_child=_owner.forget)
