"""$XDG_RUNTIME_DIR, where a runtime that doesn't run as root keeps its containers: check that it can be used."""

from __future__ import annotations

import os

from ..errors import PermissionDenied


def check_runtime_directory(directory: str, runtime: str, container_id: str | None) -> None:
    """Raise if a runtime can't keep its containers in $XDG_RUNTIME_DIR.

    After su(1), for example, the directory belongs to another user.

    Raises:
        PermissionDenied: If the runtime's directory there can't be created or written.
    """
    # runc itself would exit with 1, and report it on stderr alone: just like a program that exits with 1.
    root = os.path.join(directory, runtime)
    if can_write(root):
        return
    message = (
        f"$XDG_RUNTIME_DIR is {directory!r}, where user {os.geteuid()} can't make or write {root!r}: "
        "set it to a directory of that user, or give the client another with root="
    )
    raise PermissionDenied((), None, container_id=container_id, message=message)


def can_write(path: str) -> bool:
    """Return whether a directory can be written, or can be created."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)
