"""A tar archive that goes into a directory of a container's, whose processes may tamper with it meanwhile."""

from __future__ import annotations

import os
import stat
import sys
import tarfile
from collections.abc import Callable
from typing import Final

from runc_async.errors import ArchiveError
from runc_async.rootfs import Tar

from .._bundles.unpack import RefusedError, Source, Unpacking
from .._linux.files import opened
from .openat2 import act_as, look_at, opened_inside
from .root import Root, naming

# The archive comes from the caller, who can count its bytes; the file system in the container has limits of its own.
_UNLIMITED: Final = Tar("", max_size=sys.maxsize, max_entries=sys.maxsize)


def unpack_inside(root: Root, path: str, archive: int, check: Callable[[], None]) -> None:
    """Unpack an archive into a directory of a container's.

    Args:
        root: The container.
        path: The directory.
        archive: A descriptor from which the archive is read; closed in every case, so that a writer learns of it.
        check: Called between two reads; raises when the work shall be given up.

    Raises:
        ArchiveError: If the archive is refused.
        OSError: If something can't be written.
    """
    with open(archive, "rb") as file, naming(path), opened_inside(root.fd, path) as pinned:
        act_as(root.uids.outside(0), root.gids.outside(0))
        with opened(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_DIRECTORY) as top:
            try:
                _Unpacking(root, Source(file, check), top).run()
            except RefusedError as refusal:
                raise ArchiveError(path, str(refusal)) from None


class _Unpacking(Unpacking):
    """One archive on its way into a container."""

    def __init__(self, root: Root, source: Source, top: int) -> None:
        super().__init__(_UNLIMITED, source, top)
        self._root = root

    def owner(self, member: tarfile.TarInfo) -> tuple[int, int]:
        """Return whose an entry shall be, outside."""
        try:
            return self._root.uids.outside(member.uid), self._root.gids.outside(member.gid)
        except ValueError as error:
            raise RefusedError(f"{member.name!r}: {error}") from None

    def clear(self, folder: int, name: str, whole: str) -> None:
        """Remove what has the name of an entry, unless it is a directory or something is mounted there."""
        mode = look_at(folder, name)
        if mode is not None and stat.S_ISDIR(mode):
            raise RefusedError(f"{whole!r} would take the place of a directory")
        super().clear(folder, name, whole)
