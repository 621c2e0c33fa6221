"""`run`: a container from its creation to its deletion."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import structs

from .._commands import argv
from .._commands.argv import Creation
from .._commands.options import DEFAULT
from .._commands.words import FileDescriptor, StrPath, preserved
from .._host.metering import read_usage
from .._shield import shielded
from ..limits import Limits
from ..response import Response
from ..stdio import StdIO
from .calls import DRAIN_TIMEOUT, GRACE, Calls, checked
from .requirements import Requirements
from .undo import Undo


class Programs:
    """The commands that make a container for one run of a program."""

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
            strict: Refuse a configuration of which the runtime would pass over a part: see `Runc.check`. It is read for
                that, if `bundle` is a path.
            usage: Report the resources that it has used, as `Response.usage`: runc then keeps the container until its
                cgroup has been read, and one more runc process deletes it. runc 1.1 and later; not with `detach`.
            limits: Limits of time, CPU time and output for the program, which ends at once when it reaches one:
                `Response.reason`. None: none. Not with `detach`. The container is kept for a moment as with `usage`,
                where the runtime can do that.
            timeout: Seconds for the whole run, or None for no limit.
            grace: Seconds between SIGTERM and SIGKILL for a process that is cancelled or out of time; zero: SIGKILL at
                once. A container's first process ignores SIGTERM unless it has a handler for it.
            drain_timeout: Seconds for which captured output is read on, at most, after the exit, while others hold the
                pipe; it ends when nothing has come for 0.05 seconds. None with `detach`.
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
            BundleChanged: If the spec of a `Bundle` has to be saved, and its config.json was changed by other means.
            InvalidSpec: If config.json isn't valid, or asks for what can't be had.
            ExecutableNotFound: If the program isn't in the container.
            UnsupportedError: If the runtime has no such option, or, with `strict`, doesn't know all of config.json; if
                CPU time is limited, and the container has no cgroup.
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right.
            RuncTimeout: If it takes longer than `timeout`; it has the output so far.
            RuncNotFound: If there is no runc.
            RuncCrashed: If runc breaks down, or is killed.
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
        held = usage or (limits is not None and await self._requirements.supports("run --keep"))
        invocation = self._calls.reworded(invocation, build(keep=keep or held))
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
            if usage:
                used = read_usage(self._calls.state_directory(), container_id, started=begun, ended=time.monotonic())
                response = structs.replace(response, usage=used)
            if not keep:
                await shielded(self._undo.remove(container_id))
        return checked(response, container_id) if check else response
