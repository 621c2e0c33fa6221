"""A root directory with a single container, for a runtime that takes the beginning of an id for the id.

Without a container `web-1`, such a runtime does to `web-10` what a command says of `web-1`. With both containers it
refuses each command for `web-1`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from typing import Final

PLACE: Final = ".alone"
"""The directory below the runtime's root directory."""

STALE: Final = 60.0
"""Seconds after which a directory without a container is removed; a command that needs it may be about to start."""


def alone(root: str, container_id: str, files: Sequence[str]) -> str:
    """Return a root directory with a single container visible to the runtime, existing or not.

    Args:
        root: The runtime's root directory.
        container_id: The container.
        files: The record and the lock of a container, relative to the root directory, with `{id}` for the id.

    Raises:
        OSError: If the directory can't be made.
    """
    record, lock = (file.format(id=container_id) for file in files)
    place = os.path.join(root, PLACE, container_id)
    links = [record, lock]
    if not os.path.exists(os.path.join(root, record)):
        # The runtime would create the lock, which would stay. The record may appear before the command runs.
        links.remove(lock)
    try:
        if not os.path.isdir(place):
            _remove_stale(root, files)
            os.makedirs(place, mode=0o700, exist_ok=True)
        for name in links:
            _link(os.path.join("..", "..", name), os.path.join(place, name))
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:  # there is no such container, and no longer id
            return root
        raise
    return place


def _link(target: str, path: str) -> None:
    """Make a link, also in place of a lock that the runtime has created there while there was no container."""
    if not os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        with contextlib.suppress(FileExistsError):
            os.symlink(target, path)


def forget(root: str, container_id: str, files: Sequence[str]) -> None:
    """Remove the directory of a deleted container."""
    if not os.path.exists(os.path.join(root, files[0].format(id=container_id))):
        _remove(root, container_id, files)


def _remove_stale(root: str, files: Sequence[str]) -> None:
    """Remove the directories of containers gone for a while."""
    with contextlib.suppress(OSError):
        for name in os.listdir(os.path.join(root, PLACE)):
            if time.time() - os.stat(os.path.join(root, PLACE, name)).st_mtime > STALE:
                forget(root, name, files)


def _remove(root: str, container_id: str, files: Sequence[str]) -> None:
    """Remove the directory of a container, and with the last the directory above."""
    place = os.path.join(root, PLACE, container_id)
    for file in files:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(place, file.format(id=container_id)))
    for directory in (place, os.path.dirname(place)):
        with contextlib.suppress(OSError):
            os.rmdir(directory)
