"""Common to all commands of the client: the options, and the path of a call from a command to its result."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import structs

from .._answers.outcome import check_finished, check_time, command_error, raise_failure, respond
from .._bundles.check import Source, check_bundle, saves_itself
from .._commands import argv, words
from .._commands.argv import Command
from .._commands.options import DEFAULT, Timeout, check_seconds, check_timeout
from .._commands.words import StrPath
from .._containers.ownership import MAKERS, note_start
from .._linux.owner import note_use
from .._linux.pidfd import has_ended
from .._linux.runtime_directory import check_runtime_directory
from .._process.launch import signal_name
from .._process.running import ProcessRunner
from .._runtimes.dialect import Dialect
from .._runtimes.known import read_record
from .._unicode import require_unicode
from ..errors import BundleNotFound, CommandError, ExitError
from ..features import Version
from ..limits import Limits
from ..response import Response
from ..runner import (
    Argument,
    Completed,
    Invocation,
    OwnOutput,
    PrivateLog,
    PrivateRoot,
    Runner,
    Sandbox,
    StopPolicy,
    Streams,
)
from ..state import State, Status
from ..stdio import JOINED, CapturedIO, NullIO, PipedIO, PtyIO, StdIO
from .identity import Identity
from .live import first_bytes, has_stdin

DRAIN_TIMEOUT = 1.0
"""Seconds to read captured output after the exit while other processes hold the pipe."""

DEFAULT_CONCURRENCY: Final = 8 * len(os.sched_getaffinity(0))
"""Number of concurrent request/response commands per client and event loop; see docs/topics/performance.md."""

STRIPPED: Final = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""Variables that make runc pass on descriptors, or wait for a READY=1 that never comes (runc#1807)."""

KILL = StopPolicy()
"""For commands that only read: killing runc loses nothing."""

GRACE: Final = 5.0
"""Default seconds between SIGTERM and SIGKILL."""

LET_FINISH = StopPolicy(patience=10.0, grace=GRACE, hooks=True)
"""For commands that change a container: SIGKILL in the middle leaves partially created containers (runc#4534)."""

LET_HELPER_FINISH = StopPolicy(patience=1.0, helpers=True)
"""For commands that read the output of a host program started by runc, which would otherwise be orphaned."""

OWN_OUTPUT: Final = OwnOutput()

VERSION_OUTPUT: Final = OwnOutput(limit=1 << 16)
"""For the version, a few lines: what isn't a runtime may print without end."""

PROCESS_COMMANDS: Final = frozenset({"create", "run", "exec", "restore"})
"""Commands whose container process inherits runc's signal mask; for other commands the check would be wasted."""

NO_GUARD: Final = contextlib.nullcontext()

UNDO_TIMEOUT: Final = 20.0
"""Seconds for deleting the container of a cancelled call; runc itself may need ten."""


class Calls:
    """The options of a client, and the path of a call from a command to its result."""

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
        dialect: Dialect | None = None,
    ) -> None:
        """Check and store the options: see `Runc`.

        `dialect` is the runtime's dialect, or None to detect the runtime.
        """
        # A keeper is another process, and creates the same client from these arguments: see `given_options`.
        self._given = dict(locals())  # the arguments; nothing else is bound yet
        del self._given["self"], self._given["dialect"]
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
        self._restore_signals = restore_signals
        self._max_concurrency = max_concurrency
        self.runner: Runner = ProcessRunner() if runner is None else runner
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        self._own_log = log is None
        self._rootless = None if rootless is None else str(rootless).lower()
        self._switches = words.switches(debug=debug, systemd_cgroup=systemd_cgroup)
        self._log: tuple[Argument, ...] = (
            *(("--log", PrivateLog()) if log is None else words.path_option("--log", log)),
            *words.option("--log-format", "json" if log is None else log_format),
        )
        self._extra_args = words.unchecked(extra_args)
        self.identity = Identity(self._command, self._cwd, self._env, self.runner, dialect)

    @property
    def dialect(self) -> Dialect:
        """The dialect of the runtime; runc's for an unknown runtime."""
        return self.identity.dialect

    def _options(self, command: Command | None) -> tuple[Argument, ...]:
        """Return the argument vector up to the options for the log."""
        dialect = self.dialect
        root = self.state_directory() if dialect.root_always else self._root
        container_id = None if command is None or command.name in MAKERS else command.container_id
        rooted: tuple[Argument, ...] = words.path_option("--root", root)
        if dialect.alone and container_id is not None and root is not None and os.path.isdir(root):
            rooted = (
                "--root",
                PrivateRoot(words.absolute(root), *(name.format(id=container_id) for name in dialect.alone)),
            )
        rootless = () if self._rootless is None else dialect.rootless(self._rootless)
        return (self._command, *rooted, *self._switches, *rootless)

    def _prefix(self, command: Command | None = None) -> tuple[Argument, ...]:
        """Return the argument vector up to the command."""
        return (*self._options(command), *self._log, *self._extra_args)

    def _words(self, command: Command) -> tuple[Argument, ...]:
        """Return a command in the spelling of the runtime."""
        spell = self.dialect.spell
        return command.words if spell is None else spell(command.name, command.words)

    def _sandbox(self, command: Command, stop: StopPolicy) -> Sandbox | None:
        """Return how to reach the process of an `exec` that has no pid on the host; None if it has one."""
        if self.dialect.inside is None or command.name != "exec" or command.container_id is None:
            return None
        # A sandbox's processes have no pids on the host, so they are signalled by more commands of the runtime.
        options = (*self._options(command), *self._extra_args)
        return Sandbox(self.dialect.name, options, command.container_id) if stop.waits_for_process else None

    async def identify(self, timeout: Timeout = DEFAULT) -> Version:
        """Detect the runtime and its version, unless known already: see `Identity`."""

        async def ask() -> bytes:
            return (await self.request(argv.version(), timeout=timeout, stop=KILL, streams=VERSION_OUTPUT)).stdout

        return await self.identity.find(ask)

    def invocation(self, command: Command, streams: Streams, **settings: Any) -> Invocation:
        """Return a command with the client's options.

        Raises:
            PermissionDenied: If $XDG_RUNTIME_DIR is a directory that runc can't use.
        """
        # Another runner may start runc as another user, with another $XDG_RUNTIME_DIR.
        if (directory := self._runtime_directory()) is not None and type(self.runner) is ProcessRunner:
            check_runtime_directory(directory, os.path.basename(self._command), command.container_id)
        return Invocation(
            command=command.name,
            argv=(*self._prefix(command), *self._words(command)),
            container_id=command.container_id,
            streams=streams,
            sandbox=self._sandbox(command, settings["stop"]),
            env=self._environment(),
            cwd=self._cwd,
            pdeathsig=self._pdeathsig,
            process_group=self._process_group,
            restore_signals=self._restore_signals and command.name in PROCESS_COMMANDS,
            **settings,
        )

    def _detach_at(self, command: Command, streams: Streams | None) -> int | None:
        """Return the place for the words with which an `exec` or `run` hands its streams over; None if it doesn't."""
        of_programs = command.name in {"exec", "run"}
        joined = isinstance(streams, CapturedIO | PipedIO) and streams.stderr == JOINED and of_programs
        hands_over = isinstance(streams, PtyIO) or (joined and self.dialect.copies_streams)
        return len(self._prefix()) + 1 if hands_over else None

    def reworded(self, invocation: Invocation, command: Command) -> Invocation:
        """Return an invocation with another command's words, or in the spelling of a runtime detected since."""
        return structs.replace(
            invocation,
            argv=(*self._prefix(command), *self._words(command)),
            sandbox=self._sandbox(command, invocation.stop),
            detach_at=None if invocation.detach_at is None else self._detach_at(command, invocation.streams),
        )

    def with_option(self, invocation: Invocation, option: Argument) -> Invocation:
        """Return an invocation with one more option of its command."""
        place = len(self._prefix()) + 1
        return structs.replace(invocation, argv=(*invocation.argv[:place], option, *invocation.argv[place:]))

    def _runtime_directory(self) -> str | None:
        """Return runc's $XDG_RUNTIME_DIR where runc uses the variable: not as root, and not with `--root`."""
        if self._root is not None or os.geteuid() == 0:
            return None
        return self._env.get("XDG_RUNTIME_DIR", os.environ.get("XDG_RUNTIME_DIR")) or None

    def bundle(self, container_id: str, bundle: StrPath, *, strict: bool = False) -> Source:
        """Check a bundle before runc starts, and return its absolute path; encode the spec of a `Bundle`.

        A missing bundle is left to runc: a runner can start runc in another mount namespace.

        Raises:
            InvalidContainerID: If the id of the container is invalid.
            BundleNotFound: If the path exists, but isn't a bundle.
            ValueError: If the path is empty, has a NUL byte or isn't UTF-8, or if a value in a `Bundle`'s spec has no
                form in JSON.
            TypeError: If `bundle` isn't a path, or a value in the spec has a wrong type.
        """
        words.check_container_id(container_id)
        path = require_unicode("the path of the bundle", words.absolute(bundle))
        if not os.path.lexists(path):
            return Source(path, None, None)
        try:
            path = check_bundle(path)
        except BundleNotFound as error:
            raise BundleNotFound((), None, container_id=container_id, message=error.message) from None
        note_use(path, self.state_directory())
        if not saves_itself(bundle):
            return Source(path, None, None)
        return Source(path, bundle.saved(), bundle.spec.to_builtins() if strict else None)

    def _environment(self) -> dict[str, str] | None:
        """Return runc's environment; None for an unchanged one, which saves a copy."""
        # os.environ is read for each call, since a program may change it at any time.
        if not self._env and not any(name in os.environ for name in STRIPPED):
            return None
        # The client's own variables come last, so a caller can pass a stripped one on purpose.
        return {name: value for name, value in os.environ.items() if name not in STRIPPED} | self._env

    def seconds(self, timeout: Timeout) -> float | None:
        """Resolve the timeout of a call."""
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
        """Run a request/response command in turn, within `guard`.

        Raises:
            CommandError: If runc fails; subclasses for the known reasons.
            RuncTimeout: If runc takes longer than `timeout`. The wait for the turn doesn't count.
            RuncNotFound: If there is no runc.
        """
        # Some runtimes spell a container's command differently, or take the beginning of an id for the id.
        if command.container_id is not None and self.identity.must_ask:
            await self.identify(timeout)
        invocation = self.invocation(
            command,
            streams,
            timeout=self.seconds(timeout),
            drain_timeout=0.0,  # a container that was created holds its streams for as long as it lives
            stop=stop,
            preserve_fds=preserve_fds,
            pass_fds=pass_fds,
        )
        # The turn comes first: a guard notes what exists before the call, and a wait in between would make that stale.
        async with self.turn(), guard:
            return await self.run_now(invocation)

    def as_it_is(self, state: State) -> State:
        """Return a complete state, which is "stopped" once the process of a sandbox has ended."""
        if self.dialect.bare_states:
            with contextlib.suppress(OSError):
                record = read_record(self.state_directory(), state.id)
                state = state if record is None else record.complete(state)
        # runsc counts a sandbox as running until its process is reaped, and process 1 may take seconds for that.
        if self.dialect.inside is None or state.pid <= 0 or not has_ended(state.pid):
            return state
        return structs.replace(state, status=Status.STOPPED, pid=0)

    async def run_now(self, invocation: Invocation) -> Response:
        """Run a request/response command without waiting for a turn, and raise if runc fails."""
        note_start()
        completed = await self.runner.run(invocation)
        check_finished(invocation, completed)
        return respond(invocation, completed)

    def turn(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Return the semaphore for commands of this client in this event loop."""
        if self._max_concurrency is None:
            return contextlib.nullcontext()
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop)
        if turns is None:
            # Closed loops are removed here. Weak references wouldn't help, since a semaphore refers to its loop.
            for other in [known for known in list(self._turns) if known.is_closed()]:
                self._turns.pop(other, None)
            turns = self._turns[loop] = asyncio.Semaphore(self._max_concurrency)
        return turns

    async def run_program(
        self,
        invocation: Invocation,
        *,
        check: bool,
        started: Callable[[int], None] | None,
        reported: Callable[[], None] | None = None,
    ) -> Response:
        """Run a command whose exit code is that of a container's process, and raise if runc itself fails.

        Raises:
            ExitError: If `check` is set and the exit code isn't 0.
            CommandError: If runc fails.
            RuncTimeout: If the call takes longer than the invocation's timeout.
        """
        if reported is not None:
            invocation = structs.replace(invocation, reported=reported)
        note_start()
        completed = await self.runner.run(invocation, started=started)
        if invocation.stop.waits_for_process:
            check_time(invocation, completed)
            raise_failure(invocation, completed)
            await self.check_ran(invocation, completed)
        else:  # detached: the code is runc's own
            check_finished(invocation, completed)
        response = respond(invocation, completed, sandboxed=self.dialect.inside is not None)
        return checked(response, invocation.container_id) if check else response

    async def check_ran(self, invocation: Invocation, completed: Completed) -> None:
        """Raise if a runtime that has reported no process doesn't work at all."""
        # A pid file of the caller may be in another mount namespace, so its absence proves nothing. Whether the runtime
        # works is seen by asking for its version.
        unknown = completed.returncode and completed.process is None and isinstance(self.runner, ProcessRunner)
        if unknown and argv.has_own_pid_file(invocation.argv):
            try:
                await self.run_now(self.invocation(argv.version(), VERSION_OUTPUT, timeout=UNDO_TIMEOUT, stop=KILL))
            except CommandError:
                raise command_error(invocation, completed) from None

    def state_directory(self) -> str:
        """Return the directory of the runtime's containers: runc(8), `--root`."""
        if self._root is not None:
            return self._root
        name = self.dialect.root if self.identity.known else os.path.basename(self._command)
        return os.path.join(self._runtime_directory() or "/run", name)

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
        tree: bool = False,
        limits: Limits | None = None,
        stop: StopPolicy | None = None,
        terminal: bool = False,
    ) -> Invocation:
        """Return the invocation of a command that runs a process, if requested with a terminal."""
        if data is not None and (detach or has_stdin(io)):
            raise ValueError("input goes neither with detach nor with streams that have a stdin of their own")
        check_seconds("grace", grace)
        check_seconds("drain_timeout", drain_timeout)
        if limits is not None and detach:
            raise ValueError("limits need a call that waits for its process: not with detach")
        if limits is not None and limits.output is not None:
            io = first_bytes(io, limits.output)
        return self.invocation(
            command,
            io or (NullIO() if detach else CapturedIO()),
            input=data,
            timeout=check_timeout(timeout),
            drain_timeout=0.0 if detach else drain_timeout,
            stop=stop or (LET_FINISH if detach else StopPolicy(grace=grace, waits_for_process=True, tree=tree)),
            preserve_fds=preserve_fds,
            limits=limits,
            detach_at=None if detach or terminal != isinstance(io, PtyIO) else self._detach_at(command, io),
        )

    def __str__(self) -> str:
        """Show the program and the root directory, as arguments."""
        return repr(self._command) + ("" if self._root is None else f", root={self._root!r}")


def checked(response: Response, container_id: str | None) -> Response:
    """Return a response with exit code 0.

    Raises:
        ExitError: If the exit code isn't 0.
    """
    if response.exit_code != 0:
        raise ExitError(response, container_id)
    return response


def given_options(calls: Calls) -> dict[str, Any]:
    """Return the arguments of a client by name, so that another process can create the same client."""
    return dict(vars(calls)["_given"])
