"""What all commands of the client share: its options, and the way of a call from a command to its result."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import math
import os
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from .._answers.decode import decode_state, decode_version
from .._answers.outcome import check_finished, check_time, raise_failure, refused_as_existing, respond
from .._bundles.check import check_bundle
from .._commands import argv, words
from .._commands.argv import Command
from .._commands.options import DEFAULT, Timeout, check_timeout
from .._commands.support import SINCE, UNKNOWN, check_feature, sends_pidfd, supported
from .._commands.words import StrPath
from .._containers.adoption import adopt_processes
from .._containers.leftovers import unmount
from .._linux.subreaper import reap_adopted
from .._process.launch import signal_name
from .._process.running import ProcessRunner
from .._shield import retried_once, shielded
from ..errors import (
    BundleNotFound,
    CleanupWarning,
    CommandError,
    DecodeError,
    ExitError,
    RuncCrashed,
    RuncError,
    RuncTimeout,
)
from ..features import Version
from ..response import Response
from ..runner import Argument, Invocation, OwnOutput, PidfdSocket, PrivateLog, Runner, StopPolicy, Streams, noted_ends
from ..stdio import CapturedIO, InheritedIO, NullIO, RedirectIO, StdIO

if TYPE_CHECKING:
    from pathlib import Path


DRAIN_TIMEOUT = 1.0
"""Seconds for which captured output is read on, after the exit, while other processes hold the pipe."""

DEFAULT_CONCURRENCY: Final = 8 * len(os.sched_getaffinity(0))
"""Request/response commands of one client that run at once in one event loop; see docs/topics/performance.md."""

STRIPPED: Final = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""Variables that make runc pass on descriptors, or wait for a READY=1 that never comes (runc#1807)."""

KILL = StopPolicy()
"""For commands that only read: nothing is lost when runc dies."""

GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL, when nothing else is asked for."""

LET_FINISH = StopPolicy(patience=10.0, grace=GRACE)
"""For commands that change something: SIGKILL in the middle leaves half-made containers (runc#4534)."""

LET_HELPER_FINISH = StopPolicy(patience=1.0, helpers=True)
"""For a runc that has started a program of the host's, and reads what that prints: it would be orphaned."""

OWN_OUTPUT: Final = OwnOutput()

NO_GUARD: Final = contextlib.nullcontext()

UNDO_TIMEOUT: Final = 20.0
"""Seconds for the deletion of what a cancelled call has made; runc itself may need ten."""


class Calls:
    """The options of a client, and the way of a call from a command to its result."""

    _version: Version | None = None

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
        max_concurrency: int | None = DEFAULT_CONCURRENCY,
        runner: Runner | None = None,
    ) -> None:
        """Check and keep the options: see `Runc`."""
        if log_format not in {None, "text", "json"}:
            raise ValueError(f"log_format must be 'text' or 'json': {log_format!r}")
        if rootless not in {None, True, False, "auto"}:
            raise ValueError(f"rootless must be True, False or 'auto': {rootless!r}")
        if max_concurrency is not None and max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1: {max_concurrency}")
        self._command = words.argument("command", os.fspath(command))
        if not self._command:
            raise ValueError("command must not be empty")
        self._root = None if root is None else words.absolute(root)
        self._env = {name: words.setting(name, value).value for name, value in (env or {}).items()}
        self._cwd = None if cwd is None else words.absolute(cwd)
        self._timeout = check_timeout(timeout)
        self._pdeathsig = None if pdeathsig is None else words.signal_number(pdeathsig)
        if self._pdeathsig is not None and not signal_name(self._pdeathsig):
            raise ValueError(f"pdeathsig must be a signal that has a name: {pdeathsig!r}")
        self._process_group = None if process_group is None else words.non_negative("process_group", process_group)
        self._max_concurrency = max_concurrency
        self.runner: Runner = ProcessRunner() if runner is None else runner
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        self._own_log = log is None
        self._prefix: tuple[Argument, ...] = (
            self._command,
            *words.path_option("--root", root),
            *words.switches(debug=debug, systemd_cgroup=systemd_cgroup),
            *words.option("--rootless", None if rootless is None else str(rootless).lower()),
            *(("--log", PrivateLog()) if log is None else words.path_option("--log", log)),
            *words.option("--log-format", "json" if log is None else log_format),
            *words.unchecked(extra_args),
        )

    def invocation(self, command: Command, streams: Streams, **settings: Any) -> Invocation:
        """Put the client's options around a command."""
        return Invocation(
            command=command.name,
            argv=(*self._prefix, *command.words),
            container_id=command.container_id,
            streams=streams,
            env=self._environment(),
            cwd=self._cwd,
            pdeathsig=self._pdeathsig,
            process_group=self._process_group,
            **settings,
        )

    def bundle(self, container_id: str, bundle: StrPath) -> str:
        """Return the absolute path of a bundle, having looked at it before runc is started.

        One that isn't here at all is left to runc: a runner can take runc to another mount namespace.

        Raises:
            InvalidContainerID: If the container that it is for can't have that id.
            BundleNotFound: If something is there, and is no bundle.
            ValueError: If the path is empty or has a NUL byte.
        """
        words.check_container_id(container_id)
        path = words.absolute(bundle)
        if not os.path.lexists(path):
            return path
        try:
            return check_bundle(path)
        except BundleNotFound as error:
            raise BundleNotFound((), None, container_id=container_id, message=error.message) from None

    def _environment(self) -> dict[str, str] | None:
        """Tell runc's environment; None where it is ours unchanged, which spares a copy."""
        if not self._env and not any(name in os.environ for name in STRIPPED):
            return None
        return {name: value for name, value in os.environ.items() if name not in STRIPPED} | self._env

    def seconds(self, timeout: Timeout) -> float | None:
        """Resolve a call's own timeout."""
        return self._timeout if timeout is DEFAULT else check_timeout(timeout)

    async def request(
        self,
        command: Command,
        *,
        timeout: Timeout,
        stop: StopPolicy,
        streams: Streams = OWN_OUTPUT,
        preserve_fds: tuple[int, ...] = (),
        pass_fds: tuple[int, ...] = (),
        guard: contextlib.AbstractAsyncContextManager[None] = NO_GUARD,
    ) -> Response:
        """Run a request/response command in its turn, within `guard`, and raise if runc fails.

        Raises:
            CommandError: If runc fails; the class says in what way.
            RuncTimeout: If it takes longer than `timeout`. Waiting for its turn isn't counted.
            RuncNotFound: If there is no runc.
        """
        invocation = self.invocation(
            command,
            streams,
            timeout=self.seconds(timeout),
            drain_timeout=0.0,  # a container that was created holds its streams for as long as it lives
            stop=stop,
            preserve_fds=preserve_fds,
            pass_fds=pass_fds,
        )
        async with self.turn(), guard:
            return await self.run_now(invocation)

    async def run_now(self, invocation: Invocation) -> Response:
        """Run a request/response command without waiting for a turn, and raise if runc fails."""
        completed = await self.runner.run(invocation)
        check_finished(invocation, completed)
        return respond(invocation, completed)

    def turn(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Wait for a place among the commands that may run at once in this event loop."""
        if self._max_concurrency is None:
            return contextlib.nullcontext()
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop)
        if turns is None:
            for other in [known for known in list(self._turns) if known.is_closed()]:
                self._turns.pop(other, None)  # not by weak references: a semaphore holds its loop
            turns = self._turns[loop] = asyncio.Semaphore(self._max_concurrency)
        return turns

    async def run_program(
        self, invocation: Invocation, *, check: bool, started: Callable[[int], None] | None
    ) -> Response:
        """Run a command whose exit code is a container's process's own, and raise if it was runc that failed.

        Raises:
            ExitError: If `check` is given and the code isn't 0.
            CommandError: If runc fails.
            RuncTimeout: If it takes longer than the invocation's timeout.
        """
        completed = await self.runner.run(invocation, started=started)
        if invocation.stop.waits_for_process:
            check_time(invocation, completed)
            raise_failure(invocation, completed)
        else:  # detached: the code is runc's own
            check_finished(invocation, completed)
        response = respond(invocation, completed)
        if check and response.exit_code != 0:
            raise ExitError(response, invocation.container_id)
        return response

    @contextlib.asynccontextmanager
    async def creating(self, container_id: str, *, keep: bool = False) -> AsyncGenerator[None]:
        """Delete the container if the block is cancelled, runs out of time, or loses runc, while it makes one.

        One that was there before isn't ours: then runc has refused to make another. That is asked of the file system,
        for it costs a microsecond and a call of runc ten milliseconds; and, since the runtime may keep its containers
        elsewhere, before anything is deleted of the container itself. Nor is one that somebody else has made meanwhile:
        a runc that was let finish has refused, too.
        """
        existed = await self.exists(container_id)
        begun = dt.datetime.now(dt.UTC)
        with noted_ends() as ends:
            try:
                yield
            except (asyncio.CancelledError, RuncTimeout, RuncCrashed):
                if not (existed or keep or any(refused_as_existing(*end) for end in ends)):
                    await shielded(self.discard(container_id, begun))
                raise

    async def exists(self, container_id: str) -> bool:
        """Tell whether there is a container of that id."""
        try:
            os.stat(os.path.join(self.state_directory(), words.check_container_id(container_id)))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # not ours to look into, as under a runner that goes through sudo
            try:
                await self.run_now(self.state_invocation(container_id))
            except CommandError:
                return False
        return True

    def state_invocation(self, container_id: str) -> Invocation:
        """Ask for the state of a container, for a call that has its turn already."""
        return self.invocation(argv.state(container_id), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=KILL)

    def state_directory(self) -> str:
        """Tell where runc, and crun, keep their containers: runc(8), `--root`."""
        if self._root is not None:
            return self._root
        private = None if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR")
        return os.path.join(private or "/run", os.path.basename(self._command))

    async def discard(self, container_id: str, begun: dt.datetime) -> None:
        """Delete what a call has made that was cut short; name it if that fails.

        It doesn't wait for a turn, which could take any time.
        """
        delete = self.invocation(
            argv.delete(container_id, force=True), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=LET_FINISH
        )

        async def undo() -> None:
            from .._containers.leftovers import remove_cgroups  # noqa: PLC0415  (it loads pathlib, which takes milliseconds)

            if not await self.older(container_id, begun):
                with self.ending(container_id):
                    await self.run_now(delete)
                left.extend(await remove_cgroups(container_id))

        left: list[Path] = []
        try:
            await retried_once(undo)
        except (RuncError, OSError, asyncio.CancelledError) as exc:
            reason = str(exc) or type(exc).__name__
            warnings.warn(f"container {container_id!r} may be left behind: {reason}", CleanupWarning, stacklevel=2)
        if left:
            signal_name = ", ".join(map(str, left))
            warnings.warn(f"of container {container_id!r} is left behind: {signal_name}", CleanupWarning, stacklevel=2)

    @contextlib.contextmanager
    def ending(self, container_id: str) -> Generator[None]:
        """Take away what keeps a container from ending within the block: mounts, and processes that are our children.

        Raises:
            OSError: If the root filesystem, mounted for a restore that was killed, can't be kept from a deletion.
        """
        unmount(os.path.join(self.state_directory(), container_id))
        reap_adopted()
        adopt_processes(self.state_directory(), container_id)
        try:
            yield
        finally:
            reap_adopted()

    async def older(self, container_id: str, begun: dt.datetime) -> bool:
        """Tell whether a container was created before `begun`; a half-made one can't tell, and wasn't."""
        try:
            created = decode_state((await self.run_now(self.state_invocation(container_id))).stdout).created
        except (CommandError, DecodeError):
            return False
        return created is not None and created < begun

    async def require(self, given: Mapping[str, object], timeout: Timeout = DEFAULT) -> None:
        """Raise if the runtime lacks a feature that is given. Where none is, nothing is asked.

        Raises:
            UnsupportedError: If it has no such feature.
            RuncTimeout: If the answer takes longer than `timeout`.
        """
        for feature in [feature for feature, value in given.items() if value]:
            check_feature(feature, await self.known_version(timeout))

    def check_command(self, command: str) -> None:
        """Raise if the client knows already that the runtime lacks a command.

        Nobody is asked for that: a runtime of which nothing is known yet refuses the command itself, in as much time.

        Raises:
            UnsupportedError: If it has no such command.
        """
        if self._version is not None:
            check_feature(command, self._version)

    async def pidfd_socket_for_create(self, given: StrPath | None, timeout: Timeout) -> StrPath | PidfdSocket | None:
        """Tell what `create` gets for `--pidfd-socket` when its process is to be held.

        That is what the caller has given; else a socket of the runner's own, if the runtime is known to send to it.
        Another runner may know nothing of such a socket, and isn't asked.
        """
        if given is not None or not isinstance(self.runner, ProcessRunner):
            return given
        return PidfdSocket() if sends_pidfd(await self.known_version(timeout)) else None

    def pidfd_socket_for_exec(self) -> PidfdSocket | None:
        """Tell what `exec` gets for `--pidfd-socket`: a socket if the version is known; nobody is asked for it."""
        known = self._version is not None and isinstance(self.runner, ProcessRunner)
        return PidfdSocket() if known and sends_pidfd(self._version or UNKNOWN) else None

    async def known_version(self, timeout: Timeout) -> Version:
        """Ask for the version, once: who comes while it is being asked for waits for the answer."""
        if self._version is None:
            loop = asyncio.get_running_loop()
            try:
                async with self._asking_version.setdefault(loop, asyncio.Lock()):
                    if self._version is None:
                        self._version = await self._ask_version(timeout)
            finally:
                self._asking_version.pop(loop, None)
        return self._version

    async def _ask_version(self, timeout: Timeout) -> Version:
        """Ask for the version."""
        try:
            return decode_version((await self.request(argv.version(), timeout=timeout, stop=KILL)).stdout)
        except (CommandError, DecodeError):
            return UNKNOWN

    @functools.cached_property
    def _asking_version(self) -> dict[asyncio.AbstractEventLoop, asyncio.Lock]:
        """Who asks for the version, in each event loop."""
        return {}

    def waiting(
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
        return self.invocation(
            command,
            io or (NullIO() if detach else CapturedIO()),
            input=data,
            timeout=check_timeout(timeout),
            drain_timeout=0.0 if detach else drain_timeout,
            stop=stop or (LET_FINISH if detach else StopPolicy(grace=grace, waits_for_process=True)),
            preserve_fds=preserve_fds,
        )

    def __str__(self) -> str:
        """Show the program and its root directory, as arguments."""
        return repr(self._command) + ("" if self._root is None else f", root={self._root!r}")

    async def supports(self, feature: str, timeout: Timeout) -> bool:
        """Return whether the runtime has a feature: see `Runc.supports`."""
        if feature not in SINCE:
            raise ValueError(f"feature must be one of {', '.join(SINCE)}: {feature!r}")
        return supported(feature, await self.known_version(timeout))


def _has_stdin(io: StdIO | None) -> bool:
    """Tell whether the streams say where stdin comes from."""
    if isinstance(io, InheritedIO):
        return io.stdin
    return isinstance(io, RedirectIO) and io.stdin is not None
