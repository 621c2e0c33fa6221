"""`Runc`: the client, with one coroutine for each command of runc."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar, Literal, Unpack

from msgspec import structs

from ._answers.criu_log import with_criu_log
from ._answers.outcome import check_finished
from ._client.calls import DEFAULT_CONCURRENCY, GRACE, LET_FINISH, OWN_OUTPUT, Calls
from ._client.checkpoints import LET_RESTORE_FINISH, naming_criu_mounts
from ._client.claim import ContainerClaim
from ._client.commands import Commands
from ._client.host import Host
from ._client.live import check_live, with_unread
from ._client.requirements import Requirements
from ._client.undo import Undo
from ._commands import argv, words
from ._commands.argv import Command, Creation
from ._commands.criu import Restoration
from ._commands.options import DEFAULT, CreateOptions, RestoreOptions, Timeout
from ._commands.words import StrPath, preserved
from ._containers.first_process import Init
from ._containers.ownership import note_start
from ._linux.fdsocket import FDSocket
from ._process.terminal import receive_terminal
from ._runtimes.dialect import Dialect
from ._shield import shielded
from .console import Pty
from .container import Container
from .runner import PidfdSocket, Process as Running, Runner, StopPolicy
from .stdio import NullIO, PtyIO, StdIO


class Runc(Commands, Host):
    r"""A client for one runtime and one root directory.

    A client has no open resources, can be shared by any number of tasks and event loops, and is cheap to create::

        runc = Runc(timeout=30)
        async with Bundle.busybox(["echo", "hello"]) as bundle:
            response = await runc.run("greeter", bundle)
        print(response.stdout, response.exit_code)  # b'hello\n' 0

    Every command raises `SpawnError`, and starts nothing, if this process can't have children: SIGCHLD is ignored,
    pidfd_open(2) is denied, or RLIMIT_FSIZE is below the size of a file in memory; and `ArgumentsTooLong` if execve(2)
    fails with E2BIG.

    Log messages of the runtime go to `logging.getLogger("runc_async")` at their own level after the call: warnings, and
    with `debug` debug messages; errors are in the exception. The start and the end of each command are logged there at
    level DEBUG.

    Args:
        command: The program: a name to look up in $PATH, or a path. A missing program raises `RuncNotFound` from the
            first call, and a program that isn't executable `PermissionError` or another `OSError`.
        root: The runtime's directory for containers; the runtime's default if None.
        debug: Log debug messages too: to `log`, or without a `log` to the logger `runc_async`.
        log: File for the runtime's log. Without a file the log is private, and separates failures of the runtime from
            exit codes of containers' processes; with a file stderr has to decide, which is less certain.
        log_format: Format of the `log`: "text" or "json". A private log is always JSON.
        systemd_cgroup: Let systemd create the cgroups.
        rootless: Ignore cgroup permission errors: True, False or "auto"; the runtime's default if None.
        extra_args: More global options, passed on unchanged.
        env: Variables to add to the caller's environment, for the runtime. NOTIFY_SOCKET, LISTEN_FDS, LISTEN_PID and
            LISTEN_FDNAMES are removed, unless set here.
        cwd: The runtime's working directory; relative paths in arguments are relative to the caller's.
        timeout: Seconds for each request/response command, which are all except `run`, `exec` and `restore`; None for
            no limit.
        pdeathsig: Signal for the runtime after the death of the thread that started it, sent by util-linux' `setpriv`.
        process_group: Process group for the runtime; 0 for a new group.
        restore_signals: Start processes of containers with no signal blocked or ignored. With False, they inherit
            blocked and ignored signals of this process, as far as the runtime does; uvloop restores most in any case.
            If there is a signal to restore, a call takes 15 ms longer.
        max_concurrency: Maximal number of concurrent request/response commands in one event loop: eight for each CPU if
            left out; None for no limit.
        runner: Starts the runtime; `ProcessRunner()` if None.

    Raises:
        ValueError: If an option is invalid.
        TypeError: If an option has a wrong type.
    """

    _dialect: ClassVar[Dialect | None] = None
    """The dialect of the runtime; None to detect the runtime."""

    def __init__(
        self,
        command: StrPath = "runc",
        *,
        # runc's global options
        root: StrPath | None = None,
        debug: bool = False,
        log: StrPath | None = None,
        log_format: Literal["text", "json"] | None = None,
        systemd_cgroup: bool = False,
        rootless: bool | Literal["auto"] | None = None,
        extra_args: Sequence[str] = (),
        # how its processes are run
        env: Mapping[str, str] | None = None,
        cwd: StrPath | None = None,
        timeout: float | None = None,
        pdeathsig: int | str | None = None,
        process_group: int | None = None,
        restore_signals: bool = True,
        max_concurrency: int | None = DEFAULT_CONCURRENCY,
        runner: Runner | None = None,
    ) -> None:
        self._calls = Calls(
            command,
            root=root,
            debug=debug,
            log=log,
            log_format=log_format,
            systemd_cgroup=systemd_cgroup,
            rootless=rootless,
            extra_args=extra_args,
            env=env,
            cwd=cwd,
            timeout=timeout,
            pdeathsig=pdeathsig,
            process_group=process_group,
            restore_signals=restore_signals,
            max_concurrency=max_concurrency,
            runner=runner,
            dialect=self._dialect,
        )
        self._undo = Undo(self._calls)
        self._requirements = Requirements(self._calls)

    def __repr__(self) -> str:
        """Show the program and the root directory."""
        return f"{type(self).__name__}({self._calls})"

    def container(self, container_id: str) -> Container:
        """Return a handle for an existing container: the commands without the id. Starts no runc process.

        Args:
            container_id: The container's id.

        Raises:
            InvalidContainerID: If the id is invalid.
        """
        return Container(self, words.check_container_id(container_id))

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
        """Create a container and start it; on exit of the block stop and delete it.

        On exit the first process gets SIGTERM and, `grace` seconds later, SIGKILL; SIGKILL at once without a handler
        for SIGTERM, because the kernel would drop SIGTERM: pid_namespaces(7). Output that no task reads meanwhile is
        discarded, so that a full pipe doesn't block the process. The container is deleted and the streams are closed::

            async with (
                Bundle.busybox(["cat"]) as bundle,
                Runc().open_container("echo", bundle, io=PipedIO()) as container,
            ):
                await container.stdin.send(b"hello")
                await container.stdin.aclose()
                print(await container.stdout.receive())  # b'hello'
                print(await container.wait())  # exited with 0

        The cleanup can't be cancelled and is bounded in time; leftovers are reported as `CleanupWarning`. Exceptions of
        the block pass unchanged. The block doesn't end together with the process: use `Container.wait`, which also
        works after the block. No runc process stays for the container, which saves about 10 MB each.

        Cancelled before the block begins, the call leaves nothing behind.

        Args:
            container_id: The container's id: letters, digits and `_+.-`.
            bundle: A `Bundle`, or the path of its directory.
            io: The streams; `NullIO()` if left out. With `PipedIO` the handle has `stdin`, `stdout` and `stderr`; with
                `PtyIO`, for a process with `terminal`, the handle has `pty`.
            grace: Maximal seconds between SIGTERM and SIGKILL; zero sends SIGKILL at once.
            timeout: Seconds for `create` and for `start`, or None for no limit; the client's default if left out.
            options: The options of `create`.

        Raises:
            ContainerExists: If the id is in use.
            BundleNotFound: If the bundle, the config.json or the root file system is missing.
            BundleChanged: If the spec of a `Bundle` has to be saved, and its config.json was changed by other means.
            InvalidSpec: If config.json isn't valid, or requests something that the host or the runtime lacks.
            ExecutableNotFound: If the program isn't in the container.
            TerminalError: If `PtyIO` is given for a process without `terminal`, or the reverse, or if runc sends
                something else than a terminal.
            UnsupportedError: If the runtime has no such option, or, with `strict`, doesn't know all of config.json.
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid, such as `CapturedIO`, which needs a call with an end.
            RuncTimeout: If `create` or `start` takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: If no descriptor is left.
            CommandError: If runc fails in another way.
        """
        container = await self._open(container_id, bundle, io, grace=grace, timeout=timeout, options=options)
        try:
            yield container
        finally:
            await shielded(container.aclose(grace=grace))

    async def _open(
        self,
        container_id: str,
        bundle: StrPath,
        io: StdIO | None,
        *,
        grace: float,
        timeout: Timeout,
        options: CreateOptions,
        recorded: bool = True,
    ) -> Container:
        """Create a container and start it; on failure or cancellation nothing is left behind: see `open_container`."""
        container = await self._create_live(
            container_id, bundle, io, timeout=timeout, options=options, recorded=recorded
        )
        try:
            await container.start(timeout=timeout)
        except BaseException:
            await shielded(container.aclose(grace=grace))
            raise
        return container

    async def _create_live(
        self,
        container_id: str,
        bundle: StrPath,
        io: StdIO | None,
        *,
        timeout: Timeout,
        options: CreateOptions,
        recorded: bool = True,
    ) -> Container:
        """Create a container with open streams, without starting it; on failure or cancellation nothing is left behind.

        The first half of `open_container`, also for a `Pool`. The caller has to close the handle; until then the
        container is recorded for `sweep`, unless `recorded` is False.
        """
        check_live(io)
        rest = options.copy()
        strict = rest.pop("strict", False)
        source = self._calls.bundle(container_id, bundle, strict=strict)
        fds = preserved(rest.get("preserve_fds", ()))
        await self._requirements.require(argv.create(container_id, source.path, _creation(rest, len(fds))), timeout)
        if strict:
            await self._requirements.require_all_of(source, timeout)
        pidfd_socket = await self._requirements.pidfd_socket_for_create(rest.pop("pidfd_socket", None), timeout)
        with ContainerClaim(self._calls.state_directory(), container_id) as claim:
            async with source.held(), self._undo.creating(container_id):
                if recorded:
                    claim.begin(source.path)
                container = await self._create_open(
                    container_id, source.path, io or NullIO(), timeout=timeout, pidfd_socket=pidfd_socket, options=rest
                )
            container._hold(claim)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
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
        """Restore a container from a `checkpoint`; on exit of the block stop and delete it.

        Like `open_container`, with the same handle and the same cleanup, for a process that continues where the
        checkpoint stopped, with another pid. Cancelled before the block begins, the call leaves nothing behind.

        Args:
            container_id: The container's id, the former one or another.
            bundle: A `Bundle`, or the path of its directory, with the container's former files.
            image_path: Directory of the images.
            io: The streams that replace pipes or a terminal; `NullIO()` if left out. With `PipedIO` the handle has
                `stdin`, `stdout` and `stderr`; with `PtyIO`, for a process with `terminal`, the handle has `pty`.
            grace: Seconds between SIGTERM and SIGKILL; zero sends SIGKILL at once.
            timeout: Seconds for `restore`, or None for no limit; the client's default if left out.
            options: The options of `restore`.

        Raises:
            CheckpointError: If criu fails or is missing, or there are no images; the error has the end of criu's log.
            ContainerExists: If the id is in use.
            BundleNotFound: If the bundle, the config.json or the root file system is missing.
            BundleChanged: If the spec of a `Bundle` has to be saved, and its config.json was changed by other means.
            InvalidSpec: If config.json isn't valid, or requests something that the host or the runtime lacks.
            TerminalError: If `PtyIO` is given for a process without `terminal`, or the reverse, or if runc sends
                something else than a terminal.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid, such as `CapturedIO`, which needs a call with an end.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: If no descriptor is left.
            CommandError: If runc fails in another way.
        """
        check_live(io)
        given: dict[str, Any] = dict(options)
        creation = {name: given.pop(name) for name in ("pid_file", "no_pivot", "extra_args") if name in given}
        restoration = Restoration(image_path=image_path, **given)
        source = self._calls.bundle(container_id, bundle)
        words = ("--detach", *restoration.words())

        def restore(console_socket: str | None) -> Command:
            ours = Creation(own_pid_file=True, console_socket=console_socket, **creation)
            return argv.restore(container_id, source.path, ours, words)

        await self._requirements.require(restore(None), timeout)
        claim = ContainerClaim(self._calls.state_directory(), container_id)
        with claim, naming_criu_mounts(restoration.log_directory), with_criu_log(restoration.log_directory):
            async with source.held(), self._undo.creating(container_id):
                claim.begin(source.path)
                container = await self._hold_new_container(
                    container_id, restore, io or NullIO(), timeout=timeout, stop=LET_RESTORE_FINISH
                )
            container._hold(claim)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        try:
            yield container
        finally:
            await shielded(container.aclose(grace=grace))

    async def _create_open(
        self,
        container_id: str,
        bundle: str,
        io: StdIO,
        *,
        timeout: Timeout,
        pidfd_socket: StrPath | PidfdSocket | None,
        options: CreateOptions,
    ) -> Container:
        """Create a container, and hold its streams and its first process."""
        # The descriptors are counted here, and passed with the invocation.
        fds = preserved(options.get("preserve_fds", ()))

        def create(console_socket: str | None) -> Command:
            creation = _creation(options, len(fds))
            ours = structs.replace(creation, console_socket=console_socket, pidfd_socket=pidfd_socket)
            return argv.create(container_id, bundle, ours)

        return await self._hold_new_container(
            container_id, create, io, timeout=timeout, stop=LET_FINISH, preserve_fds=fds
        )

    async def _hold_new_container(
        self,
        container_id: str,
        command: Callable[[str | None], Command],
        io: StdIO,
        *,
        timeout: Timeout,
        stop: StopPolicy,
        preserve_fds: tuple[int, ...] = (),
    ) -> Container:
        """Create a container, and hold its streams and its first process; delete the container if that fails.

        Args:
            container_id: The container's id.
            command: Returns the command that creates the container and ends, for the path of a console socket.
            io: The streams.
            timeout: Seconds for the command.
            stop: The procedure for stopping the command.
            preserve_fds: Descriptors for the process.
        """
        async with AsyncExitStack() as stack:
            console = await stack.enter_async_context(FDSocket()) if isinstance(io, PtyIO) else None
            invocation = self._calls.invocation(
                command(None if console is None else console.path),
                io if console is None else OWN_OUTPUT,  # the container has the terminal instead of what runc has
                timeout=self._calls.seconds(timeout),
                stop=stop,
                preserve_fds=preserve_fds,
            )
            async with self._calls.turn():
                note_start()
                running = await self._calls.runner.open(invocation)
                try:
                    # runc exits when the container is created; only then can the terminal and the pid be complete.
                    check_finished(invocation, with_unread(await running.finish(), running))
                except BaseException:
                    await running.aclose()
                    raise
                try:
                    return self._new_handle(container_id, running, console, io)
                except Exception as exc:  # noqa: BLE001 - it is raised again when what runc has made is deleted
                    process = None if running.workload is None else running.workload.process
                    await running.aclose()
                    problem = exc
        await Container(self, container_id, process=process).aclose()
        raise problem

    def _new_handle(self, container_id: str, running: Running, console: FDSocket | None, io: StdIO) -> Container:
        """Return the handle, which owns the streams and the first process from now on. OSError without a descriptor."""
        init = _hold_first_process(running)
        try:
            pty = None
            if console is not None and isinstance(io, PtyIO):
                terminal = receive_terminal(console, running.pid, io)
                try:
                    pty = Pty(terminal)
                except BaseException:
                    os.close(terminal)
                    raise
        except BaseException:
            if init is not None:
                init.close()
            raise
        running.close_workload()
        return Container(
            self,
            container_id,
            init=init,
            process=None if running.workload is None else running.workload.process,
            stdin=running.stdin,
            stdout=running.stdout,
            stderr=running.stderr,
            pty=pty,
        )


def _creation(options: CreateOptions, preserve_fds: int = 0) -> Creation:
    """Return the options of a `create` whose process is to be held."""
    given: dict[str, Any] = {name: value for name, value in options.items() if name not in {"strict", "preserve_fds"}}
    return Creation(own_pid_file=True, preserve_fds=preserve_fds, **given)


def _hold_first_process(running: Running) -> Init | None:
    """Hold the first process; None if the runner reports no process, or the process has ended already."""
    if running.workload is None:
        return None
    try:
        return Init(*running.workload.take())
    except ProcessLookupError:
        return None
