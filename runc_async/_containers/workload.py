"""The process of a container's that a foreground runc waits for: when it ends, how, and how it is killed.

SIGKILL for runc alone would orphan it: the container goes on, and nobody holds it any more. It is runc's child, because
runc starts it with CLONE_PARENT; a command in front of runc adds generations, so the whole tree counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import io
import os
import re
import signal
import stat
import time
from collections.abc import Generator

import anyio

from .._linux.exits import wait_reaped
from .._linux.fdsocket import FDSocket
from .._linux.files import open_itself
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


_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
KILL_ROUNDS = 10
"""Lists, at most, of a tree that is killed: each new one has what was being forked during the last."""

GLANCES = 100
"""Looks into a file that runc has made and not written yet: a tenth of a millisecond in all."""


class _NotOursError(OSError):
    """Something is in the place of the pid file that runc can't have put there."""


@contextlib.contextmanager
def _opened(path: str) -> Generator[io.FileIO]:
    """Open a pid file that runc has made, or is making.

    The caller's own may be in a directory where others can make files too. What they put there is not believed, for the
    process in it may be killed; and a FIFO in its place holds up nobody.

    Raises:
        _NotOursError: If somebody else has made it, or it is no regular file.
        OSError: If it can't be opened.
    """
    try:
        with open(path, "rb", buffering=0, opener=open_itself) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_uid not in {0, os.geteuid()}:
                raise _NotOursError(errno.EPERM, os.strerror(errno.EPERM), path)
            yield file
    except OSError as exc:
        if exc.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:  # a symbolic link, a socket, a directory
            raise _NotOursError(exc.errno, exc.strerror, path) from None
        raise


def _version(found: os.stat_result) -> tuple[int, int]:
    """Tell a file apart from one that was in its place before."""
    return found.st_ino, found.st_mtime_ns


def pid_in(content: bytes) -> int | None:
    """Return the number in a pid file; None if there is none that a process can have."""
    match = _PID.fullmatch(content)
    return int(match[1]) if match and int(match[1]) <= _LAST_PID else None


def signal_child(pid: int, parent: int, signum: int) -> None:
    """Send a signal to a child of `parent`; nothing happens if it has ended, or the signal isn't allowed."""
    with contextlib.suppress(OSError):
        pidfd = open_child(pid, parent)
        try:
            signal.pidfd_send_signal(pidfd, signum)
        finally:
            os.close(pidfd)


class Workload:
    """The process that a runc has started, and waits for unless it is to detach, known by its pid file.

    `exec` reports the end of the process only when nobody holds the process's pipes any more: runc puts pipes of its
    own between the container and ours, and copies until their end. A process that leaves another one behind, such as
    `sh -c 'server &'`, would hold the call up for as long as that lives.

    runc writes the file after the start of the process and before it reaps it, so a process that we hear of in time is
    there at least as a zombie. A runc that sends a pidfd has done so by then, and there is no such race.

    Attributes:
        path: Where runc writes the pid.
        directory_fd: The descriptor by which runc reaches a private directory; -1 with a path of the caller's.
        started: Done when runc has written the pid.
        exited: Done when the process has ended.
        pid: Its pid; 0 before it has started.
        exited_at: When its end was seen, an aware time in UTC.
        process: That process, with start time 0 if it was gone before a look; None before it has started.
        runc_pid: That of runc, to be told after the spawn.
    """

    def __init__(self, path: str | None, *, above: int = 0) -> None:
        """Prepare the place of the pid file.

        Args:
            path: The caller's own pid file; None for a private one, which any mount namespace sees, since it is
                reached through a descriptor.
            above: Least number of that descriptor.

        Raises:
            OSError: If there is no place for it.
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
        """Open a socket to which runc can send a pidfd of the process, and return its path.

        Raises:
            OSError: If there is no place for it, or no descriptor left.
        """
        self._socket = FDSocket()
        self._socket.open()
        return self._socket.path

    @property
    def runs(self) -> bool:
        """Whether the process has started and has not ended, as far as it could be looked at."""
        return self._pidfd is not None and not has_exited(self._pidfd.fd)

    @property
    def wait_status(self) -> int | None:
        """How the process ended, as wait(2) has it.

        None if it runs; or, before Linux 6.15, if runc had reaped it when its end was seen.
        """
        if self._status is None and self._pidfd is not None:
            self._status = told_status(self._pidfd.fd)
        return self._status

    async def reaped(self, seconds: float) -> None:
        """Wait, once the process has ended, until runc has reaped it; at once where the kernel doesn't tell that."""
        if self._pidfd is None:
            return
        with self._pidfd.held() as pidfd, contextlib.suppress(OSError):
            kept_status(pidfd)
            with anyio.move_on_after(seconds):
                await wait_reaped(pidfd)

    def over(self) -> None:
        """Note when runc has ended, for by then the process has too, if its own end couldn't be seen."""
        if self.pid and self.exited_at is None and (self._pidfd is None or has_exited(self._pidfd.fd)):
            self.exited_at = dt.datetime.now(dt.UTC)

    def check(self) -> None:
        """Raise what kept us from getting hold of the process.

        Raises:
            OSError: If no descriptor was left.
        """
        if self._problem is not None:
            raise self._problem

    def look(self) -> None:
        """Read the pid file now, for runc has ended, and its news may be on their way."""
        if not self.started.done():
            self._arrived(os.path.basename(self.path), True)

    def fate(self) -> Fate | None:
        """Say, right after runc's end, what has become of the process; None if that can't be known.

        Only a private file can be missed: the caller's may be in another mount namespace.
        """
        self.look()
        if self._pidfd is not None and not has_exited(self._pidfd.fd):
            return "lost"
        if self.pid:
            return None if self._pidfd is None and (self._problem is not None or self._is_foreign) else "ended"
        return None if self._problem is not None or self.directory_fd < 0 or os.path.lexists(self.path) else "none"

    def send_signal(self, signum: int) -> None:
        """Send the process a signal; nothing happens if it has ended, or hasn't started."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd.fd, signum)

    def kill_orphan(self) -> None:
        """Kill the process if it goes on after the end of a runc that should have waited for it, and see it reaped."""
        if self._pidfd is None:
            return
        if not has_exited(self._pidfd.fd):
            self.send_signal(signal.SIGKILL)
        if adopting():
            with contextlib.suppress(OSError):  # runc has reaped it, as it should; or there is no descriptor left
                adopt_stray(pidfd_pid(self._pidfd.fd))

    def take(self) -> tuple[int, int]:
        """Give the process's pid and its pidfd away; the pidfd is the caller's from now on.

        Raises:
            ProcessLookupError: If there is no such process any more, or runc has told none.
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
        """Get hold of the process as soon as runc begins to write the pid file, and believe it when that is done.

        A short process may be gone by the time at which the file is complete.
        """
        if self._pidfd is None and self.runc_pid and not complete and self._socket is None:
            self._hold(self.candidates(name))
        if complete and name in {"", os.path.basename(self.path)}:
            try:
                with _opened(self.path) as file:
                    stale = _version(os.fstat(file.fileno())) == self._stale
                    pid = None if stale else pid_in(file.read(_PID_BYTES))
            except (FileNotFoundError, NotADirectoryError, _NotOursError):
                return
            except OSError as exc:
                if not name and exc.errno not in _SCARCE:
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
        """Tell which process it may be: the one in the file that runc has begun, under a name with a dot before it.

        runc writes there as soon as the file is made. Only if that lasts, its children are looked up, through all of
        its threads: that takes the kernel milliseconds.
        """
        directory, final = os.path.split(self.path)
        if name == f".{final}":
            try:
                with _opened(os.path.join(directory, name)) as file:
                    for _ in range(GLANCES):
                        if pid := pid_in(file.read(_PID_BYTES)):
                            return [pid]
                        os.sched_yield()  # our waking up may have taken the processor from runc
            except FileNotFoundError:
                return []  # it has its own name already, of which the next event tells
            except OSError:
                pass  # it isn't ours to read
        return children(self.runc_pid)

    def _hold(self, candidates: list[int]) -> None:
        """Open a pidfd of runc's only child, which is that process; without one its end isn't known exactly.

        A process that was there before runc isn't this one: its number was told wrongly, as from another pid namespace.
        """
        if len(candidates) == 1:
            self._problem, self._is_foreign = None, False
            try:
                self._pidfd = HeldPidfd.open(candidates[0])
                self._held = candidates[0]
                self._is_foreign = not (has_exited(self._pidfd.fd) or began_since(self._held, self._since))
            except ProcessLookupError:
                pass  # it has ended
            except OSError as exc:
                self._problem = exc
            if self._is_foreign or self._problem is not None:
                self._forget()

    def _believe(self) -> None:
        """Compare with what the file says, and listen for the end."""
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
        """Identify the process that the file names; after the look the pidfd must still have that number."""
        with contextlib.suppress(OSError):
            process = ProcessIdentity.of(self.pid)
            if self._pidfd and pidfd_pid(self._pidfd.fd) == self.pid:
                return process
        return ProcessIdentity(self.pid, 0)

    def _receive(self) -> bool:
        """Take the pidfd that runc has sent, for which nobody has to be looked up; return whether there was one.

        It is believed if it is of the process that the pid file tells, under the number that it has here or in a pid
        namespace of runc's; or if both are gone.
        """
        if self._socket is None:
            return False
        try:
            if not self._socket.receive_nowait(self.runc_pid):
                return False
            self._pidfd = HeldPidfd(self._socket.detach())
            self._held = self.pid
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
        """Say that the process has ended; its pidfd stays readable, so nobody listens to it any more."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd.fd)
            self._status = told_status(self._pidfd.fd)  # at once: on older kernels runc's reaping ends the chance
        self.over()
        if not self.exited.done():
            self.exited.set_result(None)

    def _forget(self) -> None:
        """Close the pidfd, of whatever process it is."""
        self._held = 0
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd.fd)
            self._pidfd.close()
            self._pidfd = None

    def close(self) -> None:
        """Remove and close everything. Idempotent."""
        if self._socket is not None:
            self._socket.close()
        self._undo.close()
        self._forget()
