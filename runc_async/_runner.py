"""`ProcessRunner`: starts runc as a child of this process. What `Runc` uses unless it is given another runner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from ._call import Argument, Completed, Document, Invocation, PrivateLog, Setting
from ._exec_helper import helped
from ._plumbing import Plumbing, memory_file
from ._process import Child, patiently
from ._streams import PipeReader, PipeWriter
from ._workload import kill_workload
from .console import Pty

LOG_LIMIT = 1 << 20
"""Bytes of runc's private log that are read: its end, where the reason of a failure stands."""

FIRST_INHERITED = 3
"""The first descriptor behind stdin, stdout and stderr."""


class ProcessRunner:
    """Starts runc as a child process with `asyncio.create_subprocess_exec`.

    The exit of the process ends a call, and not the end of its pipes. Documents and runc's own log go through files in
    memory that the child inherits, so a runner of one's own that puts a command in front of runc has to let it keep
    its descriptors: `nsenter` does; `sudo` needs `-C` with a large number and `closefrom_override` in sudoers.
    """

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Start runc and wait for its end: see `Runner.run`."""
        process = await self._start(invocation, live=False)
        with process.child.watched():
            try:
                if started is not None:
                    started(process.pid)
                return await process.finish()
            except BaseException:
                await patiently(process.end())
                raise

    async def open(self, invocation: Invocation) -> RunningProcess:
        """Start runc and return it running: see `Runner.open`."""
        return await self._start(invocation, live=True)

    async def _start(self, invocation: Invocation, *, live: bool) -> RunningProcess:
        """Open the descriptors, spawn, and close the child's ends."""
        with contextlib.ExitStack() as undo:
            plumbing = Plumbing(invocation.streams, data=invocation.input, live=live)
            undo.callback(plumbing.close)
            files = _Files(above=FIRST_INHERITED + len(invocation.preserve_fds))
            undo.callback(files.close)
            argv, options = helped(invocation, files.argv(invocation.argv), files.inherited)
            stdin, stdout, stderr = plumbing.child
            child = Child()
            with child.watched():
                cancelled = await child.start(argv, stdin=stdin, stdout=stdout, stderr=stderr, **options)
                plumbing.spawned()
                undo.pop_all()
                process = RunningProcess(invocation, child, plumbing, files)
                if cancelled is not None:
                    await patiently(process.end())
                    raise cancelled
            return process


class _Files:
    """The files in memory of one invocation."""

    def __init__(self, *, above: int) -> None:
        """Begin without any; their descriptors will be `above` or higher."""
        self._above = above
        self._log = -1
        self.inherited: list[int] = []

    def argv(self, arguments: tuple[Argument, ...]) -> list[str]:
        """Make the files, and put their paths into the argument vector."""
        return [self._word(argument) for argument in arguments]

    def _word(self, argument: Argument) -> str:
        """Turn one argument into a word, with a file behind it if it takes one."""
        match argument:
            case str():
                return argument
            case Setting():
                return f"{argument.name}={argument.value}"
            case Document():
                return self._path(memory_file(argument.name, argument.data, above=self._above))
            case PrivateLog():
                self._log = memory_file("log", above=self._above)
                return self._path(self._log)

    def _path(self, fd: int) -> str:
        """Let the child inherit `fd`, and tell the path by which it opens it."""
        self.inherited.append(fd)
        return f"/proc/self/fd/{fd}"

    @property
    def log(self) -> bytes:
        """The end of what runc has logged."""
        if self._log < 0:
            return b""
        size = os.fstat(self._log).st_size
        return os.pread(self._log, LOG_LIMIT, max(0, size - LOG_LIMIT))

    def close(self) -> None:
        """Close them all. Idempotent."""
        self._log = -1
        while self.inherited:
            os.close(self.inherited.pop())


class RunningProcess:
    """A runc that is our child: see `Process` for what it promises."""

    def __init__(self, invocation: Invocation, child: Child, plumbing: Plumbing, files: _Files) -> None:
        """Take over what `ProcessRunner` has opened."""
        self.invocation = invocation
        self.child = child
        self._plumbing = plumbing
        self._files = files
        self._completed: Completed | None = None

    def __repr__(self) -> str:
        """Show the command and the child."""
        return f"<RunningProcess {self.invocation.command!r} {self.child!r}>"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.child.pid

    @property
    def stdin(self) -> PipeWriter | None:
        """Its stdin, if that is a pipe."""
        return self._plumbing.stdin

    @property
    def stdout(self) -> PipeReader | None:
        """Its stdout, if that is a pipe of ours."""
        return self._plumbing.stdout

    @property
    def stderr(self) -> PipeReader | None:
        """Its stderr, if that is a pipe of ours."""
        return self._plumbing.stderr

    @property
    def pty(self) -> Pty | None:
        """Its terminal, if it has one of ours."""
        return self._plumbing.pty

    def send_signal(self, signum: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        self.child.send_signal(signum)

    async def finish(self) -> Completed:
        """Wait for its exit, at most for the invocation's time, and stop it after that."""
        if await self.child.wait(self.invocation.timeout) is None:
            await patiently(self._stop())
            return self._collect(timed_out=True)
        return await self.wait()

    async def wait(self) -> Completed:
        """Wait for its exit, and a bounded time for the end of its captured output."""
        if self._completed is None:
            await self.child.wait()
            await self._drained()
        return self._collect()

    async def _drained(self) -> None:
        """Wait until nobody holds the captured pipes any more, for the drain timeout at most."""
        draining = self._plumbing.draining
        if draining:
            await asyncio.wait(draining, timeout=self.invocation.drain_timeout)

    def _collect(self, *, timed_out: bool = False) -> Completed:
        """Read the files in memory, and close everything but the streams that were handed out."""
        if self._completed is None:
            incomplete = self._plumbing.drained()
            self._completed = Completed(
                pid=self.pid,
                returncode=self.child.returncode,
                stdout=self._plumbing.captured(0),
                stderr=self._plumbing.captured(1),
                log=self._files.log,
                truncated=incomplete or self._plumbing.dropped,
                timed_out=timed_out,
            )
            self._close()
        return self._completed

    def _close(self) -> None:
        """Close the descriptors that nobody needs after the exit."""
        self._plumbing.close()
        self._files.close()

    async def _stop(self) -> None:
        """End it by the invocation's policy."""
        policy = self.invocation.stop
        if policy.patience > 0:
            await self.child.wait(policy.patience)
        if policy.workload and self.child.returncode is None:
            self.child.send_signal(signal.SIGTERM)
            if await self.child.wait(policy.grace) is None:
                kill_workload(self.pid)
                await self.child.wait(policy.grace)
            await self.child.stop()
        else:
            await self.child.stop(policy.grace)

    async def aclose(self) -> None:
        """Stop it by its invocation's policy if it runs, reap it, and close the streams. Can't be cancelled."""
        await patiently(self.end())

    async def end(self) -> None:
        """Do what `aclose` does, in a task that nobody cancels."""
        with self.child.watched():
            await self._stop()
        self._collect()
        for stream in (self.stdin, self.stdout, self.stderr, self.pty):
            if stream is not None:
                await stream.aclose()
