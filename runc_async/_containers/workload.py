"""The container process of an attached runc: end, exit status, and kill.

SIGKILL for runc alone would orphan the process: the container would run on without an owner. The process is a child of
runc, which starts it with CLONE_PARENT; a command in front of runc adds generations, so the whole tree counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import os
import re
import signal
import stat
import time
from collections.abc import Generator

import anyio

from .._linux.exits import wait_reaped
from .._linux.fdsocket import FDSocket
from .._linux.files import SCARCE, open_itself
from .._linux.inotify import news
from .._linux.memfd import lifted
from .._linux.pidfd import HeldPidfd, has_exited, kept_status, open_child, pidfd_numbers, pidfd_pid, told_status
from .._linux.procfs import ProcessIdentity, began_since, children
from .._linux.scratch import scratch_directory
from .._linux.subreaper import adopt_stray, adopting
from ..errors import RuncError
from ..runner import Fate

_PID = re.compile(rb"([1-9][0-9]{0,9})\n?")
_PID_BYTES = 16
_LAST_PID = (1 << 31) - 1


KILL_ROUNDS = 10
"""Maximal number of listings of a tree that is killed: each listing has the forks during the last one."""

GLANCES = 100
"""Number of reads of a file that runc has created but not written yet: a tenth of a millisecond in all."""


class _NotOursError(OSError):
    """The file in the place of the pid file can't be runc's."""


@contextlib.contextmanager
def _opened(path: str) -> Generator[tuple[int, os.stat_result]]:
    """Open a pid file created, or now written, by runc.

    Raises:
        _NotOursError: If the file isn't regular, or belongs to another user.
        OSError: If the file can't be opened.
    """
    # Other users may be able to create files in the directory of the caller's pid file. Their files aren't trusted,
    # since the process named inside may be killed; and a FIFO must not block.
    try:
        fd = open_itself(path, os.O_RDONLY)
    except OSError as exc:
        if exc.errno in {errno.ELOOP, errno.ENXIO}:  # a symbolic link, a socket
            raise _NotOursError(exc.errno, exc.strerror, path) from None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in {0, os.geteuid()}:
            raise _NotOursError(errno.EPERM, os.strerror(errno.EPERM), path)
        yield fd, found
    finally:
        os.close(fd)


def _version(found: os.stat_result) -> tuple[int, int]:
    """Return a key that changes when a file is replaced."""
    return found.st_ino, found.st_mtime_ns


def pid_in(content: bytes) -> int | None:
    """Return the pid in a pid file; None without a valid pid."""
    match = _PID.fullmatch(content)
    return int(match[1]) if match and int(match[1]) <= _LAST_PID else None


def signal_child(pid: int, parent: int, signum: int) -> None:
    """Send a signal to a child of `parent`. No effect if the child has ended, or the signal isn't permitted."""
    with contextlib.suppress(OSError):
        pidfd = open_child(pid, parent)
        try:
            signal.pidfd_send_signal(pidfd, signum)
        finally:
            os.close(pidfd)


class Workload:
    """The process started by a runc, known by the pid file; an attached runc waits for the process.

    Why not wait for runc alone: an `exec` reports the end only after all holders of the process's pipes have closed
    them, since runc copies between its own pipes and ours. A process with a surviving child, such as `sh -c
    'server &'`, would delay the call until the child ends.

    runc writes the file after the start of the process and before reaping, so a process reported in time exists at
    least as a zombie. The pidfd, if any, has been sent by then, without any race.

    Attributes:
        path: The pid file.
        directory_fd: The descriptor with which runc reaches a private directory; -1 for a path of the caller.
        started: Done when runc has written the pid.
        exited: Done when the process has ended.
        pid: The pid; 0 before the start.
        exited_at: The time when the end was noticed, aware, in UTC.
        process: The identity, with start time 0 if the process was gone before a look; None before the start.
        runc_pid: The pid of runc, set after the spawn.
    """

    def __init__(self, path: str | None, *, above: int = 0) -> None:
        """Prepare the place of the pid file.

        Args:
            path: The caller's own pid file; None for a private file, visible in any mount namespace through a
                descriptor.
            above: Lowest number for the descriptor.

        Raises:
            OSError: If the private directory can't be created.
        """
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.pid: int = 0
        self.process: ProcessIdentity | None = None
        self.directory_fd: int = -1
        self.exited_at: dt.datetime | None = None
        self._loop = loop
        self.runc_pid = 0
        self._pidfd: HeldPidfd | None = None
        self._held = 0
        self._status: int | None = None
        self._problem: OSError | None = None
        self._is_foreign = False
        self._stale: tuple[int, int] | None = None
        self._socket: FDSocket | None = None
        self._since = time.clock_gettime(time.CLOCK_BOOTTIME)
        with contextlib.ExitStack() as undo:
            if path is None:
                directory = undo.enter_context(scratch_directory("pid", ".pid"))
                self.directory_fd = lifted(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), above)
                undo.callback(os.close, self.directory_fd)
                path = f"/proc/self/fd/{self.directory_fd}/pid"
            else:
                directory = os.path.dirname(path)
                with contextlib.suppress(OSError):
                    self._stale = _version(os.stat(path))
            self.path: str = path
            self._watch = undo.enter_context(contextlib.ExitStack())
            self._watch.enter_context(news(directory, self._arrived))
            self._undo = undo.pop_all()

    def listen(self) -> str:
        """Open a socket for a pidfd from runc, and return the path.

        Raises:
            OSError: If the socket can't be created, or no descriptor is left.
        """
        self._socket = FDSocket()
        self._socket.open()
        return self._socket.path

    @property
    def runs(self) -> bool:
        """Whether the process has started and not ended, as far as visible."""
        return self._pidfd is not None and not has_exited(self._pidfd.fd)

    @property
    def wait_status(self) -> int | None:
        """The wait status, as in wait(2).

        None while the process runs; or, before Linux 6.15, if runc had reaped the process when the end was noticed.
        """
        if self._status is None and self._pidfd is not None:
            self._status = told_status(self._pidfd.fd)
        return self._status

    async def reaped(self, seconds: float) -> None:
        """Wait until runc has reaped the ended process; return at once if the kernel doesn't report this."""
        if self._pidfd is None:
            return
        with self._pidfd.held() as pidfd, contextlib.suppress(OSError):
            kept_status(pidfd)
            with anyio.move_on_after(seconds):
                await wait_reaped(pidfd)

    def over(self) -> None:
        """Note the end of the process at the end of runc, if it wasn't noticed before."""
        if self.pid and self.exited_at is None and (self._pidfd is None or has_exited(self._pidfd.fd)):
            self.exited_at = dt.datetime.now(dt.UTC)

    def check(self) -> None:
        """Raise the error that prevented access to the process.

        Raises:
            OSError: If no descriptor was left.
        """
        if self._problem is not None:
            raise self._problem

    def look(self) -> None:
        """Read the pid file now: runc has ended, and inotify events may be still to come."""
        if not self.started.done():
            self._arrived(os.path.basename(self.path), True)

    def fate(self) -> Fate | None:
        """Return the fate of the process right after runc's end; None if unknown."""
        self.look()
        if self._pidfd is not None and not has_exited(self._pidfd.fd):
            return "lost"
        if self.pid:
            return None if self._pidfd is None and (self._problem is not None or self._is_foreign) else "ended"
        # Only the absence of a private file proves anything: the caller's may be in another mount namespace.
        return None if self._problem is not None or self.directory_fd < 0 or os.path.lexists(self.path) else "none"

    def send_signal(self, signum: int) -> None:
        """Send a signal. No effect if the process has ended, or hasn't started."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd.fd, signum)

    def kill_orphan(self) -> None:
        """Kill a process left behind by an attached runc, and let the process be reaped."""
        if self._pidfd is None:
            return
        if not has_exited(self._pidfd.fd):
            self.send_signal(signal.SIGKILL)
        if adopting():
            with contextlib.suppress(OSError):  # runc has reaped it, as it should; or there is no descriptor left
                adopt_stray(pidfd_pid(self._pidfd.fd))

    def take(self) -> tuple[int, int]:
        """Return the pid and the pidfd, owned by the caller from now on.

        Raises:
            ProcessLookupError: If the process has ended, or runc has reported none.
            OSError: If no descriptor was left.
        """
        self.look()
        self.check()
        if self._pidfd is None:
            raise ProcessLookupError("the process of the container has ended")
        self._loop.remove_reader(self._pidfd.fd)
        pidfd, self._pidfd = self._pidfd, None
        return self.pid, pidfd.detach()

    def _arrived(self, name: str, complete: bool) -> None:  # noqa: FBT001 - as inotify reports it
        """Handle an inotify event for the pid file."""
        # A short process may be gone when the file is complete. So a pidfd is opened as soon as runc begins to write,
        # and compared with the file's contents afterwards.
        if self._pidfd is None and self.runc_pid and not complete and self._socket is None:
            self._hold(self.candidates(name))
        if complete and name in {"", os.path.basename(self.path)}:
            try:
                with _opened(self.path) as (fd, found):
                    pid = None if _version(found) == self._stale else pid_in(os.read(fd, _PID_BYTES))
            except (FileNotFoundError, NotADirectoryError, _NotOursError):
                return
            except OSError as exc:
                if not name and exc.errno not in SCARCE:
                    return  # there may be no such file yet, and it is for runc to say why it can't make one
                self._problem = exc
            else:
                if pid is None:
                    return
                self.pid = pid
                self._believe()
            if not self.started.done():
                self.started.set_result(None)

    def candidates(self, name: str) -> list[int]:
        """Return the possible pids: the one in the file that runc has begun, with a dot before its name."""
        # runc writes right after creating the file. Only if that takes long, runc's children are listed for all of its
        # threads, which takes the kernel milliseconds.
        directory, final = os.path.split(self.path)
        if name == f".{final}":
            try:
                with _opened(os.path.join(directory, name)) as (fd, _):
                    for _ in range(GLANCES):
                        if pid := pid_in(os.read(fd, _PID_BYTES)):
                            return [pid]
                        os.sched_yield()  # our waking up may have taken the processor from runc
            except FileNotFoundError:
                return []  # it has its own name already, of which the next event tells
            except OSError:
                pass  # it isn't ours to read
        return children(self.runc_pid)

    def _hold(self, candidates: list[int]) -> None:
        """Open a pidfd of runc's only child, the process; without a pidfd the end isn't known exactly."""
        if len(candidates) == 1:
            self._problem, self._is_foreign = None, False
            try:
                self._pidfd = HeldPidfd.open(candidates[0])
                self._held = candidates[0]
                # A process older than runc isn't the right one: the pid may be from another pid namespace.
                self._is_foreign = not (has_exited(self._pidfd.fd) or began_since(self._held, self._since))
            except ProcessLookupError:
                pass  # it has ended
            except OSError as exc:
                self._problem = exc
            if self._is_foreign or self._problem is not None:
                self._forget()

    def _believe(self) -> None:
        """Compare the held process with the pid in the file, and wait for the end of the process."""
        self._watch.close()
        if self._held != self.pid:
            self._forget()
            if not self._receive():
                self._hold([self.pid])
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd.fd, self._ended)
        elif self._problem is None and not self._is_foreign:
            self._ended()
        self.process = self._identified()

    def _identified(self) -> ProcessIdentity:
        """Return the identity of the process in the file."""
        with contextlib.suppress(OSError):
            process = ProcessIdentity.of(self.pid)
            # The pidfd is asked after the look at /proc: with the same pid then, it was the same process before.
            if self._pidfd and pidfd_pid(self._pidfd.fd) == self.pid:
                return process
        return ProcessIdentity(self.pid, 0)

    def _receive(self) -> bool:
        """Take the pidfd sent by runc; return whether there was a pidfd."""
        if self._socket is None:
            return False
        try:
            if not self._socket.receive_nowait(self.runc_pid):
                return False
            self._pidfd = HeldPidfd(self._socket.detach())
            self._held = self.pid
            # Accepted if it has the pid of the file, here or in a pid namespace of runc's; or if both processes are
            # gone.
            numbers = pidfd_numbers(self._pidfd.fd)
            if self.pid in numbers or not (numbers or began_since(self.pid, self._since)):
                return True
        except (RuncError, ValueError):
            pass  # what came is something else
        except OSError as exc:
            self._forget()
            self._problem = exc
            return True
        self._forget()  # another process than the one that the file tells
        return False

    def _ended(self) -> None:
        """Note the end of the process. The pidfd stays readable, so stop listening."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd.fd)
            self._status = told_status(self._pidfd.fd)  # at once: on older kernels runc's reaping ends the chance
        self.over()
        if not self.exited.done():
            self.exited.set_result(None)

    def _forget(self) -> None:
        """Close the pidfd."""
        self._held = 0
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd.fd)
            self._pidfd.close()
            self._pidfd = None

    def close(self) -> None:
        """Remove and close all parts. Idempotent."""
        if self._socket is not None:
            self._socket.close()
        self._undo.close()
        self._forget()
