"""A seam by which inotify_init1(2) fails, so that no test takes instances away that others on this machine need."""

from __future__ import annotations

import ctypes
import errno
from typing import TYPE_CHECKING

from runc_async._linux import inotify

if TYPE_CHECKING:
    import pytest


class UsedUp:
    """A libc whose user has no inotify instance left."""

    def inotify_init1(self, flags: int) -> int:
        """Fail as the kernel does: inotify_init(2), EMFILE."""
        del flags
        ctypes.set_errno(errno.EMFILE)
        return -1


def use_up(patch: pytest.MonkeyPatch) -> None:
    """Let each attempt to make an inotify instance fail, and the first one be logged."""
    patch.setattr(inotify, "libc", UsedUp)
    seen: set[str] = set()
    patch.setattr(inotify, "_reported", seen)
