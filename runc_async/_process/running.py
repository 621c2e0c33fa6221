"""`ProcessRunner`: starts runc as a child of this process. What `Runc` uses unless it is given another runner."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

from .._answers.log import forward_log
from .._containers.ownership import current_attempt
from .._containers.workload import Workload
from .._linux.prerequisites import check_process
from .._linux.subreaper import adopting
from .._shield import shielded
from .._streams.pipes import PipeReader, PipeWriter
from .._streams.pump import discarding
from ..console import Pty
from ..endreason import EndReason
from ..runner import Completed, Fate, Invocation, StreamedOutput
from .argument_files import FIRST_INHERITED, ArgumentFiles
from .child import Child
from .debug_log import log_end, log_start
from .descendants import drops_sigterm, kill_descendants
from .inside import Inside
from .launch import helped
from .limiting import within_limits
from .offspring import Offspring
from .oom_kills import OOMKills
from .outcome import read_outcome
from .plumbing import Plumbing
from .relay import QUIET, outlive
from .terminal import hands_over, waiting_for
from .tree import Tree

KILL_GRACE = 2.0
"""Seconds, at least, for runc to report a process that was killed, before runc itself is."""

REPORT_TIME = 0.5
"""Seconds, at least, for runc to report a process that has ended, before it counts as held up by others."""


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
                await shielded(process.end())
                raise
            finally:
                process.close_workload()

    async def open(self, invocation: Invocation) -> RunningProcess:
        """Start runc and return it running: see `Runner.open`."""
        return await self._start(invocation, live=True)

    async def _start(self, invocation: Invocation, *, live: bool) -> RunningProcess:
        """Open the descriptors, spawn, and close the child's ends.

        Raises:
            SpawnError: If this process can't have children, or may not make a file in memory.
            RuncNotFound: If there is no such program.
            OSError: If it can't be spawned, or no descriptor is left.
        """
        check_process()
        inside = None if invocation.sandbox is None else Inside(invocation, invocation.sandbox, self.run)
        if inside is not None:
            await inside.follow()
        terminal_at = invocation.terminal_at if hands_over(invocation) else None
        plumbing = Plumbing(invocation.streams, data=invocation.input, live=live, receives=terminal_at is not None)
        streamed = live and isinstance(invocation.streams, StreamedOutput)
        files = ArgumentFiles(above=FIRST_INHERITED + len(invocation.preserve_fds), log_to_stderr=streamed)
        child = Child()
        with child.watched():
            try:
                lent = files.lent(invocation.preserve_fds)
                words = files.argv(invocation.argv, terminal_at=terminal_at)
                waiter = [] if files.workload is None or terminal_at is None else waiting_for(files.workload.path)
                inherited = [*files.inherited, *invocation.pass_fds]
                argv, options = helped(invocation, words, inherited, lent, waiter=waiter)
                tree = Tree(invocation, child, files.workload, files.leaf)
                stdin, stdout, stderr = plumbing.child
                cancelled = await child.start(argv, stdin=stdin, stdout=stdout, stderr=stderr, **options)
                plumbing.spawned(child.send_signal)
                tree.spawned()
            except BaseException:
                files.close_workload()
                files.close()
                plumbing.close()
                if inside is not None:
                    inside.close()
                if (attempt := current_attempt(invocation)) is not None and not child.pid:
                    attempt.asked = False  # there is no such process, and what it could have made isn't there
                raise
            if files.workload is not None:
                files.workload.runc_pid = child.pid
                if (reported := invocation.reported) is not None:
                    files.workload.started.add_done_callback(lambda _: reported())
            process = RunningProcess(invocation, child, plumbing, files, tree)
            if inside is not None and files.inside_pid is not None:
                inside.pid = files.inside_pid.read
                process.inside = inside
            if cancelled is not None:
                await shielded(process.end())
                raise cancelled
        return process


class RunningProcess:
    """A runc that is our child: see `Process` for what it promises.

    Attributes:
        inside: The process in its sandbox, for an `exec` in one.
    """

    inside: Inside | None = None

    def __init__(
        self,
        invocation: Invocation,
        child: Child,
        plumbing: Plumbing,
        files: ArgumentFiles,
        tree: Tree,
    ) -> None:
        """Take over what `ProcessRunner` has opened."""
        self.invocation = invocation
        self.child = child
        self._plumbing = plumbing
        self._files = files
        self._offspring = Offspring(invocation, child, files.workload)
        self._tree = tree
        child.before_kill = self._orphan
        child.note_descendants = self._offspring.note
        child.halts_first = self._offspring.counts
        if (workload := files.workload) is not None:
            child.when_ended(workload.over)
            workload.started.add_done_callback(lambda _: self._receive())
        if isinstance(invocation.streams, StreamedOutput):
            for stream in (plumbing.stdout, plumbing.stderr):
                if stream is not None:
                    child.when_ended(stream.end_when_empty)  # what it has left behind may hold the pipe
        self._completed: Completed | None = None
        self._attempt = current_attempt(invocation)
        self._abandoned = False
        self._lost = False
        self._exceeded: EndReason | None = None
        self._oom_kills = OOMKills(invocation, files)
        self._told_fate: Fate | None = None
        log_start(invocation, child.pid)

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

    @property
    def workload(self) -> Workload | None:
        """The container's process, if the invocation has a `PidFile`."""
        return self._files.workload

    @property
    def _executed(self) -> Workload | None:
        """The process of an `exec`: its end is all that runc then reports, while a `run` has a container to delete."""
        return self.workload if self.invocation.command == "exec" else None

    def close_workload(self) -> None:
        """Let go of the container's process. Idempotent."""
        self._files.close_workload()

    def send_signal(self, signum: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self.inside is None:
            self.child.send_signal(signum)
        elif self.child.returncode is None:
            self.inside.send_soon(signum)

    def signal_tree(self, signum: int) -> None:
        """Send a signal to the container's process and all that it has started: see `Process.signal_tree`."""
        if self.inside is not None:
            self.inside.send_soon(signum, tree=True)
            return
        if self.workload is not None:
            self.workload.send_signal(signum)
        self._tree.signal(signum)

    async def started(self) -> Completed | None:
        """Wait until the container's process runs; return runc's end if runc ended without one."""
        workload = self.workload
        if workload is None:
            return await self.wait()
        if await self.child.wait(or_for=workload.started) is not None:
            workload.look()
            if self.child.returncode and not workload.pid:
                return await self.wait()  # what runc says comes before what kept us from the process
        workload.check()
        self._receive()
        self._plumbing.check()
        return None if workload.pid else await self.wait()

    def _receive(self) -> None:
        """Take the terminal that runc has handed over, if it is to, once the process has started."""
        if self._files.console is not None and self.workload is not None and self.workload.pid:
            self._plumbing.receive(self._files.console, self.pid)
            self._files.close_console()

    async def ended(self) -> int | None:
        """Wait for the end of the container's process; return its wait status, None if only runc can tell."""
        workload = self.workload
        if workload is None or self._completed is not None:
            return None
        await self.child.wait(or_for=workload.exited)
        if workload.wait_status is None and workload.exited.done():  # runc, its parent, has yet to reap it
            await workload.reaped(REPORT_TIME)
        if workload.wait_status is None:  # an older kernel doesn't tell, and runc only when nobody holds the pipes
            await self.child.wait(self.invocation.drain_timeout)
        return workload.wait_status

    async def finish(self) -> Completed:
        """Wait for its exit, at most for the invocation's time, and stop it after that."""
        try:
            async with asyncio.timeout(self.invocation.timeout):
                self._exceeded = await within_limits(self.invocation.limits, self._files, self._plumbing, self._ended)
                if self._exceeded is not None:
                    await shielded(self._stop(at_once=True))
        except TimeoutError:
            await shielded(self._stop())
            return self._collect(timed_out=True)
        return await self.wait()

    async def wait(self) -> Completed:
        """Wait for its exit, and a bounded time for the end of its captured output."""
        if self._completed is None:
            await self._ended()
            if self.inside is not None and (self.child.returncode or 0) < 0:
                await shielded(self.inside.kill())  # without its client, the process goes on
            self._fate()  # now, for a process ends when it finds its runc gone; and one that goes on holds the pipes
            self._receive()
            self._plumbing.check()
            self._lost |= await self._plumbing.drain(self.invocation.drain_timeout, QUIET)
        return self._collect()

    async def _ended(self) -> None:
        """Wait for runc's exit; end it if it waits only for those who hold the pipes of a process that has ended."""
        executed = self._executed
        if executed is None or await self.child.wait(or_for=executed.exited) is not None:
            await self.child.wait()
        else:
            lost = await outlive(self.child, self._plumbing, executed, max(self.invocation.drain_timeout, REPORT_TIME))
            if lost is not None:
                await self._abandon(executed, lost=lost)

    async def _abandon(self, workload: Workload, *, lost: bool) -> None:
        """End runc, whose process has ended: the kernel tells how, once runc has reaped it."""
        await workload.reaped(KILL_GRACE)  # a busy runc has yet to do that, and nobody else would soon
        self._abandoned = self.child.returncode is None
        self._lost = self._abandoned and lost
        await self.child.stop()

    def _collect(self, *, timed_out: bool = False) -> Completed:
        """Read the files in memory, and close everything but the streams that were handed out."""
        if self._completed is None:
            fate = self._fate()
            if adopting():
                self._offspring.adopt_left()
            self._completed = read_outcome(
                self.invocation,
                self.child,
                self._plumbing,
                self._files,
                fate=fate,
                abandoned=self._abandoned,
                lost=self._lost,
                timed_out=timed_out,
                exceeded=self._exceeded,
                oom_kills=self._oom_kills.number,
            )
            if self._completed.log:
                forward_log(self._completed.log, self.invocation.container_id, errors=self._completed.returncode == 0)
            if self._attempt is not None:
                reported = None if self.workload is None else self.workload.process
                seen = self._offspring.seen
                started = {*(seen or ()), *([] if reported is None else [reported])}
                self._attempt.ended(self.invocation, self._completed, started, seen=seen is not None)
            self._close()
            log_end(self.invocation, self.pid, self._completed.returncode, self.child.since)
        return self._completed

    def _close(self) -> None:
        """Close the descriptors that nobody needs after the exit, and let go of what refers back to this object.

        In a circle of references the captured output would wait for the garbage collector.
        """
        self.child.before_kill = self.child.note_descendants = None
        self.child.halts_first = adopting
        self._plumbing.close()
        self._files.close()
        if self.inside is not None:
            self.inside.close()

    async def _stop(self, *, at_once: bool = False) -> None:
        """End it by the invocation's policy, or its process with SIGKILL at once."""
        policy = self.invocation.stop
        if policy.patience > 0:
            begun = self.workload.started if policy.waits_for_process and self.workload is not None else None
            await self.child.wait(policy.patience, or_for=begun)
        if self.inside is not None and policy.waits_for_process:
            await self.inside.stop(self.child, self.workload, 0.0 if at_once else policy.grace)
        elif policy.waits_for_process and self.child.returncode is None:
            executed, deaf = self._executed, drops_sigterm(self.pid)
            self._tree.cut_short()
            if not at_once:
                await self.child.end(signal.SIGTERM)
            if at_once or deaf or not await self._gone(policy.grace):
                self._kill_workload()
                if executed is None or not executed.exited.done():
                    await self._gone(max(policy.grace, KILL_GRACE))
            if executed is not None and executed.exited.done() and self.child.returncode is None:
                await self._abandon(executed, lost=True)
            await self.child.stop()
            await self._tree.end()
        else:
            try:
                if policy.helpers_first and self.child.returncode is None:
                    self._offspring.note()
                    kill_descendants(self.pid)
                    await self.child.wait(policy.grace)
                await self.child.stop(policy.grace)
            finally:
                if (helpers := self._offspring.helpers) is not None:
                    await helpers.end(policy.grace if policy.helpers else 0)

    def _fate(self) -> Fate | None:
        """Tell what has become of the process that runc waited for, now that runc has ended; kill it if it goes on."""
        if self._told_fate is None and self.workload is not None and self.invocation.stop.waits_for_process:
            self._told_fate = self.workload.fate()
            with contextlib.suppress(PermissionError):
                self.workload.kill_orphan()
            if self._told_fate == "lost":
                self._tree.cut_short(lost=True)
                self._tree.kill()
        return self._told_fate

    def _orphan(self) -> None:
        """Do what has to be done before runc is killed and nobody watches it."""
        if self.invocation.stop.waits_for_process:
            self._tree.cut_short()
            self._kill_workload()

    def _kill_workload(self) -> None:
        """Kill the container's process and what else runc has started, and not runc.

        The tree is listed before its first process is killed, whose children get another parent then; and once more
        afterwards, when those that have come to runc are found.
        """
        self._offspring.note()
        kill_descendants(self.pid)
        if self.workload is not None:
            with contextlib.suppress(PermissionError):
                self.workload.send_signal(signal.SIGKILL)  # the one kill that needs no descriptor
        kill_descendants(self.pid)
        self._tree.kill()

    async def _gone(self, seconds: float) -> bool:
        """Wait for runc's exit, and return whether it is gone.

        Once an `exec`'s process has ended, that is only while output may come that is captured.
        """
        exited = None if self._executed is None else self._executed.exited
        if await self.child.wait(seconds, or_for=exited) is None and exited is not None and exited.done():
            await self._tree.end()  # before runc's end, for which it would hold the pipes
            drain_timeout = self.invocation.drain_timeout if self._plumbing.draining else 0.0
            await self.child.wait(min(seconds, max(drain_timeout, REPORT_TIME)))
        return self.child.returncode is not None

    async def aclose(self) -> None:
        """Stop it by its invocation's policy if it runs, reap it, and close the streams. Can't be cancelled."""
        with self.child.watched():  # the end of the loop may come before the other task has begun
            await shielded(self.end())

    async def end(self) -> None:
        """Do what `aclose` does, in a task that only the end of the loop cancels; then the stop is begun anew."""
        try:
            with self.child.watched():
                while self.child.returncode is None:
                    live = (self.stdout, self.stderr, self.pty)
                    with contextlib.suppress(asyncio.CancelledError), discarding(*live):
                        await self._stop()
                        break
        finally:
            self._tree.kill()  # again, for the wait for its end may have been cancelled
            self._collect()
            self.close_workload()
            self._close_streams()

    def drop(self) -> None:
        """Kill it and close everything, without waiting: for a finalizer. The child's own task reaps it."""
        self.child.end_at_once(signal.SIGKILL)
        if self._completed is None:
            self.child.when_ended(lambda: log_end(self.invocation, self.pid, self.child.returncode, self.child.since))
        self._close()
        self._close_streams()

    def _close_streams(self) -> None:
        """Close the ends that are ours."""
        for stream in (self.stdin, self.stdout, self.stderr, self.pty):
            if stream is not None:
                stream.close()
