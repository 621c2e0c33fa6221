"""What a runc that was killed has left mounted in the directory that it keeps for a container."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from .._linux.libc import detach

RESTORED_ROOT: Final = "criu-root"
"""Where runc mounts a container's root filesystem for criu."""

OWN_COPY: Final = "runc."
"""How the file is named, with six letters more, over which runc 1.1 mounts itself: `try_bindfd` of its nsexec."""


def unmount(directory: str) -> None:
    """Take away what is left mounted in the directory of a container that is to be deleted.

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
    """Take away the root filesystem that runc has mounted for criu in the container's own directory.

    A runc that is killed leaves it there, without a record of the container. runc-delete(8) then empties that
    directory, and would delete all files of the root filesystem.

    Args:
        place: Where it is mounted.

    Raises:
        OSError: If it is still there.
    """
    while os.path.lexists(place):
        try:
            detach(place)
        except OSError as exc:
            if exc.errno == errno.EINVAL:  # nothing is mounted there any more
                return
            raise


def forget_copy(place: str) -> None:
    """Take away what runc 1.1 mounts in the container's own directory for a moment: itself, to start from there.

    A runc that is killed in that moment leaves it. Then runc-delete(8) can't remove the directory, tells nobody who
    looks at its exit code, and no container of that id can be made any more. What can't be taken away, as by a user who
    may not unmount, stays.

    Args:
        place: Where it is mounted, or was.
    """
    with contextlib.suppress(OSError):
        spare_root(place)
