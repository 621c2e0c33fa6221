"""`checkpoint` and `restore`: write the processes of a container to files with criu, and restore them.

The runtime uses the first `criu` in $PATH, or in the PATH of the client's `env` if set there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import Awaitable, Generator, Sequence

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import structs

from .._answers.criu_log import with_criu_log
from .._commands import argv, words
from .._commands.argv import Creation
from .._commands.criu import CgroupsMode, Dump, Restoration, status_descriptor
from .._commands.options import DEFAULT, Timeout
from .._commands.words import FileDescriptor, StrPath
from .._containers.record import has_stopped
from .._runtimes.known import has_record
from .._shield import shielded
from ..errors import CleanupWarning, CommandError
from ..response import Response
from ..runner import StopPolicy
from ..stdio import StdIO
from .calls import DRAIN_TIMEOUT, GRACE, LET_FINISH, Calls
from .requirements import Requirements
from .undo import Undo

LET_CRIU_FINISH = StopPolicy(patience=LET_FINISH.patience, grace=LET_FINISH.grace, helpers=True)
"""Without runc, criu gives up at its next message to runc, and a dumped container runs on."""

END_TIME = 2.0
"""Seconds for a sandbox to end after its checkpoint."""

LET_RESTORE_FINISH = StopPolicy(patience=LET_FINISH.patience, grace=LET_FINISH.grace, helpers=True, helpers_first=True)
"""Without criu, runc unmounts the root filesystem mounted for criu; a killed runc leaves the mount."""


@contextlib.contextmanager
def naming_criu_mounts(directory: str) -> Generator[None]:
    """Warn about mounts of a killed criu if the block fails.

    Args:
        directory: Directory of criu's log, absolute.
    """
    try:
        yield
    except BaseException:
        from .._containers.leftovers import mounted_in  # noqa: PLC0415  (it loads pathlib, which takes milliseconds)

        with contextlib.suppress(OSError):  # no descriptor may be left
            if left := mounted_in(directory):
                warnings.warn(f"criu has left mounts behind: {', '.join(left)}", CleanupWarning, stacklevel=2)
        raise


class Checkpoints:
    """Commands that need criu."""

    _calls: Calls
    _undo: Undo
    _requirements: Requirements

    async def checkpoint(
        self,
        container_id: str,
        image_path: StrPath,
        *,
        # where it goes
        work_path: StrPath | None = None,
        parent_path: StrPath | None = None,
        page_server: str | None = None,
        # what becomes of the container
        leave_running: bool = False,
        pre_dump: bool = False,
        # what it may have that criu doesn't take by itself
        tcp_established: bool = False,
        tcp_skip_in_flight: bool = False,
        ext_unix_sk: bool = False,
        shell_job: bool = False,
        file_locks: bool = False,
        link_remap: bool = False,
        # how it is done
        lazy_pages: bool = False,
        status_fd: FileDescriptor | None = None,
        manage_cgroups_mode: CgroupsMode | None = None,
        empty_ns: Sequence[str] = (),
        auto_dedup: bool = False,
        # the call
        extra_args: Sequence[str] = (),
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Write all processes of a running container to files for `restore`: criu(8).

        Afterwards the container is gone, including its state, unless `leave_running` or `pre_dump` is set; a foreground
        `run` of the container ends with 137, as after SIGKILL. After a failure the container runs on. The images don't
        include the contents of the container's files.

        Cancelling gives runc and criu ten seconds to finish before both are ended; the container runs on, or is gone.

        Args:
            container_id: The container's id.
            image_path: Directory for the images, created if missing.
            work_path: Directory for criu's log and statistics; the image directory if left out.
            parent_path: Image directory of an earlier `pre_dump`; only changes since then are written. A relative path
                is relative to `image_path`, as for runc.
            page_server: `"address:port"` of a criu page server that receives the memory; with `lazy_pages`, the address
                on which criu offers the memory.
            leave_running: Let the container run on.
            pre_dump: Write only the memory, and let the container run on. The kernel has to track changes of memory.
            tcp_established: Accept established TCP connections.
            tcp_skip_in_flight: Leave out TCP connections that aren't established yet. runc 1.3 and later.
            ext_unix_sk: Accept connected unix sockets whose other end is outside the container.
            shell_job: Accept a process whose session or terminal is from outside the container.
            file_locks: Accept file locks.
            link_remap: Accept open files without a name. runc 1.3 and later.
            lazy_pages: Leave the memory out, offer the pages on `page_server`, and end when all were fetched.
            status_fd: Descriptor open for writing that gets a zero byte as soon as the memory can be fetched, with
                `lazy_pages`.
            manage_cgroups_mode: Handling of cgroups by criu: "soft" (the default), "full", "strict" or "ignore" (runc
                1.2 and later).
            empty_ns: Namespaces to restore empty; runc knows "network".
            auto_dedup: Remove memory from the images of `parent_path` that is written again.
            extra_args: More options, passed on unchanged.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            CheckpointError: If criu fails or is missing; the error has the end of criu's log.
            ContainerNotRunning: If the container is stopped, or not started yet.
            ContainerNotFound: If there is no such container.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: For the same reason as in `delete`.
            CommandError: If runc fails in another way.
        """
        dump = Dump(
            image_path=image_path,
            work_path=work_path,
            parent_path=parent_path,
            page_server=page_server,
            leave_running=leave_running,
            pre_dump=pre_dump,
            tcp_established=tcp_established,
            tcp_skip_in_flight=tcp_skip_in_flight,
            ext_unix_sk=ext_unix_sk,
            shell_job=shell_job,
            file_locks=file_locks,
            link_remap=link_remap,
            lazy_pages=lazy_pages,
            status_fd=status_descriptor(status_fd),
            manage_cgroups_mode=manage_cgroups_mode,
            empty_ns=empty_ns,
            auto_dedup=auto_dedup,
        )
        more = words.unchecked(extra_args)
        await self._requirements.require(argv.checkpoint(container_id, (*dump.words(), *more)), timeout)
        self._requirements.require_sandbox(container_id)
        with contextlib.ExitStack() as stack:
            if self._calls.dialect.refuses_images:
                from .images import replaced  # noqa: PLC0415  (it loads tempfile, which takes milliseconds)

                root = self._calls.state_directory()
                images = replaced(
                    words.absolute(image_path),
                    lambda: not has_record(root, container_id) or has_stopped(root, container_id),
                )
                dump = structs.replace(dump, image_path=stack.enter_context(images))
            stack.enter_context(with_criu_log(dump.log_directory))
            stack.enter_context(self._undo.ending(container_id))
            request = self._calls.request(
                argv.checkpoint(container_id, (*dump.words(), *more)),
                timeout=timeout,
                stop=LET_CRIU_FINISH,
                pass_fds=() if dump.status_fd is None else (dump.status_fd,),
            )
            keeps = self._calls.dialect.keeps_checkpointed and not leave_running
            await (self._deleting(container_id, request, words.absolute(dump.image_path)) if keeps else request)

    async def _deleting(self, container_id: str, request: Awaitable[object], images: str) -> None:
        """Wait for a checkpoint, and delete the container, also if a cancelled call has completed the checkpoint."""
        root = self._calls.state_directory()
        failed = has_stopped(root, container_id)

        async def delete() -> None:
            # The sandbox ends a moment after the command.
            with anyio.move_on_after(END_TIME):
                while os.listdir(images) and not has_stopped(root, container_id):  # noqa: ASYNC110 - a zombie may stay
                    await asyncio.sleep(0.01)
            if has_stopped(root, container_id):
                await self._undo.remove(container_id, force=True)

        try:
            await request
        except CommandError:
            failed = True
            raise
        finally:
            if not failed:
                await shielded(delete())

    async def restore(
        self,
        container_id: str,
        bundle: StrPath,
        image_path: StrPath,
        *,
        # how it is waited for
        detach: bool = False,
        no_subreaper: bool = False,
        check: bool = False,
        timeout: float | None = None,
        grace: float = GRACE,
        drain_timeout: float = DRAIN_TIMEOUT,
        # its streams
        io: StdIO | None = None,
        input: bytes | None = None,  # noqa: A002 - the name that subprocess.run has
        console_socket: StrPath | None = None,
        # where it comes from
        work_path: StrPath | None = None,
        lazy_pages: bool = False,
        auto_dedup: bool = False,
        # what criu doesn't make anew by itself
        tcp_established: bool = False,
        ext_unix_sk: bool = False,
        shell_job: bool = False,
        file_locks: bool = False,
        manage_cgroups_mode: CgroupsMode | None = None,
        empty_ns: Sequence[str] = (),
        lsm_profile: str | None = None,
        lsm_mount_context: str | None = None,
        # its process
        pid_file: StrPath | None = None,
        no_pivot: bool = False,
        extra_args: Sequence[str] = (),
        task_status: TaskStatus[int] = TASK_STATUS_IGNORED,
    ) -> Response:
        """Restore a container, wait for the process, and delete the container: runc-restore(8), criu(8).

        The process continues where the checkpoint stopped, with another pid. Streams that were pipes are replaced by
        `io`; streams on /dev/null stay there. The exit code of the process is `Response.exit_code`; a failure of runc
        itself is an exception.

        On cancellation or timeout, runc and criu get at most ten seconds to finish: a killed criu leaves mounts on the
        host, which a `CleanupWarning` names. Then the process gets SIGTERM, and SIGKILL `grace` seconds later; runc is
        reaped, and the container deleted. With `detach` the new container is deleted.

        Args:
            container_id: The container's id, the former one or another.
            bundle: A `Bundle`, or the path of its directory, with the container's former files.
            image_path: Directory of the images.
            detach: Return as soon as the process runs; the container stays until deleted.
            no_subreaper: Don't reap orphans of the container's processes.
            check: Raise `ExitError` for an exit code other than 0.
            timeout: Seconds for the whole run; None for no limit.
            grace: Seconds between SIGTERM and SIGKILL after a cancellation or a timeout; zero sends SIGKILL at once.
            drain_timeout: Seconds to read captured output after the exit while other processes hold the pipe; no wait
                with `detach`.
            io: The streams; `CapturedIO()` if left out, with `detach` `NullIO()`. With `detach` the container gets the
                streams themselves, as in `create`.
            input: Input for stdin from now on; none if left out. Not with `detach`.
            console_socket: Path of a listening AF_UNIX socket that gets the terminal's descriptor; with `detach` only.
            work_path: Directory for criu's log and statistics; the image directory if left out.
            lazy_pages: Fetch memory on demand, from a `criu lazy-pages` with the same work path.
            auto_dedup: Remove restored memory from the images.
            tcp_established: Restore established TCP connections.
            ext_unix_sk: Reconnect unix sockets whose other end is outside the container.
            shell_job: Inherit session and terminal from the caller.
            file_locks: Restore file locks.
            manage_cgroups_mode: Handling of cgroups by criu: "soft" (the default), "full", "strict" or "ignore" (runc
                1.2 and later).
            empty_ns: Namespaces to leave empty; runc knows "network".
            lsm_profile: AppArmor profile or SELinux label instead of the former one: `"type:name"`.
            lsm_mount_context: SELinux context for the mounts. runc 1.1 and later.
            pid_file: File to which runc writes the pid of the process.
            no_pivot: Don't use pivot_root(2): for root file systems in a ramdisk.
            extra_args: More options, passed on unchanged.
            task_status: For `TaskGroup.start` of anyio; `started()` is called with the pid of runc after the spawn.

        Raises:
            ExitError: If `check` is set and the exit code isn't 0.
            CheckpointError: If criu fails or is missing, or there are no images; the error has the end of criu's log.
            ContainerExists: If the id is in use.
            BundleNotFound: If the bundle, the config.json or the root file system is missing.
            BundleChanged: If the spec of a `Bundle` has to be saved, and its config.json was changed by other means.
            InvalidSpec: If config.json isn't valid, or requests something that the host or the runtime lacks.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid.
            RuncTimeout: If the call takes longer than `timeout`; the error has the output so far.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        restoration = Restoration(
            image_path=image_path,
            work_path=work_path,
            lazy_pages=lazy_pages,
            auto_dedup=auto_dedup,
            tcp_established=tcp_established,
            ext_unix_sk=ext_unix_sk,
            shell_job=shell_job,
            file_locks=file_locks,
            manage_cgroups_mode=manage_cgroups_mode,
            empty_ns=empty_ns,
            lsm_profile=lsm_profile,
            lsm_mount_context=lsm_mount_context,
        )
        creation = Creation(
            pid_file=pid_file,
            own_pid_file=not detach,  # its start is the end of criu
            console_socket=console_socket,
            no_pivot=no_pivot,
            extra_args=extra_args,
        )
        switches = words.switches(detach=detach, no_subreaper=no_subreaper)
        source = self._calls.bundle(container_id, bundle)
        command = argv.restore(container_id, source.path, creation, (*switches, *restoration.words()))
        invocation = self._calls.waiting(
            command,
            io=io,
            data=input,
            preserve_fds=(),
            timeout=timeout,
            drain_timeout=drain_timeout,
            grace=grace,
            detach=detach,
            stop=LET_RESTORE_FINISH
            if detach
            else StopPolicy(patience=LET_FINISH.patience, grace=grace, waits_for_process=True),
        )
        await self._requirements.require(command, timeout or DEFAULT)
        invocation = self._calls.reworded(invocation, command)
        with naming_criu_mounts(restoration.log_directory), with_criu_log(restoration.log_directory):
            # A detached container outlives the call, and must not be swept.
            passing = None if detach else source.path
            async with source.held() as read, self._undo.creating(container_id, passing=passing):
                return await self._calls.run_program(
                    invocation, check=check, started=task_status.started, reported=read
                )
