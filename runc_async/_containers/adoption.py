"""Reaping of container processes that become our children under `subreaper()`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary

from .._linux.procfs import began_since, children, descendants, is_forsaken, name_of
from .._linux.subreaper import adopt, adopt_stray, adopting, is_adopted
from .._runtimes.known import DIALECTS, read_record

COPIES = tuple(dialect.copies for dialect in DIALECTS.values() if dialect.copies)
"""Prefixes of the names of runtime copies that become a container's process: `runc:[2:INIT]`."""

COPY_TIME = 10.0
"""Seconds in which a copy without its runc may fork another copy."""

_looks: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""Event loops with a scheduled look, and the smallest `since` of the look."""


def adopt_processes(state_directory: str, container_id: str) -> None:
    """Adopt the processes of a new or an ending container."""
    if not adopting():
        return
    # Adopted are the first process; processes in its cgroup that are our children already, such as orphans of an
    # `exec`; and without a pid namespace, where other processes outlive the first one, all processes.
    ours = set(children(os.getpid()))
    try:
        record = read_record(state_directory, container_id)
    except OSError:
        return
    if record is None:
        return
    dialect = DIALECTS[record.runtime]
    first = record.process.pid
    if dialect.inside is not None:
        _adopt_sandbox((first, *record.helpers), ours, dialect.leaves)
        return
    for pid in (first, *_members(record.cgroups.values())):
        (adopt_stray if pid in ours - {first} else adopt)(pid)
    # A detached `run` of crun forks twice; the process in between ends after its own parent, and crun reports its pid
    # nowhere.
    if leaves := dialect.leaves:
        for pid in ours:
            if is_forsaken(pid, leaves):
                adopt_stray(pid)


def _adopt_sandbox(known: tuple[int, ...], ours: set[int], name: bytes) -> None:
    """Adopt the processes of a sandbox. The runtime waits for their end, and counts a zombie as running."""
    for pid in (*known, *(pid for pid, _ in descendants(known[0]))):
        adopt_stray(pid)
    # Children of the first process become ours when the first process ends, in a session of their own.
    adopt_leaves(name, ours.difference(known))


def adopt_leaves(name: bytes, ours: Iterable[int] | None = None) -> None:
    """Adopt processes of a sandbox: our children since the end of the first process.

    Args:
        name: The name of the processes.
        ours: Our children, if known.
    """
    if not adopting() or not name:
        return
    for pid in children(os.getpid()) if ours is None else ours:
        with contextlib.suppress(OSError):
            if name_of(pid) == name and os.getsid(pid) != os.getsid(0):
                adopt_stray(pid)


def adopt_copies(since: float) -> None:
    """Adopt the copies of a runc that was ended before a copy became a container's process.

    Args:
        since: The start of this runc, by `clock_gettime(CLOCK_BOOTTIME)`.
    """
    if not adopting():
        return
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):  # there is no descriptor to look with
            # No pid of a copy was reported. Copies end by themselves, since the other end of their pipe is closed; but
            # a copy may have forked the next one before, so each end is a reason to look again. The waiting process of
            # a `create` has such a name too until `start`: it is adopted as the container's first process, earlier or
            # later.
            if name_of(pid).startswith(COPIES) and began_since(pid, since) and not is_adopted(pid):
                adopt_stray(pid, looking_again(since))


def looking_again(since: float) -> Callable[[], None]:
    """Return a function to look for copies once more, in the next iteration of the event loop.

    Args:
        since: As for `adopt_copies`.
    """
    # Many calls in one iteration cause one look, since a look reads the name of each child. After a while there are no
    # more looks: a copy without its runc doesn't live long.
    last = time.monotonic() + COPY_TIME

    def look_again() -> None:
        loop = asyncio.get_running_loop()
        if time.monotonic() < last:
            if loop not in _looks:
                loop.call_soon(lambda: adopt_copies(_looks.pop(loop)))
            _looks[loop] = min(since, _looks.get(loop, since))

    return look_again


def _members(paths: Iterable[str]) -> list[int]:
    """Return the processes in a cgroup; none for the cgroup of the current process, shared with other programs."""
    for path in paths:
        try:
            with open(os.path.join(path, "cgroup.procs"), "rb") as file:
                members = [int(line) for line in file]
        except (OSError, ValueError):  # a path, or a number, that can't be one
            continue
        return [] if os.getpid() in members else members
    return []
