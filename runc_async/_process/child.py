"""The only module that spawns: one child of ours from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import time
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from .._linux.prerequisites import too_long
from .._linux.subreaper import adopting
from .._shield import keep_waiting
from ..errors import CleanupWarning, RuncNotFound

KILL_TIMEOUT = 10.0
"""Seconds that a child may need to vanish after SIGKILL: more only if it sleeps uninterruptibly in the kernel."""

SPAWN_TIMEOUT = 1.0
"""Seconds that a spawn may need to end after the end of the loop has cancelled it."""

HALT_TIME = 0.2
"""Seconds for all threads of a child to stop before it is ended: each that is in the kernel has to come back first."""

HALT_TIME_AT_ONCE = 0.02
"""The same where nobody can wait, and the event loop stands still meanwhile."""

HALT_GLANCE = 0.002
"""Seconds between two looks whether they have, while others work; the first ones are made at once."""

REAP_TIME = 0.1
"""Seconds for uvloop to reap the child of a cancelled spawn: it has killed it, and doesn't wait."""


class Child:
    """A process that we started: its pid, the end of its life, and the signals to it."""

    __slots__ = (
        "_ended",
        "_halts",
        "_life",
        "_pidfd",
        "_problem",
        "_spawned",
        "_watchers",
        "before_kill",
        "halts_first",
        "note_descendants",
        "pid",
        "since",
    )

    def __init__(self) -> None:
        """Make one that isn't started; see `start`."""
        self.pid = 0
        self.since = time.clock_gettime(time.CLOCK_BOOTTIME)  # no descendant is older
        self.before_kill: Callable[[], object] | None = None  # ends what would be orphaned, when nobody watches
        self.note_descendants: Callable[[], object] | None = None  # before each signal of `end`
        self.halts_first: Callable[[], bool] = adopting  # whether it is stopped while they are noted
        self._pidfd = -1
        self._halts = 0
        self._watchers = 0
        self._life: asyncio.Task[int] | None = None
        # Events and not futures: a wait that is cancelled leaves them alone.
        self._spawned = asyncio.Event()
        self._ended = asyncio.Event()
        self._problem: BaseException | None = None

    def __repr__(self) -> str:
        """Show the pid and how it ended."""
        return f"<Child {self.pid} {'running' if self.returncode is None else f'returncode {self.returncode}'}>"

    async def start(self, argv: Sequence[str], **options: Any) -> asyncio.CancelledError | None:
        """Spawn, whatever happens to the calling task, and return the cancel that came meanwhile.

        Cancelling `asyncio.create_subprocess_exec` can lose the child (cpython#103847), so it runs in a task of the
        child's own, which later waits for the exit.

        Args:
            argv: The argument vector.
            options: Those of `asyncio.create_subprocess_exec`.

        Raises:
            RuncNotFound: If there is no such program.
            ArgumentsTooLong: If the arguments and the environment are too long.
            OSError: If it can't be spawned.
        """
        self._life = asyncio.create_task(self._live(argv, options))
        cancelled = None
        try:
            await self._spawned.wait()
        except asyncio.CancelledError as first:
            cancelled = first
            self._life.add_done_callback(self._over)
            stuck = asyncio.get_running_loop().call_later(SPAWN_TIMEOUT, _cancel_again, self._life)
            await keep_waiting(self._spawned.wait)
            stuck.cancel()
        if self._problem is not None:
            raise cancelled or self._problem
        return cancelled

    @property
    def returncode(self) -> int | None:
        """Its exit code, -n if signal n ended it, None while it runs."""
        return self._life.result() if self._life is not None and self._life.done() else None

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        """Say for the time of the block that somebody sees to the child's end: see `_live`."""
        self._watchers += 1
        try:
            yield
        finally:
            self._watchers -= 1

    async def wait(self, seconds: float | None = None, *, or_for: asyncio.Future[None] | None = None) -> int | None:
        """Wait for its exit, for `seconds` at most, and return its exit code; None if it runs on.

        Cancelling the wait leaves it running.

        Args:
            seconds: The limit; None for none.
            or_for: Something else that ends the wait.
        """
        if self._life is not None and not self._life.done():
            self._watchers += 1
            try:
                if seconds is None and or_for is None:
                    await self._ended.wait()
                else:
                    ends = (self._life,) if or_for is None else (self._life, or_for)
                    await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self._watchers -= 1
        return self.returncode

    def when_ended(self, act: Callable[[], object]) -> None:
        """Call `act` when it has exited."""
        if self._life is not None:
            self._life.add_done_callback(lambda _: act())

    def send_signal(self, signum: int) -> None:
        """Send a signal, through the pidfd: its pid may belong to somebody else by now."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def tell(self, signum: int) -> bool:
        """Send a signal, or none where we may not: kill(2) forbids it for a `sudo` that a user other than root runs.

        Returns:
            Whether we may.
        """
        try:
            self.send_signal(signum)
        except PermissionError:
            return False
        return True

    async def end(self, signum: int) -> None:
        """Send a signal that may end it, as `tell` does, after its descendants were noted.

        Where `halts_first` says so it is stopped before that.

        Cancelling it sends the signal at once.
        """
        with self.watched(), self._ending(signum) as halts:
            if halts and not self._halts_within(HALT_GLANCE):
                deadline = time.monotonic() + HALT_TIME
                while not self._has_halted() and time.monotonic() < deadline:  # noqa: ASYNC110 - SIGCHLD isn't ours
                    await asyncio.sleep(HALT_GLANCE)

    def end_at_once(self, signum: int) -> None:
        """Do what `end` does, without giving way to others."""
        with self._ending(signum) as halts:
            if halts:
                self._halts_within(HALT_TIME_AT_ONCE)

    @contextlib.contextmanager
    def _ending(self, signum: int) -> Generator[bool]:
        """Send a signal at the end of the block, after a look at what it has started.

        The child is stopped first (SIGSTOP) where each process counts. Otherwise it could fork between the look and its
        end, and that process would be missed.

        Yields:
            Whether it has been told to stop. If not, it isn't ours to signal, or nobody wants to look.
        """
        halts = self.note_descendants is not None and self.halts_first() and self.tell(signal.SIGSTOP)
        self._halts += halts
        try:
            yield halts
        finally:
            try:
                if self.note_descendants is not None:
                    self.note_descendants()
                self.tell(signum)
            finally:
                self._halts -= halts
                if halts and not self._halts:  # another block may be looking still
                    self.tell(signal.SIGCONT)

    def _halts_within(self, seconds: float) -> bool:
        """Wait until it has stopped, and keep everybody else waiting; it mostly takes less than a millisecond."""
        deadline = time.monotonic() + seconds
        while not (halted := self._has_halted()) and time.monotonic() < deadline:
            time.sleep(seconds / 20)
        return halted

    def _has_halted(self) -> bool:
        """Tell whether all of its threads have stopped, or it has ended: waitid(2), which takes nothing away here."""
        try:
            return os.waitid(os.P_PIDFD, self._pidfd, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except OSError:  # somebody has reaped it
            return True

    async def stop(self, grace: float = 0.0) -> None:
        """End it: SIGTERM, `grace` seconds, SIGKILL; with no grace SIGKILL at once. Bounded in time."""
        if grace > 0 and self.returncode is None:
            await self.end(signal.SIGTERM)
            await self.wait(grace)
        if self.returncode is None:
            await self.end(signal.SIGKILL)
            if await self.wait(KILL_TIMEOUT) is None:
                self._warn()

    async def _live(self, argv: Sequence[str], options: Mapping[str, Any]) -> int:
        """Spawn, say so, and wait for the exit: the body of the child's one task.

        The end of the loop cancels all tasks at once. Where somebody watches the child, he stops it in his own way; a
        child that nobody watches is killed. In both cases the task ends only when the child has: asyncio would
        otherwise forget it and leave a zombie.
        """
        try:
            process = await asyncio.create_subprocess_exec(*argv, **options)
        except BaseException as exc:  # noqa: BLE001 - it is raised again by whoever waits for the spawn
            if isinstance(exc, asyncio.CancelledError):
                await asyncio.sleep(REAP_TIME)
            exc = _end_unwatched(exc)
            self._problem = spawn_error(exc, argv, options)
            self._spawned.set()
            return -1
        self._problem = self._open(process)
        if self._problem is None:
            self._spawned.set()
        try:
            return await self._exit(process)
        finally:
            if self._pidfd >= 0:
                os.close(self._pidfd)
                self._pidfd = -1
            self._spawned.set()
            self._ended.set()

    def _over(self, life: asyncio.Task[int]) -> None:
        """Wake who waits for the spawn, if the end of the loop has cancelled it before it has begun."""
        if life.cancelled():
            self._problem = asyncio.CancelledError()
            self._spawned.set()

    async def _exit(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the exit through the end of the loop; but for ever only before that."""
        try:
            return await process.wait()
        except asyncio.CancelledError:
            self._abandon()
        while True:
            try:
                async with asyncio.timeout(KILL_TIMEOUT):
                    return await process.wait()
            except asyncio.CancelledError:
                self._abandon()
            except TimeoutError:
                if not self._watchers:
                    self._warn()
                    return -signal.SIGKILL

    def _abandon(self) -> None:
        """Kill it if nobody watches it, for the loop ends."""
        if self._watchers:
            return
        if self.before_kill is not None:
            self.before_kill()
        self.end_at_once(signal.SIGKILL)

    def _warn(self) -> None:
        """Name what is left behind."""
        warnings.warn(f"process {self.pid} is still there after SIGKILL", CleanupWarning, stacklevel=3)

    def _open(self, process: asyncio.subprocess.Process) -> OSError | None:
        """Take over the pid, with a pidfd; kill the process if there is none to be had, and return why."""
        self.pid = process.pid
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            pass  # it has ended, and asyncio has reaped it
        except OSError as exc:
            process.kill()
            return exc
        return None


def _cancel_again(life: asyncio.Task[int]) -> None:
    """Cancel a spawn that was cancelled, and doesn't end.

    The end of the loop cancels asyncio's own task inside a spawn too. Then, up to Python 3.12.3, the spawn has killed
    the process, and waits for ever to hear of its end.
    """
    if life.cancelling():
        life.cancel()


def _end_unwatched(exc: BaseException) -> BaseException:
    """End a child that asyncio has started and can't watch, and return what to raise.

    Python 3.11 watches each child in a thread; later ones by a pidfd of asyncio's own, or in a thread if there was no
    pidfd to be had at first. Where that fails, the child runs, and only local variables of asyncio's know of it, and of
    the pidfd, if it is the event loop that can't watch that.
    """
    transport = None
    trace = exc.__traceback__
    while trace is not None:
        known = trace.tb_frame.f_locals
        transport = known.get("transp", transport)
        if trace.tb_frame.f_code.co_name == "add_child_handler" and isinstance(transport, asyncio.SubprocessTransport):
            transport.kill()
            os.waitpid(transport.get_pid(), 0)  # it has just been forked, and hasn't done a thing
            transport.close()
            if "pidfd" in known:
                os.close(known["pidfd"])
            break
        trace = trace.tb_next
    if isinstance(exc, RuntimeError) and "start new thread" in str(exc):
        return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return exc


def spawn_error(exc: BaseException, argv: Sequence[str], options: Mapping[str, Any]) -> BaseException:
    """Make the error for a failed spawn: name a program that doesn't exist, and arguments that are too long.

    A working directory that doesn't exist is an ENOENT as well.
    """
    cwd, env = options.get("cwd"), options.get("env")
    if isinstance(exc, OSError) and exc.errno == errno.E2BIG:
        return too_long(argv, env)
    program = argv[0]
    if not isinstance(exc, FileNotFoundError) or (cwd is not None and not os.path.isdir(cwd)):
        return exc
    path = os.pathsep.join(os.get_exec_path(env))
    return RuncNotFound(program, None if os.sep in program else path)
