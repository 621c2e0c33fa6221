"""Commands that change a container, from `create` to `delete`.

On cancellation or timeout, runc gets ten seconds to finish, because a kill half-way leaves partially created
containers; then runc gets SIGTERM, and SIGKILL five seconds later.
"""

from __future__ import annotations

from collections.abc import Sequence
from signal import SIGTERM
from typing import TYPE_CHECKING

from .._answers.decode import decode_state
from .._commands import argv
from .._commands.argv import Command, Creation
from .._commands.options import DEFAULT, Timeout
from .._commands.words import FileDescriptor, StrPath, preserved
from .._containers.adoption import adopt_processes
from ..errors import CommandError, ContainerNotRunning, ContainerPaused, ContainerRunning, DecodeError, RuncTimeout
from ..response import Response
from ..state import Status
from ..stdio import NullIO, StdIO
from .calls import LET_FINISH, Calls
from .claim import release_gone
from .requirements import Requirements
from .undo import Undo

if TYPE_CHECKING:
    from ..spec import LinuxResources


class Lifecycle:
    """Commands that change a container."""

    _calls: Calls
    _undo: Undo
    _requirements: Requirements

    async def create(
        self,
        container_id: str,
        bundle: StrPath,
        *,
        # its streams
        io: StdIO | None = None,
        console_socket: StrPath | None = None,
        preserve_fds: Sequence[FileDescriptor] = (),
        # its process
        pid_file: StrPath | None = None,
        pidfd_socket: StrPath | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        # the call
        strict: bool = False,
        extra_args: Sequence[str] = (),
        timeout: Timeout = DEFAULT,
    ) -> Response:
        """Create a container; `start` then starts the process: runc-create(8).

        The container gets the streams themselves for its whole life. `create` ends together with runc and doesn't wait
        for the streams: the `Response` has the output so far of `CapturedIO` and `PipedIO`, and later writes of the
        container fail with EPIPE. `Runc.open_container` gives live streams.

        Cancelling lets runc finish or ends runc (see `Lifecycle`), and deletes the new container.

        Args:
            container_id: The container's id: letters, digits and `_+.-`.
            bundle: A `Bundle`, or the path of its directory.
            io: The streams; `NullIO()` if left out.
            console_socket: Path of a listening AF_UNIX socket that gets the terminal's descriptor, for a process with
                `terminal`. 107 bytes at most.
            preserve_fds: Descriptors that the process gets as 3, 4, ...
            pid_file: File to which runc writes the pid of the process.
            pidfd_socket: Path of a listening AF_UNIX socket that gets a pidfd of the process. runc 1.2 and later.
            no_pivot: Don't use pivot_root(2): for root file systems in a ramdisk.
            no_new_keyring: Keep the caller's session keyring.
            strict: Refuse a configuration of which the runtime would ignore a part: see `Runc.check`. If `bundle` is a
                path, config.json is read for the check.
            extra_args: More options, passed on unchanged.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerExists: If the id is in use.
            BundleNotFound: If the bundle, the config.json or the root file system is missing.
            BundleChanged: If the spec of a `Bundle` has to be saved, and its config.json was changed by other means.
            InvalidSpec: If config.json isn't valid, or requests something that the host or the runtime lacks.
            ExecutableNotFound: If the program isn't in the container.
            UnsupportedError: If the runtime has no such option, or, with `strict`, doesn't know all of config.json.
            InvalidContainerID: If the id is invalid.
            ValueError: If another argument is invalid.
            RuncTimeout: If the call takes longer than `timeout`; the new container is deleted then.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        # Resolved first, before any await: a file object could be closed meanwhile, and its number used again.
        fds = preserved(preserve_fds)
        source = self._calls.bundle(container_id, bundle, strict=strict)
        command = argv.create(
            container_id,
            source.path,
            Creation(
                pid_file=pid_file,
                console_socket=console_socket,
                pidfd_socket=pidfd_socket,
                no_pivot=no_pivot,
                no_new_keyring=no_new_keyring,
                preserve_fds=len(fds),
                extra_args=extra_args,
            ),
        )
        await self._requirements.require(command, timeout)
        if strict:
            await self._requirements.require_all_of(source, timeout)
        async with source.held():
            response = await self._calls.request(
                command,
                timeout=timeout,
                stop=LET_FINISH,
                streams=io or NullIO(),
                preserve_fds=fds,
                guard=self._undo.creating(container_id),
            )
        # Under `subreaper()`, the first process has become our child when runc exited.
        adopt_processes(self._calls.state_directory(), container_id)
        return response

    async def start(self, container_id: str, *, timeout: Timeout = DEFAULT) -> None:
        """Start the process of a created container: runc-start(8).

        Cancelling lets runc finish or ends runc; the container may have been started.

        Args:
            container_id: The container's id.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerRunning: If the container runs already.
            ContainerNotRunning: If the container has stopped.
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        await self._run_quietly(argv.start(container_id), timeout)

    async def kill(
        self,
        container_id: str,
        signal: int | str = SIGTERM,
        *,
        all: bool = False,  # noqa: A002 - runc's own name for it
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Send a signal to a container's process: runc-kill(8).

        The process is the first of its pid namespace, so the kernel delivers only signals with a handler, and from
        outside SIGKILL and SIGSTOP too. Cancelling lets runc finish or ends runc.

        Args:
            container_id: The container's id.
            signal: A number, a `signal.Signals`, or a name such as "TERM", "SIGTERM" or "RTMIN+1".
            all: Send the signal to all processes of the container. runc 1.2 and later do so only for SIGKILL, with or
                without `all`; in every version a stopped container is then no error.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            InvalidSignal: If there is no such signal.
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        command = argv.kill(container_id, signal, to_all=all)
        await self._requirements.require(command, timeout)
        try:
            await self._run_quietly(command, timeout)
        except ContainerNotRunning:
            # Of a sandbox that has ended, the runtime says so with `all` too.
            if not all or self._calls.dialect.inside is None or not await self._is(Status.STOPPED, container_id):
                raise

    async def delete(self, container_id: str, *, force: bool = False, timeout: Timeout = DEFAULT) -> None:
        """Delete a stopped or created container: runc-delete(8).

        Cancelling lets runc finish or ends runc.

        Args:
            container_id: The container's id.
            force: Kill a running container first, which takes at least 100 ms; an unknown container is then no error.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerRunning: If the container runs, without `force`.
            ContainerNotFound: If there is no such container, without `force`.
            InvalidContainerID: If the id is invalid.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            OSError: If the root filesystem, mounted for a restore that was killed, can't be protected from the
                deletion.
            CommandError: If runc fails in another way.
        """
        command = argv.delete(container_id, force=force)
        with self._undo.ending(container_id):
            try:
                await self._run_quietly(command, timeout)
            except ContainerRunning:
                # A sandbox that has ended counts as running for the runtime: see `Calls.as_it_is`.
                if self._calls.dialect.inside is None or not await self._is(Status.STOPPED, container_id):
                    raise
                await self._run_quietly(argv.delete(container_id, force=True), timeout)
        release_gone()

    async def pause(self, container_id: str, *, timeout: Timeout = DEFAULT) -> None:
        """Freeze all processes of a container: runc-pause(8).

        Cancelling lets runc finish or ends runc.

        Args:
            container_id: The container's id.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerPaused: If the container is paused already; no error in crun.
            ContainerNotRunning: If the container doesn't run.
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        try:
            await self._run_quietly(argv.pause(container_id), timeout)
        except ContainerNotRunning as error:  # runc says so of a paused one, too
            if not await self._is(Status.PAUSED, container_id):
                raise
            raise ContainerPaused(
                error.args,
                error.exit_code,
                error.stderr,
                error.log,
                stdout=error.stdout,
                container_id=container_id,
                message="it is paused already",
            ) from None

    async def _is(self, status: Status, container_id: str) -> bool:
        """Return whether a container has this status; False if unknown."""
        try:
            data = (await self._calls.run_now(self._undo.state_invocation(container_id))).stdout
            return self._calls.as_it_is(decode_state(data)).status == status
        except (CommandError, DecodeError, RuncTimeout):
            return False

    async def resume(self, container_id: str, *, timeout: Timeout = DEFAULT) -> None:
        """Thaw all processes of a container: runc-resume(8).

        Cancelling lets runc finish or ends runc.

        Args:
            container_id: The container's id.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            ContainerNotPaused: If the container isn't paused.
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        await self._run_quietly(argv.resume(container_id), timeout)

    async def update(
        self,
        container_id: str,
        resources: LinuxResources,
        *,
        l3_cache_schema: str | None = None,
        mem_bw_schema: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> None:
        """Change the limits of a container: runc-update(8).

        Limits that `resources` leaves out stay unchanged. Cancelling lets runc finish or ends runc.

        Args:
            container_id: The container's id.
            resources: The new limits; runc reads the parts named in runc-update(8).
            l3_cache_schema: Cache schema of Intel RDT, for a container created with a schema.
            mem_bw_schema: Memory bandwidth schema of Intel RDT, likewise.
            timeout: Seconds, or None for no limit; the client's default if left out.

        Raises:
            MemoryLimitTooLow: If the limit is below the current usage (cgroup v1; v2 kills the container instead).
            ResourceError: If another limit can't be set.
            ContainerNotRunning: If the container is stopped.
            ContainerNotFound: If there is no such container.
            InvalidContainerID: If the id is invalid.
            TypeError: If `resources` isn't a `spec.LinuxResources`.
            UnsupportedError: If the runtime is too old for one of the limits, and would ignore the limit.
            RuncTimeout: If the call takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If runc fails in another way.
        """
        from ..spec import LinuxResources  # noqa: PLC0415 - whoever has one has loaded the module already

        if not isinstance(resources, LinuxResources):
            raise TypeError(f"resources must be a spec.LinuxResources, not {type(resources).__name__}")
        cpu = resources.cpu
        # Older runtimes ignore these fields without an error, so their versions are compared first.
        late = {
            "update --cpu-burst": None if cpu is None else cpu.burst,
            "update --cpu-idle": None if cpu is None else cpu.idle,
        }
        command = argv.update(
            container_id,
            resources.encode(),
            l3_cache_schema=l3_cache_schema,
            mem_bw_schema=mem_bw_schema,
            needs=tuple(feature for feature, value in late.items() if value is not None),
        )
        await self._requirements.require(command, timeout)
        await self._run_quietly(command, timeout)

    async def _run_quietly(self, command: Command, timeout: Timeout) -> None:
        """Run a command that changes a container and has no output."""
        await self._calls.request(command, timeout=timeout, stop=LET_FINISH)
