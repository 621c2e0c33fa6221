"""What becomes our child under `subreaper()`: noted, and reaped when nobody can ask for its exit status any more."""

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
    """The watch for the end of a stray.

    Attributes:
        loop: The event loop that watches.
        watch: Ends it.
        when_gone: Called at the end of the stray.
    """

    loop: asyncio.AbstractEventLoop
    watch: contextlib.ExitStack
    when_gone: Callable[[], object] | None


_lock = threading.Lock()
_users = 0
_value_before = 0
adopted: set[ProcessIdentity] = set()
strays: dict[ProcessIdentity, _Watched] = {}
"""Those of the adopted processes that are reaped as soon as they end."""
claimed: Counter[int] = Counter()
"""Processes of which somebody has a handle, and may ask for the status later."""


@contextlib.contextmanager
def subreaper() -> Generator[None]:
    """Make this process the parent of the processes that runc leaves behind, so that their exit statuses are known.

    Process 1 of a pid namespace, such as the entry point of a container, is that without it.

    runc exits after `create`, `run(detach=True)`, `exec(detach=True)` and `restore(detach=True)`. The kernel then gives
    the container's process to the nearest ancestor that is a subreaper, or to process 1. Inside this context that is
    us, and `wait()` knows the status on every kernel. Without it `wait()` needs Linux 6.15.

    It changes the whole process, in all threads: every orphaned descendant becomes our child, whichever library started
    it, and a zombie when it ends. This library reaps the processes of its own containers, and what runtimes leave of
    themselves, and nothing else, so other libraries' children are safe, and what other libraries orphan stays a zombie
    until this process ends. A container's first process is reaped by who waits for it, or with its container; every
    other one as soon as it ends, for until then the first one can't end either. Nesting is counted; the last one to
    leave restores what was set before. What became our child stays it.

    A runc that is ended in here is stopped for a moment before, to see what it has started; a process of a container's
    may get the SIGCONT of that.

    Enter it before the containers are made, and see to it that the event loop goes on while there are any. See
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
    """Become a subreaper, unless we are one."""
    global _users, _value_before  # noqa: PLW0603  (the setting is the process's, and no object's)
    with _lock:
        if _users == 0:
            _value_before = get_subreaper()
            prctl(PR_SET_CHILD_SUBREAPER, 1)
        _users += 1


def _leave_subreaper() -> None:
    """Be again what we were before, if nobody else needs it."""
    global _users  # noqa: PLW0603  (as above)
    with _lock:
        _users -= 1
        if _users == 0:
            prctl(PR_SET_CHILD_SUBREAPER, _value_before)


def adopting() -> bool:
    """Return whether orphans are ours to reap, so that processes are to be noted with `adopt`.

    They are while a `subreaper()` is on, and always in a process that is number 1 of its pid namespace, such as a
    container's entry point: the kernel gives each orphan there to it.
    """
    return bool(_users) or os.getpid() == 1


def adopt(pid: int) -> None:
    """Note a container's first process, that runc has left, or will leave, behind: see `reap_adopted`.

    If orphans don't come to us, or without a pid, there is nothing to note. Nor without a descriptor to look at the
    process with: a call that ends goes on, and the process stays a zombie.
    """
    if adopting() and pid:
        with contextlib.suppress(OSError):
            process = ProcessIdentity.of(pid)
            adopted.add(process)
            if process in strays:  # it was taken for one before its `create` had told
                strays.pop(process).watch.close()


def is_adopted(pid: int) -> bool:
    """Say whether a process is noted already.

    Raises:
        OSError: If no descriptor is left to look with.
    """
    return any(process.pid == pid and process.exists() for process in list(adopted))


def adopt_stray(pid: int, when_gone: Callable[[], object] | None = None) -> None:
    """Note a process for whose status nobody can ask; it is reaped as soon as it ends, if it is our child by then.

    That is what `exec` has left, or a runc that was ended. While such a zombie is in the pid namespace of a container,
    the kernel doesn't let the container's first process end (zap_pid_ns_processes in kernel/pid_namespace.c waits for
    all others to be reaped), so that runc can't delete it.

    Args:
        pid: Its number.
        when_gone: Called by the event loop at its end: it may have left behind what nobody knows yet.
    """
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
    """Reap a stray if it has ended, and forget it if it is gone."""
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
    """Watch no longer in event loops that are closed; `reap_adopted` sees to these strays."""
    for process, watched in list(strays.items()):
        if watched.loop.is_closed():
            del strays[process]
            watched.watch.close()


def reap_adopted() -> None:
    """Reap those of the noted processes that have ended, and that nobody waits for or has claimed. Never waits itself.

    To be called after a container was deleted: nobody can ask for the status of its processes any more.
    """
    _forget_closed_loops()
    awaited = {pid for watch in list(watches.values()) for pid in watch.pids()}
    for process in [process for process in list(adopted) if not claimed[process.pid]]:
        # The number is safe: if it is our child, then nobody else can reap it, and give its number away.
        free = process.pid not in awaited
        with contextlib.suppress(OSError):  # there is no descriptor to look with: the next one reaps it
            if not process.exists() or (free and child_status(os.P_PID, process.pid, reap=True) is not None):
                adopted.discard(process)
