"""Whose container it is: known by its first process, and not by its id, which another call may use at the same time."""

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
"""Asks the runtime about a container."""

MAKERS = frozenset({"create", "run", "restore"})
"""The commands that make a container."""

SETTLE_TIME = 2.0
"""Seconds for another runtime process to write down which process it has started; that takes some milliseconds."""

RETRIES = 4
"""How often a clean-up begins again that a signal has ended: a user presses Ctrl-C more than once."""

_GLANCE = 0.02
"""Seconds between two looks whether it has."""

_PANIC = 2
_SIGNALLED = 128
"""A shell in front of the runtime adds the signal that has ended the runtime to this number."""


class Attempt:
    """What is known of the runtime processes that one call has started to make a container.

    Attributes:
        container_id: The container's id.
        asked: Whether a runner was asked to start one, and may have done so.
        over: Whether the last one is gone.
        shared: Whether another call of this process tried to make a container of the same id in the same directory at
            the same time.
        ends: How each of them has ended.
        processes: What they have started, as reported in a pid file or as seen before they were ended; with start time
            0 if the process was gone before its start time could be read.
    """

    def __init__(self, directory: str, container_id: str) -> None:
        """Begin now.

        Args:
            directory: The directory in which the runtime keeps its containers.
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
        """Note each runtime process that is started in the block, and its end.

        A call that is cut short returns nothing from which that could be known.
        """
        before = _current.get()
        _current.set(self)
        try:
            yield
        finally:
            _current.set(before)
            self.over = True

    @contextlib.contextmanager
    def compared(self) -> Generator[None]:
        """Compare with the other calls of this process that make a container of the same id during the block."""
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
        """Note the end of a runtime process.

        Args:
            invocation: What it was.
            completed: How it has ended.
            processes: What it has started, as far as that is known.
            seen: Whether its children were looked for before it was ended.
        """
        self.ends.append((invocation, completed))
        self.processes.update(processes)
        code = completed.returncode
        # A runtime that fails in order takes back what it has made, unless it is to keep the container.
        keeps = code != 0 and "--keep" in invocation.argv
        in_order = code is not None and 0 <= code < _SIGNALLED and code != _PANIC and not keeps
        self._unseen = not (seen or processes or in_order)

    def owns(self, process: ProcessIdentity) -> bool | None:
        """Tell whether this call has started a container's first process; None if that can't be known.

        It can't where the runtime process was ended by others, such as a signal to the whole process group, before it
        reported a process.
        """
        if not process.start_time:
            # The record has no start time, and the process has ended: its number is all that is known.
            return process.pid in {own.pid for own in self.processes}
        if not self.processes.isdisjoint({process, ProcessIdentity(process.pid, 0)}):
            return process.start_time >= self._since
        if process.start_time < self._since:
            return False
        if any(end.returncode == 0 and not invocation.stop.waits_for_process for invocation, end in self.ends):
            return True  # the runtime has just said so itself
        return None if self._unseen or not self.ends else False

    async def judge(self, ask: Ask) -> bool | None:
        """Tell whether this call has made the container that has its id.

        A container without a process, which is one that is not finished, is this call's if no other runtime process is
        making one of that id. The answer is waited for, for some seconds, until the other one has started its process.

        Args:
            ask: Asks the runtime about the container.

        Returns:
            True or False; None if that can't be known.

        Raises:
            ContainerNotFound: If there is no such container.
            CommandError: If a signal ends the runtime process that is asked.
            RuncError: If it can't be asked.
            OSError: If it can't be asked.
        """
        deadline = time.monotonic() + SETTLE_TIME
        while True:
            process = await find_process(self._directory, self.container_id, ask, self._begun)
            owned = None if process is None else self.owns(process)
            if owned is not None:
                return owned
            if not self.has_rivals(self._directory):
                # What another call of ours has made in the meantime is complete, and has a process.
                return True if process is None or not self.shared else None
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(_GLANCE)

    def may_hold(self, members: Collection[int]) -> bool:
        """Tell whether a cgroup with these processes can be this call's; one without any process can."""
        return not members or any(map(self._may_be_ours, members))

    def _may_be_ours(self, pid: int) -> bool:
        """Tell whether this call can have started the process that has this number now."""
        try:
            return self.owns(ProcessIdentity.of(pid)) is not False
        except OSError:
            return False  # it is gone

    def has_rivals(self, directory: str) -> bool:
        """Tell whether another runtime process is making a container of this id, or may be.

        Args:
            directory: The directory in which the runtime keeps its containers; empty: any directory.
        """
        others = _attempts.get((self._directory, self.container_id), set())
        busy = any(not other.over for other in others if other is not self)
        return busy or is_being_made(self.container_id, directory)


_current: ContextVar[Attempt | None] = ContextVar("_current", default=None)
_attempts: dict[tuple[str, str], set[Attempt]] = {}


def current_attempt(invocation: Invocation) -> Attempt | None:
    """Return the attempt to make a container to which an invocation belongs that is started now, if any."""
    return _current.get() if invocation.command in MAKERS else None


def note_start() -> None:
    """Note that a runner is about to be asked to start a runtime process."""
    if (attempt := _current.get()) is not None:
        attempt.asked = True


def recorded_process(directory: str, container_id: str) -> ProcessIdentity | None:
    """Read in the runtime's own record which process a container's first one is; None if it has none, or none yet.

    Raises:
        FileNotFoundError: If there is no such container.
        OSError: If the directory may not be read.
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
    """Find the first process of a container; None if it has none, or none that can be known.

    The runtime is asked only if it keeps its record elsewhere, or where it may not be read.

    Args:
        directory: The directory in which the runtime keeps its containers.
        container_id: The container's id.
        ask: Asks the runtime about the container.
        begun: A container that was created before has a process with the start time 0.

    Raises:
        ContainerNotFound: If there is no such container.
        CommandError: If a signal ends the runtime process that is asked.
        RuncError: If it can't be asked.
        OSError: If it can't be asked.
    """
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
    """Tell whether a signal has ended the runtime process, or one behind a shell."""
    return error.exit_code is not None and (error.exit_code < 0 or error.exit_code > _SIGNALLED)


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Run a clean-up, and again, four times at most, if a signal ends its runtime process.

    Ctrl-C in a terminal reaches all processes of the foreground group, and a stop of a systemd unit all in its cgroup.

    Raises:
        CommandError: If a signal ends it each time, or it fails in another way.
    """
    for _ in range(RETRIES):
        try:
            return await work()
        except CommandError as exc:
            if not was_signalled(exc):
                raise
    return await work()


def is_being_made(container_id: str, directory: str, proc: str = "/proc") -> bool:
    """Tell whether any runtime process on this host is making a container of that id.

    The id is the last argument of each such command: runc(8), crun(1). One that names another root directory doesn't
    count.

    Args:
        container_id: The container's id.
        directory: The directory in which the runtime keeps its containers; empty: any directory.
        proc: Where procfs is.
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
        if last == container_id and not MAKERS.isdisjoint(words) and _is_root(words, directory):
            return True
    return False


def _ancestors(pid: int) -> set[int]:
    """Return a process and all those that it descends from."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            pid = parent_of(pid)
        except OSError:
            break
    return found


def _is_root(words: list[str], directory: str) -> bool:
    """Tell whether a command line can mean this root directory."""
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option == "--root":
            root = value if equals else "".join(words[number + 1 : number + 2])
            return not directory or not os.path.isabs(root) or os.path.realpath(root) == os.path.realpath(directory)
    return True
