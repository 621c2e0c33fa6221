"""The images of a checkpoint, for a runtime that refuses a directory with images of an earlier checkpoint."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator


@contextlib.contextmanager
def replaced(directory: str, is_gone: Callable[[], bool]) -> Generator[str]:
    """Yield an empty directory below `directory`, and replace the images in `directory` by the new ones on exit.

    If the block raises, the images in `directory` stay, and the new ones are removed.

    Args:
        directory: The directory for the images, created if missing.
        is_gone: Returns whether the container is gone. Then the new images are complete even if the block raises.

    Raises:
        OSError: If the directory can't be made, or an image can't be moved.
    """
    os.makedirs(directory, exist_ok=True)
    place = tempfile.mkdtemp(prefix=".new-", dir=directory)
    complete = False
    try:
        yield place
        complete = True
    finally:
        try:
            for name in os.listdir(place) if complete or is_gone() else ():
                os.replace(os.path.join(place, name), os.path.join(directory, name))
        finally:
            shutil.rmtree(place, ignore_errors=True)
