"""What this process holds, in a file that outlives it, so that another process can remove what a crash has left.

The file is on a tmpfs. This process holds a lock on it, flock(2), which the kernel releases when the process ends, in
whatever way: no clock and no comparison of pids is needed to tell a dead owner from a live one. `_host/owners` reads
the files of dead owners.
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
"""How the file of a dead owner is named once a sweeper has taken it, which locks it too."""

_ROOM: Final = 1 << 16
"""Bytes that a file may have before it is written anew without what was released."""

_logger = logging.getLogger("runc_async")


class HeldContainer(msgspec.Struct, frozen=True, tag="container"):
    """A container of a block.

    Attributes:
        root: The runtime's root directory.
        id: The container's id.
        bundle: Absolute path of its bundle.
        foreground: Whether the runtime process lives as long as the container, as in `run`.
        pid: Its first process; 0 until that is known.
        start_time: The start time of that process: see `ProcessIdentity`.
    """

    root: bytes
    id: str
    bundle: bytes
    foreground: bool = False
    pid: int = 0
    start_time: int = 0


class HeldBundle(msgspec.Struct, frozen=True, tag="bundle"):
    """A bundle that is temporary, or has an overlay mounted.

    Attributes:
        path: Its directory, absolute and without symbolic links.
        temporary: Whether the directory goes with the block.
        mounted: Whether an overlay is mounted at its `rootfs`.
        roots: The root directories of the clients that have used it.
    """

    path: bytes
    temporary: bool
    mounted: bool = False
    roots: tuple[bytes, ...] = ()


class HeldScratch(msgspec.Struct, frozen=True, tag="scratch"):
    """A private directory for the files of one call.

    Attributes:
        path: The directory, absolute and without symbolic links.
    """

    path: bytes


Held: TypeAlias = HeldContainer | HeldBundle | HeldScratch


class Line(msgspec.Struct, frozen=True):
    """One line of the file: the latest line of a number counts.

    Attributes:
        n: The number of what is held.
        held: What it is; None if it was released.
    """

    n: int
    held: Held | None = None


class Claim:
    """One thing in this process's file, from before it is made until it is gone.

    Nothing here raises: a host without a tmpfs, or one that is full, has less to remove after a crash, and no call
    fails for it.
    """

    def __init__(self, held: Held | None) -> None:
        """Write it down; nothing if it is None."""
        self.held = held
        self._number = 0 if held is None else _owner.add(held)
        if isinstance(held, HeldBundle):
            _bundles[held.path] = self

    def change(self, held: Held) -> None:
        """Write down what has become known of it."""
        self.held = held
        _owner.change(self._number, held)

    def release(self) -> None:
        """Strike it out: it is gone. Idempotent."""
        _owner.remove(self._number)
        if isinstance(self.held, HeldBundle):
            _bundles.pop(self.held.path, None)


def note_use(path: str, root: str) -> None:
    """Note that a client with this root directory uses a bundle, if this process holds that.

    A container may outlive this process, and then the bundle stays: its sweeper looks for it below that root directory.
    """
    if not _bundles:
        return
    claim = _bundles.get(os.fsencode(os.path.realpath(path)))
    if claim is not None and isinstance(held := claim.held, HeldBundle):
        place = os.fsencode(root)
        if place not in held.roots:
            claim.change(msgspec.structs.replace(held, roots=(*held.roots, place)))


class _Owner:
    """The file of this process. It is there as long as anything is held."""

    def __init__(self) -> None:
        self._warned = False
        self._begin()

    def _begin(self) -> None:
        """Begin without a file."""
        self._fd: int = -1
        self._path: str = ""
        self._size: int = 0
        self._live: int = 0  # bytes of the lines that count
        self._held: dict[int, bytes] = {}
        # The numbers of a forked child differ from its parent's, which it may still release.
        self._numbers = itertools.count(os.getpid() << 40)
        self._lock = threading.RLock()

    def forget(self) -> None:
        """Leave the file to the parent, in a forked child: else the lock would outlive the parent."""
        for fd in (*closed_in_children, *([self._fd] if self._fd >= 0 else [])):
            os.close(fd)
        closed_in_children.clear()
        self._begin()

    def add(self, held: Held) -> int:
        """Write one thing down, and return its number."""
        number = next(self._numbers)
        self.change(number, held, new=True)
        return number

    def change(self, number: int, held: Held, *, new: bool = False) -> None:
        """Write one thing down, or what has become of it."""
        line = b"\n" + msgspec.json.encode(Line(number, held))
        with self._lock:
            if not new and number not in self._held:
                return
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
        """Strike one thing out; with the last one the file goes."""
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
        """Make a file with all that is held, in place of the old one.

        Raises:
            OSError: If there is no place for it.
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
        """Append lines. Each begins with its line feed, so a torn one spoils no other.

        Raises:
            OSError: If they can't be written.
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
    """Make a directory with a random name that only its owner can enter; write it down before.

    Args:
        prefix: How its name begins.
        parent: Where it is made.
        held: Gives what is written down, for its path; None: nothing is.

    Raises:
        OSError: If it can't be made.
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
    """List the directories in which owners may have their files, the best first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return [MEMORY, *([runtime] if os.path.isabs(runtime) else [])]


def _discard(fd: int, path: str) -> None:
    """Remove a file before its lock is released."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(fd)


closed_in_children: Final[set[int]] = set()
"""Descriptors that a forked child closes, since it would keep a lock that its parent's end has to release."""

_bundles: Final[dict[bytes, Claim]] = {}
_owner: Final = _Owner()
os.register_at_fork(after_in_child=_owner.forget)
