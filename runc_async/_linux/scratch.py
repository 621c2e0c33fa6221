"""Private directories for the few files that can't be in memory."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator

from .owner import HeldScratch, make_directory

MEMORY = "/dev/shm"  # noqa: S108 - shm_overview(7); what is made there is private
CHOICES = ("TMPDIR", "TEMP", "TMP")  # what tempfile looks at too


@contextlib.contextmanager
def scratch_directory(*names: str, recorded: bool = True) -> Generator[str]:
    """Create a directory for files of these names, and remove the directory with the files on exit.

    What a killed process leaves is removed by `Runc.sweep`.

    Args:
        names: The files.
        recorded: Whether `Runc.sweep` may remove it once the current process has ended, or executes another program.

    Raises:
        OSError: If there is no place for a directory.
    """
    directory, claim = make_directory("runc_async-", _place(), HeldScratch if recorded else None)
    try:
        yield directory
    finally:
        discard(directory, *names)
        if not os.path.lexists(directory):
            claim.release()


def discard(directory: str, *names: str) -> None:
    """Remove a directory with the files of these names, and with all other files that a runtime has left in it."""
    # shutil.rmtree needs a descriptor, and there may be none left. The known files are removed without one.
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, name))
    try:
        os.rmdir(directory)
    except OSError:
        with contextlib.suppress(ImportError):  # at the end of the interpreter; `Runc.sweep` removes it later
            import shutil  # noqa: PLC0415  (as above)

            shutil.rmtree(directory, ignore_errors=True)


def _place() -> str:
    """Choose a directory in memory, or the default of `tempfile`."""
    # runc waits until its pid file is on the disk, so memory is quicker; but a place chosen by the user comes first.
    if any(name in os.environ for name in CHOICES) or not os.access(MEMORY, os.W_OK | os.X_OK):
        import tempfile  # noqa: PLC0415  (it takes a millisecond to load, and many programs need no file)

        return tempfile.gettempdir()
    return MEMORY
