"""Reports new and complete files of a directory, such as a pid file of runc: inotify(7), by ctypes.

A user has 128 inotify instances by default, shared with editors and node agents. So an instance serves a whole event
loop, and `news` works without an instance: a timer then has the file looked at.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import errno
import logging
import os
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, TypeAlias

from .libc import libc

_CREATE = 0x100
_CLOSE_WRITE = 0x8
_MOVED_TO = 0x80
_OVERFLOW = 0x4000
_COMPLETE = _CLOSE_WRITE | _MOVED_TO
_EVENT = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, length of the name behind it
_BUFFER = 1 << 16

IDLE = 1.0
"""Seconds until an unused instance is closed: closing takes a thread and five milliseconds."""

SPARE = 32
"""Descriptors that have to be free above an instance that is kept: a call takes fewer."""

FIRST_GLANCE = 0.001
"""Seconds until the first look at a file, without inotify: runc takes 10 to 50 ms."""

LAST_GLANCE = 0.02
"""Longest time between two looks, in seconds."""

SLOWER = 1.05
"""Factor by which the time between two looks grows: 0.02 s are reached after 0.4 s."""

_LIMITS = {
    errno.EMFILE: "no inotify instance left for this user: see sysctl fs.inotify.max_user_instances",
    errno.ENOSPC: "no inotify watch left for this user: see sysctl fs.inotify.max_user_watches",
}

Arrived: TypeAlias = Callable[[str, bool], object]

watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
_reported: set[str] = set()
"""The limits that were reached and logged."""


@contextlib.contextmanager
def news(directory: str, arrived: Arrived) -> Generator[None]:
    """Do the same as `arrivals`; without inotify call `arrived` repeatedly, with an empty name.

    A missing or unreadable directory is no error here: runc reports the directory. A limit of inotify is logged once.

    Raises:
        OSError: If the current process has no descriptor left.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(arrivals(directory, arrived))
        except OSError as exc:
            if isinstance(exc, InotifyLimitError):
                _report_limit(exc)
            elif exc.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
                raise
            stack.enter_context(_glances(arrived))
        yield


class InotifyLimitError(OSError):
    """A limit of inotify is reached; the message names the limit."""


def _report_limit(error: InotifyLimitError) -> None:
    """Log a reached limit, once."""
    limit = error.strerror or ""
    if limit not in _reported:
        _reported.add(limit)
        logging.getLogger("runc_async").warning("%s; pid files are looked at by a timer instead", limit)


@contextlib.contextmanager
def arrivals(directory: str, arrived: Arrived) -> Generator[None]:
    """Call `arrived` in the running loop for each file created in, written in, or renamed into a directory.

    Arguments of `arrived` are the name of the file, and whether the file is complete: runc renames a complete file,
    crun writes in place. The name is empty if the kernel has dropped events: then any file may have arrived.

    All uses in an event loop share an inotify instance. The instance is closed after one second without use, and at
    the end of the loop.

    Raises:
        InotifyLimitError: If the current user has no instance, or no watch, left.
        OSError: If the directory doesn't exist or can't be read, or no descriptor is left.
    """
    loop = asyncio.get_running_loop()
    watch = watches.get(loop)
    if watch is None:
        for closed in [other for other in watches if other.is_closed()]:
            watches[closed].close()
        watch = watches[loop] = _Watch(loop)
    with watch.added(directory, arrived):
        yield


@contextlib.contextmanager
def _glances(arrived: Arrived) -> Generator[None]:
    """Call `arrived` in the running loop repeatedly, as after lost events."""
    loop = asyncio.get_running_loop()
    handle: asyncio.TimerHandle

    def look(seconds: float) -> None:
        nonlocal handle
        handle = loop.call_later(seconds, look, min(seconds * SLOWER, LAST_GLANCE))
        arrived("", True)  # which may end the block

    handle = loop.call_later(FIRST_GLANCE, look, FIRST_GLANCE)
    try:
        yield
    finally:
        handle.cancel()


def has_instance() -> bool:
    """Return whether the current user can have an inotify instance."""
    try:
        os.close(_instance())
    except OSError:
        return False
    return True


def _instance() -> int:
    """Create an inotify instance, and return the descriptor.

    Raises:
        InotifyLimitError: If the current user has no instance left.
        OSError: If the kernel refuses for another reason.
    """
    try:
        return _called(libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as exc:
        if exc.errno != errno.EMFILE:
            raise
        os.close(os.dup(0))  # with the same error if it is this process that has no descriptor left
        raise InotifyLimitError(errno.EMFILE, _LIMITS[errno.EMFILE]) from None


def _called(result: int, path: str | None = None) -> int:
    """Raise `OSError` if a call of the C library failed; otherwise return the result."""
    if result >= 0:
        return result
    import ctypes  # noqa: PLC0415  (as above)

    number = ctypes.get_errno() or errno.EINVAL
    raise OSError(number, os.strerror(number), path)


class _Watch:
    """An inotify instance, with a reader on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._callbacks: dict[int, list[Arrived]] = {}
        self._loop = loop
        self._idle: asyncio.TimerHandle | None = None
        self._fd = _instance()
        try:
            loop.add_reader(self._fd, self._report)
        except BaseException:
            os.close(self._fd)
            raise
        self._end = self._closed_with_the_loop()
        _step(self._end.__anext__())  # from here on the loop knows it

    async def _closed_with_the_loop(self) -> AsyncGenerator[None]:
        """Close the instance when the loop shuts asynchronous generators down: `loop.shutdown_asyncgens`.

        An event loop has no other way to report the end.
        """
        try:
            yield
        finally:
            self._close()

    @contextlib.contextmanager
    def added(self, directory: str, arrived: Arrived) -> Generator[None]:
        """Watch a directory; two watches of the same directory have the same number."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            number = self._add(directory)
            self._callbacks.setdefault(number, []).append(arrived)
            try:
                yield
            finally:
                self._callbacks[number].remove(arrived)
                if not self._callbacks[number]:
                    del self._callbacks[number]
                    if self._fd >= 0:
                        libc().inotify_rm_watch(self._fd, number)  # fails if the directory, and the watch, is gone
        finally:
            if not self._callbacks and self._fd >= 0 and not self._loop.is_closed():
                self._rest()

    def _rest(self) -> None:
        """Keep the unused instance open for a while, unless descriptors are scarce."""
        # The lowest free number is given first, so a high one means that few are left. A clean-up may need the last.
        if self._fd + SPARE > os.sysconf("SC_OPEN_MAX"):
            self.close()
        else:
            self._idle = self._loop.call_later(IDLE, self.close)

    def _add(self, directory: str) -> int:
        """Watch a directory, and return the number of the watch.

        Raises:
            InotifyLimitError: If the current user has no watch left.
            OSError: If the directory doesn't exist or can't be read.
        """
        try:
            path = os.fsencode(directory)
            return _called(libc().inotify_add_watch(self._fd, path, _CREATE | _COMPLETE), directory)
        except OSError as exc:
            if exc.errno == errno.ENOSPC:
                raise InotifyLimitError(errno.ENOSPC, _LIMITS[errno.ENOSPC]) from None
            raise

    def close(self) -> None:
        """Close the instance; the loop may be closed already. Idempotent."""
        _step(self._end.aclose())

    def _close(self) -> None:
        """Close the instance."""
        # close(2) waits in the kernel until no watch is in use any more: five milliseconds and more. So a thread
        # waits, and not the event loop.
        if watches.get(self._loop) is self:
            del watches[self._loop]
        if self._idle is not None:
            self._idle.cancel()
        self._loop.remove_reader(self._fd)
        fd, self._fd = self._fd, -1
        try:
            _thread.start_new_thread(os.close, (fd,))  # unlike threading.Thread, it doesn't wait for the thread
        except RuntimeError:  # no thread to be had, as at the end of the interpreter
            os.close(fd)

    def _report(self) -> None:
        """Read the events, and call the callbacks of the directories."""
        with contextlib.suppress(BlockingIOError):
            events = os.read(self._fd, _BUFFER)
            while events:
                number, mask, _, length = _EVENT.unpack_from(events)
                name = os.fsdecode(events[_EVENT.size : _EVENT.size + length].rstrip(b"\0"))
                events = events[_EVENT.size + length :]
                if mask & _OVERFLOW:
                    for arrived in [each for callbacks in self._callbacks.values() for each in callbacks]:
                        arrived("", True)
                for arrived in list(self._callbacks.get(number, ())):
                    arrived(name, bool(mask & _COMPLETE))


def _step(work: Coroutine[Any, None, None]) -> None:
    """Run a never waiting coroutine, in one step."""
    with contextlib.suppress(StopIteration):
        work.send(None)
