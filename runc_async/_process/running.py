"""`ProcessRunner` starts runc as a child of the current process. `Runc` uses a `ProcessRunner` by default."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

from .._answers.log import forward_log
from .._containers.first_process import become_program
from .._containers.ownership import current_attempt
from .._containers.workload import Workload
from .._linux.prerequisites import check_descriptors, check_process
from .._linux.subreaper import adopting
from .._shield import shielded
from .._streams.pipes import PipeReader, PipeWriter
from .._streams.pump import discarding
from ..console import Pty
from ..endreason import EndReason
from ..runner import Completed, Fate, Invocation, StreamedOutput
from ..stdio import PtyIO
from .argument_files import FIRST_INHERITED, ArgumentFiles
from .child import Child
from .debug_log import log_end, log_start
from .descendants import drops_sigterm, kill_descendants
from .inside import Inside
from .launch import helped
from .limiting import kill_first, within_limits
from .offspring import Offspring
from .oom_kills import OOMKills
from .outcome import read_outcome
from .plumbing import Plumbing
from .relay import QUIET, outlive
from .terminal import hands_over, waiting_for
from .tree import Tree

KILL_GRACE = 2.0
"""Least time, in seconds, for runc to report a killed process before runc is killed too."""

REPORT_TIME = 0.5
"""Least time, in seconds, for runc to report an ended process before runc counts as held up by an open pipe."""


class ProcessRunner:
    """Starts runc as a child process with `asyncio.create_subprocess_exec`.

    A call ends with the exit of the runc process, not with the end of the pipes. Documents and runc's own log go
    through files in memory that the child inherits, so a custom runner that puts a command in front of runc has to let
    the command keep its descriptors: `nsenter` does; `sudo` needs `-C` with a large number and `closefrom_override` in
    sudoers.
    """

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Start runc and wait for the exit: see `Runner.run`."""
        process = await self._start(invocation, live=False)
        with process.child.watched():
            try:
                if started is not None:
                    started(process.pid)
                return await process.finish()
            except BaseException:
                # The task was cancelled during the spawn, and the child exists by now: stop the child before the cancel
                # goes on.
                await shielded(process.end())
                raise
            finally:
                process.close_workload()

    async def open(self, invocation: Invocation) -> RunningProcess:
        """Start runc and return the running process: see `Runner.open`."""
        return await self._start(invocation, live=True)

    async def _start(self, invocation: Invocation, *, live: bool) -> RunningProcess:
        """Open the descriptors, spawn, and close the child's ends.

        Raises:
            SpawnError: If the current process can't have children, or may not make a file in memory.
            RuncNotFound: If there is no such program.
            OSError: If the spawn fails, or no descriptor is left.
        """
        check_process()
        inside = None if invocation.sandbox is None else Inside(invocation, invocation.sandbox, self.run)
        detach_at = invocation.detach_at if hands_over(invocation) else None
        plumbing = Plumbing(invocation.streams, data=invocation.input, live=live, receives=detach_at is not None)
        # A stream of events reports failures while it runs, so runc's log goes to stderr and isn't read from a file at
        # the end.
        streamed = live and isinstance(invocation.streams, StreamedOutput)
        files = ArgumentFiles(above=FIRST_INHERITED + len(invocation.preserve_fds), log_to_stderr=streamed)
        child = Child()
        with child.watched():
            try:
                if inside is not None:
                    await inside.follow()
                if current_attempt(invocation) is not None:
                    check_descriptors()
                lent = files.lent(invocation.preserve_fds)
                words = files.argv(invocation.argv, detach_at, terminal=isinstance(invocation.streams, PtyIO))
                waiter = [] if files.workload is None or detach_at is None else waiting_for(files.workload.path)
                inherited = [*files.inherited, *invocation.pass_fds]
                tree = Tree(invocation, child, files.workload, files.leaf)
                argv, options = helped(invocation, words, inherited, lent, launcher=tree.launcher, waiter=waiter)
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
                if (attempt := current_attempt(invocation)) is not None and not child.may_have_run:
                    attempt.asked = False  # there was no such process, and what it could have made isn't there
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
    """A runc process, a child of the current process: see `Process` for the contract.

    Attributes:
        inside: The process in a sandbox, for an `exec` in a sandbox.
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
        """Take over the descriptors and the child, opened by `ProcessRunner`."""
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
        return f"<RunningProcess {self.invocation.command!r} {self.child!r}>"

    @property
    def pid(self) -> int:
        """The process id."""
        return self.child.pid

    @property
    def stdin(self) -> PipeWriter | None:
        """The writing end of stdin, if stdin is a pipe."""
        return self._plumbing.stdin

    @property
    def stdout(self) -> PipeReader | None:
        """The reading end of stdout, if stdout is a pipe."""
        return self._plumbing.stdout

    @property
    def stderr(self) -> PipeReader | None:
        """The reading end of stderr, if stderr is a pipe."""
        return self._plumbing.stderr

    @property
    def pty(self) -> Pty | None:
        """The caller's end of the terminal, if there is one."""
        return self._plumbing.pty

    @property
    def workload(self) -> Workload | None:
        """The container's process, if the invocation has a `PidFile`."""
        return self._files.workload

    @property
    def _executed(self) -> Workload | None:
        """The process of an `exec`: after its end runc only reports, whereas a `run` deletes its container."""
        return self.workload if self.invocation.command == "exec" else None

    def close_workload(self) -> None:
        """Release the container's process. Idempotent."""
        self._files.close_workload()

    def send_signal(self, signum: int) -> None:
        """Send a signal to runc, or to the process in its sandbox. Does nothing after the exit."""
        if self.inside is None:
            self.child.send_signal(signum)
        elif self.child.returncode is None:
            self.inside.send_soon(signum)

    def signal_tree(self, signum: int) -> None:
        """Send a signal to the container's process and to all processes started by it: see `Process.signal_tree`."""
        if self.inside is not None:
            self.inside.send_soon(signum, tree=True)
            return
        if self.workload is not None:
            self.workload.send_signal(signum)
        self._tree.signal(signum)

    async def started(self) -> Completed | None:
        """Wait until the container's process runs. Return runc's result if runc has ended before."""
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
        """Take the terminal that runc hands over, if one is expected and the process has started."""
        if self._files.console is not None and self.workload is not None and self.workload.pid:
            self._plumbing.receive(self._files.console, self.pid)
            self._files.close_console()

    async def ended(self) -> int | None:
        """Wait for the end of the container's process. Return the wait status, or None if only runc can report it."""
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
        """Wait for the exit, for at most the invocation's timeout; stop the process after that."""
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
        """Wait for the exit, and for a bounded time for the end of captured output."""
        if self._completed is None:
            await self._ended()
            # A client of a sandbox that was killed leaves its process running in the sandbox.
            if self.inside is not None and (self.child.returncode or 0) < 0:
                await shielded(self.inside.kill())
            # Before the drain: a process that outlives its runc holds the pipes, and is killed here.
            self._fate()
            self._receive()
            self._plumbing.check()
            self._lost |= await self._plumbing.drain(self.invocation.drain_timeout, QUIET)
        return self._collect()

    async def _ended(self) -> None:
        """Wait for runc's exit. End runc if only an inherited pipe keeps it alive after its process has ended."""
        executed = self._executed
        if executed is None or await self.child.wait(or_for=executed.exited) is not None:
            await self.child.wait()
        else:
            lost = await outlive(self.child, self._plumbing, executed, max(self.invocation.drain_timeout, REPORT_TIME))
            if lost is not None:
                await self._abandon(executed, lost=lost)

    async def _abandon(self, workload: Workload, *, lost: bool) -> None:
        """End runc after its process has ended: the kernel reports the wait status once runc has reaped it."""
        await workload.reaped(KILL_GRACE)  # a busy runc has yet to do that, and nobody else would soon
        self._abandoned = self.child.returncode is None
        self._lost = self._abandoned and lost
        await self.child.stop()

    def _collect(self, *, timed_out: bool = False) -> Completed:
        """Read the files in memory, and close all streams not handed out."""
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
                oom_kills=self._oom_kills.number if self.child.returncode else None,
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
        """Close the descriptors not needed after the exit, and drop the references back to the object."""
        # Otherwise a cycle of references would keep the captured output until the garbage collector runs.
        self.child.before_kill = self.child.note_descendants = None
        self.child.halts_first = adopting
        self._plumbing.close()
        self._files.close()
        if self.inside is not None:
            self.inside.close()

    async def _stop(self, *, at_once: bool = False) -> None:
        """Stop runc by the invocation's policy, or kill the container's process at once."""
        policy = self.invocation.stop
        if policy.patience > 0:
            begun = self.workload.started if policy.waits_for_process and self.workload is not None else None
            await self.child.wait(policy.patience, or_for=begun)
        if self.inside is not None and policy.waits_for_process:
            await self.inside.stop(self.child, self.workload, 0.0 if at_once else policy.grace)
        elif policy.waits_for_process and self.child.returncode is None:
            executed = self._executed
            self._tree.cut_short()
            if not at_once and self.workload is not None and self.workload.pid:
                await become_program(self.workload.pid)
            deaf = drops_sigterm(self.pid)
            handed_over = hands_over(self.invocation)
            if at_once and self.workload is not None and (executed is not None or handed_over):
                await kill_first(self.child, self.workload, self._tree)
            elif not at_once:
                await self.child.end(signal.SIGTERM)
            if self.child.returncode is None and (at_once or deaf or not await self._gone(policy.grace)):
                # runc stays alive so that it can report the killed process and, for `run`, delete the container.
                self._kill_workload()
                if executed is None or not executed.exited.done():
                    await self._gone(max(policy.grace, KILL_GRACE))
            if executed is not None and executed.exited.done() and self.child.returncode is None:
                await self._abandon(executed, lost=True)
            await self.child.stop()
            await self._tree.end()
        else:
            await self._offspring.stop()

    def _fate(self) -> Fate | None:
        """Return the fate of the container's process, now that runc has ended. Kill a process that still runs."""
        if self._told_fate is None and self.workload is not None and self.invocation.stop.waits_for_process:
            self._told_fate = self.workload.fate()
            with contextlib.suppress(PermissionError):
                self.workload.kill_orphan()
            if self._told_fate == "lost":
                self._tree.cut_short(lost=True)
                self._tree.kill()
        return self._told_fate

    def _orphan(self) -> None:
        """Prepare for the kill of an unowned runc process: its container's process would run on."""
        if self.invocation.stop.waits_for_process:
            self._tree.cut_short()
            self._kill_workload()

    def _kill_workload(self) -> None:
        """Kill the container's process and every other descendant of runc, but not runc."""
        # List the tree before its first process is killed: orphans get another parent then. Kill once more afterwards,
        # since orphans that were re-parented to runc are found only then.
        self._offspring.note()
        kill_descendants(self.pid)
        if self.workload is not None:
            with contextlib.suppress(PermissionError):
                self.workload.send_signal(signal.SIGKILL)  # the one kill that needs no descriptor
        kill_descendants(self.pid)
        self._tree.kill()

    async def _gone(self, seconds: float) -> bool:
        """Wait for runc's exit; return whether runc has exited.

        Once the process of an `exec` has ended, wait only while captured output may still arrive.
        """
        exited = None if self._executed is None else self._executed.exited
        if await self.child.wait(seconds, or_for=exited) is None and exited is not None and exited.done():
            await self._tree.end()  # before runc's end, for which it would hold the pipes
            drain_timeout = self.invocation.drain_timeout if self._plumbing.draining else 0.0
            await self.child.wait(min(seconds, max(drain_timeout, REPORT_TIME)))
        return self.child.returncode is not None

    async def aclose(self) -> None:
        """Stop a running process by its policy, reap it, and close the streams. Can't be cancelled."""
        with self.child.watched():  # the end of the loop may come before the other task has begun
            await shielded(self.end())

    async def end(self) -> None:
        """Do the work of `aclose`. If the end of the event loop cancels the task, start the stop again."""
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
        """Kill the process and close everything without waiting, for a finalizer. The child's own task reaps."""
        self.child.end_at_once(signal.SIGKILL)
        if self._completed is None:
            self.child.when_ended(lambda: log_end(self.invocation, self.pid, self.child.returncode, self.child.since))
        self._close()
        self._close_streams()

    def _close_streams(self) -> None:
        """Close the caller's ends of the streams."""
        for stream in (self.stdin, self.stdout, self.stderr, self.pty):
            if stream is not None:
                stream.close()
