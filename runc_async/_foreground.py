"""`run` and `exec`: the commands that may wait for a process of a container's, and report how it ended."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import msgspec
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from . import _argv
from ._argv import Command, Creation, Execution, Overrides, StrPath, User
from ._call import Invocation, PidfdSocket, StopPolicy
from ._caller import DEFAULT, GRACE, LET_FINISH, Timeout, check_timeout
from ._decode import decode_state
from ._descriptors import FileDescriptor, preserved
from ._options import ProcessOptions
from ._runner import ProcessRunner
from ._subreaper import adopting
from ._support import Support
from .response import Response
from .stdio import CapturedIO, InheritedIO, NullIO, RedirectIO, StdIO

if TYPE_CHECKING:
    from ._exec_document import ProcessDocument, Template
    from .spec import Process  # at run time whoever has one has loaded the module, and nobody else needs it

EXECUTION_OPTIONS = ("cgroup", "ignore_paused", "pid_file", "pidfd_socket", "extra_args")
"""Those of `ProcessOptions` that hold with a whole process document too."""

DRAIN_TIMEOUT = 1.0
"""Seconds for which captured output is read on, after the exit, while other processes hold the pipe."""


class Foreground(Support):
    """The commands that may wait for a process of a container's."""

    async def run(
        self,
        container_id: str,
        bundle: StrPath,
        *,
        # how it is waited for
        detach: bool = False,
        keep: bool = False,
        no_subreaper: bool = False,
        check: bool = False,
        timeout: float | None = None,
        grace: float = GRACE,
        drain_timeout: float = DRAIN_TIMEOUT,
        # its streams
        io: StdIO | None = None,
        input: bytes | None = None,  # noqa: A002 - the name that subprocess.run has
        console_socket: StrPath | None = None,
        preserve_fds: Sequence[FileDescriptor] = (),
        # its process
        pid_file: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        extra_args: Sequence[str] = (),
        task_status: TaskStatus[int] = TASK_STATUS_IGNORED,
    ) -> Response:
        """Create a container, start it, wait for its process, and delete it: runc-run(8).

        What the process ends with is `Response.exit_code`; a runc that fails is an exception.

        Cancelled, or out of time, the process gets SIGTERM, and SIGKILL `grace` seconds later; runc is reaped, and the
        container deleted unless `keep` is set; so it is if runc breaks down. With `detach` runc is let finish, and what
        it has made is deleted.

        Args:
            container_id: Its id: letters, digits and `_+.-`.
            bundle: A `Bundle`, or the path of its directory.
            detach: Return as soon as the process runs; the container stays until it is deleted.
            keep: Don't delete the container when its process has ended. runc 1.1 and later.
            no_subreaper: Don't reap what the container's processes leave behind.
            check: Raise `ExitError` for an exit code other than 0.
            timeout: Seconds for the whole run, or None for no limit.
            grace: Seconds between SIGTERM and SIGKILL for a process that is cancelled or out of time; zero: SIGKILL at
                once. A container's first process ignores SIGTERM unless it has a handler for it.
            drain_timeout: Seconds for which captured output is read on, after the exit, while others hold the pipe;
                none with `detach`.
            io: Its streams; `CapturedIO()` if left out, with `detach` `NullIO()`. With `detach` the container gets the
                streams themselves, as in `create`.
            input: What it reads on stdin; nothing if left out. Not with `detach`.
            console_socket: Path of a listening AF_UNIX socket that gets the terminal's descriptor; with `detach` only.
            preserve_fds: Descriptors that the process gets as 3, 4, ...
            pid_file: Where runc writes the pid of the process.
            pidfd_socket: Path of a listening AF_UNIX socket that gets a pidfd of the process. runc 1.2 and later.
            no_pivot: Don't use pivot_root(2): for root file systems in a ramdisk.
            no_new_keyring: Keep the caller's session keyring.
            extra_args: More options, passed on as they are.
            task_status: anyio's; `started()` is called with the pid of runc as soon as it runs.

        Raises:
            ExitError: If `check` is set and the exit code isn't 0.
            ContainerExists: If there is a container of that id.
            BundleNotFound: If the bundle, its config.json or its root file system isn't there.
            InvalidSpec: If config.json isn't valid, or asks for what can't be had.
            ExecutableNotFound: If the program isn't in the container.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right.
            RuncTimeout: If it takes longer than `timeout`; it has the output so far.
            RuncNotFound: If there is no runc.
            RuncCrashed: If runc breaks down, or is killed.
            CommandError: If runc fails in another way.
        """
        fds = preserved(preserve_fds)
        creation = Creation(
            pid_file=pid_file,
            console_socket=console_socket,
            pidfd_socket=pidfd_socket,
            no_pivot=no_pivot,
            no_new_keyring=no_new_keyring,
            preserve_fds=len(fds),
            extra_args=extra_args,
            watched=not detach and pid_file is None,  # the caller's may be in another mount namespace
        )
        command = _argv.run(
            container_id,
            self._bundle(container_id, bundle),
            creation,
            detach=detach,
            keep=keep,
            no_subreaper=no_subreaper,
        )
        invocation = self._workload(
            command,
            io=io,
            data=input,
            preserve_fds=fds,
            timeout=timeout,
            drain_timeout=drain_timeout,
            grace=grace,
            detach=detach,
        )
        await self._require({"run --keep": keep, "run --pidfd-socket": pidfd_socket is not None}, timeout or DEFAULT)
        async with self._creating(container_id, keep=keep and not detach):
            return await self._work(invocation, check=check, started=task_status.started)

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
        timeout: float | None = None,
        grace: float = GRACE,
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
        """Run one more process in a container, and wait for it: runc-exec(8).

        What the process ends with is `Response.exit_code`; a runc that fails is an exception.

        Cancelled, or out of time, the process gets SIGTERM, and SIGKILL `grace` seconds later, and runc is reaped; the
        container goes on. With `detach` runc is let finish.

        Args:
            container_id: Its id.
            process: A `spec.Process`, which says everything; or a sequence of arguments, for which the container's own
                process is the template.
            tty: With a terminal; for the streams of `PtyIO`, or with `detach` and `console_socket`.
            cwd: Its working directory in the container.
            env: Variables to add to its environment. Their values stand in no command line, unless the runtime is
                neither runc nor crun, or the container's config.json can't be read from here.
            user: A uid, `"uid:gid"`, or `(uid, gid)`; runc takes numbers only.
            additional_gids: More groups. Not in crun.
            caps: Capabilities to add, such as `"CAP_NET_RAW"`.
            no_new_privs: Set no_new_privs.
            process_label: SELinux label.
            apparmor: AppArmor profile.
            detach: Return as soon as the process runs.
            check: Raise `ExitError` for an exit code other than 0.
            timeout: Seconds for the whole run, or None for no limit.
            grace: Seconds between SIGTERM and SIGKILL for a process that is cancelled or out of time; zero: SIGKILL at
                once. A container's first process ignores SIGTERM unless it has a handler for it.
            drain_timeout: Seconds for which captured output is read on, after the exit, while others hold the pipe;
                none with `detach`.
            io: Its streams; `CapturedIO()` if left out, with `detach` `NullIO()`.
            input: What it reads on stdin; nothing if left out. Not with `detach`.
            console_socket: Path of a listening AF_UNIX socket that gets the terminal's descriptor; with `detach` only.
            preserve_fds: Descriptors that the process gets as 3, 4, ...
            cgroup: Cgroup below the container's to put it into, as `"path"` or `"controller:path"`; or several.
            ignore_paused: Let a paused container wait with it until it is resumed. runc 1.1 and later.
            pid_file: Where runc writes the pid of the process.
            pidfd_socket: Path of a listening AF_UNIX socket that gets a pidfd of the process. runc 1.2 and later.
            extra_args: More options, passed on as they are.
            task_status: anyio's; `started()` is called with the pid of runc as soon as it runs.

        Raises:
            ExitError: If `check` is set and the exit code isn't 0.
            ContainerNotRunning: If the container is stopped.
            ContainerPaused: If it is paused, without `ignore_paused`.
            ContainerNotFound: If there is no such container.
            ExecutableNotFound: If the program isn't in the container.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right, or one of the changes comes with a `spec.Process`.
            TypeError: If `process` is one string.
            RuncTimeout: If it takes longer than `timeout`; it has the output so far.
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
        fds = preserved(preserve_fds)
        build = functools.partial(
            exec_command,
            container_id,
            preserve_fds=len(fds),
            detach=detach,
            console_socket=console_socket,
            pidfd_socket=None if detach else self._pidfd_socket_for_exec(),
        )
        invocation = self._workload(
            build(process, options),
            io=io,
            data=input,
            preserve_fds=fds,
            timeout=timeout,
            drain_timeout=drain_timeout,
            grace=grace,
            detach=detach,
        )
        await self._require_for_exec(options, timeout or DEFAULT)
        invocation = await self._hide_values(invocation, build, process, options)
        return await self._work(invocation, check=check, started=task_status.started)

    async def _require_for_exec(self, options: ProcessOptions, timeout: Timeout = DEFAULT) -> None:
        """Raise if the runtime lacks one of the options that are given."""
        await self._require(
            {
                "exec --cgroup": options.get("cgroup"),
                "exec --ignore-paused": options.get("ignore_paused"),
                "exec --additional-gids": options.get("additional_gids"),
                "exec --pidfd-socket": options.get("pidfd_socket") is not None,
            },
            timeout,
        )

    async def _hide_values(
        self,
        invocation: Invocation,
        build: Callable[[ProcessDocument, ProcessOptions], Command],
        process: Process | Sequence[str],
        options: ProcessOptions,
    ) -> Invocation:
        """Put the values of `env` into a process document, so that they don't stand in the runtime's command line.

        They stay there where the container's own process can't be read from here, as under a runner that takes the
        runtime to another mount namespace, and for runtimes other than runc and crun.

        Raises:
            CommandError: If there is no such container.
        """
        if not options.get("env") or isinstance(process, msgspec.Struct) or invocation.container_id is None:
            return invocation
        from ._exec_document import exec_document  # noqa: PLC0415  (few calls need it)

        template = await self._template(invocation.container_id)
        own = None if template is None else template.process()
        if template is None or own is None:
            return invocation
        overrides = _overrides(options)
        version = (await self._known_version(DEFAULT)).number if overrides.caps else ()
        document = exec_document(template.kind, own, process, overrides, version)
        others = {name: value for name, value in options.items() if name not in Overrides.__struct_fields__}
        command = build(document, cast("ProcessOptions", others))
        return msgspec.structs.replace(invocation, argv=(*self._prefix, *command.words))

    async def _template(self, container_id: str) -> Template | None:
        """Find the container's own process; None if it isn't known where.

        Raises:
            CommandError: If there is no such container.
        """
        from ._exec_document import find_template, template_in  # noqa: PLC0415  (as above)

        found = find_template(self._state_directory(), container_id)
        if found is not None or not isinstance(self._runner, ProcessRunner):
            return found
        # Another state directory than it seems, or no such container: no value is shown before that is known.
        bundle = decode_state((await self._answer(self._asking(container_id))).stdout).bundle
        return template_in(bundle, (await self._known_version(DEFAULT)).runtime)

    def _workload(
        self,
        command: Command,
        *,
        io: StdIO | None,
        data: bytes | None,
        preserve_fds: tuple[int, ...],
        timeout: float | None,
        drain_timeout: float,
        grace: float = GRACE,
        detach: bool = False,
        stop: StopPolicy | None = None,
    ) -> Invocation:
        """Put together the invocation of a command that runs a process."""
        if data is not None and (detach or _has_stdin(io)):
            raise ValueError("input goes neither with detach nor with streams that have a stdin of their own")
        for name, seconds in (("grace", grace), ("drain_timeout", drain_timeout)):
            if not (seconds >= 0 and math.isfinite(seconds)):
                raise ValueError(f"{name} must be a number of seconds, and not negative: {seconds!r}")
        return self._invocation(
            command,
            io or (NullIO() if detach else CapturedIO()),
            input=data,
            timeout=check_timeout(timeout),
            drain_timeout=0.0 if detach else drain_timeout,
            stop=stop or (LET_FINISH if detach else StopPolicy(grace=grace, workload=True)),
            preserve_fds=preserve_fds,
        )


def _has_stdin(io: StdIO | None) -> bool:
    """Tell whether the streams say where stdin comes from."""
    if isinstance(io, InheritedIO):
        return io.stdin
    return isinstance(io, RedirectIO) and io.stdin is not None


def exec_command(
    container_id: str,
    process: Process | ProcessDocument | Sequence[str],
    options: ProcessOptions,
    *,
    preserve_fds: int = 0,
    detach: bool = False,
    console_socket: StrPath | None = None,
    pidfd_socket: PidfdSocket | None = None,
) -> Command:
    """Put `runc exec` together, of a whole document or of arguments with changes to the container's own process.

    Raises:
        ValueError: If changes come with a document: runc would ignore them.
    """
    given: dict[str, Any] = dict(options)
    if given.get("pidfd_socket") is None:
        given["pidfd_socket"] = pidfd_socket
    overrides = _overrides(options)
    execution = Execution(
        detach=detach,
        watched=not detach or adopting(),
        console_socket=console_socket,
        preserve_fds=preserve_fds,
        **{name: given[name] for name in EXECUTION_OPTIONS if name in given},
    )
    if not isinstance(process, msgspec.Struct):
        return _argv.exec_arguments(container_id, process, execution, overrides)
    if overrides != Overrides():
        raise ValueError("a spec.Process says everything itself: set its fields instead of giving options beside it")
    return _argv.exec_document(container_id, process.encode(), execution)


def _overrides(options: ProcessOptions) -> Overrides:
    """Return those of the options that change the container's own process."""
    given: dict[str, Any] = dict(options)
    return Overrides(**{name: given[name] for name in Overrides.__struct_fields__ if name in given})
