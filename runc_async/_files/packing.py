"""A directory or file of a container as a tar archive, created piece by piece on request."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from collections.abc import Generator
from typing import NamedTuple

from .._linux.files import DIRECTORY
from .openat2 import has_content, open_inside, opened_inside, opened_regular
from .root import Root, naming

BLOCK = 1 << 19
"""Bytes per piece of an archive."""

_CHUNK = 1 << 18
_DEPTH = 256
"""Maximal depth of nested directories: each level takes a descriptor."""

_EXTENTS = 4096
"""Maximal number of pieces of data between holes; the rest of the file is archived as it reads."""

_LINKED = 100_000
"""Maximal number of remembered files with several names; further names become separate files in the archive."""

_LINK = os.O_PATH | os.O_NOFOLLOW


class _Level(NamedTuple):
    """A directory that is being archived.

    Attributes:
        fd: The directory.
        name: The name in the archive.
        below: Subdirectories that are still to come.
    """

    fd: int
    name: str
    below: list[str]


class Packing:
    """The archive of one path; closed, it holds no descriptor.

    The archive has regular files, directories and symbolic links, with owners as seen inside; files with several names
    once. Devices, FIFOs and sockets, and the kernel's own file systems such as procfs, are left out.

    Args:
        root: The container.
        path: The path to archive; names in the archive start with its last part, or with `.` for the root.

    Raises:
        OSError: If the path can't be opened.
    """

    def __init__(self, root: Root, path: str) -> None:
        self._root = root
        self._path = path
        self._linked: dict[tuple[int, int], str] = {}
        self._levels: list[_Level] = []
        with naming(path):
            self._top = open_inside(root.fd, path)
        self._pieces = self._all()

    def read(self) -> bytes:
        """Return the next piece; empty at the end."""
        piece = bytearray()
        with naming(self._path):
            for data in self._pieces:
                piece += data
                if len(piece) >= BLOCK:
                    break
        return bytes(piece)

    def close(self) -> None:
        """Close all descriptors."""
        self._pieces.close()
        for level in self._levels:
            os.close(level.fd)
        os.close(self._top)

    def _all(self) -> Generator[bytes]:
        """Yield the archive."""
        name = next((part for part in reversed(self._path.split("/")) if part not in {"", "."}), ".")
        mode = os.fstat(self._top).st_mode
        if stat.S_ISDIR(mode):
            yield from self._enter(self._top, name)
            yield from self._descend()
        elif stat.S_ISREG(mode):
            yield from self._file(self._top, name)
        else:
            raise OSError(errno.EINVAL, "it is neither file nor directory")
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _descend(self) -> Generator[bytes]:
        """Yield everything below the directory that was entered."""
        while self._levels:
            level = self._levels[-1]
            if not level.below:
                self._levels.pop()
                os.close(level.fd)
                continue
            name = level.below.pop()
            try:
                # Opened from the descriptor of the parent and without following links: a process inside may replace any
                # part of the path at any time.
                below = open_inside(level.fd, name, _LINK | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):  # gone meanwhile, or something else
                continue
            try:
                yield from self._enter(below, f"{level.name}/{name}")
            finally:
                os.close(below)

    def _enter(self, pinned: int, name: str) -> Generator[bytes]:
        """Yield a directory and its files; subdirectories are put on the stack."""
        if len(self._levels) >= _DEPTH:
            raise OSError(errno.ELOOP, f"more than {_DEPTH} directories lie in each other")
        yield self._header(name, os.fstat(pinned), tarfile.DIRTYPE)
        if not has_content(pinned):
            return
        level = _Level(os.open(".", DIRECTORY, dir_fd=pinned), name, [])
        self._levels.append(level)
        with os.scandir(level.fd) as entries:
            for entry in entries:
                try:
                    with opened_inside(level.fd, entry.name, _LINK) as fd:
                        mode = os.fstat(fd).st_mode
                        if stat.S_ISDIR(mode):
                            level.below.append(entry.name)
                        elif stat.S_ISREG(mode) and has_content(fd):
                            yield from self._file(fd, f"{name}/{entry.name}")
                        elif stat.S_ISLNK(mode):
                            target = os.readlink("", dir_fd=fd)
                            yield self._header(f"{name}/{entry.name}", os.fstat(fd), tarfile.SYMTYPE, target)
                except FileNotFoundError:  # gone meanwhile
                    continue

    def _file(self, pinned: int, name: str) -> Generator[bytes]:
        """Yield a regular file, or a link to its first name in the archive."""
        status = os.fstat(pinned)
        key = (status.st_dev, status.st_ino)
        if first := self._linked.get(key):
            yield self._header(name, status, tarfile.LNKTYPE, first)
            return
        with opened_regular(pinned) as fd:
            size = os.fstat(fd).st_size
            # A file with fewer blocks than bytes has holes; only then are they looked for.
            extents = [(0, size)] if status.st_blocks * 512 >= size else _extents(fd, size)
            if extents == [(0, size)]:
                yield self._header(name, status, tarfile.REGTYPE, size=size)
            else:
                yield from self._sparse_header(name, status, size, extents)
            stored = 0
            for start, length in extents:
                yield from _content(fd, start, length)
                stored += length
            yield bytes(-stored % tarfile.BLOCKSIZE)
        if status.st_nlink > 1 and len(self._linked) < _LINKED:
            self._linked[key] = name

    def _sparse_header(
        self, name: str, status: os.stat_result, size: int, extents: list[tuple[int, int]]
    ) -> Generator[bytes]:
        """Yield the header of a file with holes, and the map of its data: GNU tar's format 1.0."""
        numbers = [len(extents), *(number for extent in extents for number in extent)]
        plan = "".join(f"{number}\n" for number in numbers).encode()
        plan += bytes(-len(plan) % tarfile.BLOCKSIZE)
        folder, _, last = name.rpartition("/")
        records = {"major": "1", "minor": "0", "name": name, "realsize": str(size)}
        yield self._header(
            f"{folder or '.'}/GNUSparseFile.0/{last}",
            status,
            tarfile.REGTYPE,
            size=len(plan) + sum(length for _, length in extents),
            records={f"GNU.sparse.{key}": value for key, value in records.items()},
        )
        yield plan

    def _header(
        self,
        name: str,
        status: os.stat_result,
        kind: bytes,
        target: str = "",
        *,
        size: int = 0,
        records: dict[str, str] | None = None,
    ) -> bytes:
        """Return the header of an entry."""
        entry = tarfile.TarInfo(name)
        entry.type = kind
        entry.mode = stat.S_IMODE(status.st_mode)
        entry.uid, entry.gid = self._root.uids.inside(status.st_uid), self._root.gids.inside(status.st_gid)
        entry.mtime = int(status.st_mtime)
        entry.linkname = target
        entry.size = size
        entry.pax_headers = records or {}
        return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _extents(fd: int, size: int) -> list[tuple[int, int]]:
    """Return the pieces of data in a file, as offset and length, and at last its end."""
    found: list[tuple[int, int]] = []
    position = 0
    while position < size and len(found) < _EXTENTS:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # no more data
        position = min(size, os.lseek(fd, start, os.SEEK_HOLE))
        if start < size:
            found.append((start, position - start))
    if len(found) == _EXTENTS:
        last = found.pop()
        found.append((last[0], size - last[0]))
    return found if found == [(0, size)] else [*found, (size, 0)]


def _content(fd: int, start: int, length: int) -> Generator[bytes]:
    """Yield a part of a file; bytes that are gone when read become zeros."""
    end = start + length
    while start < end:
        data = os.pread(fd, min(_CHUNK, end - start), start)
        if not data:
            # The header with the size has been sent already.
            data = bytes(min(_CHUNK, end - start))
        start += len(data)
        yield data
