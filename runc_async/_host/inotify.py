"""An inotify instance whose watches are told apart by their numbers: inotify(7)."""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
import struct
from typing import Final, NamedTuple

MODIFY: Final = 0x2
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
DELETE_SELF: Final = 0x400
MOVE_SELF: Final = 0x800
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ONLYDIR: Final = 0x1000000

_EVENT: Final = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, length of the name behind it
_BUFFER: Final = 1 << 16


class Notice(NamedTuple):
    """An event.

    Attributes:
        number: That of the watch; -1 for an overflow.
        mask: What has happened.
        name: The file's name in the watched directory; empty for the watched file itself.
    """

    number: int
    mask: int
    name: str


class Inotify:
    """One instance.

    Attributes:
        fd: Its descriptor, which is readable when there are events.

    Raises:
        OSError: If there can't be one more instance or descriptor.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._called(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: str, mask: int) -> int:
        """Watch a file or a directory, and return the number of the watch; one file has one watch.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If it may not be watched, or there can't be one more watch.
        """
        return self._called(self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask), path)

    def remove(self, number: int) -> None:
        """End a watch; nothing happens if its file is gone."""
        self._libc.inotify_rm_watch(self.fd, number)

    def read(self) -> list[Notice]:
        """Return the events that wait, as many as one call gets; none if none waits."""
        try:
            data = os.read(self.fd, _BUFFER)
        except BlockingIOError:
            return []
        notices: list[Notice] = []
        position = 0
        while position < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size
            name = data[position : position + length].rstrip(b"\0")
            position += length
            notices.append(Notice(number, mask, os.fsdecode(name)))
        return notices

    def close(self) -> None:
        """Close it in a short thread: the kernel waits then until no watch is in use, for 5 ms and more."""
        try:
            _thread.start_new_thread(os.close, (self.fd,))
        except RuntimeError:  # no thread to be had, as at the end of the interpreter
            os.close(self.fd)

    def _called(self, result: int, path: str | None = None) -> int:
        """Return the result of a call of libc's.

        Raises:
            OSError: If it failed.
        """
        if result < 0:
            number = ctypes.get_errno() or errno.EINVAL
            raise OSError(number, os.strerror(number), path)
        return result
