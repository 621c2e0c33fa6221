"""A root directory with a single container, for a runtime that takes the beginning of an id for the id.

Without a container `web-1`, such a runtime does to `web-10` what a command says of `web-1`. With both containers it
refuses each command for `web-1`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator

from .._linux.scratch import scratch_directory
from ..runner import PrivateRoot


@contextlib.contextmanager
def alone(root: PrivateRoot) -> Generator[str]:
    """Create a root directory with a single container, existing or not; remove the directory on exit.

    Each command has a directory of its own. A container's commands must not share one: the deletion of the container
    would remove the directory, although commands that are about to start find the next container of the same id.

    Raises:
        OSError: If the directory can't be created.
    """
    with scratch_directory(root.record, root.lock) as place:
        yield place if _link(root, place) else root.path


def _link(root: PrivateRoot, place: str) -> bool:
    """Link the files of the container. Return False for an id too long for any container."""
    record, lock = (os.path.join(root.path, name) for name in (root.record, root.lock))
    links = [(record, root.record)]
    # Without a container, the runtime would create the lock behind the link, and the lock would stay. The record may
    # still appear before the command reads the link.
    if os.path.exists(record):
        links.append((lock, root.lock))
    try:
        for target, name in links:
            os.symlink(target, os.path.join(place, name))
    except OSError as exc:
        if exc.errno == errno.ENAMETOOLONG:
            return False
        raise
    return True
