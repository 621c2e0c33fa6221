"""Ownership of a container: decided by the first process, since other calls may use the same id at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import time
from collections.abc import Awaitable, Callable, Collection, Generator
from contextvars import ContextVar
from typing import TypeAlias, TypeVar

from .._linux.procfs import ProcessIdentity, parent_of
from .._runtimes.known import read_record
from ..errors import CommandError, ContainerNotFound, DecodeError
from ..runner import Completed, Invocation
from ..state import State

T = TypeVar("T")

Ask: TypeAlias = Callable[[str], Awaitable[State]]
"""Requests the state of a container from the runtime."""

MAKERS = frozenset({"create", "run", "restore"})
"""The commands that create a container."""

SETTLE_TIME = 2.0
"""Seconds for another runtime process to record its first process, which takes some milliseconds."""

RETRIES = 4
"""Number of retries of a cleanup that a signal has ended: users press Ctrl-C more than once."""

_GLANCE = 0.02
"""Seconds between two looks for a record."""

_PANIC = 2
_SIGNALLED = 128
"""A shell in front of the runtime adds the number of the signal that ended the runtime to 128."""


class Attempt:
    """The runtime processes of a call for creating a container.

    Attributes:
        container_id: The container's id.
        asked: Whether a runner was asked to start a process, and may have done so.
        over: Whether the last process is gone.
        shared: Whether another call of the current process has tried to create a container with the same id in the same
            directory at the same time.
        ends: The result of each process.
        processes: The processes started by the runtime, as reported in a pid file or seen before the runtime was ended;
            with start time 0 if a process was gone before its start time could be read.
    """

    def __init__(self, directory: str, container_id: str) -> None:
        """Start an attempt.

        Args:
            directory: The runtime's directory for containers.
            container_id: The container's id.
        """
        self.container_id = container_id
        self.asked = False
        self.over = False
        self.shared = False
        self.ends: list[tuple[Invocation, Completed]] = []
        self.processes: set[ProcessIdentity] = set()
        self._directory = directory
        self._begun = dt.datetime.now(dt.UTC)
        self._since = int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))
        self._unseen = False

    @contextlib.contextmanager
    def noted(self) -> Generator[None]:
        """Record each runtime process started in the block, and the end of each."""
        # A cancelled call raises, so that it can't return the results of its processes.
        before = _current.get()
        _current.set(self)
        try:
            yield
        finally:
            _current.set(before)
            self.over = True

    @contextlib.contextmanager
    def compared(self) -> Generator[None]:
        """Register the attempt, and mark concurrent attempts of the current process with the same id as shared."""
        key = (self._directory, self.container_id)
        others = _attempts.setdefault(key, set())
        for attempt in (self, *others) if others else ():
            attempt.shared = True
        others.add(self)
        try:
            yield
        finally:
            others.discard(self)
            if not others:
                _attempts.pop(key, None)

    def ended(
        self, invocation: Invocation, completed: Completed, processes: Collection[ProcessIdentity], *, seen: bool
    ) -> None:
        """Record the end of a runtime process.

        Args:
            invocation: The invocation.
            completed: The result.
            processes: The processes started by the runtime, as far as known.
            seen: Whether the runtime's children were listed before it was ended.
        """
        self.ends.append((invocation, completed))
        self.processes.update(processes)
        code = completed.returncode
        # A runtime that fails regularly undoes its own work, unless it is to keep the container.
        keeps = code != 0 and "--keep" in invocation.argv
        in_order = code is not None and 0 <= code < _SIGNALLED and code != _PANIC and not keeps
        self._unseen = not (seen or processes or in_order)

    def owns(self, process: ProcessIdentity) -> bool | None:
        """Return whether this call has started a container's first process; None if unknown."""
        # Unknown: the runtime process was ended from outside before it reported a process, as by a signal to the whole
        # process group.
        if not process.start_time:
            # The record has no start time, and the process has ended, so that only the pid can be compared.
            return process.pid in {own.pid for own in self.processes}
        if not self.processes.isdisjoint({process, ProcessIdentity(process.pid, 0)}):
            return process.start_time >= self._since
        if process.start_time < self._since:
            return False
        if any(end.returncode == 0 and not invocation.stop.waits_for_process for invocation, end in self.ends):
            return True  # the runtime has just said so itself
        return None if self._unseen or not self.ends else False

    async def judge(self, ask: Ask) -> bool | None:
        """Return whether this call has created the container with its id.

        Args:
            ask: Requests the state of the container.

        Returns:
            True or False; None if unknown.

        Raises:
            ContainerNotFound: If there is no such container.
            CommandError: If a signal ends the runtime process.
            RuncError: If the runtime fails.
            OSError: If the runtime can't be started.
        """
        # A container without a process is unfinished. It belongs to this call if no other runtime process is creating a
        # container with the same id; else wait until the other one has started its process.
        deadline = time.monotonic() + SETTLE_TIME
        while True:
            process = await find_process(self._directory, self.container_id, ask, self._begun)
            owned = None if process is None else self.owns(process)
            if owned is not None:
                return owned
            if not self.has_rivals(self._directory):
                # A container made by another call of ours meanwhile is complete, and has a process.
                return True if process is None or not self.shared else None
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(_GLANCE)

    def may_hold(self, members: Collection[int]) -> bool:
        """Return whether a cgroup with these processes can belong to this call; an empty cgroup can."""
        return not members or any(map(self._may_be_ours, members))

    def _may_be_ours(self, pid: int) -> bool:
        """Return whether this call can have started the process with the pid."""
        try:
            return self.owns(ProcessIdentity.of(pid)) is not False
        except OSError:
            return False  # it is gone

    def has_rivals(self, directory: str) -> bool:
        """Return whether another runtime process is creating a container with this id, or may be.

        Args:
            directory: The runtime's directory for containers; empty for any directory.
        """
        others = _attempts.get((self._directory, self.container_id), set())
        busy = any(not other.over for other in others if other is not self)
        return busy or is_being_made(self.container_id, directory)


_current: ContextVar[Attempt | None] = ContextVar("_current", default=None)
_attempts: dict[tuple[str, str], set[Attempt]] = {}


def current_attempt(invocation: Invocation) -> Attempt | None:
    """Return the current attempt to create a container, if the invocation belongs to one."""
    return _current.get() if invocation.command in MAKERS else None


def note_start() -> None:
    """Note that a runner is about to start a runtime process."""
    if (attempt := _current.get()) is not None:
        attempt.asked = True


def recorded_process(directory: str, container_id: str) -> ProcessIdentity | None:
    """Return the first process of a container from the runtime's record; None if there is none, or none yet.

    Raises:
        FileNotFoundError: If there is no such container.
        OSError: If the directory can't be read.
    """
    record = read_record(directory, container_id)
    if record is None:
        os.stat(os.path.join(directory, container_id))
    if record is None or record.process.start_time:
        return None if record is None else record.process
    with contextlib.suppress(ProcessLookupError):
        return ProcessIdentity.of(record.process.pid)
    return record.process


async def find_process(
    directory: str, container_id: str, ask: Ask, begun: dt.datetime | None = None
) -> ProcessIdentity | None:
    """Return the first process of a container; None if there is none, or unknown.

    Args:
        directory: The runtime's directory for containers.
        container_id: The container's id.
        ask: Requests the state of the container.
        begun: For a container created before this time, return a process with start time 0.

    Raises:
        ContainerNotFound: If there is no such container.
        CommandError: If a signal ends the runtime process.
        RuncError: If the runtime fails.
        OSError: If the runtime can't be started.
    """
    # The record is read first. The runtime is asked only if the record is elsewhere or unreadable.
    absent = False
    try:
        return recorded_process(directory, container_id)
    except (FileNotFoundError, NotADirectoryError):
        absent = True
    except OSError:
        pass
    try:
        state = await ask(container_id)
    except ContainerNotFound:
        if absent:
            raise
        return None
    except DecodeError:
        return None
    except CommandError as exc:
        if was_signalled(exc):
            raise
        return None
    if begun is not None and state.created is not None and state.created < begun:
        return ProcessIdentity(state.pid, 0)
    return ProcessIdentity.told(state.pid)


def was_signalled(error: CommandError) -> bool:
    """Return whether a signal has ended the runtime process, or a runtime behind a shell."""
    return error.exit_code is not None and (error.exit_code < 0 or error.exit_code > _SIGNALLED)


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Run a cleanup, and repeat the cleanup up to four times if a signal ends the runtime process.

    Raises:
        CommandError: If a signal ends the cleanup each time, or for another failure.
    """
    # Ctrl-C in a terminal reaches all processes of the foreground group, and the stop of a systemd unit all processes
    # of the unit's cgroup.
    for _ in range(RETRIES):
        try:
            return await work()
        except CommandError as exc:
            if not was_signalled(exc):
                raise
    return await work()


async def gone(delete: Callable[[], Awaitable[object]]) -> bool:
    """Delete a container; return False if the runtime refuses.

    Raises:
        CommandError: If a signal ends the runtime process.
    """
    try:
        await delete()
    except ContainerNotFound:
        return True
    except CommandError as exc:
        if was_signalled(exc):
            raise
        return False
    return True


def is_being_made(container_id: str, directory: str, proc: str = "/proc") -> bool:
    """Return whether any runtime process on the host is creating a container with this id.

    Args:
        container_id: The container's id.
        directory: The runtime's directory for containers; empty for any directory.
        proc: The mount point of procfs.
    """
    ourselves = _ancestors(os.getpid())  # a program that runs containers may well be called like `tool run ID`
    for name in os.listdir(proc):
        if not name.isdigit() or int(name) in ourselves:
            continue
        try:
            with open(f"{proc}/{name}/cmdline", "rb", buffering=0) as file:
                *words, last, _ = os.fsdecode(file.read()).split("\0")
        except (OSError, ValueError):  # it is gone, or has less than two words
            continue
        # The id is the last argument of each such command: runc(8), crun(1). A command with another root directory
        # doesn't count.
        if last == container_id and not MAKERS.isdisjoint(words) and _is_root(words, directory):
            return True
    return False


def _ancestors(pid: int) -> set[int]:
    """Return a process and all ancestors."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            pid = parent_of(pid)
        except OSError:
            break
    return found


def _is_root(words: list[str], directory: str) -> bool:
    """Return whether a command line can refer to this root directory."""
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--root":
            root = value if equals else "".join(words[number + 1 : number + 2])
            return not directory or not os.path.isabs(root) or os.path.realpath(root) == os.path.realpath(directory)
    return True
