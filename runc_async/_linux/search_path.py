"""Look a program up in $PATH, as execvp(3) does, and remember for a moment where it was."""

from __future__ import annotations

import os
import time
from typing import Final

MOMENT: Final = 1.0
"""Seconds for which a place found counts while it is executable: a program put before it is seen later than that."""

_LARGEST: Final = 64

_found: Final[dict[tuple[str, str], tuple[str, float]]] = {}


def find_executable(program: str, path: str) -> str | None:
    """Return the place of a program in a list of directories.

    A look into each directory takes as long as all else before a spawn, so a place is remembered for `MOMENT` (1.0
    second), and then only asked for whether it is executable.

    Args:
        program: A name without a slash.
        path: The directories, as in $PATH.

    Returns:
        The place; None if there is none, or if a relative directory comes before, which means a different place to a
        child with a working directory of its own.
    """
    key = program, path
    place, until = _found.get(key, ("", 0.0))
    if time.monotonic() < until and _is_executable(place):
        return place
    for directory in path.split(os.pathsep):
        if not directory.startswith(os.sep):
            return None
        place = f"{directory}/{program}"
        if _is_executable(place) and not os.path.isdir(place):
            if len(_found) >= _LARGEST:
                _found.clear()
            _found[key] = place, time.monotonic() + MOMENT
            return place
    return None


def _is_executable(place: str) -> bool:
    """Return whether the current process may execute a file."""
    return os.access(place, os.X_OK, effective_ids=True)
