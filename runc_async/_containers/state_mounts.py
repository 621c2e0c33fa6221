"""Mounts of a killed runc in the directory of a container."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from .._linux.libc import detach

RESTORED_ROOT: Final = "criu-root"
"""Mount point of a container's root filesystem for criu."""

OWN_COPY: Final = "runc."
"""Prefix, before six letters, of the file over which runc 1.1 mounts itself: `try_bindfd` in nsexec."""


def unmount(directory: str) -> None:
    """Unmount all mounts in the directory of a container before the deletion.

    Raises:
        OSError: If a deletion might reach the container's root filesystem.
    """
    try:
        names = os.listdir(directory)
    except OSError:  # there is none, or it isn't ours to look into
        return
    for name in names:
        if name == RESTORED_ROOT:
            spare_root(os.path.join(directory, name))
        elif name.startswith(OWN_COPY):
            forget_copy(os.path.join(directory, name))


def spare_root(place: str) -> None:
    """Unmount the root filesystem mounted by runc for criu in the container's directory.

    Args:
        place: The mount point.

    Raises:
        OSError: If the mount is still there.
    """
    # A killed runc leaves the mount without a record of the container. runc-delete(8) then empties the directory, and
    # would delete all files of the root filesystem.
    while os.path.lexists(place):
        try:
            detach(place)
        except OSError as exc:
            if exc.errno == errno.EINVAL:  # nothing is mounted there any more
                return
            raise


def forget_copy(place: str) -> None:
    """Unmount the copy of runc, mounted briefly by runc 1.1 in the container's directory.

    Without the right to unmount, as for another user, the mount stays.

    Args:
        place: The current or former mount point.
    """
    # A runc killed in this moment leaves the mount. Then runc-delete(8) can't remove the directory, exits with 0 all
    # the same, and the id can't be used again.
    with contextlib.suppress(OSError):
        spare_root(place)
