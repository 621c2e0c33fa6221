"""An inotify instance with numbered watches: inotify(7)."""

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
        number: The number of the watch; -1 for an overflow.
        mask: The kind of the event.
        name: The file's name in the watched directory; empty for the watched file itself.
    """

    number: int
    mask: int
    name: str


class Inotify:
    """An inotify instance.

    Attributes:
        fd: The descriptor, readable when there are events.

    Raises:
        OSError: If no instance or descriptor is left.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._called(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def add(self, path: str, mask: int) -> int:
        """Watch a file or a directory, and return the number of the watch; a file has a single watch.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If the file can't be watched, or no watch is left.
        """
        return self._called(self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask), path)

    def remove(self, number: int) -> None:
        """End a watch; no effect if the file is gone."""
        self._libc.inotify_rm_watch(self.fd, number)

    def read(self) -> list[Notice]:
        """Return the waiting events, as many as one call gets."""
        # close(2) waits until the kernel has released all watches, for 5 ms and more.
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
        """Close the instance in a short-lived thread."""
        try:
            _thread.start_new_thread(os.close, (self.fd,))
        except RuntimeError:  # no thread to be had, as at the end of the interpreter
            os.close(self.fd)

    def _called(self, result: int, path: str | None = None) -> int:
        """Return the result of a libc function.

        Raises:
            OSError: If the function failed.
        """
        if result < 0:
            number = ctypes.get_errno() or errno.EINVAL
            raise OSError(number, os.strerror(number), path)
        return result
