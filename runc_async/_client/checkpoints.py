"""`checkpoint` and `restore`: the processes of a container into files, and back, by criu.

The runtime calls the `criu` that is first in $PATH, which is that of the client's `env` if it sets one.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Sequence

from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from .._answers.criu_log import with_criu_log
from .._commands import argv, words
from .._commands.argv import Creation
from .._commands.criu import CgroupsMode, Dump, Restoration, status_descriptor
from .._commands.options import DEFAULT, Timeout
from .._commands.words import FileDescriptor, StrPath
from ..errors import CleanupWarning
from ..response import Response
from ..runner import StopPolicy
from ..stdio import StdIO
from .calls import DRAIN_TIMEOUT, GRACE, LET_FINISH, Calls
from .requirements import Requirements
from .undo import Undo

LET_CRIU_FINISH = StopPolicy(patience=LET_FINISH.patience, grace=LET_FINISH.grace, helpers=True)
"""Without runc, criu gives up at its next message to runc, and leaves a dumped container running."""

LET_RESTORE_FINISH = StopPolicy(patience=LET_FINISH.patience, grace=LET_FINISH.grace, helpers=True, helpers_first=True)
"""Without criu, runc unmounts the root filesystem that it has mounted for criu; killed, it leaves the mount."""


@contextlib.contextmanager
def naming_criu_mounts(directory: str) -> Generator[None]:
    """If the block fails, say what a criu that was killed has left mounted.

    Args:
        directory: Where criu writes its log, absolute.
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
    """The commands that take criu."""

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
        """Write all processes of a running container into files, from which `restore` makes them anew: criu(8).

        Then the container is gone, its state included, unless it is left running; a foreground `run` that held it ends
        with 137, as after SIGKILL. A checkpoint that fails leaves it running. What the container's files contain is
        not in the images.

        Cancelling lets runc and criu finish for ten seconds, and ends them then; the container goes on, or is gone.

        Args:
            container_id: Its id.
            image_path: Directory for the images; it is made if it isn't there.
            work_path: Directory for criu's log and statistics; that of the images if left out.
            parent_path: Directory of the images of an earlier `pre_dump`; only what has changed since is written.
                Relative to `image_path`, if it is relative, as for runc.
            page_server: `"address:port"` of a criu page server that takes the memory; with `lazy_pages` where criu
                offers it.
            leave_running: Let the container run on.
            pre_dump: Write the memory only, and let the container run on. The kernel has to track changes of memory.
            tcp_established: Take established TCP connections too.
            tcp_skip_in_flight: Leave out TCP connections that aren't established yet. runc 1.3 and later.
            ext_unix_sk: Take connected unix sockets whose other end is outside the container.
            shell_job: Take a process whose session or terminal is from outside the container.
            file_locks: Take file locks.
            link_remap: Take open files that have no name any more. runc 1.3 and later.
            lazy_pages: Leave the memory out, offer it on `page_server`, and end when it was fetched.
            status_fd: Descriptor open for writing, on which a zero byte comes when the memory can be fetched, with
                `lazy_pages`.
            manage_cgroups_mode: What criu does with cgroups: "soft" (the default), "full", "strict" or "ignore" (runc
                1.2 and later).
            empty_ns: Namespaces that are restored empty; runc knows "network".
            auto_dedup: Remove from the images of `parent_path` what is written again.
            extra_args: More options, passed on as they are.
            timeout: Seconds, or None for no limit; the client's own if left out.

        Raises:
            CheckpointError: If criu fails, or isn't there; it has the end of criu's log.
            ContainerNotRunning: If the container is stopped, or has only been created.
            ContainerNotFound: If there is no such container.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right.
            RuncTimeout: If it takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: As `delete` does.
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
        command = argv.checkpoint(container_id, (*dump.words(), *words.unchecked(extra_args)))
        await self._requirements.require(command, timeout)
        with with_criu_log(dump.log_directory), self._undo.ending(container_id):
            await self._calls.request(
                command,
                timeout=timeout,
                stop=LET_CRIU_FINISH,
                pass_fds=() if dump.status_fd is None else (dump.status_fd,),
            )

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
        """Make a container from the images of a `checkpoint`, wait for its process, and delete it: criu(8).

        The process goes on where it was, with another pid. Streams that were pipes are those of `io` from now on;
        what was /dev/null stays so. What the process ends with is `Response.exit_code`; a runc that fails is an
        exception.

        Cancelled, or out of time, runc and criu are let finish, for ten seconds at most: a criu that is killed leaves
        its mounts on the host, which a `CleanupWarning` names. Then the process gets SIGTERM, and SIGKILL `grace`
        seconds later; runc is reaped, and the container deleted. With `detach` what they have made is deleted.

        Args:
            container_id: Its id, the same as before or another.
            bundle: A `Bundle`, or the path of its directory, with the files that the container had.
            image_path: Directory of the images.
            detach: Return as soon as the process runs; the container stays until it is deleted.
            no_subreaper: Don't reap what the container's processes leave behind.
            check: Raise `ExitError` for an exit code other than 0.
            timeout: Seconds for the whole run, or None for no limit.
            grace: Seconds between SIGTERM and SIGKILL for a process that is cancelled or out of time; zero: SIGKILL at
                once.
            drain_timeout: Seconds for which captured output is read on, after the exit, while others hold the pipe;
                none with `detach`.
            io: Its streams; `CapturedIO()` if left out, with `detach` `NullIO()`. With `detach` the container gets the
                streams themselves, as in `create`.
            input: What it reads on stdin from now on; nothing if left out. Not with `detach`.
            console_socket: Path of a listening AF_UNIX socket that gets the terminal's descriptor; with `detach` only.
            work_path: Directory for criu's log and statistics; that of the images if left out.
            lazy_pages: Fetch memory when it is needed, from a `criu lazy-pages` with the same work path.
            auto_dedup: Remove memory from the images as it is restored.
            tcp_established: Make established TCP connections anew.
            ext_unix_sk: Connect unix sockets again whose other end is outside the container.
            shell_job: Take session and terminal from the caller.
            file_locks: Take the file locks again.
            manage_cgroups_mode: What criu does with cgroups: "soft" (the default), "full", "strict" or "ignore" (runc
                1.2 and later).
            empty_ns: Namespaces that are left empty; runc knows "network".
            lsm_profile: AppArmor profile or SELinux label instead of the former one: `"type:name"`.
            lsm_mount_context: SELinux context for the mounts. runc 1.1 and later.
            pid_file: Where runc writes the pid of the process.
            no_pivot: Don't use pivot_root(2): for root file systems in a ramdisk.
            extra_args: More options, passed on as they are.
            task_status: anyio's; `started()` is called with the pid of runc as soon as it runs.

        Raises:
            ExitError: If `check` is set and the exit code isn't 0.
            CheckpointError: If criu fails, or isn't there, or there are no images; it has the end of criu's log.
            ContainerExists: If there is a container of that id.
            BundleNotFound: If the bundle, its config.json or its root file system isn't there.
            BundleChanged: If the spec of a `Bundle` has to be saved, and its config.json was changed by other means.
            InvalidSpec: If config.json isn't valid, or asks for what can't be had.
            UnsupportedError: If the runtime has no such option.
            InvalidContainerID: If the id can't be one.
            ValueError: If another argument can't be right.
            RuncTimeout: If it takes longer than `timeout`; it has the output so far.
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
            passing = None if detach else source.path
            async with source.held() as read, self._undo.creating(container_id, passing=passing):
                return await self._calls.run_program(
                    invocation, check=check, started=task_status.started, reported=read
                )
