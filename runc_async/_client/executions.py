"""`exec` and `open_exec`: additional processes in an existing container."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Unpack, cast

import msgspec
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from .._answers.decode import decode_state
from .._answers.outcome import raise_failure
from .._commands.argv import Command, Overrides
from .._commands.execution import exec_command, has_terminal, overrides_of, sized
from .._commands.options import DEFAULT, ProcessOptions, Timeout
from .._commands.words import FileDescriptor, StrPath, User, preserved
from .._process.running import ProcessRunner
from .._runtimes.known import DIALECTS, read_record
from ..containerprocess import ContainerProcess
from ..errors import CommandError, DecodeError, UnsupportedError
from ..limits import Limits
from ..response import Response
from ..runner import Invocation, OwnCgroup, Process as Running
from ..stdio import NullIO, PtyIO, StdIO
from .calls import DRAIN_TIMEOUT, GRACE, Calls
from .live import check_live, with_unread
from .requirements import Requirements
from .undo import Undo

if TYPE_CHECKING:
    from .._commands.exec_document import ProcessDocument, Template
    from ..spec import Process  # at run time whoever has one has loaded the module, and nobody else needs it


class Executions:
    """Commands that start an additional process in a container."""

    _calls: Calls
    _undo: Undo
    _requirements: Requirements

    async def exec(
        self,
        container_id: str,
        process: Process | Sequence[str],
        *,
        # with a sequence of arguments: changes to the container's own process
        tty: bool = False,
        cwd: StrPath | None = None,
        env: Mapping[str, str] | None = None,
        user: User | None = None,
        additional_gids: Sequence[int] = (),
        caps: Sequence[str] = (),
        no_new_privs: bool = False,
        process_label: str | None = None,
        apparmor: str | None = None,
        # how it is waited for
        detach: bool = False,
        check: bool = False,
        limits: Limits | None = None,
        timeout: float | None = None,
        grace: float = GRACE,
        kill_tree: bool = True,
        drain_timeout: float = DRAIN_TIMEOUT,
        # its streams
        io: StdIO | None = None,
        input: bytes | None = None,  # noqa: A002 - the name that subprocess.run has
        console_socket: StrPath | None = None,
        preserve_fds: Sequence[FileDescriptor] = (),
        # where it runs
        cgroup: str | Sequence[str] = (),
        ignore_paused: bool = False,
        pid_file: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        extra_args: Sequence[str] = (),
        task_status: TaskStatus[int] = TASK_STATUS_IGNORED,
    ) -> Response:
        """Run an additional process in a container, and wait for the exit: runc-exec(8).

        The exit code of the process is `Response.exit_code`; a failure of runc itself is an exception.

        On cancellation or timeout the process gets SIGTERM, and SIGKILL `grace` seconds later, and runc is reaped; the
        container runs on. Descendants of the process get SIGKILL after the process has ended, unless `kill_tree` is
        False. With `detach`, runc finishes first.

        Args:
            container_id: The container's id.
            process: A `spec.Process` that defines everything; or a sequence of arguments, for which the container's own
                process is the template, as currently defined in the bundle's config.json.
            tty: Use a terminal; for the streams of `PtyIO`, or with `detach` and `console_socket`.
            cwd: Working directory in the container.
            env: Variables to add to the environment. The values don't appear in any command line, unless the runtime is
                neither runc nor crun, or the container's config.json can't be read by this process.
            user: A uid, `"uid:gid"`, or `(uid, gid)`; runc takes numbers only.
            additional_gids: Additional groups. Not in crun.
            caps: Capabilities to add, such as `"CAP_NET_RAW"`, or `"NET_RAW"` for short.
            no_new_privs: Set no_new_privs.
            process_label: SELinux label.
            apparmor: AppArmor profile.
            detach: Return as soon as the process runs.
            check: Raise `ExitError` for an exit code other than 0.
            limits: Limits of time, CPU time and output. The process ends at once on reaching a limit: see
                `Response.reason`. None for no limits. Not with `detach`.
            timeout: Seconds for the whole run; None for no limit.
            grace: Seconds between SIGTERM and SIGKILL after a cancellation or a timeout; zero sends SIGKILL at once. A
                container's first process ignores SIGTERM without a handler.
            kill_tree: Whether a cancellation, timeout or limit also ends all descendants of the process, including
                background processes, other sessions and double forks. They are found by a cgroup below the container's,
                or by a mark in the environment where no cgroup is possible. If the process ends by itself, background
                processes run on. No effect after a call with `detach` has returned.
            drain_timeout: Maximal seconds to read captured output after the exit while other processes hold the pipe;
                reading stops after 0.05 seconds without data. No wait with `detach`.
            io: The streams; `CapturedIO()` if left out, with `detach` `NullIO()`.
            input: Input for stdin; none if left out. Not with `detach`.
            console_socket: Path of a listening AF_UNIX socket that gets the terminal's descriptor; with `detach` only.
            preserve_fds: Descriptors that the process gets as 3, 4, ...
            cgroup: Cgroup for the process, below the container's, as `"path"` or `"controller:path"`; or several.
            ignore_paused: Also accept a paused container; the process starts when the container is resumed. runc 1.1
                and later.
            pid_file: File to which runc writes the pid of the process.
            pidfd_socket: Path of a listening AF_UNIX socket that gets a pidfd of the process. runc 1.2 and later.
            extra_args: More options, passed on unchanged.
            task_status: For `TaskGroup.start` of anyio; `started()` is called with the pid of runc after the spawn.

        Raises:
            ExitError: If `check` is set and the exit code isn't 0.
            ContainerNotRunning: If the container is stopped.
            ContainerPaused: If the container is paused, without `ignore_paused`.
            ContainerNotFound: If there is no such container.
            ExecutableNotFound: If the program isn't in the container.
            ArgumentsTooLong: If an argument is longer than 128 KiB, the limit of execve(2); use `input` instead.
            UnsupportedError: If the runtime has no such option, or if CPU time is limited and the process can't have a
                separate cgroup.
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid, or a change is combined with a `spec.Process`.
            TypeError: If `process` is one string.
            RuncTimeout: If the call takes longer than `timeout`; the error has the output so far.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        options = ProcessOptions(
            tty=tty,
            cwd=cwd,
            env=env,
            user=user,
            additional_gids=additional_gids,
            caps=caps,
            no_new_privs=no_new_privs,
            process_label=process_label,
            apparmor=apparmor,
            cgroup=cgroup,
            ignore_paused=ignore_paused,
            pid_file=pid_file,
            pidfd_socket=pidfd_socket,
            extra_args=extra_args,
        )
        # Resolved first: a file object may be closed while the version is requested.
        fds = preserved(preserve_fds)
        build = functools.partial(
            exec_command,
            container_id,
            preserve_fds=len(fds),
            detach=detach,
            console_socket=console_socket,
            pidfd_socket=None if detach else self._requirements.pidfd_socket_for_exec(),
        )
        command = build(process, options)
        invocation = self._calls.waiting(
            command,
            io=io,
            data=input,
            preserve_fds=fds,
            timeout=timeout,
            drain_timeout=drain_timeout,
            grace=grace,
            detach=detach,
            terminal=console_socket is None and has_terminal(process, options),
            tree=kill_tree and not detach,
            limits=limits,
        )
        await self._requirements.require(_as_required(command, io, console_socket), timeout or DEFAULT)
        invocation = self._calls.reworded(invocation, command)
        invocation = await self._as_document(invocation, build, process, options)
        invocation = await self._with_own_cgroup(invocation, options, timeout or DEFAULT)
        run = functools.partial(self._calls.run_program, check=check)
        try:
            return await run(invocation, started=task_status.started)
        except CommandError as error:
            if not refuses_own_cgroup(invocation, error):
                raise
        # The container's cgroup was removed meanwhile, and the process's with it. `started` was called for the first
        # try.
        return await run(without_own_cgroup(invocation), started=None)

    async def _with_own_cgroup(
        self, invocation: Invocation, options: ProcessOptions, timeout: Timeout = DEFAULT
    ) -> Invocation:
        """Give the process a separate cgroup, if all descendants have to be found or CPU time is limited.

        Raises:
            UnsupportedError: If CPU time is limited, and the process can't have a separate cgroup.
        """
        limits_cpu = invocation.limits is not None and invocation.limits.cpu is not None
        taken = options.get("cgroup") or any(
            word.lstrip("-").startswith("cgroup") for word in options.get("extra_args", ())
        )
        # A process is in one cgroup only, so a cgroup chosen by the caller rules out another.
        own = None
        inside = invocation.sandbox is not None  # the host's cgroups know nothing of its processes
        if (invocation.stop.tree or limits_cpu) and invocation.container_id is not None and not taken and not inside:
            controllers = ("pids", "cpuacct") if limits_cpu else ("pids",)
            own = await self._requirements.own_cgroup(invocation.container_id, controllers, timeout)
        if own is None and limits_cpu and isinstance(self._calls.runner, ProcessRunner):
            raise UnsupportedError("cgroup for the process of an exec, which a limit of CPU time needs")
        return invocation if own is None else self._calls.with_option(invocation, own)

    async def _as_document(
        self,
        invocation: Invocation,
        build: Callable[[Process | ProcessDocument | Sequence[str], ProcessOptions], Command],
        process: Process | Sequence[str],
        options: ProcessOptions,
    ) -> Invocation:
        """Convert arguments to a process document where options don't suffice: for `env` values, and a terminal's size.

        Raises:
            CommandError: If there is no such container.
        """
        io = invocation.streams
        size = (io.rows, io.cols) if isinstance(io, PtyIO) else None
        if isinstance(process, msgspec.Struct):
            return (
                invocation if size is None else self._calls.reworded(invocation, build(sized(process, size), options))
            )
        # An option would show the values in the runtime's command line, and there is no option for the size that a
        # program sees on start. Options remain where this process can't read the container's own process definition, as
        # under a runner that starts the runtime in another mount namespace, and for runtimes other than runc and crun.
        overrides = overrides_of(options)
        if self._lacks_group(invocation.container_id, overrides.user):
            options = {**options, "user": (int(str(overrides.user)), 0)}
            overrides, invocation = overrides_of(options), self._calls.reworded(invocation, build(process, options))
        if invocation.container_id is None or not (
            overrides.env or (size and overrides.tty) or self._calls.dialect.document_always
        ):
            return invocation
        from .._commands.exec_document import exec_document  # noqa: PLC0415  (few calls need it)

        try:
            template = await self._template(invocation.container_id)
        except (CommandError, DecodeError):
            if overrides.env:  # no value is shown before it is known that it has to be
                raise
            return invocation
        own = None if template is None else template.process()
        if template is None or own is None:
            return invocation
        version = (await self._requirements.known_version(DEFAULT)).number if overrides.caps else ()
        document = exec_document(template.dialect, own, process, overrides, version, size if overrides.tty else None)
        others = {name: value for name, value in options.items() if name not in Overrides.__struct_fields__}
        return self._calls.reworded(invocation, build(document, cast("ProcessOptions", others)))

    def _lacks_group(self, container_id: str | None, user: object) -> bool:
        """Return whether the user of an `exec` has no group, and the container's runtime would run it as root."""
        if container_id is None or user is None or not str(user).isdecimal():
            return False
        record = None
        with contextlib.suppress(OSError):
            record = read_record(self._calls.state_directory(), container_id)
        dialect = None if record is None else DIALECTS.get(record.runtime)
        return (dialect or self._calls.dialect).user_needs_group

    async def _template(self, container_id: str) -> Template | None:
        """Return the definition of the container's own process; None if its place is unknown.

        Raises:
            CommandError: If there is no such container.
        """
        from .._commands.exec_document import find_template, template_in  # noqa: PLC0415  (as above)

        found = find_template(self._calls.state_directory(), container_id)
        if found is not None or not isinstance(self._calls.runner, ProcessRunner):
            return found
        # Either the state directory is elsewhere, or there is no such container. Ask before a value is shown.
        bundle = decode_state((await self._calls.run_now(self._undo.state_invocation(container_id))).stdout).bundle
        return template_in(bundle, (await self._requirements.known_version(DEFAULT)).runtime)

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
        """Run an additional process in a container with live streams, and stop the process on exit of the block.

        On exit of the block the process gets SIGTERM and, `grace` seconds later, SIGKILL. Descendants get SIGKILL,
        unless the process has ended by itself before or `kill_tree` is False. runc is reaped and the streams are
        closed. Output that no task reads meanwhile is discarded, so that a full pipe doesn't block the process. The
        cleanup can't be cancelled and is bounded in time. Exceptions of the block pass unchanged.

        runc (with a terminal: a small program) stays as long as the process runs, so that the exit status is known on
        every kernel. Cancelled before the block begins, the call leaves no process behind.

        Args:
            container_id: The container's id.
            process: A `spec.Process` that defines everything; or a sequence of arguments, for which the container's own
                process is the template, as currently defined in the bundle's config.json.
            io: The streams; `NullIO()` if left out. With `PipedIO` the handle has `stdin`, `stdout` and `stderr`; with
                `PtyIO` the handle has `pty`, and arguments get a terminal without `tty`.
            grace: Seconds between SIGTERM and SIGKILL.
            options: The options of `exec`.

        Raises:
            ContainerNotRunning: If the container is stopped.
            ContainerPaused: If the container is paused, without `ignore_paused`.
            ContainerNotFound: If there is no such container.
            ExecutableNotFound: If the program isn't in the container.
            ArgumentsTooLong: If an argument is longer than 128 KiB, the limit of execve(2); use `stdin` instead.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid, such as `CapturedIO`, which needs a call with an end.
            TypeError: If `process` is one string.
            RuncNotFound: If there is no runc.
            OSError: If no descriptor is left.
            CommandError: If runc fails in another way.
        """
        check_live(io)
        options.setdefault("tty", isinstance(io, PtyIO) and not isinstance(process, msgspec.Struct))
        fds = preserved(options.get("preserve_fds", ()))
        build = functools.partial(
            exec_command, container_id, preserve_fds=len(fds), pidfd_socket=self._requirements.pidfd_socket_for_exec()
        )
        command = build(process, options)
        invocation = self._calls.waiting(
            command,
            io=io or NullIO(),
            data=None,
            preserve_fds=fds,
            timeout=None,
            drain_timeout=options.get("drain_timeout", DRAIN_TIMEOUT),
            grace=grace,
            terminal=has_terminal(process, options),
            tree=options.get("kill_tree", True),
        )
        await self._requirements.require(_as_required(command, io))
        invocation = self._calls.reworded(invocation, command)
        invocation = await self._as_document(invocation, build, process, options)
        invocation = await self._with_own_cgroup(invocation, options)
        try:
            running = await self._started(invocation)
        except CommandError as error:
            if not refuses_own_cgroup(invocation, error):
                raise
            running = await self._started(without_own_cgroup(invocation))
        try:
            yield ContainerProcess(container_id, running, invocation)
        finally:
            await running.aclose()

    async def _started(self, invocation: Invocation) -> Running:
        """Start a process, and wait until the process runs.

        Raises:
            CommandError: If runc fails.
        """
        running = await self._calls.runner.open(invocation)
        try:
            ended = await running.started()
            if ended is not None:
                raise_failure(invocation, with_unread(ended, running) if ended.process == "none" else ended)
                await self._calls.check_ran(invocation, ended)
        except BaseException:
            await running.aclose()
            raise
        return running


def _as_required(command: Command, io: StdIO | None, console_socket: StrPath | None = None) -> Command:
    """Return an `exec` for the check of requirements: a terminal that is handed over needs no `--tty`."""
    if not isinstance(io, PtyIO) and console_socket is None:
        return command
    return msgspec.structs.replace(command, words=tuple(word for word in command.words if word != "--tty"))


def refuses_own_cgroup(invocation: Invocation, error: CommandError) -> bool:
    """Return whether runc has failed because of the separate cgroup, before starting the process."""
    # The cgroup vanishes with the container's when the container ends; or the container's cgroup has become a threaded
    # one. A second try without the cgroup gets the true error from runc.
    return any(isinstance(word, OwnCgroup) and word.name in error.message for word in invocation.argv)


def without_own_cgroup(invocation: Invocation) -> Invocation:
    """Return an invocation whose process goes to the container's cgroup."""
    words = tuple(word for word in invocation.argv if not isinstance(word, OwnCgroup))
    return msgspec.structs.replace(invocation, argv=words)
