"""Tells when a file is made in a directory, and when it is complete: a pid file of runc's. inotify(7), by ctypes."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import errno
import os
import struct
from collections.abc import Callable, Generator
from typing import TypeAlias

from .libc import _libc

_CREATE = 0x100
_CLOSE_WRITE = 0x8
_MOVED_TO = 0x80
_OVERFLOW = 0x4000
_COMPLETE = _CLOSE_WRITE | _MOVED_TO
_EVENT = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, length of the name behind it
_BUFFER = 1 << 16

Arrived: TypeAlias = Callable[[str, bool], object]

_watches: dict[asyncio.AbstractEventLoop, _Watch] = {}


@contextlib.contextmanager
def arrivals(directory: str, arrived: Arrived) -> Generator[None]:
    """Call `arrived` in the running loop whenever a file is made in `directory`, is closed, or renamed into it.

    It gets the name of the file, and whether that is complete: runc renames what it has written, and crun doesn't. An
    empty name stands for any: the kernel has dropped events, since others make files faster than the loop turns.

    All uses in one event loop share one inotify instance, of which a user has 128 by default.

    Raises:
        OSError: If the directory isn't there, or the kernel's limits are reached.
    """
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        for closed in [other for other in _watches if other.is_closed()]:
            _watches.pop(closed).close()
        watch = _watches[loop] = _Watch(loop)
    try:
        with watch.added(directory, arrived):
            yield
    finally:
        if not watch.callbacks and _watches.get(loop) is watch:
            del _watches[loop]
            watch.close()


class _Watch:
    """One inotify instance, with one reader on its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.callbacks: dict[int, list[Arrived]] = {}
        self._libc = _libc()
        self._fd = self._call(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._loop = loop
        try:
            loop.add_reader(self._fd, self._report)
        except BaseException:
            os.close(self._fd)
            raise

    @contextlib.contextmanager
    def added(self, directory: str, arrived: Arrived) -> Generator[None]:
        """Watch a directory; two watches of one directory have the same number."""
        path = os.fsencode(directory)
        number = self._call(self._libc.inotify_add_watch(self._fd, path, _CREATE | _COMPLETE), directory)
        self.callbacks.setdefault(number, []).append(arrived)
        try:
            yield
        finally:
            self.callbacks[number].remove(arrived)
            if not self.callbacks[number]:
                del self.callbacks[number]
                self._libc.inotify_rm_watch(self._fd, number)  # fails if the directory is gone, and the watch with it

    def close(self) -> None:
        """Close the instance; the loop may be closed already.

        The kernel waits then until nobody can be using a watch any more, for five milliseconds and more; so a thread
        of its own waits, and not the event loop.
        """
        self._loop.remove_reader(self._fd)
        try:
            _thread.start_new_thread(os.close, (self._fd,))  # unlike threading.Thread, it doesn't wait for the thread
        except RuntimeError:  # no thread to be had, as at the end of the interpreter
            os.close(self._fd)

    def _report(self) -> None:
        """Read the events, and call whoever waits for one."""
        with contextlib.suppress(BlockingIOError):
            events = os.read(self._fd, _BUFFER)
            while events:
                number, mask, _, length = _EVENT.unpack_from(events)
                name = os.fsdecode(events[_EVENT.size : _EVENT.size + length].rstrip(b"\0"))
                events = events[_EVENT.size + length :]
                if mask & _OVERFLOW:
                    for arrived in [each for callbacks in self.callbacks.values() for each in callbacks]:
                        arrived("", True)
                for arrived in list(self.callbacks.get(number, ())):
                    arrived(name, bool(mask & _COMPLETE))

    def _call(self, result: int, path: str | None = None) -> int:
        """Raise what a call of libc's failed with."""
        if result >= 0:
            return result
        import ctypes  # noqa: PLC0415  (as above)

        number = ctypes.get_errno() or errno.EINVAL
        raise OSError(number, os.strerror(number), path)
