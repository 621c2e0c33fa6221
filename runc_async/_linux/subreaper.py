"""Processes adopted under `subreaper()`: recorded, and reaped once no caller can ask for their exit status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Generator
from typing import NamedTuple

from .exits import child_status, watches, watching
from .libc import PR_SET_CHILD_SUBREAPER, get_subreaper, prctl
from .pidfd import open_pidfd
from .procfs import ProcessIdentity


class _Watched(NamedTuple):
    """The watch on a stray process.

    Attributes:
        loop: The event loop that watches.
        watch: Closes the watch.
        when_gone: Called when the process has ended.
    """

    loop: asyncio.AbstractEventLoop
    watch: contextlib.ExitStack
    when_gone: Callable[[], object] | None


_lock = threading.Lock()
_users = 0
_value_before = 0
adopted: set[ProcessIdentity] = set()
strays: dict[ProcessIdentity, _Watched] = {}
"""The adopted processes that are reaped as soon as they end."""
claimed: Counter[int] = Counter()
"""Processes that a handle exists for, whose status may be asked for later."""


@contextlib.contextmanager
def subreaper() -> Generator[None]:
    """Adopt the processes that runc leaves behind, so that their exit statuses are known.

    Process 1 of a pid namespace, such as the entry point of a container, adopts orphans without this context.

    runc exits after `create`, `run(detach=True)`, `exec(detach=True)` and `restore(detach=True)`. The kernel then makes
    the nearest ancestor that is a subreaper, or process 1, the parent of the container's process. Inside this context
    the calling process is the parent, and `wait()` knows the status on every kernel. Outside, `wait()` may need Linux
    6.15.

    The setting belongs to the whole process, in all threads: every orphaned descendant, of any library, becomes a child
    of the current process, and a zombie at its end. Only processes of this library's containers, and processes left
    behind by runtimes, are reaped here. Children of other libraries are safe; orphans of other libraries stay zombies
    until the current process ends. A container's first process is reaped by the call that waits for the process, or
    with the container. Every other process is reaped as soon as it ends, because the first process can't end earlier.
    Nested contexts are counted; the last exit restores the previous setting. Adopted processes stay children.

    A runc process that is ended inside this context is stopped (SIGSTOP) first, to find the processes started by runc;
    a process of the container may get the SIGCONT that follows.

    Enter the context before the containers are created, and keep the event loop running while there are containers. See
    PR_SET_CHILD_SUBREAPER(2const).

    Raises:
        OSError: If the kernel refuses.
    """
    _enter_subreaper()
    try:
        yield
    finally:
        try:
            reap_adopted()
        finally:
            _leave_subreaper()


def _enter_subreaper() -> None:
    """Make the current process a subreaper, unless already a subreaper."""
    global _users, _value_before  # noqa: PLW0603  (the setting is the process's, and no object's)
    with _lock:
        if _users == 0:
            _value_before = get_subreaper()
            prctl(PR_SET_CHILD_SUBREAPER, 1)
        _users += 1


def _leave_subreaper() -> None:
    """Restore the previous setting on exit of the outermost context."""
    global _users  # noqa: PLW0603  (as above)
    with _lock:
        _users -= 1
        if _users == 0:
            prctl(PR_SET_CHILD_SUBREAPER, _value_before)


def adopting() -> bool:
    """Return whether orphans become children of the current process, and have to be recorded with `adopt`.

    True inside `subreaper()`, and always for process 1 of a pid namespace, such as a container's entry point.
    """
    return bool(_users) or os.getpid() == 1


def adopt(pid: int) -> None:
    """Record a container's first process, left behind by runc; see `reap_adopted`.

    Nothing is recorded if orphans don't come to the current process, without a pid, or without a free descriptor to
    look at the process: the call goes on, and the process stays a zombie.
    """
    if adopting() and pid:
        with contextlib.suppress(OSError):
            process = ProcessIdentity.of(pid)
            adopted.add(process)
            if process in strays:  # it was taken for one before its `create` had told
                strays.pop(process).watch.close()


def is_adopted(pid: int) -> bool:
    """Return whether a process is recorded.

    Raises:
        OSError: If no descriptor is left to look at processes.
    """
    return any(process.pid == pid and process.exists() for process in list(adopted))


def adopt_stray(pid: int, when_gone: Callable[[], object] | None = None) -> None:
    """Record a process unknown to all callers, and reap the process at the end, if a child by then.

    Such processes are left by `exec`, or by an ended runc process.

    Args:
        pid: The process.
        when_gone: Called by the event loop after the end of the process, to look for leftover processes.
    """
    # A zombie in a container's pid namespace keeps the container's first process from ending: the kernel waits
    # there until all other processes of the namespace are reaped (zap_pid_ns_processes, kernel/pid_namespace.c).
    # Meanwhile runc can't delete the container.
    if not (adopting() and pid):
        return
    try:
        process = ProcessIdentity.of(pid)
    except OSError:  # it is gone; or there is no descriptor to look with, as in `adopt`
        return
    if process in strays:
        strays[process] = strays[process]._replace(when_gone=when_gone or strays[process].when_gone)
        return
    adopted.add(process)
    _forget_closed_loops()
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:  # `reap_adopted` sees to it
        return
    with contextlib.suppress(OSError):  # no descriptor: as above
        with contextlib.ExitStack() as watch:
            pidfd = open_pidfd(process)
            watch.callback(os.close, pidfd)
            watch.enter_context(watching(pidfd, lambda: _reap_stray(process, pidfd)))
            strays[process] = _Watched(loop, watch.pop_all(), when_gone)
        _reap_stray(process, pidfd)


def _reap_stray(process: ProcessIdentity, pidfd: int) -> None:
    """Reap an ended stray process, and remove gone processes from the records."""
    if claimed[process.pid]:
        strays.pop(process).watch.close()
        return
    if child_status(os.P_PIDFD, pidfd, reap=True) is None:
        try:
            if process.exists():
                return
        except OSError:  # there is no descriptor to look with
            return
    stray = strays.pop(process)
    stray.watch.close()
    adopted.discard(process)
    if stray.when_gone is not None:
        stray.when_gone()


def _forget_closed_loops() -> None:
    """Stop watching in closed event loops; `reap_adopted` reaps the processes."""
    for process, watched in list(strays.items()):
        if watched.loop.is_closed():
            del strays[process]
            watched.watch.close()


def reap_adopted() -> None:
    """Reap the ended processes of the records, unless a call waits for or has claimed the process. Never blocks.

    Call after deleting a container: the status of the container's processes can't be asked for any more.
    """
    _forget_closed_loops()
    awaited = {pid for watch in list(watches.values()) for pid in watch.pids()}
    for process in [process for process in list(adopted) if not claimed[process.pid]]:
        # The pid can't belong to another process: a child keeps its pid until its parent reaps it.
        free = process.pid not in awaited
        with contextlib.suppress(OSError):  # there is no descriptor to look with: the next one reaps it
            if not process.exists() or (free and child_status(os.P_PID, process.pid, reap=True) is not None):
                adopted.discard(process)
