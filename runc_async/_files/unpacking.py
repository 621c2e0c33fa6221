"""Unpack a tar archive into a directory of a container, whose processes may interfere meanwhile."""

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
    """Unpack an archive into a directory of a container.

    Args:
        root: The container.
        path: The directory.
        archive: A descriptor to read the archive from; closed in any case, so that the writer notices an error.
        check: Called between two reads; raises to stop the work.

    Raises:
        ArchiveError: If the archive is refused.
        OSError: If a file can't be written.
    """
    with open(archive, "rb") as file, naming(path), opened_inside(root.fd, path) as pinned:
        act_as(root.uids.outside(0), root.gids.outside(0))
        with opened(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_DIRECTORY) as top:
            try:
                _Unpacking(root, Source(file, check), top).run()
            except RefusedError as refusal:
                raise ArchiveError(path, str(refusal)) from None


class _Unpacking(Unpacking):
    """One archive on its way to a container."""

    def __init__(self, root: Root, source: Source, top: int) -> None:
        super().__init__(_UNLIMITED, source, top)
        self._root = root

    def owner(self, member: tarfile.TarInfo) -> tuple[int, int]:
        """Return the owner of an entry, as seen outside."""
        try:
            return self._root.uids.outside(member.uid), self._root.gids.outside(member.gid)
        except ValueError as error:
            raise RefusedError(f"{member.name!r}: {error}") from None

    def clear(self, folder: int, name: str, whole: str) -> None:
        """Remove the file with the name of an entry, unless it is a directory or a mount point."""
        mode = look_at(folder, name)
        if mode is not None and stat.S_ISDIR(mode):
            raise RefusedError(f"{whole!r} would take the place of a directory")
        super().clear(folder, name, whole)
