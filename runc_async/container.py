"""What callers hold of a container: `Container`, the commands without the id, and `ContainerProcess`."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Unpack

from ._argv import signal_number
from ._caller import DEFAULT, GRACE, Timeout, raise_failure
from ._container_files.access import FileAccess
from ._container_files.root import Root
from ._init import Init
from ._pidfd import ProcessIdentity, open_pidfd
from ._process import begin, patiently, stubbornly
from .errors import CleanupWarning, ContainerNotRunning, RuncError, UnsupportedError
from .exitstatus import ExitStatus, from_exit_code, from_wait_status

if TYPE_CHECKING:
    from ._argv import StrPath
    from ._call import Invocation, Process as Running
    from ._opening import Opening
    from ._options import CheckpointOptions, ExecOptions, ProcessOptions
    from ._streams import PipeReader, PipeWriter
    from .console import Pty
    from .events import EventStream, OnLag
    from .response import Response
    from .spec import LinuxResources, Process
    from .state import State
    from .stats import Stats
    from .stdio import StdIO
    from .top import Top

DELETE_TIMEOUT = 30.0
"""Seconds for the deletion at the end; runc itself may need ten."""


class Container(FileAccess):
    """A handle on one container: the commands of `Runc` without the id, and its end.

    `Runc.container` gives one for a container that exists, `Runc.open_container` one that it has made.

    Attributes:
        id: The container's id.
        pid: The process id of its first process, as the host sees it; None for a handle from `Runc.container`, whose
            `state()` tells it.
        stdin: Its stdin as a stream, with `PipedIO`.
        stdout: Its stdout, likewise.
        stderr: Its stderr, likewise.
        pty: Its terminal, with `PtyIO`.
    """

    def __init__(
        self,
        runc: Opening,
        container_id: str,
        *,
        init: Init | None = None,
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
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show the id and the pid."""
        return f"<Container {self.id!r}{'' if self.pid is None else f' pid {self.pid}'}>"

    async def state(self) -> State:
        """Tell what it is and does: see `Runc.state`."""
        return await self._runc.state(self.id)

    async def start(self, *, timeout: Timeout = DEFAULT) -> None:
        """Start its process: see `Runc.start`."""
        await self._runc.start(self.id, timeout=timeout)

    async def exec(self, process: Process | Sequence[str], **options: Unpack[ExecOptions]) -> Response:
        """Run one more process in it, and wait for it: see `Runc.exec`, which has the same options."""
        return await self._runc.exec(self.id, process, **options)

    def open_exec(
        self,
        process: Process | Sequence[str],
        *,
        io: StdIO | None = None,
        grace: float = GRACE,
        **options: Unpack[ProcessOptions],
    ) -> AbstractAsyncContextManager[ContainerProcess]:
        """Run one more process in it, with live streams: see `Runc.open_exec`, which has the same options."""
        return self._runc.open_exec(self.id, process, io=io, grace=grace, **options)

    async def kill(self, signal: int | str = SIGTERM, *, all: bool = False) -> None:  # noqa: A002 - runc's own name
        """Send a signal to its first process: see `Runc.kill`."""
        await self._runc.kill(self.id, signal, all=all)

    async def checkpoint(self, image_path: StrPath, **options: Unpack[CheckpointOptions]) -> None:
        """Write all of its processes into files: see `Runc.checkpoint`, which has the same options."""
        await self._runc.checkpoint(self.id, image_path, **options)

    async def pause(self) -> None:
        """Freeze all of its processes: see `Runc.pause`."""
        await self._runc.pause(self.id)

    async def resume(self) -> None:
        """Thaw all of its processes: see `Runc.resume`."""
        await self._runc.resume(self.id)

    async def stats(self) -> Stats:
        """Tell the figures of its cgroup, once: see `Runc.stats`."""
        return await self._runc.stats(self.id)

    def events(self, *, interval: float = 5.0, on_lag: OnLag = "block") -> EventStream:
        """Tell the figures of its cgroup again and again: see `Runc.events`."""
        return self._runc.events(self.id, interval=interval, on_lag=on_lag)

    async def update(
        self, resources: LinuxResources, *, l3_cache_schema: str | None = None, mem_bw_schema: str | None = None
    ) -> None:
        """Change its limits: see `Runc.update`."""
        await self._runc.update(self.id, resources, l3_cache_schema=l3_cache_schema, mem_bw_schema=mem_bw_schema)

    async def ps(self) -> list[int]:
        """Tell the process ids of its processes: see `Runc.ps`."""
        return await self._runc.ps(self.id)

    async def top(self, *ps_options: str) -> Top:
        """Tell of its processes as ps(1) prints them: see `Runc.top`."""
        return await self._runc.top(self.id, *ps_options)

    async def delete(self, *, force: bool = False) -> None:
        """Delete it: see `Runc.delete`."""
        await self._runc.delete(self.id, force=force)

    async def wait(self) -> ExitStatus:
        """Wait for the end of its first process, and tell how it ended.

        Any process may wait, also one that did not start the container. The status is told by the kernel to a parent
        or subreaper (see `subreaper`), or to anybody from Linux 6.15 on as soon as the parent has reaped the process;
        else it is unknown, and so it is for a container that had ended before anybody waited.

        Waiting costs one descriptor, and no thread. Cancelling changes nothing.

        Raises:
            ContainerNotFound: If there never was such a container, as far as this handle knows.
            CommandError: If runc fails in another way.
        """
        if self._init is not None:
            return await self._init.wait()
        init = await self._find_init()
        if init is None:
            return ExitStatus()
        try:
            return await init.wait()
        finally:
            init.close()

    async def _find_init(self) -> Init | None:
        """Open the first process of a container that somebody else has made; None if it has ended."""
        process = ProcessIdentity.told((await self.state()).pid)
        try:
            return None if process is None else Init(process.pid, open_pidfd(process))
        except ProcessLookupError:
            return None

    async def _open_root(self) -> Root:
        """Open the root filesystem of its first process."""
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
        """End its process, delete it, and close its streams; `Runc.open_container` does so at the end of its block.

        What can't be done is said in a `CleanupWarning`. Its exit status can still be asked for afterwards.

        No cancel interrupts it, and it takes a bounded time. Idempotent: a later container of that id is another one.

        Args:
            grace: Seconds between SIGTERM and SIGKILL; zero: SIGKILL at once. A handle of `Runc.container` holds no
                process, and there it is always SIGKILL.
        """
        if self._closing is None:
            self._closing = begin(self._close(grace))
        await patiently(self._closing)

    async def _close(self, grace: float) -> None:
        """Do what `aclose` does, in a task that only the end of the loop cancels; what is left is still done then."""
        init = self._init
        try:
            try:
                if init is not None:
                    await init.end(grace)
            finally:
                self._close_streams()  # the deletion may need their descriptors
                await stubbornly(self._delete)
            if init is not None and not init.closed and init.exited:
                await init.wait(reap_timeout=0)
        finally:
            if init is not None:
                init.close()

    def _close_streams(self) -> None:
        """Close what its IO has given."""
        for stream in (self.stdin, self.stdout, self.stderr, self.pty):
            if stream is not None:
                stream.close()

    async def _delete(self) -> None:
        """Delete it by force: that is quick once its process has ended, and thaws a frozen one."""
        try:
            try:
                await self._runc.delete(self.id, force=True, timeout=DELETE_TIMEOUT)
            except OSError as exc:
                if isinstance(exc, RuncError) or self._init is None or self._init.closed:
                    raise
                self._init.close()  # there may be no other descriptor for runc
                await self._runc.delete(self.id, force=True, timeout=DELETE_TIMEOUT)
        except (RuncError, OSError) as exc:
            text = f"container {self.id!r} may be left behind: {exc}"
            warnings.warn(text, CleanupWarning, stacklevel=2)


class ContainerProcess:
    """A process that was started in a container that exists: what `Runc.open_exec` gives.

    Attributes:
        container_id: The container's id.
        pid: Its process id, as the host sees it; None if the runner can't tell it.
        stdin: Its stdin as a stream, with `PipedIO`.
        stdout: Its stdout, likewise.
        stderr: Its stderr, likewise.
        pty: Its terminal, with `PtyIO`.
    """

    def __init__(self, container_id: str, process: Running, invocation: Invocation) -> None:
        workload = process.workload
        self.container_id = container_id
        self.pid: int | None = None if workload is None else workload.pid
        self.stdin: PipeWriter | None = process.stdin
        self.stdout: PipeReader | None = process.stdout
        self.stderr: PipeReader | None = process.stderr
        self.pty: Pty | None = process.pty
        self._process = process
        self._invocation = invocation

    def __repr__(self) -> str:
        """Show the container and the pid."""
        return f"<ContainerProcess {self.pid} in {self.container_id!r}>"

    async def wait(self) -> ExitStatus:
        """Wait for its end, and tell how it ended; others may hold its pipes still.

        On Linux before 6.15 an exit code above 128 is taken for the end by a signal, as runc reports both alike.
        Cancelling changes nothing.

        Raises:
            CommandError: If runc fails.
        """
        status = await self._process.ended()
        if status is not None:
            return from_wait_status(status)
        completed = await self._process.wait()
        if completed.wait_status is not None:
            return from_wait_status(completed.wait_status)
        raise_failure(self._invocation, completed)
        return from_exit_code(completed.returncode)

    def send_signal(self, signal: int | str) -> None:
        """Send it a signal; nothing happens if it has ended.

        Raises:
            InvalidSignal: If there is no such signal.
        """
        number = signal_number(signal)
        if self._process.workload is None:
            self._process.send_signal(number)  # which runc forwards, but for SIGKILL and SIGSTOP
        else:
            self._process.workload.send_signal(number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(SIGKILL)
