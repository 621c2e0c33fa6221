"""What all commands of the client share: its options, and the way of a call from a command to its result."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from msgspec import structs

from . import _argv
from ._argv import Command, StrPath
from ._bundle_check import SavesItself, Source, check_bundle
from ._call import (
    Argument,
    Completed,
    Invocation,
    OwnOutput,
    PrivateLog,
    Runner,
    StopPolicy,
    Streams,
)
from ._exec_helper import named
from ._ownership import note_start
from ._runner import ProcessRunner
from ._runtime_directory import check_runtime_directory
from ._unicode import require_unicode
from .errors import (
    BundleNotFound,
    CommandError,
    ContainerExists,
    ExitError,
    RuncTimeout,
)
from .response import Response

DEFAULT_CONCURRENCY: Final = 8 * len(os.sched_getaffinity(0))
"""Request/response commands of one client that run at once in one event loop; see docs/topics/performance.md."""

STRIPPED: Final = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
"""Variables that make runc pass on descriptors, or wait for a READY=1 that never comes (runc#1807)."""

KILL = StopPolicy()
"""For commands that only read: nothing is lost when runc dies."""

GRACE: Final = 5.0
"""Seconds between SIGTERM and SIGKILL, when nothing else is asked for."""

LET_FINISH = StopPolicy(patience=10.0, grace=GRACE, hooks=True)
"""For commands that change something: SIGKILL in the middle leaves partial containers (runc#4534)."""

LET_HELPER_FINISH = StopPolicy(patience=1.0, helpers=True)
"""For a runc that has started a program of the host's, and reads what that prints: it would be orphaned."""

OWN_OUTPUT: Final = OwnOutput()

PROCESS_COMMANDS: Final = frozenset({"create", "run", "exec", "restore"})
"""The commands that make a process in a container, which inherits runc's signals; for the others a look costs more."""

NO_GUARD: Final = contextlib.nullcontext()

UNDO_TIMEOUT: Final = 20.0
"""Seconds for the deletion of what a cancelled call has made; runc itself may need ten."""


class Default(enum.Enum):
    """The type of `DEFAULT`."""

    DEFAULT = "the client's"

    def __repr__(self) -> str:
        """Show as in a signature."""
        return "DEFAULT"


DEFAULT: Final = Default.DEFAULT
"""Stands for the client's own setting, where None is a setting too."""

Timeout: TypeAlias = float | Literal[Default.DEFAULT] | None


class Caller:
    """The options of a client, and the way of a call."""

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
        """Check and keep the options: see `Runc`."""
        if log_format not in {None, "text", "json"}:
            raise ValueError(f"log_format must be 'text' or 'json': {log_format!r}")
        if rootless not in {None, True, False, "auto"}:
            raise ValueError(f"rootless must be True, False or 'auto': {rootless!r}")
        if max_concurrency is not None and max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1: {max_concurrency}")
        self._command = _argv.text("command", os.fspath(command))
        if not self._command:
            raise ValueError("command must not be empty")
        self._root = None if root is None else _argv.absolute(root)
        self._env = {name: _argv.setting(name, value).value for name, value in (env or {}).items()}
        self._cwd = None if cwd is None else _argv.absolute(cwd)
        self._timeout = check_timeout(timeout)
        self._pdeathsig = None if pdeathsig is None else _argv.signal_number(pdeathsig)
        if self._pdeathsig is not None and not named(self._pdeathsig):
            raise ValueError(f"pdeathsig must be a signal that has a name: {pdeathsig!r}")
        self._process_group = None if process_group is None else _argv.number("process_group", process_group)
        self._restore_signals = restore_signals
        self._max_concurrency = max_concurrency
        self._runner: Runner = ProcessRunner() if runner is None else runner
        self._turns: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        self._own_log = log is None
        self._prefix: tuple[Argument, ...] = (
            self._command,
            *_argv.path_option("--root", root),
            *_argv.switches(debug=debug, systemd_cgroup=systemd_cgroup),
            *_argv.option("--rootless", None if rootless is None else str(rootless).lower()),
            *(("--log", PrivateLog()) if log is None else _argv.path_option("--log", log)),
            *_argv.option("--log-format", "json" if log is None else log_format),
            *_argv.unchecked(extra_args),
        )

    def __repr__(self) -> str:
        """Show the program and its root directory."""
        root = "" if self._root is None else f", root={self._root!r}"
        return f"{type(self).__name__}({self._command!r}{root})"

    def _invocation(self, command: Command, streams: Streams, **settings: Any) -> Invocation:
        """Put the client's options around a command.

        Raises:
            PermissionDenied: If $XDG_RUNTIME_DIR names no directory that runc can use.
        """
        # Another runner may run it as another user, who has another one.
        if (directory := self._runtime_directory()) is not None and type(self._runner) is ProcessRunner:
            check_runtime_directory(directory, os.path.basename(self._command), command.container_id)
        return Invocation(
            command=command.name,
            argv=(*self._prefix, *command.words),
            container_id=command.container_id,
            streams=streams,
            env=self._environment(),
            cwd=self._cwd,
            pdeathsig=self._pdeathsig,
            process_group=self._process_group,
            restore_signals=self._restore_signals and command.name in PROCESS_COMMANDS,
            **settings,
        )

    def _runtime_directory(self) -> str | None:
        """Return $XDG_RUNTIME_DIR, as runc gets it, where runc heeds it: not as root, and not with a `--root`."""
        if self._root is not None or os.geteuid() == 0:
            return None
        return self._env.get("XDG_RUNTIME_DIR", os.environ.get("XDG_RUNTIME_DIR")) or None

    def _bundle(self, container_id: str, bundle: StrPath, *, strict: bool = False) -> Source:
        """Return the absolute path of a bundle, having looked at it before runc is started; encode a `Bundle`'s spec.

        One that isn't here at all is left to runc: a runner can take runc to another mount namespace.

        Raises:
            InvalidContainerID: If the container that it is for can't have that id.
            BundleNotFound: If something is there, and is no bundle.
            ValueError: If the path is empty, has a NUL byte or isn't UTF-8, or if a value in a `Bundle`'s spec has no
                form in JSON.
            TypeError: If it isn't a path, or likewise.
        """
        _argv.check_container_id(container_id)
        path = require_unicode("the path of the bundle", _argv.absolute(bundle))
        if not os.path.lexists(path):
            return Source(path, None, None)
        try:
            path = check_bundle(path)
        except BundleNotFound as error:
            raise BundleNotFound((), None, container_id=container_id, message=error.message) from None
        if not isinstance(bundle, SavesItself):
            return Source(path, None, None)
        return Source(path, bundle.saved(), bundle.spec.to_builtins() if strict else None)

    def _environment(self) -> dict[str, str] | None:
        """Tell runc's environment; None where it is ours unchanged, which spares a copy."""
        if not self._env and not any(name in os.environ for name in STRIPPED):
            return None
        return {name: value for name, value in os.environ.items() if name not in STRIPPED} | self._env

    def _seconds(self, timeout: Timeout) -> float | None:
        """Resolve a call's own timeout."""
        return self._timeout if timeout is DEFAULT else check_timeout(timeout)

    async def _request(
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
        invocation = self._invocation(
            command,
            streams,
            timeout=self._seconds(timeout),
            drain_timeout=0.0,  # a container that was created holds its streams for as long as it lives
            stop=stop,
            preserve_fds=preserve_fds,
            pass_fds=pass_fds,
        )
        async with self._turn(), guard:
            return await self._answer(invocation)

    async def _answer(self, invocation: Invocation) -> Response:
        """Run a request/response command without waiting for a turn, and raise if runc fails."""
        note_start()
        completed = await self._runner.run(invocation)
        check_finished(invocation, completed)
        return respond(invocation, completed)

    def _turn(self) -> contextlib.AbstractAsyncContextManager[object]:
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

    async def _work(
        self,
        invocation: Invocation,
        *,
        check: bool,
        started: Callable[[int], None] | None,
        reported: Callable[[], None] | None = None,
    ) -> Response:
        """Run a command whose exit code is a container's process's own, and raise if it was runc that failed.

        Raises:
            ExitError: If `check` is given and the code isn't 0.
            CommandError: If runc fails.
            RuncTimeout: If it takes longer than the invocation's timeout.
        """
        if reported is not None:
            invocation = structs.replace(invocation, reported=reported)
        note_start()
        completed = await self._runner.run(invocation, started=started)
        if invocation.stop.workload:
            check_time(invocation, completed)
            raise_failure(invocation, completed)
            await self._check_ran(invocation, completed)
        else:  # detached: the code is runc's own
            check_finished(invocation, completed)
        response = respond(invocation, completed)
        if check and response.exit_code != 0:
            raise ExitError(response, invocation.container_id)
        return response

    async def _check_ran(self, invocation: Invocation, completed: Completed) -> None:
        """Raise if a runtime that has reported no process can't run at all.

        A pid file of the caller's may be in another mount namespace; so the runtime is asked for its version.
        """
        unknown = completed.returncode and completed.process is None and isinstance(self._runner, ProcessRunner)
        if unknown and _argv.has_own_pid_file(invocation.argv):
            try:
                await self._answer(self._invocation(_argv.version(), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=KILL))
            except CommandError:
                raise command_error(invocation, completed) from None

    def _state_directory(self) -> str:
        """Tell where runc, and crun, keep their containers: runc(8), `--root`."""
        if self._root is not None:
            return self._root
        return os.path.join(self._runtime_directory() or "/run", os.path.basename(self._command))


def check_timeout(timeout: float | None) -> float | None:
    """Return a limit of time in seconds.

    Raises:
        ValueError: If it isn't a positive number.
    """
    if timeout is not None and not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"timeout must be a positive number of seconds, or None: {timeout!r}")
    return timeout


def check_time(invocation: Invocation, completed: Completed) -> None:
    """Raise `RuncTimeout` if runc was stopped because its time was up."""
    if completed.timed_out and invocation.timeout is not None:
        raise RuncTimeout(
            invocation.args, invocation.timeout, completed.stdout, completed.stderr, invocation.container_id
        )


def check_finished(invocation: Invocation, completed: Completed) -> None:
    """Raise if a runc that waits for nobody ran out of time, or failed."""
    check_time(invocation, completed)
    if completed.returncode != 0:
        raise command_error(invocation, completed)


def raise_failure(invocation: Invocation, completed: Completed) -> None:
    """Raise what runc failed with, if it failed and the exit code isn't a container's process's own."""
    if completed.returncode == 0:
        return
    from ._failures import failed  # noqa: PLC0415  (its tables take milliseconds to load)
    from ._log import parse_log  # noqa: PLC0415  (as above)

    if failed(parse_log(completed.log), completed.returncode, completed.stderr, process=completed.process):
        raise command_error(invocation, completed)


def command_error(invocation: Invocation, completed: Completed) -> CommandError:
    """Make the exception for a runc that failed."""
    from ._failures import failure  # noqa: PLC0415  (as above)
    from ._log import parse_log  # noqa: PLC0415  (as above)

    return failure(
        invocation.args,
        completed.returncode,
        completed.stdout,
        completed.stderr,
        parse_log(completed.log),
        invocation.container_id,
        process=completed.process,
    )


def refused(invocation: Invocation, completed: Completed) -> bool:
    """Tell whether runc has made no container because there is one of that id.

    Of two that begin at once the later one may not see the other's container, but the files in it. One that has told a
    process has made a container, whatever that process prints.
    """
    if not completed.returncode or completed.process in {"ended", "lost"}:
        return False
    error = command_error(invocation, completed)
    return isinstance(error, ContainerExists) or error.message.endswith((" already exists", "file exists"))


def respond(invocation: Invocation, completed: Completed) -> Response:
    """Make the result for a runc that did not fail."""
    return Response(
        args=invocation.args,
        pid=completed.pid,
        exit_code=completed.returncode,
        stdout=completed.stdout,
        stderr=completed.stderr,
        truncated=completed.truncated,
    )
