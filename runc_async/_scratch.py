"""Private directories for the few files that can't be in memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Generator


@contextlib.contextmanager
def scratch_directory(*names: str) -> Generator[str]:
    """Make a directory for files of these names, and remove it with them in every case.

    `shutil.rmtree` alone wouldn't: it needs a descriptor, of which there may be none left.

    Raises:
        OSError: If there is no place for it.
    """
    directory = tempfile.mkdtemp(prefix="runc_async-")
    try:
        yield directory
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(directory, name))
        try:
            os.rmdir(directory)
        except OSError:
            shutil.rmtree(directory, ignore_errors=True)
