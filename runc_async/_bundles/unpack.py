"""Unpack a tar archive, perhaps a hostile one, to a directory tree: see `Tar` for refused archives.

`tarfile` only reads the headers. The filters of `tarfile` aren't used: Python 3.11.2 lacks the filters, and the
filters refuse absolute links, common in root filesystems, and compare paths before the paths are followed. Here each
directory on the way to a file is opened separately and never through a symbolic link, so no link can redirect a write.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import tarfile
from collections.abc import Callable, Generator, Sequence
from typing import BinaryIO, TypeAlias, cast

from .._linux.files import DIRECTORY, NEW_FILE, opened
from ..errors import RootfsError
from ..rootfs import Tar

Check: TypeAlias = Callable[[], None]
"""Called often; raises to stop the work."""

_PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "lzma"}
_MAGIC_LENGTH = 6
_CHUNK = 1 << 18
READ_LIMIT = 1 << 20
"""Maximal bytes of one read: a header with a larger size is refused."""

_END = bytes(tarfile.BLOCKSIZE)

# Exceptions of tarfile for invalid headers, besides its own errors.
_NONSENSE = (tarfile.TarError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError)


class RefusedError(Exception):
    """The archive is refused; the text has the reason."""


def unpack(tar: Tar, directory: str, check: Check) -> None:
    """Unpack an archive into an empty directory without write access for other users.

    Args:
        tar: The archive and its limits.
        directory: The target. Files unpacked before an error stay there.
        check: Called between any two reads.

    Raises:
        RootfsError: If the archive is refused.
        OSError: If the archive can't be read, or a file can't be written.
    """
    path = os.fspath(tar.path)
    try:
        with open(path, "rb") as packed, _unpacked(packed) as plain, opened(directory) as top:
            Unpacking(tar, Source(plain, check), top).run()
    except RefusedError as refusal:
        raise RootfsError(path, str(refusal)) from None


def _unpacked(packed: io.BufferedReader) -> BinaryIO:
    """Open the archive inside a compressed file."""
    start = packed.peek(_MAGIC_LENGTH)  # a pipe can't seek
    for magic, module in _PACKERS.items():
        if start.startswith(magic):
            plain: BinaryIO = importlib.import_module(module).open(packed)
            return plain
    return packed


class Source:
    """The archive as passed to `tarfile`: read once from start to end, in small pieces.

    Attributes:
        last: The result of the last read.
    """

    def __init__(self, file: BinaryIO, check: Check) -> None:
        self._file = file
        self._check = check
        self._position = 0
        self.last = b""

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seekable(self) -> bool:
        """Return True: `seek` can be called."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read; a header of more than a mebibyte is an attempt to fill the memory."""
        self._check()
        if not 0 <= size <= READ_LIMIT:
            raise RefusedError(f"a header of {size} bytes")
        try:
            self.last = self._file.read(size)
        except OSError as error:
            if error.errno is not None:
                raise
            raise RefusedError(f"damaged: {error}") from error
        except Exception as error:  # each decompressor has errors of its own, and not all are there in every Python
            raise RefusedError(f"damaged: {error}") from error
        self._position += len(self.last)
        return self.last

    def seek(self, position: int, _whence: int = 0) -> int:
        """Move forwards. A negative size, in a header or a map of holes, points backwards (CVE-2025-8194)."""
        if position < self._position:
            raise RefusedError("damaged: a header that points back")
        while self._position < position and self.read(min(position - self._position, _CHUNK)):
            pass
        return self._position


class _Archive(tarfile.TarFile):
    """A TarFile with an attribute unknown to type checkers.

    Attributes:
        members: Every entry read so far.
    """

    members: list[tarfile.TarInfo]


class Unpacking:
    """An archive on the way to a directory."""

    def __init__(self, tar: Tar, source: Source, top: int) -> None:
        self._source = source
        self._top = top
        self._bytes_left = tar.max_size
        self._entries_left = tar.max_entries
        self._directories_left = tar.max_entries  # on their own, for one name can ask for any number of them
        self._limits = f"{tar.max_entries} entries and {tar.max_size} bytes"
        self._keep_owners = os.geteuid() == 0

    def run(self) -> None:
        """Unpack all entries."""
        try:
            archive = _Archive(fileobj=cast("BinaryIO", self._source), encoding="utf-8", errors="surrogateescape")
            while member := archive.next():
                archive.members.clear()  # tarfile would keep them all
                self._place(archive, member)
        except _NONSENSE as error:
            raise RefusedError(f"no tar archive, or damaged: {error}") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise RefusedError(f"a name that no filesystem takes: {error}") from error
            raise
        # tarfile stops at the first empty block, and also at a truncated file: only a block of zeros is a regular end.
        if self._source.last != _END:
            raise RefusedError("damaged: cut short")
        self._source.read(READ_LIMIT)  # the checksum of a packed archive comes after the padding
        if self._source.read(1):
            raise RefusedError("there is more after its end")

    def _place(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """Create the file of an entry."""
        self._entries_left -= 1
        self._bytes_left -= member.size if member.isreg() else 0
        self._hold_limits()
        parts = _parts(member.name)
        if member.size < 0:
            raise RefusedError(f"{member.name!r} has a size of {member.size} bytes")
        if member.isdir():
            with self._folder(parts) as folder:
                self._dress(folder, member, member.mode | 0o700)
        elif parts:
            with self._folder(parts[:-1]) as folder:
                self.clear(folder, parts[-1], member.name)
                self._place_file(archive, member, folder, parts[-1])
        else:
            raise RefusedError(f"{member.name!r} would take the place of the root")

    def _place_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, folder: int, name: str) -> None:
        """Create a file or a link in an open directory."""
        if member.isreg():
            self._write(archive, member, folder, name)
        elif member.issym():
            os.symlink(_target(member), name, dir_fd=folder)
            if self._keep_owners:
                os.chown(name, *self.owner(member), dir_fd=folder, follow_symlinks=False)
        elif member.islnk():
            self._link(member, folder, name)
        else:
            raise RefusedError(f"{member.name!r} is neither file, directory nor link")

    def _write(self, archive: tarfile.TarFile, member: tarfile.TarInfo, folder: int, name: str) -> None:
        """Write a file."""
        content = cast("BinaryIO", archive.extractfile(member))  # None only for what is no file
        with open(os.open(name, NEW_FILE, 0o600, dir_fd=folder), "wb") as file:
            for start, length in _extents(member):
                content.seek(start)
                file.seek(start)
                _copy(content, file, length)
            file.flush()  # what is written later would change the time again, and take setuid away
            os.ftruncate(file.fileno(), member.size)  # to the end of a last hole
            self._dress(file.fileno(), member, member.mode)
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def _link(self, member: tarfile.TarInfo, folder: int, name: str) -> None:
        """Create another name for a file unpacked before."""
        *above, original = _parts(member.linkname) or [""]
        try:
            with self._folder(above, make=False) as there:
                os.link(original, name, src_dir_fd=there, dst_dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, PermissionError):  # EPERM: a directory
            raise RefusedError(
                f"{member.name!r} is a link to {member.linkname!r}, which is no file before it"
            ) from None

    def _dress(self, fd: int, member: tarfile.TarInfo, mode: int) -> None:
        """Set owner and permissions; in this order, because chown(2) clears setuid."""
        if self._keep_owners:
            os.fchown(fd, *self.owner(member))
        os.fchmod(fd, mode & 0o7777)

    @contextlib.contextmanager
    def _folder(self, parts: Sequence[str], *, make: bool = True) -> Generator[int]:
        """Open a directory, and each directory on the way separately."""
        # From the top for each entry: a directory opened earlier may have been replaced by a later entry.
        fd = os.dup(self._top)
        try:
            for part in parts:
                below = self._step(fd, part, make=make)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _step(self, folder: int, name: str, *, make: bool) -> int:
        """Open a directory in another directory; create a missing directory: archives may lack directories."""
        try:
            return os.open(name, DIRECTORY, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
        except OSError as error:
            if error.errno in {errno.ENOTDIR, errno.ELOOP}:
                raise RefusedError(f"a name leads through {name!r}, which is no directory") from None
            raise
        self._directories_left -= 1
        self._hold_limits()
        os.mkdir(name, dir_fd=folder)
        fd = os.open(name, DIRECTORY, dir_fd=folder)
        os.fchmod(fd, 0o755)
        return fd

    def owner(self, member: tarfile.TarInfo) -> tuple[int, int]:
        """Return the owner of an entry: user and group."""
        return member.uid, member.gid

    def clear(self, folder: int, name: str, whole: str) -> None:
        """Remove the file of an earlier entry with the same name: tar(1) appends newer versions."""
        try:
            os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            raise RefusedError(f"{whole!r} would take the place of a directory") from None

    def _hold_limits(self) -> None:
        """Refuse an archive beyond the limits."""
        if min(self._entries_left, self._directories_left, self._bytes_left) < 0:
            raise RefusedError(f"it holds more than {self._limits}")


def _parts(name: str) -> list[str]:
    """Split a name, which must stay below the root."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise RefusedError(f"{name!r} is absolute or has '..' in it")
    return parts


def _target(member: tarfile.TarInfo) -> str:
    """Return the target of a symbolic link; a relative target must stay below the root."""
    if not member.linkname:
        raise RefusedError(f"{member.name!r} is a link to nothing")
    depth = len(_parts(member.name)) - 1
    for part in member.linkname.split("/"):
        depth += {"": 0, ".": 0, "..": -1}.get(part, 1)
        if depth < 0 and not member.linkname.startswith("/"):
            raise RefusedError(f"{member.name!r} is a link to {member.linkname!r}, above the root")
    return member.linkname


def _extents(member: tarfile.TarInfo) -> Sequence[tuple[int, int]]:
    """Return the extents of a file: offset and length of each piece of data."""
    extents = cast("Sequence[tuple[int, int]] | None", member.sparse)
    return [(0, member.size)] if extents is None else extents


def _copy(source: BinaryIO, target: BinaryIO, length: int) -> None:
    """Copy a number of bytes."""
    while length > 0 and (data := source.read(min(length, _CHUNK))):
        target.write(data)
        length -= len(data)
