"""A pidfd that outlives its owner for as long as somebody waits for its process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator


class HeldPidfd:
    """A pidfd with one owner and any number of waits.

    Its number may belong to another file as soon as it is closed, and a wait that began before would look at that. So
    `close` ends the owner's hold, and the last one to let go closes the descriptor.
    """

    def __init__(self, fd: int) -> None:
        """Take over `fd`."""
        self._fd = fd
        self._holds = 1
        self._owned = True

    @classmethod
    def open(cls, pid: int) -> HeldPidfd:
        """Open one of the process that has this number now.

        Raises:
            ProcessLookupError: If there is none.
            OSError: If no descriptor is left.
        """
        return cls(os.pidfd_open(pid))

    @property
    def fd(self) -> int:
        """The descriptor; -1 once its owner has closed it."""
        return self._fd if self._owned else -1

    @contextlib.contextmanager
    def held(self) -> Generator[int]:
        """Keep the descriptor open for the time of the block."""
        self._holds += 1
        try:
            yield self._fd
        finally:
            self._release()

    def detach(self) -> int:
        """Give the descriptor away; nobody may be waiting."""
        self._owned = False
        return self._fd

    def close(self) -> None:
        """Let go of it as its owner. Idempotent."""
        if self._owned:
            self._owned = False
            self._release()

    def _release(self) -> None:
        """Let go of it; the last one closes it."""
        self._holds -= 1
        if not self._holds:
            os.close(self._fd)
