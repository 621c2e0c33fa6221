"""`run`: a container from its creation to its deletion."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import structs

from .._bundles.check import takes_pipes
from .._commands import argv
from .._commands.argv import Command, Creation
from .._commands.options import DEFAULT
from .._commands.words import FileDescriptor, StrPath, preserved
from .._host.metering import read_usage
from .._process.running import ProcessRunner
from .._shield import shielded
from ..endreason import EndReason
from ..limits import Limits
from ..response import Response
from ..runner import Invocation
from ..stdio import StdIO
from .calls import DRAIN_TIMEOUT, GRACE, LET_FINISH, Calls, checked
from .requirements import Requirements
from .undo import Undo


class Programs:
    """Commands that create a container for one run of a program."""

    _calls: Calls
    _undo: Undo
    _requirements: Requirements

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
        strict: bool = False,
        usage: bool = False,
        limits: Limits | None = None,
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
        """Create a container, start the process, wait for the exit, and delete the container: runc-run(8).

        The exit code of the process is `Response.exit_code`; a failure of runc itself is an exception.

        On cancellation or timeout the process gets SIGTERM, and SIGKILL `grace` seconds later; runc is reaped, and the
        container deleted unless `keep` is set, also if runc crashes. With `detach`, runc finishes first, and then the
        new container is deleted.

        Args:
            container_id: The container's id: letters, digits and `_+.-`.
            bundle: A `Bundle`, or the path of its directory.
            detach: Return as soon as the process runs; the container stays until deleted.
            keep: Don't delete the container after the end of the process. runc 1.1 and later.
            no_subreaper: Don't reap orphans of the container's processes.
            check: Raise `ExitError` for an exit code other than 0.
            strict: Refuse a configuration of which the runtime would ignore a part: see `Runc.check`. If `bundle` is a
                path, config.json is read for the check.
            usage: Report the used resources as `Response.usage`: runc then keeps the container until the cgroup has
                been read, and one more runc process deletes the container. runc 1.1 and later; not with `detach`.
            limits: Limits of time, CPU time and output. The process ends at once on reaching a limit: see
                `Response.reason`. None for no limits. Not with `detach`. The container is kept for a moment as with
                `usage`, if the runtime supports `keep`.
            timeout: Seconds for the whole run; None for no limit.
            grace: Seconds between SIGTERM and SIGKILL after a cancellation or a timeout; zero sends SIGKILL at once. A
                container's first process ignores SIGTERM without a handler.
            drain_timeout: Maximal seconds to read captured output after the exit while other processes hold the pipe;
                reading stops after 0.05 seconds without data. No wait with `detach`.
            io: The streams; `CapturedIO()` if left out, with `detach` `NullIO()`. With `detach` the container gets the
                streams themselves, as in `create`.
            input: Input for stdin; none if left out. Not with `detach`.
            console_socket: Path of a listening AF_UNIX socket that gets the terminal's descriptor; with `detach` only.
            preserve_fds: Descriptors that the process gets as 3, 4, ...
            pid_file: File to which runc writes the pid of the process.
            pidfd_socket: Path of a listening AF_UNIX socket that gets a pidfd of the process. runc 1.2 and later.
            no_pivot: Don't use pivot_root(2): for root file systems in a ramdisk.
            no_new_keyring: Keep the caller's session keyring.
            extra_args: More options, passed on unchanged.
            task_status: For `TaskGroup.start` of anyio; `started()` is called with the pid of runc after the spawn.

        Raises:
            ExitError: If `check` is set and the exit code isn't 0.
            ContainerExists: If the id is in use.
            BundleNotFound: If the bundle, the config.json or the root file system is missing.
            BundleChanged: If the spec of a `Bundle` has to be saved, and its config.json was changed by other means.
            InvalidSpec: If config.json isn't valid, or requests something that the host or the runtime lacks.
            ExecutableNotFound: If the program isn't in the container.
            UnsupportedError: If the runtime has no such option, or, with `strict`, doesn't know all of config.json; if
                CPU time is limited, and the container has no cgroup.
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid.
            RuncTimeout: If the call takes longer than `timeout`; the error has the output so far.
            RuncNotFound: If there is no runc.
            RuncCrashed: If runc crashes, or is killed.
            CommandError: If runc fails in another way.
        """
        if usage and detach:
            raise ValueError("usage needs a run that waits for its process: not with detach")
        fds = preserved(preserve_fds)
        creation = Creation(
            pid_file=pid_file,
            console_socket=console_socket,
            pidfd_socket=pidfd_socket,
            no_pivot=no_pivot,
            no_new_keyring=no_new_keyring,
            preserve_fds=len(fds),
            extra_args=extra_args,
            own_pid_file=not detach and pid_file is None,  # the caller's may be in another mount namespace
        )
        source = self._calls.bundle(container_id, bundle, strict=strict)
        build = functools.partial(
            argv.run, container_id, source.path, creation, detach=detach, no_subreaper=no_subreaper
        )
        command = build(keep=keep or usage)
        invocation = self._calls.waiting(
            command,
            io=io,
            data=input,
            preserve_fds=fds,
            timeout=timeout,
            drain_timeout=drain_timeout,
            grace=grace,
            detach=detach,
            limits=limits,
        )
        await self._requirements.require(command, timeout or DEFAULT)
        hands_over = pid_file is None and not no_subreaper and await self._hands_over(invocation, command, bundle)
        # With `--keep` the cgroup and the OOM counter outlive the process until they have been read. A runc that hands
        # the streams over has ended by then, and deletes nothing.
        held = usage or hands_over or (limits is not None and await self._requirements.supports("run --keep"))
        invocation = self._calls.reworded(invocation, build(keep=keep or held))
        if not hands_over:
            invocation = structs.replace(invocation, detach_at=None)
        else:  # runc may finish first, or what it has made by then would be left to be searched for
            stop = structs.replace(invocation.stop, patience=LET_FINISH.patience)
            invocation = structs.replace(invocation, stop=stop)
        if strict:
            await self._requirements.require_all_of(source, timeout or DEFAULT)
        passing = None if detach or keep else source.path
        whatever = held and not keep
        guard = self._undo.creating(container_id, keep=keep and not detach, whatever=whatever, passing=passing)
        async with source.held() as read, guard:
            begun = time.monotonic()
            started = task_status.started
            response = await self._calls.run_program(
                invocation, check=check and not held, started=started, reported=read
            )
            if not held:
                return response
            used = read_usage(self._calls.state_directory(), container_id, started=begun, ended=time.monotonic())
            # A program may be killed before the look at its process that finds the cgroup and so the counter.
            by_itself = response.reason in {EndReason.SIGNALED, EndReason.EXITED}
            if used.oom_kills and response.exit_code != 0 and by_itself:
                response = structs.replace(response, reason=EndReason.OOM)
            if usage:
                response = structs.replace(response, usage=used)
            if not keep:
                await shielded(self._undo.remove(container_id))
        return checked(response, container_id) if check else response

    async def _hands_over(self, invocation: Invocation, command: Command, bundle: StrPath) -> bool:
        """Return whether runc hands over one pipe for both streams, which it would copy without their order.

        The process with the pipe is then the child of a small program that waits in place of runc: see `exec`. Without
        `--keep`, a runner that puts a command in front of runc would delete the container, and then another one of the
        same id could be taken for it.
        """
        if invocation.detach_at is None or not isinstance(self._calls.runner, ProcessRunner):
            return False
        if not await self._requirements.supports("run --keep"):
            return False
        # The runtime is known by now, and some copy nothing.
        return self._calls.reworded(invocation, command).detach_at is not None and takes_pipes(bundle)
