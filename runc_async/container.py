"""`Container`: a handle for one container, with the commands of `Runc` without the id."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Unpack, cast

import anyio

from ._client.calls import GRACE
from ._client.claim import ContainerClaim
from ._client.forks import open_forks
from ._client.undo import warn
from ._commands.options import DEFAULT, Timeout, check_seconds
from ._commands.words import signal_number
from ._containers.first_process import Init
from ._containers.ownership import gone, retried
from ._files.access import FileAccess
from ._files.root import Root
from ._host.metering import Metering
from ._linux.pidfd import open_pidfd
from ._linux.procfs import ProcessIdentity
from ._process.running import ProcessRunner
from ._shield import retried_once, shielded, start
from ._streams.pump import discarding, reading_ahead
from .containerprocess import ContainerProcess
from .errors import (
    ContainerNotFound,
    ContainerNotPaused,
    ContainerNotRunning,
    ContainerPaused,
    RuncError,
    UnsupportedError,
)
from .exitstatus import ExitStatus, from_sandbox
from .state import Status

if TYPE_CHECKING:
    from ._client.commands import Commands
    from ._client.forks import Forking
    from ._commands.options import CheckpointOptions, ExecOptions, ProcessOptions
    from ._commands.words import StrPath
    from ._streams.pipes import PipeReader, PipeWriter
    from .console import Pty
    from .events import EventStream, OnLag
    from .response import Response
    from .spec import LinuxResources, Process
    from .state import State
    from .stats import Stats
    from .stdio import StdIO
    from .top import Top
    from .usage import Usage

DELETE_TIMEOUT = 20.0
"""Seconds for deleting the container at the end. runc itself may need ten, and gets ten more before it is ended."""


class Container(FileAccess):
    """A handle for one container: the commands of `Runc` without the id.

    `Runc.container` returns a handle for an existing container, `Runc.open_container` for a new one.

    Attributes:
        id: The container's id.
        pid: The process id of the first process, in the host's namespace; None for a handle from `Runc.container`,
            where `state()` returns the pid.
        stdin: The stdin of the process as a stream, with `PipedIO`.
        stdout: The stdout of the process, likewise.
        stderr: The stderr of the process, likewise.
        pty: The terminal, with `PtyIO`.
    """

    def __init__(
        self,
        runc: Commands,
        container_id: str,
        *,
        init: Init | None = None,
        process: ProcessIdentity | None = None,
        stdin: PipeWriter | None = None,
        stdout: PipeReader | None = None,
        stderr: PipeReader | None = None,
        pty: Pty | None = None,
    ) -> None:
        self.id = container_id
        self.pid: int | None = None if init is None else init.pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.pty = pty
        self._runc = runc
        self._init = init
        self._process = process
        self._closing: asyncio.Task[None] | None = None
        self._claim: ContainerClaim | None = None
        calls = runc._calls  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        strict = isinstance(calls.runner, ProcessRunner)
        self._metering = Metering(calls.state_directory(), container_id, init, strict=strict)

    def __repr__(self) -> str:
        """Show the id and the pid."""
        return f"<Container {self.id!r}{'' if self.pid is None else f' pid {self.pid}'}>"

    async def state(self, *, timeout: Timeout = DEFAULT) -> State:
        """Return the state: see `Runc.state`."""
        return await self._runc.state(self.id, timeout=timeout)

    async def start(self, *, timeout: Timeout = DEFAULT) -> None:
        """Start the process: see `Runc.start`."""
        with self._metering.starting():
            await self._runc.start(self.id, timeout=timeout)

    async def exec(self, process: Process | Sequence[str], **options: Unpack[ExecOptions]) -> Response:
        """Run an additional process and wait for the exit: see `Runc.exec`, with the same options."""
        return await self._runc.exec(self.id, process, **options)

    def open_exec(
        self,
        process: Process | Sequence[str],
        *,
        io: StdIO | None = None,
        grace: float = GRACE,
        **options: Unpack[ProcessOptions],
    ) -> AbstractAsyncContextManager[ContainerProcess]:
        """Run an additional process with live streams: see `Runc.open_exec`, with the same options."""
        return self._runc.open_exec(self.id, process, io=io, grace=grace, **options)

    async def kill(
        self,
        signal: int | str = SIGTERM,
        *,
        all: bool = False,  # noqa: A002 - runc's own name
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Send a signal to the first process: see `Runc.kill`."""
        if self._init is not None and signal_number(signal) == SIGKILL:
            self._init.before_kill()
        await self._runc.kill(self.id, signal, all=all, timeout=timeout)

    async def checkpoint(self, image_path: StrPath, **options: Unpack[CheckpointOptions]) -> None:
        """Write all processes to files: see `Runc.checkpoint`, with the same options."""
        await self._runc.checkpoint(self.id, image_path, **options)

    async def pause(self, *, timeout: Timeout = DEFAULT) -> None:
        """Freeze all processes: see `Runc.pause`."""
        await self._runc.pause(self.id, timeout=timeout)

    async def resume(self, *, timeout: Timeout = DEFAULT) -> None:
        """Thaw all processes: see `Runc.resume`."""
        await self._runc.resume(self.id, timeout=timeout)

    async def stats(self, *, timeout: Timeout = DEFAULT) -> Stats:
        """Return the metrics of the cgroup once: see `Runc.stats`."""
        return await self._runc.stats(self.id, timeout=timeout)

    async def usage(self) -> Usage:
        """Return the resources used by all processes so far (CPU time, peak memory), from the files of the cgroup.

        No runtime process is started, and reading takes less than a millisecond. Works at any time: after the end of
        the first process too, and after the deletion by this handle or at the end of the block of
        `Runc.open_container`, with the last values.

        Resources used by the runtime before `start` aren't counted, if this handle has started the container. Values
        unknown on this host are None.

        Raises:
            ContainerNotFound: If there is no such container, and this handle has never read one.
        """
        return self._metering.read()

    def events(self, *, interval: float = 5.0, on_lag: OnLag = "block") -> EventStream:
        """Stream the metrics of the cgroup: see `Runc.events`."""
        return self._runc.events(self.id, interval=interval, on_lag=on_lag)

    async def update(
        self,
        resources: LinuxResources,
        *,
        l3_cache_schema: str | None = None,
        mem_bw_schema: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Change the limits: see `Runc.update`."""
        await self._runc.update(
            self.id, resources, l3_cache_schema=l3_cache_schema, mem_bw_schema=mem_bw_schema, timeout=timeout
        )

    async def ps(self, *, timeout: Timeout = DEFAULT) -> list[int]:
        """Return the process ids of all processes: see `Runc.ps`."""
        return await self._runc.ps(self.id, timeout=timeout)

    async def top(self, *ps_options: str, timeout: Timeout = DEFAULT) -> Top:
        """Return a table of the processes, printed by ps(1): see `Runc.top`."""
        return await self._runc.top(self.id, *ps_options, timeout=timeout)

    async def delete(self, *, force: bool = False, timeout: Timeout = DEFAULT) -> None:
        """Delete the container: see `Runc.delete`."""
        self._metering.keep()
        await self._runc.delete(self.id, force=force, timeout=timeout)

    def fork(self, n: int, *, io: StdIO | None = None) -> AbstractAsyncContextManager[list[Container]]:
        """Create running copies of the container; on exit of the block the copies are stopped and deleted.

        The container is checkpointed, runs on, and is restored `n` times from the same image. The block gets a list of
        the copies, each a container with its own id and streams.

        runsc can copy any container, including all changes of files. runc needs criu in $PATH, and a container with a
        read-only root filesystem, without a `cgroupsPath`, and with a pid namespace of its own, since the copies would
        share these with it. Other containers, and crun, are refused before anything starts.

        Cancelled or failed, the call leaves no copy behind.

        Args:
            n: The number of copies.
            io: The streams of each copy, where the container has pipes or a terminal; `NullIO()` if left out.

        Raises:
            UnsupportedError: If the runtime can't copy containers, or not this container.
            CheckpointError: If the container can't be checkpointed or restored.
            ContainerNotRunning: If the container doesn't run.
            ContainerNotFound: If there is no such container.
            ValueError: If `n` isn't a number of at least 1, or `io` is `CapturedIO`.
            CommandError: If the runtime fails in another way.
        """
        return open_forks(cast("Forking[Container]", self._runc), self, n, io)

    async def wait(self) -> ExitStatus:
        """Wait for the end of the first process, and return the exit status.

        Any process may wait, including one that didn't start the container. The parent or subreaper (see `subreaper`)
        gets the status at once. Other processes read the status from the zombie, until process 1 has reaped the
        process, if ptrace(2) permits: as root with CAP_SYS_PTRACE, or as the same user. After the reaping, Linux 6.15
        and later still report the status. Otherwise the status is unknown, as for a container that had ended before the
        wait.

        Without the permission, the call waits until process 1 has reaped, at most 10.0 seconds; `ended` doesn't.

        Waiting takes one descriptor and no thread. Cancelling changes nothing.

        Raises:
            ContainerNotFound: If there never was such a container, as far as this handle knows.
            CommandError: If runc fails in another way.
        """
        async with self._first_process() as init:
            return self._status_of_program(ExitStatus() if init is None else await init.wait())

    def _status_of_program(self, status: ExitStatus) -> ExitStatus:
        """Return the exit status of the program, from that of the process on the host."""
        return from_sandbox(status) if self._in_sandbox() else status

    def _in_sandbox(self) -> bool:
        """Return whether the process that the host sees is a sandbox, and the program is inside."""
        return self._runc._calls.dialect.inside is not None  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    async def ended(self) -> None:
        """Wait until the first process ends, without its exit status.

        Returns at once if the process has already ended. Waiting takes one descriptor and no thread. Cancelling changes
        nothing.

        Raises:
            ContainerNotFound: If there never was such a container, as far as this handle knows.
            CommandError: If runc fails in another way.
        """
        async with self._first_process() as init:
            if init is not None:
                await init.ended()

    async def stop(self, *, grace: float = GRACE) -> ExitStatus:
        """End the first process: SIGTERM, and SIGKILL `grace` seconds later. Return the exit status.

        SIGKILL comes at once if SIGTERM would have no effect: the process has no handler (pid_namespaces(7)), or the
        container wasn't started. A paused container is resumed, so that the process gets the signal. An ended process
        is no error. The container isn't deleted.

        The streams can be read meanwhile and afterwards to the end: unread output is kept in memory, up to 16 MiB of
        each stream. A program with more output waits for a reader, and gets SIGKILL.

        If the call is cancelled, signals already sent remain effective: a process that handles SIGTERM is ending, but
        gets no SIGKILL. Call `stop` again, or leave the block of `Runc.open_container`.

        Args:
            grace: Seconds between SIGTERM and SIGKILL; zero sends SIGKILL at once.

        Returns:
            The exit status, as far as known to `wait`.

        Raises:
            ContainerNotFound: If there never was such a container, as far as this handle knows.
            ValueError: If `grace` is negative or not finite.
            CommandError: If runc fails in another way.
        """
        check_seconds("grace", grace)
        if self._init is not None and self._init.exited:
            return self._status_of_program(await self._init.wait())
        with reading_ahead(self.stdout, self.stderr, self.pty):
            state = await self.state()
            async with self._first_process(state) as init:
                status = ExitStatus() if init is None else await self._stop(init, state.status, grace)
                return self._status_of_program(status)

    async def _stop(self, init: Init, status: Status, grace: float) -> ExitStatus:
        """Stop a process that has been running just now."""
        sent = False
        if grace > 0 and status != Status.CREATED and not await init.drops(SIGTERM):
            await self._send(init, SIGTERM, thaw=status == Status.PAUSED)
            sent = True
            with anyio.move_on_after(grace):
                return await init.wait()
        if not init.exited:
            init.before_kill()
            await self._send(init, SIGKILL, thaw=status == Status.PAUSED and not sent)
        return await init.wait()

    async def _send(self, init: Init, signum: int, *, thaw: bool) -> None:
        """Send a signal, and thaw a frozen process, which gets the signal only then. An ended process is no error."""
        try:
            try:
                await self.kill(signum)
            except ContainerPaused:  # runsc signals no frozen process
                await self.resume()
                await self.kill(signum)
            if thaw:
                with contextlib.suppress(ContainerNotPaused):  # the runtime does it itself for SIGKILL
                    await self.resume()
        except (ContainerNotRunning, ContainerNotFound) as exc:
            if init.exited:
                return
            if signum != SIGKILL or isinstance(exc, ContainerNotFound):
                raise
            init.send_signal(signum)  # runsc signals no container that wasn't started

    @contextlib.asynccontextmanager
    async def _first_process(self, state: State | None = None) -> AsyncGenerator[Init | None]:
        """Yield the first process, opened for the block if necessary; None if the process has ended."""
        if self._init is not None:
            yield self._init
            return
        init = await self._find_init(state)
        try:
            yield init
        finally:
            if init is not None:
                init.close()

    async def _find_init(self, state: State | None = None) -> Init | None:
        """Open the first process of a container that this handle hasn't created; None if the process has ended."""
        process = ProcessIdentity.told((state or await self.state()).pid)
        try:
            return None if process is None else Init(process.pid, open_pidfd(process))
        except ProcessLookupError:
            return None

    def _has_ended(self) -> bool:
        """Return whether the first process has ended; False if this handle has no process."""
        # With an identity and no pidfd, the process had ended before the handle was created.
        return self._process is not None if self._init is None else self._init.exited

    def _watched(self, changed: Callable[[], object]) -> contextlib.AbstractContextManager[None]:
        """Call `changed` after the end of the first process, and possibly again, while the block runs."""
        return contextlib.nullcontext() if self._init is None else self._init.watched(changed)

    async def _open_root(self) -> Root:
        """Open the root filesystem of the first process."""
        if not await self._runc.supports("files"):
            raise UnsupportedError("files that can be reached from outside the container")
        if self._init is not None:
            init = self._init
            return Root.open(self.id, init.pid, lambda: not init.exited)
        state = await self.state()
        process = ProcessIdentity.told(state.pid)
        if process is None:
            raise ContainerNotRunning((), None, container_id=self.id, message="the container is not running")
        return Root.open(self.id, process.pid, process.exists)

    async def aclose(self, *, grace: float = 0.0) -> None:
        """End the process, delete the container, and close the streams; `Runc.open_container` does so on exit.

        Output that no task reads is discarded while the process ends, so that a full pipe doesn't block the process. A
        container with the same id made by another program meanwhile is recognized by its first process, and not
        deleted. `wait` still returns the exit status afterwards.

        Can't be cancelled, is bounded in time, and reports leftovers as `CleanupWarning`. Idempotent.

        Args:
            grace: Seconds between SIGTERM and SIGKILL; zero sends SIGKILL at once. A handle of `Runc.container` holds
                no process, and always uses SIGKILL.
        """
        if self._closing is None:
            self._closing = start(self._close(grace))
        await shielded(self._closing)

    async def _close(self, grace: float) -> None:
        """Do the work of `aclose`, in a task that only the end of the loop cancels; the rest is still done then."""
        init = self._init
        try:
            try:
                if init is not None:
                    with discarding(self.stdout, self.stderr, self.pty):
                        await init.end(grace)
            finally:
                self._close_streams()  # the deletion may need their descriptors
                self._metering.keep()
                await retried_once(self._delete)
            if init is not None and not init.closed and init.exited:
                await init.wait(reap_timeout=0)
        finally:
            if init is not None:
                init.close()
            if self._claim is not None:
                self._claim.end()

    def _hold(self, claim: ContainerClaim) -> None:
        """Keep the record of the container for `Runc.sweep` until the deletion."""
        claim.hand_over(self._process)
        self._claim = claim

    def _close_streams(self) -> None:
        """Close our ends of the streams."""
        for stream in (self.stdin, self.stdout, self.stderr, self.pty):
            if stream is not None:
                stream.close()

    async def _delete(self) -> None:
        """Delete the container, by force if necessary; warn about leftovers."""
        try:
            try:
                await retried(self._delete_own)
            except OSError as exc:
                if isinstance(exc, RuncError) or self._init is None or self._init.closed:
                    raise
                self._init.close()  # there may be no other descriptor for runc
                await retried(self._delete_own)
        except (RuncError, OSError) as exc:
            warn(f"container {self.id!r} may be left behind: {exc}")

    async def _delete_own(self) -> None:
        """Delete the container, unless the id belongs to another container now."""
        delete = partial(self._runc.delete, self.id, timeout=DELETE_TIMEOUT)
        if self._process is not None and await self._runc._undo.is_foreign(self.id, self._process):  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            if self._claim is not None:
                self._claim.forget()
        # By force, runc 1.2 and later sleep for 100 ms. A sandbox that has ended can only be deleted by force.
        elif self._in_sandbox() or not (self._has_ended() and await gone(delete)):
            await delete(force=True)
