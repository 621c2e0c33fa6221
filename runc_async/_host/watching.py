"""Changes of all containers below a root directory, as reported by the kernel: inotify(7), pidfds, cgroups.

A runtime creates a container by mkdir of the directory `ID` and a record inside; it starts the container by a write to
`exec.fifo`, and deletes it by removing the record. The runtime is never asked, and there is no polling.

Anything can happen between an event and the following look. So a record is trusted only if no event of its removal has
arrived until then; otherwise the container was gone before it could be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import select
from collections import deque
from collections.abc import Callable

from runc_async.change import Change, ChangeKind
from runc_async.exitstatus import ExitStatus
from runc_async.state import State

from .._runtimes.known import FIFOS, RECORDS, read_record
from . import inotify
from .inotify import Inotify, Notice
from .life import Life

_IN_ROOT = (
    inotify.CREATE | inotify.MOVED_TO | inotify.DELETE | inotify.MOVED_FROM | inotify.DELETE_SELF | inotify.MOVE_SELF
)
_IN_CONTAINER = inotify.CREATE | inotify.DELETE | inotify.MOVED_TO | inotify.CLOSE_WRITE
_APPEARED = inotify.CREATE | inotify.MOVED_TO
_WRITTEN = inotify.MOVED_TO | inotify.CLOSE_WRITE
_VANISHED = inotify.DELETE | inotify.MOVED_FROM
_UNWATCHED = inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.UNMOUNT | inotify.IGNORED


class HostWatch:
    """Watches a root directory, which may appear and disappear.

    Args:
        root: The runtime's root directory, absolute.
        changed: Called with each change.
        failed: Called once if no descriptor or inotify watch is left; the watch is closed then.
    """

    def __init__(self, root: str, changed: Callable[[Change], None], failed: Callable[[OSError], None]) -> None:
        self._root = root
        self._changed = changed
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._lives: dict[str, Life] = {}
        self._directories: dict[int, Life] = {}
        self._files: dict[int, Callable[[], None]] = {}
        self._descriptors: dict[int, Callable[[], None]] = {}
        self._notices: deque[Notice] = deque()
        self._soon: list[Callable[[], None]] = []
        self._timers: set[asyncio.TimerHandle] = set()
        self._root_number = -1
        self._above_number = -1
        self._next_name = ""
        self._listening = False
        self._inotify = Inotify()
        try:
            self._epoll = select.epoll()
        except BaseException:
            self._inotify.close()
            raise
        self._closed = False

    def start(self) -> None:
        """Report all present containers, and continue to watch.

        Raises:
            OSError: If the root directory can't be read, or no descriptor or inotify watch is left.
        """
        try:
            self._epoll.register(self._inotify.fd, select.EPOLLIN)
            self._find_root(new=False)
            self._work()
            self.listen()
        except BaseException:
            self.close()
            raise

    def listen(self) -> None:
        """Handle events from now on."""
        if not self._listening and not self._closed:
            self._listening = True
            self._loop.add_reader(self._epoll.fileno(), self._turn)

    def pause(self) -> None:
        """Handle no events for a while. The kernel queues 16,384 events by default, and reports an overflow."""
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._epoll.fileno())

    def close(self) -> None:
        """Close all descriptors. Idempotent."""
        if self._closed:
            return
        if not self._loop.is_closed():
            self.pause()
        self._closed = True
        for timer in self._timers:
            timer.cancel()
        for life in self._lives.values():
            life.close()
        self._lives.clear()
        self._inotify.close()
        self._epoll.close()

    # The functions of the protocol `Host`, used by `Life`.

    def report(self, life: Life, kind: ChangeKind, state: State | None, status: ExitStatus | None = None) -> None:
        """Report a change."""
        self._changed(Change(id=life.id, kind=kind, state=state, status=status, time=dt.datetime.now(dt.UTC)))

    def hold(self, fd: int, ready: Callable[[], None]) -> None:
        """Call back while a descriptor is readable."""
        self._descriptors[fd] = ready
        self._epoll.register(fd, select.EPOLLIN)

    def release(self, fd: int) -> None:
        """Stop the callbacks, and close the descriptor."""
        del self._descriptors[fd]
        # Before the close: a descriptor that another process inherited stays in the epoll set, epoll(7).
        self._epoll.unregister(fd)
        os.close(fd)

    def watch_file(self, path: str, mask: int, changed: Callable[[], None]) -> int:
        """Call back when a file changes; return the number of the watch, -1 if there is no such file."""
        try:
            number = self._inotify.add(path, mask)
        except (FileNotFoundError, NotADirectoryError):
            return -1
        self._files[number] = changed
        return number

    def unwatch(self, number: int) -> None:
        """Stop the callbacks."""
        if number >= 0:
            self._files.pop(number, None)
            self._directories.pop(number, None)
            self._inotify.remove(number)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back once, after a delay."""

        def run() -> None:
            self._timers.discard(timer)
            self._guarded(call)

        timer = self._loop.call_later(seconds, run)
        self._timers.add(timer)

    def soon(self, call: Callable[[], None]) -> None:
        """Call back once, after all events reported so far."""
        self._soon.append(call)

    # The work.

    def _turn(self) -> None:
        """Handle the events that are ready."""
        self._guarded(self._take)

    def _guarded(self, call: Callable[[], None]) -> None:
        """Call a function; end the watch if it fails."""
        if self._closed:
            return
        try:
            call()
        except OSError as exc:
            self.close()
            self._failed(exc)

    def _take(self) -> None:
        """Handle the events that are ready."""
        # Ends of processes are handled after earlier inotify events, so that a start is reported before an end.
        ready = self._epoll.poll(0)
        self._work()
        for fd, _ in ready:
            if (call := self._descriptors.get(fd)) is not None:
                call()

    def _work(self) -> None:
        """Handle all events, and the calls scheduled for afterwards."""
        while True:
            self._drain()
            while self._notices:
                self._handle(self._notices.popleft())
            if not self._soon:
                return
            calls, self._soon = self._soon, []
            self._drain()
            while self._notices:
                self._handle(self._notices.popleft())
            for call in calls:
                call()

    def _drain(self) -> None:
        """Read all events from the kernel."""
        while notices := self._inotify.read():
            self._notices.extend(notices)

    def _handle(self, notice: Notice) -> None:
        """Handle one event."""
        number, mask, name = notice
        if mask & inotify.OVERFLOW:
            # Events that arrived since then are older than the following look, but would be taken for newer.
            self._drain()
            self._notices.clear()
            self._find_root(new=True)
            self._look_again()
        elif (life := self._directories.get(number)) is not None:
            self._handle_file(life, mask, name)
        elif number == self._root_number:
            if mask & _UNWATCHED:
                self._find_root(new=True)
            elif mask & _APPEARED:
                self._appear(name, new=True)
            elif mask & _VANISHED:
                self._vanish(name)
        elif number == self._above_number:
            if name == self._next_name or mask & _UNWATCHED:
                self._find_root(new=True)
        elif (changed := self._files.get(number)) is not None:
            changed()

    def _handle_file(self, life: Life, mask: int, name: str) -> None:
        """Handle an event in a container's directory."""
        if mask & inotify.IGNORED:
            return
        life.touched = True
        if name in RECORDS:
            if mask & _WRITTEN and not life.reported:
                self._read(life, written=True)
            elif mask & _VANISHED:
                self._forget(life)
        elif name in FIFOS and mask & inotify.CREATE:
            life.saw_fifo = True
        elif name in FIFOS and mask & inotify.CLOSE_WRITE:
            life.start()
        elif name in FIFOS and mask & _VANISHED:
            life.lose_fifo()

    def _appear(self, name: str, *, new: bool) -> None:
        """Handle a new directory in the root."""
        if name in self._lives:
            return
        directory = os.path.join(self._root, name)
        try:
            # Watch first, then read: a record written in between is found by the read, one written later by an event.
            number = self._inotify.add(directory, _IN_CONTAINER | inotify.ONLYDIR)
            touched = bool(os.listdir(directory))
        except NotADirectoryError:
            return
        except FileNotFoundError:  # the event of its removal is on its way
            self._lives[name] = Life(self, name)
            return
        life = self._lives[name] = self._directories[number] = Life(self, name, number, touched=touched)
        self._read(life, new=new)

    def _read(self, life: Life, *, written: bool = False, new: bool = True) -> None:
        """Read a container's record, and report the container if there is one.

        Args:
            life: The container.
            written: Whether a record has existed.
            new: Whether the container was created during the watch.
        """
        record = read_record(self._root, life.id)
        self._drain()
        if self._is_removed(life):
            if not written:
                # The directory that was watched and read may belong to a later container with the same id.
                life.close()
                life.touched = False
                return
            record = None
        elif record is None:
            return  # it is being written
        life.create(record, os.path.join(self._root, life.id), new=new)

    def _is_removed(self, life: Life) -> bool:
        """Whether an event of the removal of a container or its directory is waiting."""
        return any(
            mask & _VANISHED
            and ((number == life.number and name in RECORDS) or (number == self._root_number and name == life.id))
            for number, mask, name in self._notices
        )

    def _vanish(self, name: str) -> None:
        """Report that a container and its directory are gone."""
        if (life := self._lives.pop(name, None)) is None:
            return
        if not life.reported and not life.touched:  # it was gone before anything could be seen of it
            life.create(None, "", new=True)
        if life.reported:
            life.delete()
        life.close()

    def _forget(self, life: Life) -> None:
        """Report that a container is gone; its directory may stay or go."""
        if life.reported:
            life.delete()
        # The record goes before the directory. If the directory stays, a new container may use it.
        successor = Life(self, life.id, life.number, touched=True)
        self._lives[life.id] = self._directories[life.number] = successor

    def _find_root(self, *, new: bool) -> None:
        """Watch the root directory if it exists, and its nearest existing ancestor; look at the present containers."""
        above = os.path.dirname(self._root)
        below = self._root
        while True:
            try:
                above_number = self._inotify.add(above, _IN_ROOT | inotify.ONLYDIR)
            except (FileNotFoundError, NotADirectoryError):
                above, below = os.path.dirname(above), above
                continue
            number = -1
            try:
                number = self._inotify.add(self._root, _IN_ROOT | inotify.ONLYDIR)
            except (FileNotFoundError, NotADirectoryError):
                # A directory made between the two calls sent no event: its parent wasn't watched yet.
                if below != self._root and os.path.isdir(below):
                    above, below = os.path.dirname(self._root), self._root
                    continue
            break
        if above_number != self._above_number:
            self._drop(self._above_number)
            self._above_number = above_number
        self._next_name = os.path.basename(below)
        if number != self._root_number:
            self._drop(self._root_number)
            self._root_number = number
            self._look_again(new=new)

    def _drop(self, number: int) -> None:
        """End a watch of the root directory or an ancestor."""
        if number >= 0:
            self._inotify.remove(number)

    def _look_again(self, *, new: bool = True) -> None:
        """Compare the known containers with the present ones."""
        names: set[str] = set()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._root) as entries:
            names = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        for name, life in tuple(self._lives.items()):
            life.touched, life.saw_fifo = True, False
            if name in names and life.reported and read_record(self._root, name) == life.record:
                life.look()
                continue
            # The container is gone, or replaced by another one, whose directory has another watch. If it was removed
            # after the overflow, the event of the removal is queued, and reports it.
            self._drain()
            if not self._is_removed(life):
                self._vanish(name)
        for name in sorted(names):
            self._appear(name, new=new)
