"""Under `subreaper()`: the processes of a container that become our children, and are ours to reap."""

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
"""How the names of the copies of runtimes begin that become a container's process: `runc:[2:INIT]`."""

COPY_TIME = 10.0
"""Seconds in which a copy whose runc is gone may make another one."""

_looks: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()
"""Where another look is due, with the moment of its `since`."""


def adopt_processes(state_directory: str, container_id: str) -> None:
    """Note the processes of a container that was made, or is about to end.

    That is its first one; those in its cgroup that are our children already, such as what `exec` has left; and without
    a pid namespace of its own, where the first one doesn't take the others with it, all that are there. What runc
    doesn't tell is nobody's.

    crun leaves one more behind: a detached `run` forks twice, and what made the container ends after its own parent.
    crun tells its number to nobody.
    """
    if not adopting():
        return
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
    if leaves := dialect.leaves:
        for pid in ours:
            if is_forsaken(pid, leaves):
                adopt_stray(pid)


def _adopt_sandbox(known: tuple[int, ...], ours: set[int], name: bytes) -> None:
    """Note the processes of a sandbox, for whose end its runtime waits: a zombie hasn't ended for it.

    The children of its first process come to us at the end of that, in a session of their own.
    """
    for pid in (*known, *(pid for pid, _ in descendants(known[0]))):
        adopt_stray(pid)
    adopt_leaves(name, ours.difference(known))


def adopt_leaves(name: bytes, ours: Iterable[int] | None = None) -> None:
    """Note the processes of a sandbox that have come to us, since its first one has ended.

    Args:
        name: Their name.
        ours: Our children, if they are known.
    """
    if not adopting() or not name:
        return
    for pid in children(os.getpid()) if ours is None else ours:
        with contextlib.suppress(OSError):
            if name_of(pid) == name and os.getsid(pid) != os.getsid(0):
                adopt_stray(pid)


def adopt_copies(since: float) -> None:
    """Note the copies of a runc that was ended before they became a container's process: nobody has told their number.

    They end by themselves, for they have lost the other end of their pipe; one of them may have made the next one by
    then, so each one's end is a reason to look again. What a `create` has left is named so too, until its start: it is
    noted as a container's first process, before or after this.

    Args:
        since: When that runc was started, as `clock_gettime(CLOCK_BOOTTIME)` tells it.
    """
    if not adopting():
        return
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):  # there is no descriptor to look with
            if name_of(pid).startswith(COPIES) and began_since(pid, since) and not is_adopted(pid):
                adopt_stray(pid, looking_again(since))


def looking_again(since: float) -> Callable[[], None]:
    """Return what looks for copies once more, in the next turn of the event loop.

    Called by many in one turn, it looks once, for a look reads the name of each child of ours; and after a while no
    more, for a copy whose runc is gone doesn't live long.

    Args:
        since: As `adopt_copies` takes it.
    """
    last = time.monotonic() + COPY_TIME

    def look_again() -> None:
        loop = asyncio.get_running_loop()
        if time.monotonic() < last:
            if loop not in _looks:
                loop.call_soon(lambda: adopt_copies(_looks.pop(loop)))
            _looks[loop] = min(since, _looks.get(loop, since))

    return look_again


def _members(paths: Iterable[str]) -> list[int]:
    """Read which processes are in a cgroup; none if it is our own, for then they are not only the container's."""
    for path in paths:
        try:
            with open(os.path.join(path, "cgroup.procs"), "rb") as file:
                members = [int(line) for line in file]
        except (OSError, ValueError):  # a path, or a number, that can't be one
            continue
        return [] if os.getpid() in members else members
    return []
