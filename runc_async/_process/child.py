"""`Child`: a child process from start to end. The only spawning module."""

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
from .spawn_turn import spawn_turn

KILL_TIMEOUT = 10.0
"""Seconds for a child to exit after SIGKILL. Only an uninterruptible sleep in the kernel takes longer."""

SPAWN_TIMEOUT = 1.0
"""Seconds for a spawn to end after the end of the event loop has cancelled it."""

HALT_TIME = 2.0
"""Seconds for all threads of a child to stop before it is ended: each needs a processor for that first."""

HALT_TIME_AT_ONCE = 0.02
"""The same limit, in seconds, where the event loop is blocked meanwhile."""

HALT_GLANCE = 0.002
"""Seconds between two checks for a stopped child while other tasks run; the first checks follow at once."""

REAP_TIME = 0.1
"""Seconds for uvloop to reap the child of a cancelled spawn: uvloop kills the child and doesn't wait."""


class Child:
    """A process started here: the pid, the exit, and signals to the process."""

    __slots__ = (
        "_ended",
        "_halts",
        "_life",
        "_pidfd",
        "_problem",
        "_spawned",
        "before_kill",
        "halts_first",
        "may_have_run",
        "note_descendants",
        "pid",
        "since",
        "watchers",
    )

    def __init__(self) -> None:
        """Create a child before the start: see `start`."""
        self.pid = 0
        self.since = time.clock_gettime(time.CLOCK_BOOTTIME)  # no descendant is older
        self.before_kill: Callable[[], object] | None = None  # ends what would be orphaned, when nobody watches
        self.note_descendants: Callable[[], object] | None = None  # before each signal of `end`
        self.halts_first: Callable[[], bool] = adopting  # whether it is stopped while they are noted
        self.may_have_run = False  # even without a pid: asyncio kills the process of a spawn that is cancelled
        self._pidfd = -1
        self._halts = 0
        self.watchers = 0
        self._life: asyncio.Task[int] | None = None
        # Events and not futures: a wait that is cancelled leaves them alone.
        self._spawned = asyncio.Event()
        self._ended = asyncio.Event()
        self._problem: BaseException | None = None

    def __repr__(self) -> str:
        """Show the pid and the state."""
        return f"<Child {self.pid} {'running' if self.returncode is None else f'returncode {self.returncode}'}>"

    async def start(self, argv: Sequence[str], **options: Any) -> asyncio.CancelledError | None:
        """Spawn the process, even if the calling task is cancelled, and return a cancellation that arrived meanwhile.

        Args:
            argv: The argument vector.
            options: Options of `asyncio.create_subprocess_exec`.

        Raises:
            RuncNotFound: If there is no such program.
            ArgumentsTooLong: If the arguments and the environment are too long.
            OSError: If the spawn fails.
        """
        # Cancelling `asyncio.create_subprocess_exec` can lose the child (cpython#103847). So the spawn runs in a task
        # of the child's own, and the same task waits for the exit later.
        self._life = asyncio.create_task(self._live(argv, options))
        cancelled = None
        try:
            await self._spawned.wait()
        except asyncio.CancelledError as first:
            cancelled = first
            self._life.add_done_callback(self._over)
            # The spawn can't be given up, since a lost child could never be stopped: wait on, for a bounded time.
            stuck = asyncio.get_running_loop().call_later(SPAWN_TIMEOUT, _cancel_again, self._life)
            await keep_waiting(self._spawned.wait)
            stuck.cancel()
        if self._problem is not None:
            raise cancelled or self._problem
        return cancelled

    @property
    def returncode(self) -> int | None:
        """The exit code, -n if signal n ended the process, None while the process runs."""
        return self._life.result() if self._life is not None and self._life.done() else None

    def watched(self) -> Watch:
        """Mark the child as owned while the block runs: the end of the event loop then doesn't kill the child."""
        return Watch(self)

    async def wait(self, seconds: float | None = None, *, or_for: asyncio.Future[None] | None = None) -> int | None:
        """Wait for the exit and return the exit code; None if the process still runs.

        Cancelling the wait leaves the process running.

        Args:
            seconds: The limit; None for none.
            or_for: A future that ends the wait too.
        """
        if self._life is not None and not self._life.done():
            self.watchers += 1
            try:
                if seconds is None and or_for is None:
                    await self._ended.wait()
                else:
                    ends = (self._life,) if or_for is None else (self._life, or_for)
                    await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.watchers -= 1
        return self.returncode

    def when_ended(self, act: Callable[[], object]) -> None:
        """Call `act` after the exit."""
        if self._life is not None:
            self._life.add_done_callback(lambda _: act())

    def send_signal(self, signum: int) -> None:
        """Send a signal through the pidfd: another process may have the pid by now."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def tell(self, signum: int) -> bool:
        """Send a signal if the kernel permits. kill(2) forbids signals to a `sudo` started by another user than root.

        Returns:
            Whether the signal was permitted.
        """
        try:
            self.send_signal(signum)
        except PermissionError:
            return False
        return True

    async def end(self, signum: int) -> None:
        """Note the child's descendants, then send a possibly fatal signal to the child.

        Cancelling the call sends the signal at once.
        """
        with self.watched(), self._ending(signum) as halts:
            if halts and not self._halts_within(HALT_GLANCE):
                deadline = time.monotonic() + HALT_TIME
                while not self._has_halted() and time.monotonic() < deadline:  # noqa: ASYNC110 - SIGCHLD isn't ours
                    await asyncio.sleep(HALT_GLANCE)

    def end_at_once(self, signum: int) -> None:
        """Do the same as `end` without yielding to the event loop."""
        with self._ending(signum) as halts:
            if halts:
                self._halts_within(HALT_TIME_AT_ONCE)

    @contextlib.contextmanager
    def _ending(self, signum: int) -> Generator[bool]:
        """Note the child's descendants and send a signal at the end of the block.

        Yields:
            Whether SIGSTOP was sent. If not, signals aren't permitted or no descendants are to be noted.
        """
        # The child is stopped first (SIGSTOP). Otherwise it could fork between our look and its death, and we would
        # miss that process.
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
        """Wait until the child has stopped, and block the event loop; mostly for less than a millisecond."""
        deadline = time.monotonic() + seconds
        while not (halted := self._has_halted()) and time.monotonic() < deadline:
            time.sleep(seconds / 20)
        return halted

    def _has_halted(self) -> bool:
        """Return whether all threads have stopped or the child has exited."""
        try:
            # waitid(2): WNOWAIT leaves the exit status for asyncio, which reaps the child.
            return os.waitid(os.P_PIDFD, self._pidfd, os.WSTOPPED | os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except OSError:  # somebody has reaped it
            return True

    async def stop(self, grace: float = 0.0) -> None:
        """End the child: SIGTERM, `grace` seconds, SIGKILL. Without grace, SIGKILL at once. Bounded in time."""
        if grace > 0 and self.returncode is None:
            await self.end(signal.SIGTERM)
            await self.wait(grace)
        if self.returncode is None:
            await self.end(signal.SIGKILL)
            if await self.wait(KILL_TIMEOUT) is None:
                self._warn()

    async def _live(self, argv: Sequence[str], options: Mapping[str, Any]) -> int:
        """Spawn, announce the spawn, and wait for the exit: the body of the child's one task."""
        try:
            # The end of the event loop cancels all tasks at once. An owner stops the child in its own way; a child
            # without an owner is killed by `_abandon`. In both cases this task ends only after the child: asyncio would
            # otherwise forget the child and leave a zombie.
            async with spawn_turn():
                self.may_have_run = True
                process = await asyncio.create_subprocess_exec(*argv, **options)
        except BaseException as exc:  # noqa: BLE001 - it is raised again by whoever waits for the spawn
            if isinstance(exc, asyncio.CancelledError):
                await asyncio.sleep(REAP_TIME)
            else:
                self.may_have_run = False
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
        """Wake the task that waits for a spawn which the end of the loop has cancelled before the first step."""
        if life.cancelled():
            self._problem = asyncio.CancelledError()
            self._spawned.set()

    async def _exit(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the exit, even while the event loop ends; from then on for a bounded time."""
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
                if not self.watchers:
                    self._warn()
                    return -signal.SIGKILL

    def _abandon(self) -> None:
        """Kill a child without an owner, because the event loop ends."""
        if self.watchers:
            return
        if self.before_kill is not None:
            self.before_kill()
        self.end_at_once(signal.SIGKILL)

    def _warn(self) -> None:
        """Warn about a process alive after SIGKILL."""
        warnings.warn(f"process {self.pid} is still there after SIGKILL", CleanupWarning, stacklevel=3)

    def _open(self, process: asyncio.subprocess.Process) -> OSError | None:
        """Store the pid and open a pidfd. If no pidfd can be opened, kill the process and return the error."""
        self.pid = process.pid
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            pass  # it has ended, and asyncio has reaped it
        except OSError as exc:
            process.kill()
            return exc
        return None


class Watch:
    """The block of `Child.watched`."""

    __slots__ = ("_child",)

    def __init__(self, child: Child) -> None:
        self._child = child

    def __enter__(self) -> None:
        self._child.watchers += 1

    def __exit__(self, *exc_info: object) -> None:
        self._child.watchers -= 1


def _cancel_again(life: asyncio.Task[int]) -> None:
    """Cancel a spawn again if the first cancellation had no effect."""
    # The end of the loop cancels asyncio's own task inside a spawn too. Up to Python 3.12.3 the spawn has killed the
    # process then, and waits for ever to be notified of its exit.
    if life.cancelling():
        life.cancel()


def _end_unwatched(exc: BaseException) -> BaseException:
    """End a child started but not watched by asyncio, and return the error to raise."""
    # Python 3.11 watches each child in a thread; later versions use a pidfd of asyncio's own, or a thread where no
    # pidfd could be opened. If watching fails, the child runs, and only local variables of asyncio refer to the process
    # and to the pidfd. So both are taken from the traceback.
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
    """Return the error for a failed spawn: `RuncNotFound` for a missing program, `ArgumentsTooLong` for E2BIG."""
    cwd, env = options.get("cwd"), options.get("env")
    if isinstance(exc, OSError) and exc.errno == errno.E2BIG:
        return too_long(argv, env)
    program = argv[0]
    # A working directory that doesn't exist is an ENOENT as well.
    if not isinstance(exc, FileNotFoundError) or (cwd is not None and not os.path.isdir(cwd)):
        return exc
    path = os.pathsep.join(os.get_exec_path(env))
    return RuncNotFound(program, None if os.sep in program else path)
