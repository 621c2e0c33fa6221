"""The handles of the client: containers and processes that end with the block that opened them."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from . import _argv
from ._argv import Command, Creation, StrPath
from ._call import PidfdSocket, Process as Running, StopPolicy
from ._caller import DEFAULT, GRACE, LET_FINISH, Timeout, check_finished, raise_failure
from ._checkpointing import LET_RESTORE_FINISH, Checkpointing, yards_named
from ._criu import Restoration
from ._criu_log import explained
from ._descriptors import preserved
from ._fdsocket import FDSocket
from ._foreground import DRAIN_TIMEOUT, exec_command
from ._init import Init
from ._lifecycle import Lifecycle
from ._options import CreateOptions, ProcessOptions, RestoreOptions
from ._process import patiently
from ._queries import Queries
from ._support import CREATE_PIDFD_SOCKET
from ._watching import Watching
from .console import Pty
from .container import Container, ContainerProcess
from .errors import RuncError, TerminalError
from .stdio import CapturedIO, NullIO, PtyIO, StdIO

if TYPE_CHECKING:
    from .spec import Process  # at run time whoever has one has loaded the module, and nobody else needs it


class Opening(Queries, Lifecycle, Checkpointing, Watching):
    """The handles of the client."""

    def container(self, container_id: str) -> Container:
        """Return a handle on a container that exists: the commands without the id. Nothing is asked of runc.

        Args:
            container_id: Its id.

        Raises:
            InvalidContainerID: If the id can't be one.
        """
        return Container(self, _argv.check_container_id(container_id))

    @asynccontextmanager
    async def open_container(
        self,
        container_id: str,
        bundle: StrPath,
        *,
        io: StdIO | None = None,
        grace: float = GRACE,
        timeout: Timeout = DEFAULT,
        **options: Unpack[CreateOptions],
    ) -> AsyncGenerator[Container]:
        """Create a container and start it; on the way out stop it and delete it, whatever has happened.

        On the way out its first process gets SIGTERM and, `grace` seconds later, SIGKILL; at once SIGKILL where it has
        no handler for SIGTERM, which the kernel then drops: pid_namespaces(7). The container is deleted and the streams
        are closed::

            async with (
                Bundle.busybox(["cat"]) as bundle,
                Runc().open_container("echo", bundle, io=PipedIO()) as container,
            ):
                await container.stdin.send(b"hello")
                await container.stdin.aclose()
                print(await container.stdout.receive())  # b'hello'
                print(await container.wait())  # exited with 0

        No cancel interrupts that, it takes a bounded time, and what can't be done is said in a `CleanupWarning`.
        Exceptions of the block pass unchanged. The container's own end ends nothing: wait for it with
        `Container.wait`, whose answer is kept after the block.

        No runc is left running for the container, which saves about 10 MB each.

        Cancelled before the block begins, it leaves nothing behind.

        Args:
            container_id: Its id: letters, digits and `_+.-`.
            bundle: A `Bundle`, or the path of its directory.
            io: Its streams; `NullIO()` if left out. With `PipedIO` the handle has `stdin`, `stdout` and `stderr`; with
                `PtyIO`, for a process with `terminal`, it has `pty`.
            grace: Seconds between SIGTERM and SIGKILL, at most; zero: SIGKILL at once.
            timeout: Seconds for `create` and for `start`, or None for no limit; the client's own if left out.
            options: Those of `create`.

        Raises:
            ContainerExists: If there is a container of that id.
            BundleNotFound: If the bundle, its config.json or its root file system isn't there.
            InvalidSpec: If config.json isn't valid, or asks for what can't be had.
            ExecutableNotFound: If the program isn't in the container.
            TerminalError: If `PtyIO` is given for a process without `terminal`, or the reverse, or if what runc sends
                is no terminal.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right, such as `CapturedIO`, which has no end here.
            RuncTimeout: If one of the two takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: If no descriptor is left.
            CommandError: If runc fails in another way.
        """
        container = await self._open(container_id, bundle, io, grace=grace, timeout=timeout, options=options)
        try:
            yield container
        finally:
            await patiently(container.aclose(grace=grace))

    async def _open(
        self,
        container_id: str,
        bundle: StrPath,
        io: StdIO | None,
        *,
        grace: float,
        timeout: Timeout,
        options: CreateOptions,
    ) -> Container:
        """Create a container and start it; cut short, or failed, it leaves nothing behind: see `open_container`."""
        check_live(io)
        _argv.check_container_id(container_id)
        await self._require({CREATE_PIDFD_SOCKET: options.get("pidfd_socket") is not None}, timeout)
        pidfd_socket = await self._first_process(options.pop("pidfd_socket", None), timeout)
        async with self._creating(container_id):
            container = await self._create_open(
                container_id, bundle, io or NullIO(), timeout=timeout, pidfd_socket=pidfd_socket, options=options
            )
        try:
            await container.start(timeout=timeout)
        except BaseException:
            await patiently(container.aclose(grace=grace))
            raise
        return container

    @asynccontextmanager
    async def open_restored(
        self,
        container_id: str,
        bundle: StrPath,
        image_path: StrPath,
        *,
        io: StdIO | None = None,
        grace: float = GRACE,
        timeout: Timeout = DEFAULT,
        **options: Unpack[RestoreOptions],
    ) -> AsyncGenerator[Container]:
        """Make a container from the images of a `checkpoint`; on the way out stop it and delete it.

        It is `open_container` for a process that goes on where it was: with the same handle, and the same promises
        for the end of the block. The process has another pid than before. Cancelled before the block begins, it leaves
        nothing behind.

        Args:
            container_id: Its id, the same as before or another.
            bundle: A `Bundle`, or the path of its directory, with the files that the container had.
            image_path: Directory of the images.
            io: Its streams from now on, where they were pipes or a terminal; `NullIO()` if left out. With `PipedIO` the
                handle has `stdin`, `stdout` and `stderr`; with `PtyIO`, for a process with `terminal`, it has `pty`.
            grace: Seconds between SIGTERM and SIGKILL; zero: SIGKILL at once.
            timeout: Seconds for `restore`, or None for no limit; the client's own if left out.
            options: Those of `restore`.

        Raises:
            CheckpointError: If criu fails, or isn't there, or there are no images; it has the end of criu's log.
            ContainerExists: If there is a container of that id.
            BundleNotFound: If the bundle, its config.json or its root file system isn't there.
            InvalidSpec: If config.json isn't valid, or asks for what can't be had.
            TerminalError: If `PtyIO` is given for a process without `terminal`, or the reverse, or if what runc sends
                is no terminal.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right, such as `CapturedIO`, which has no end here.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: If no descriptor is left.
            CommandError: If runc fails in another way.
        """
        check_live(io)
        given: dict[str, Any] = dict(options)
        creation = {name: given.pop(name) for name in ("pid_file", "no_pivot", "extra_args") if name in given}
        restoration = Restoration(image_path=image_path, **given)
        words = ("--detach", *restoration.words())

        def restore(console_socket: str | None) -> Command:
            ours = Creation(watched=True, console_socket=console_socket, **creation)
            return _argv.restore(container_id, self._bundle(container_id, bundle), ours, words)

        await self._require_for_restore(restoration, timeout, no_pivot=options.get("no_pivot", False))
        with yards_named(restoration.log_directory), explained(restoration.log_directory):
            async with self._creating(container_id):
                container = await self._make(
                    container_id, restore, io or NullIO(), timeout=timeout, stop=LET_RESTORE_FINISH
                )
        try:
            yield container
        finally:
            await patiently(container.aclose(grace=grace))

    async def _create_open(
        self,
        container_id: str,
        bundle: StrPath,
        io: StdIO,
        *,
        timeout: Timeout,
        pidfd_socket: StrPath | PidfdSocket | None,
        options: CreateOptions,
    ) -> Container:
        """Create a container, and hold its streams and its first process."""
        fds = preserved(options.get("preserve_fds", ()))

        def create(console_socket: str | None) -> Command:
            creation = Creation(
                pid_file=options.get("pid_file"),
                watched=True,
                console_socket=console_socket,
                pidfd_socket=pidfd_socket,
                no_pivot=options.get("no_pivot", False),
                no_new_keyring=options.get("no_new_keyring", False),
                preserve_fds=len(fds),
                extra_args=options.get("extra_args", ()),
            )
            return _argv.create(container_id, self._bundle(container_id, bundle), creation)

        return await self._make(container_id, create, io, timeout=timeout, stop=LET_FINISH, preserve_fds=fds)

    async def _make(
        self,
        container_id: str,
        command: Callable[[str | None], Command],
        io: StdIO,
        *,
        timeout: Timeout,
        stop: StopPolicy,
        preserve_fds: tuple[int, ...] = (),
    ) -> Container:
        """Make a container, and hold its streams and its first process; delete it if those can't be had.

        Args:
            container_id: Its id.
            command: Gives the command that makes it and ends, for the path of a console socket.
            io: Its streams.
            timeout: Seconds for the command.
            stop: How the command is stopped.
            preserve_fds: Descriptors for its process.
        """
        async with AsyncExitStack() as stack:
            console = await stack.enter_async_context(FDSocket()) if isinstance(io, PtyIO) else None
            invocation = self._invocation(
                command(None if console is None else console.path),
                io if console is None else NullIO(),
                timeout=self._seconds(timeout),
                stop=stop,
                preserve_fds=preserve_fds,
            )
            async with self._turn():
                running = await self._runner.open(invocation)
                try:
                    check_finished(invocation, await running.finish())
                except BaseException:
                    await running.aclose()
                    raise
                try:
                    return self._handle(container_id, running, console, io)
                except Exception as exc:  # noqa: BLE001 - it is raised again when what runc has made is deleted
                    await running.aclose()
                    problem = exc
        await Container(self, container_id).aclose()
        raise problem

    def _handle(self, container_id: str, running: Running, console: FDSocket | None, io: StdIO) -> Container:
        """Make the handle, which owns the streams and the first process from here on.

        Raises:
            OSError: If no descriptor is left.
        """
        init = _first_process(running)
        try:
            pty = None if console is None or not isinstance(io, PtyIO) else _terminal(console, running.pid, io)
        except BaseException:
            if init is not None:
                init.close()
            raise
        running.close_workload()
        return Container(
            self,
            container_id,
            init=init,
            stdin=running.stdin,
            stdout=running.stdout,
            stderr=running.stderr,
            pty=pty,
        )

    @asynccontextmanager
    async def open_exec(
        self,
        container_id: str,
        process: Process | Sequence[str],
        *,
        io: StdIO | None = None,
        grace: float = GRACE,
        **options: Unpack[ProcessOptions],
    ) -> AsyncGenerator[ContainerProcess]:
        """Run one more process in a container, with live streams; on the way out stop it, whatever has happened.

        On the way out it gets SIGTERM and, `grace` seconds later, SIGKILL; runc is reaped and the streams are closed.
        No cancel interrupts that, and it takes a bounded time. Exceptions of the block pass unchanged. runc stays for
        as long as the process runs: it is the one that knows how the process ends, on every kernel.

        Cancelled before the block begins, it leaves no process behind.

        Args:
            container_id: Its id.
            process: A `spec.Process`, which says everything; or a sequence of arguments, for which the container's own
                process is the template.
            io: Its streams; `NullIO()` if left out. With `PipedIO` the handle has `stdin`, `stdout` and `stderr`; with
                `PtyIO` it has `pty`, and arguments get a terminal without being told.
            grace: Seconds between SIGTERM and SIGKILL.
            options: Those of `exec`.

        Raises:
            ContainerNotRunning: If the container is stopped.
            ContainerPaused: If it is paused, without `ignore_paused`.
            ContainerNotFound: If there is no such container.
            ExecutableNotFound: If the program isn't in the container.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right, such as `CapturedIO`, which has no end here.
            TypeError: If `process` is one string.
            RuncNotFound: If there is no runc.
            OSError: If no descriptor is left.
            CommandError: If runc fails in another way.
        """
        check_live(io)
        options.setdefault("tty", isinstance(io, PtyIO) and not isinstance(process, msgspec.Struct))
        fds = preserved(options.get("preserve_fds", ()))
        invocation = self._workload(
            exec_command(
                container_id,
                process,
                options,
                preserve_fds=len(fds),
                pidfd_socket=self._pidfd_socket_for_exec(),
            ),
            io=io or NullIO(),
            data=None,
            preserve_fds=fds,
            timeout=None,
            drain_timeout=options.get("drain_timeout", DRAIN_TIMEOUT),
            grace=grace,
        )
        await self._require_for_exec(options)
        running = await self._runner.open(invocation)
        try:
            ended = await running.started()
            if ended is not None:
                raise_failure(invocation, ended)
            yield ContainerProcess(container_id, running, invocation)
        finally:
            await running.aclose()


def check_live(io: StdIO | None) -> None:
    """Refuse streams whose result would come with a `Response`, of which there is none.

    Raises:
        ValueError: If `io` is a `CapturedIO`.
    """
    if isinstance(io, CapturedIO):
        raise ValueError(  # noqa: TRY004 - it is a kind of IO, but not one for a handle
            "CapturedIO comes with a Response: use PipedIO here, or run() and exec()"
        )


def _first_process(running: Running) -> Init | None:
    """Take hold of the first process; None if the runner can't tell it, or somebody has ended it already."""
    if running.workload is None:
        return None
    try:
        return Init(*running.workload.take())
    except ProcessLookupError:
        return None


def _terminal(console: FDSocket, runc_pid: int, io: PtyIO) -> Pty:
    """Take the terminal that runc has sent before it ended."""
    try:
        came = console.receive_nowait(runc_pid)
    except RuncError as exc:
        raise TerminalError((), None, message=str(exc)) from exc
    if not came:
        raise TerminalError((), None, message="runc has sent no terminal: is process.terminal set?")
    fd = console.detach()
    try:
        pty = Pty(fd)
    except BaseException as exc:
        os.close(fd)
        if isinstance(exc, ValueError):
            raise TerminalError((), None, message="what runc has sent is no terminal") from exc
        raise
    pty.resize(io.rows, io.cols)
    return pty
