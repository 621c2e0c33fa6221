"""One container as seen by `HostWatch`: its watches and descriptors, and the changes reported so far."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from runc_async.change import ChangeKind
from runc_async.exitstatus import ExitStatus, from_wait_status
from runc_async.state import State, Status

from .._linux.pidfd import has_exited, open_pidfd
from .._runtimes.dialect import Record
from .._runtimes.known import FIFOS, RECORDS
from .exits import status_now
from .inotify import CLOSE_WRITE, MODIFY

_OOM_KILL: Final = re.compile(rb"^oom_kill ([0-9]{1,20})$", re.MULTILINE)
_FROZEN: Final = re.compile(rb"^frozen 1$", re.MULTILINE)

FREEZING: Final = (0.005,) * 10 + (0.05,) * 20
"""Seconds between looks at a v1 cgroup that is being frozen: the kernel reports the request, and not the completion."""

KILLING: Final = (0.005, 0.02, 0.08, 0.3, 1.0)
"""Seconds between looks at a v1 OOM counter: the kernel reports the lack of memory first, then kills and counts."""


class Host(Protocol):
    """The functions of the watch that a container uses."""

    def report(self, life: Life, kind: ChangeKind, state: State | None, status: ExitStatus | None = None) -> None:
        """Report a change."""
        ...

    def hold(self, fd: int, ready: Callable[[], None]) -> None:
        """Call back while a descriptor is readable."""
        ...

    def release(self, fd: int) -> None:
        """Stop the callbacks, and close the descriptor."""
        ...

    def watch_file(self, path: str, mask: int, changed: Callable[[], None]) -> int:
        """Call back when a file changes; return the number of the watch, -1 if there is no such file."""
        ...

    def unwatch(self, number: int) -> None:
        """Stop the callbacks."""
        ...

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call back once, after a delay."""
        ...

    def soon(self, call: Callable[[], None]) -> None:
        """Call back once, after all events reported so far."""
        ...


class Life:
    """A container's directory, with the container inside if there is one.

    Attributes:
        id: The container's id.
        record: The runtime's record; None if it was gone before it could be read.
        reported: Whether "created" was reported, and "deleted" not yet.
        touched: Whether the contents of the directory are known.
        saw_fifo: Whether the creation of the runtime's FIFO was seen, and so each later event of the FIFO is seen too.
        number: The watch of the directory; -1 if it was gone before it could be watched.
    """

    def __init__(self, host: Host, container_id: str, number: int = -1, *, touched: bool = False) -> None:
        self.id = container_id
        self.number = number
        self.touched = touched
        self.saw_fifo = False
        self.record: Record | None = None
        self.reported = False
        self._host = host
        self._directory = ""
        self._status = Status.CREATED
        self._started = False
        self._paused = False
        self._ended = False
        self._pidfd = -1
        self._events_fd = -1
        self._files: list[int] = []
        self._kills = 0

    def create(self, record: Record | None, directory: str, *, new: bool) -> None:
        """Report that the container exists, and all of its changes so far.

        Args:
            record: The runtime's record; None if already gone.
            directory: The container's directory.
            new: Whether the container was created during the watch, so that all OOM kills are new.
        """
        self.record = record
        self.reported = True
        self._directory = directory
        self._report(ChangeKind.CREATED)
        if record is None:
            return
        if not self.saw_fifo:
            self._look_at_start()
        try:
            self._pidfd = open_pidfd(record.process)
        except ProcessLookupError:
            # The process ended before our look. Its start may be among the events that are still to be handled.
            self._host.soon(self.exit)
        else:
            self._host.hold(self._pidfd, self.exit)
        # Watch first, then look: a change between the two is reported twice to us, and reported once by us. The other
        # way round it would be lost.
        self._follow_cgroup(record)
        self._kills = 0 if new else self._read_kills() or 0
        self._look_at_kills()
        self._look_at_freezer()

    def start(self) -> None:
        """Report that the program was started, once."""
        if self.reported and not self._started and not self._ended:
            self._started = True
            self._report(ChangeKind.STARTED, Status.RUNNING)

    def _look_at_start(self) -> None:
        """Report the start of the program, if the runtime has removed its FIFO but not the record."""
        if not any(os.path.lexists(os.path.join(self._directory, name)) for name in FIFOS) and any(
            os.path.exists(os.path.join(self._directory, name)) for name in RECORDS
        ):
            self.start()

    def lose_fifo(self) -> None:
        """Report the start of the program, if its event was lost."""
        # The FIFO is removed after the start, and at the deletion, which follows the end of the program.
        if not self._is_over:
            self._look_at_start()

    def look(self) -> None:
        """Report changes, with or without an event of the kernel."""
        if self.record is not None and not self._ended:
            # The runtime also removes the FIFO of a container that has failed before its start, and then the record.
            if not (self.saw_fifo and self._is_over):
                self._look_at_start()
            self._look_at_kills()
            self._look_at_freezer()

    def exit(self) -> None:
        """Report once that the first process has ended."""
        if not self.reported or self._ended or not self._is_over:
            return
        # In the order of time: a start or an OOM kill that isn't reported yet comes before the end.
        self.look()
        # Not a wait: the parent may never reap, and a change that comes late would hold up the changes behind it.
        status = None if self._pidfd < 0 else status_now(self._pidfd)
        kills = self._read_kills()
        oom_killed = self._kills > 0 or (None if kills is None else kills > 0)
        found = ExitStatus(oom_killed=oom_killed) if status is None else from_wait_status(status, oom_killed=oom_killed)
        self._ended = True
        self._let_go()
        self._report(ChangeKind.EXITED, Status.STOPPED, found)

    @property
    def _is_over(self) -> bool:
        """Whether the first process has ended."""
        return self._pidfd < 0 or has_exited(self._pidfd)

    def delete(self) -> None:
        """Report the deletion of the container, preceded by its end if it has ended."""
        # The removal can be handled before the end of the process: inotify and the pidfd are separate queues.
        if self.record is not None:
            self.exit()
        self._let_go()
        self._report(ChangeKind.DELETED)
        self.reported = False

    def close(self) -> None:
        """Release everything. Idempotent."""
        self._let_go()
        self._host.unwatch(self.number)
        self.number = -1

    def _report(self, kind: ChangeKind, status: Status | None = None, exit_status: ExitStatus | None = None) -> None:
        """Report a change with the new state."""
        self._status = status or self._status
        state = None if self.record is None else self.record.state(self._status)
        self._host.report(self, kind, state, exit_status)

    def _follow_cgroup(self, record: Record) -> None:
        """Watch for freezing and OOM kills."""
        if (unified := record.unified) is not None:
            # kernfs raises a modify event for these two files on each change of their values: cgroup-v2.rst.
            self._watch(f"{unified}/cgroup.events", MODIFY, self._look_at_freezer)
            self._watch(f"{unified}/memory.events", MODIFY, self._look_at_kills)
            return
        if freezer := record.cgroups.get("freezer"):
            # inotify reports no change of the state itself, but the runtime's write that requests it.
            self._watch(f"{freezer}/freezer.state", CLOSE_WRITE, self._look_at_freezer)
        if memory := record.cgroups.get("memory"):
            self._listen_for_kills(memory)

    def _watch(self, path: str, mask: int, changed: Callable[[], None]) -> None:
        """Watch a file of the cgroup, if the file exists."""
        self._files.append(self._host.watch_file(path, mask, changed))

    def _listen_for_kills(self, memory: str) -> None:
        """Let cgroup v1 report a lack of memory by an eventfd (kernel: cgroup-v1/memory.rst, "OOM Control")."""
        events = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with open(f"{memory}/memory.oom_control", "rb", buffering=0) as control:
                # The kernel keeps a reference on the eventfd and on the cgroup after the write, so the other two files
                # are closed.
                fd = os.open(f"{memory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, f"{events} {control.fileno()}".encode())
                finally:
                    os.close(fd)
        except OSError:  # the cgroup is gone, or isn't ours to write to; the counter is read at the end at least
            os.close(events)
            return
        self._events_fd = events
        self._host.hold(events, self._want_of_memory)

    def _want_of_memory(self) -> None:
        """Look for an OOM kill now and for a while."""
        # The eventfd is also written to at the removal of the cgroup.
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._events_fd)
        self._look_at_kills(iter(KILLING))

    def _look_at_kills(self, again: Iterator[float] | None = None) -> None:
        """Report OOM kills since the last look; without any, look again after the given delays."""
        if self._ended or not self.reported or (kills := self._read_kills()) is None:
            return
        # One change for several kills between two looks: the counter tells how many, not when.
        if kills > self._kills:
            self._kills = kills
            self._report(ChangeKind.OOM)
        elif again is not None and (seconds := next(again, None)) is not None:
            self._host.later(seconds, lambda: self._look_at_kills(again))

    def _read_kills(self) -> int | None:
        """Return the number of OOM kills; None if the cgroup is gone, or memory isn't counted."""
        if self.record is None:
            return None
        unified = self.record.unified
        directory = self.record.cgroups.get("memory") if unified is None else unified
        data = _read(f"{directory}/memory.{'oom_control' if unified is None else 'events'}")
        return int(match[1]) if data and (match := _OOM_KILL.search(data)) else None

    def _look_at_freezer(self, again: Iterator[float] | None = None) -> None:
        """Report whether the processes were frozen or thawed."""
        if self._ended or not self.reported or self.record is None:
            return
        if (unified := self.record.unified) is not None:
            data = _read(f"{unified}/cgroup.events")
            frozen = bool(data and _FROZEN.search(data))
        else:
            data = _read(f"{self.record.cgroups.get('freezer')}/freezer.state")
            frozen = data == b"FROZEN\n"
            if data == b"FREEZING\n":
                # The state is computed on reading (v1): the last read completes the transition, and no event tells us
                # to read.
                again = iter(FREEZING) if again is None else again
                if (seconds := next(again, None)) is not None:
                    self._host.later(seconds, lambda: self._look_at_freezer(again))
                return
        if data is not None and frozen != self._paused:
            self._paused = frozen
            thawed = Status.RUNNING if self._started else Status.CREATED
            kind = ChangeKind.PAUSED if frozen else ChangeKind.RESUMED
            self._report(kind, Status.PAUSED if frozen else thawed)

    def _let_go(self) -> None:
        """Release the watches and descriptors inside the container."""
        for fd in (self._pidfd, self._events_fd):
            if fd >= 0:
                self._host.release(fd)
        self._pidfd = self._events_fd = -1
        for number in self._files:
            self._host.unwatch(number)
        self._files.clear()


def _read(path: str) -> bytes | None:
    """Read a small file; None if it is gone."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return None
