"""The file with the pid of a process inside a sandbox."""

from __future__ import annotations

import contextlib
import os

from .._linux.memfd import lifted
from .._linux.scratch import scratch_directory

_PID_BYTES = 16


class InsidePid:
    """A private pid file, reached by the runtime through an inherited descriptor.

    Args:
        above: Lowest number for the descriptor.

    Raises:
        OSError: If the directory can't be created.
    """

    def __init__(self, *, above: int) -> None:
        with contextlib.ExitStack() as undo:
            directory = undo.enter_context(scratch_directory("inside"))
            self.directory_fd: int = lifted(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), above)
            undo.callback(os.close, self.directory_fd)
            self.path: str = f"/proc/self/fd/{self.directory_fd}/inside"
            self._undo = undo.pop_all()
        self._pid = 0
        self._closed = False

    def read(self) -> int:
        """Return the pid; 0 until the runtime has written the file."""
        if not self._pid and not self._closed:
            with contextlib.suppress(OSError, ValueError), open(self.path, "rb", buffering=0) as file:
                self._pid = int(file.read(_PID_BYTES))
        return self._pid

    def close(self) -> None:
        """Remove the file; the pid is still known afterwards. Idempotent."""
        self.read()
        self._closed = True
        self._undo.close()
