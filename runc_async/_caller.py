"""What all commands of the client share: its options, and the way of a call from a command to its result."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import enum
import math
import os
import warnings
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from . import _argv
from ._adoption import adopt_processes
from ._argv import Command, StrPath
from ._bundle_check import check_bundle
from ._call import (
    Argument,
    Completed,
    Invocation,
    OwnOutput,
    PrivateLog,
    Runner,
    StopPolicy,
    Streams,
    noted_ends,
)
from ._decode import decode_state
from ._exec_helper import named
from ._process import patiently, stubbornly
from ._runner import ProcessRunner
from ._state_mounts import unmount
from ._subreaper import reap_adopted
from .errors import (
    BundleNotFound,
    CleanupWarning,
    CommandError,
    ContainerExists,
    DecodeError,
    ExitError,
    RuncCrashed,
    RuncError,
    RuncTimeout,
)
from .response import Response

if TYPE_CHECKING:
    from pathlib import Path

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
        max_concurrency: int | None = DEFAULT_CONCURRENCY,
        runner: Runner | None = None,
    ) -> None:
        """Check and keep the options: see `Runc`."""
        self._given = dict(locals())  # the arguments; nothing else is bound yet
        del self._given["self"]
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

    def _bundle(self, container_id: str, bundle: StrPath) -> str:
        """Return the absolute path of a bundle, having looked at it before runc is started.

        One that isn't here at all is left to runc: a runner can take runc to another mount namespace.

        Raises:
            InvalidContainerID: If the container that it is for can't have that id.
            BundleNotFound: If something is there, and is no bundle.
            ValueError: If the path is empty or has a NUL byte.
        """
        _argv.check_container_id(container_id)
        path = _argv.absolute(bundle)
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

    async def _work(self, invocation: Invocation, *, check: bool, started: Callable[[int], None] | None) -> Response:
        """Run a command whose exit code is a container's process's own, and raise if it was runc that failed.

        Raises:
            ExitError: If `check` is given and the code isn't 0.
            CommandError: If runc fails.
            RuncTimeout: If it takes longer than the invocation's timeout.
        """
        completed = await self._runner.run(invocation, started=started)
        if invocation.stop.workload:
            check_time(invocation, completed)
            raise_failure(invocation, completed)
        else:  # detached: the code is runc's own
            check_finished(invocation, completed)
        response = respond(invocation, completed)
        if check and response.exit_code != 0:
            raise ExitError(response, invocation.container_id)
        return response

    @contextlib.asynccontextmanager
    async def _creating(self, container_id: str, *, keep: bool = False) -> AsyncGenerator[None]:
        """Delete the container if the block is cancelled, runs out of time, or loses runc, while it makes one.

        One that was there before isn't ours: then runc has refused to make another. That is asked of the file system,
        for it costs a microsecond and a call of runc ten milliseconds; and, since the runtime may keep its containers
        elsewhere, before anything is deleted of the container itself. Nor is one that somebody else has made meanwhile:
        a runc that was let finish has refused, too.
        """
        existed = await self._exists(container_id)
        begun = dt.datetime.now(dt.UTC)
        with noted_ends() as ends:
            try:
                yield
            except (asyncio.CancelledError, RuncTimeout, RuncCrashed):
                if not (existed or keep or any(refused(*end) for end in ends)):
                    await patiently(self._discard(container_id, begun))
                raise

    async def _exists(self, container_id: str) -> bool:
        """Tell whether there is a container of that id."""
        try:
            os.stat(os.path.join(self._state_directory(), _argv.check_container_id(container_id)))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # not ours to look into, as under a runner that goes through sudo
            try:
                await self._answer(self._asking(container_id))
            except CommandError:
                return False
        return True

    def _asking(self, container_id: str) -> Invocation:
        """Ask for the state of a container, for a call that has its turn already."""
        return self._invocation(_argv.state(container_id), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=KILL)

    def _state_directory(self) -> str:
        """Tell where runc, and crun, keep their containers: runc(8), `--root`."""
        if self._root is not None:
            return self._root
        private = None if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR")
        return os.path.join(private or "/run", os.path.basename(self._command))

    async def _discard(self, container_id: str, begun: dt.datetime) -> None:
        """Delete what a call has made that was cut short; name it if that fails.

        It doesn't wait for a turn, which could take any time.
        """
        delete = self._invocation(
            _argv.delete(container_id, force=True), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=LET_FINISH
        )

        async def undo() -> None:
            from ._residue import remove_cgroups  # noqa: PLC0415  (it loads pathlib, which takes milliseconds)

            if not await self._older(container_id, begun):
                with self._ending(container_id):
                    await self._answer(delete)
                left.extend(await remove_cgroups(container_id))

        left: list[Path] = []
        try:
            await stubbornly(undo)
        except (RuncError, OSError, asyncio.CancelledError) as exc:
            reason = str(exc) or type(exc).__name__
            warnings.warn(f"container {container_id!r} may be left behind: {reason}", CleanupWarning, stacklevel=2)
        if left:
            named = ", ".join(map(str, left))
            warnings.warn(f"of container {container_id!r} is left behind: {named}", CleanupWarning, stacklevel=2)

    @contextlib.contextmanager
    def _ending(self, container_id: str) -> Generator[None]:
        """Take away what keeps a container from ending within the block: mounts, and processes that are our children.

        Raises:
            OSError: If the root filesystem, mounted for a restore that was killed, can't be kept from a deletion.
        """
        unmount(os.path.join(self._state_directory(), container_id))
        reap_adopted()
        adopt_processes(self._state_directory(), container_id)
        try:
            yield
        finally:
            reap_adopted()

    async def _older(self, container_id: str, begun: dt.datetime) -> bool:
        """Tell whether a container was created before `begun`; a half-made one can't tell, and wasn't."""
        try:
            created = decode_state((await self._answer(self._asking(container_id))).stdout).created
        except (CommandError, DecodeError):
            return False
        return created is not None and created < begun


def given_options(caller: Caller) -> dict[str, Any]:
    """Return the arguments that a client was made with, by their names: another process makes the same of them."""
    return dict(vars(caller)["_given"])


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
