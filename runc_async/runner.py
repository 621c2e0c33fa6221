"""The seam of the library: a `Runner` takes an `Invocation`, and returns a `Completed` or a live `Process`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec

from ._text import one_line
from .endreason import EndReason
from .limits import Limits
from .stdio import CapturedIO, InheritedIO, NullIO, PipedIO, PtyIO, RedirectIO

if TYPE_CHECKING:
    import datetime as dt

    from ._linux.procfs import ProcessIdentity
    from ._streams.pipes import PipeReader, PipeWriter
    from .console import Pty


Fate: TypeAlias = Literal["none", "ended", "lost"]
"""The fate of a container's process, after its runc has ended.

- "none": runc has reported no process.
- "ended": the process has ended as reported by runc, as far as known.
- "lost": the process outlived runc, or has ended differently from runc's report.
"""


class Document(msgspec.Struct, frozen=True):
    """A document for runc in the argument vector; the runner replaces the document by the path of a readable file.

    Attributes:
        name: A descriptive name, such as `process.json`.
        data: The contents.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        """Show the name and never the contents."""
        return f"<{self.name}>"

    __repr__ = __str__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same in rich, which ignores the repr of a struct."""
        return [("name", self.name)]


class PrivateLog(msgspec.Struct, frozen=True):
    """The place of the runner's own log file in the argument vector; the contents become `Completed.log`."""

    def __str__(self) -> str:
        """Show that it is a log."""
        return "<log>"


class PidFile(msgspec.Struct, frozen=True):
    """A file for the pid of the container's process, which the runner watches.

    Attributes:
        path: The caller's file; None for a private file.
    """

    path: str | None = None

    def __str__(self) -> str:
        """Show the path."""
        return self.path or "<pid file>"


class InsidePidFile(msgspec.Struct, frozen=True):
    """A private file for the pid of the container's process, as numbered inside the sandbox."""

    def __str__(self) -> str:
        """Show that it is a pid file."""
        return "<inside pid file>"


class PidfdSocket(msgspec.Struct, frozen=True):
    """A socket of the runner, to which runc sends a pidfd of the process. Comes after a `PidFile`."""

    def __str__(self) -> str:
        """Show that it is a socket."""
        return "<pidfd socket>"


class OwnCgroup(msgspec.Struct, frozen=True):
    """A separate cgroup for the process of an `exec`, below the container's; created and removed by the runner.

    Replaced by one `--cgroup` for each hierarchy, or by nothing if the cgroup can't be created.

    Attributes:
        name: A unique name.
        parents: For each hierarchy, the controllers in the form of `--cgroup` and the directory of the container's
            cgroup; `pids` first. cgroup v2 has one hierarchy, without controllers.
        memory: The directory of the container's cgroup with the memory counters; empty if there is none.
    """

    name: str
    parents: tuple[tuple[str, str], ...]
    memory: str = ""

    def __str__(self) -> str:
        """Show that it is a cgroup."""
        return "--cgroup=<own cgroup>"

    def words(self) -> list[str]:
        """Return the options as words."""
        return [f"--cgroup={controllers}{':' * bool(controllers)}{self.name}" for controllers, _ in self.parents]


class PrivateRoot(msgspec.Struct, frozen=True):
    """The runtime's root directory, reduced to a single container.

    The runner replaces the argument by the path of a directory with links to the two files. A runner without support
    passes `path`; the runtime then takes the beginning of an id for the id.

    Attributes:
        path: The root directory.
        record: The name of the container's record below `path`.
        lock: The name of the container's lock below `path`.
    """

    path: str
    record: str
    lock: str

    def __str__(self) -> str:
        """Show the root directory."""
        return self.path


class Setting(msgspec.Struct, frozen=True):
    """An argument of the form `NAME=value` whose value is never shown.

    Attributes:
        name: The variable's name.
        value: The variable's value.
    """

    name: str
    value: str

    def __str__(self) -> str:
        """Show the name and never the value."""
        return f"{self.name}=***"

    def __repr__(self) -> str:
        """Show the same, fit for a terminal."""
        return one_line(str(self))

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same in rich, which ignores the repr of a struct."""
        return [(self.name, "***")]


Argument: TypeAlias = (
    str | Document | PrivateLog | PidFile | InsidePidFile | PidfdSocket | OwnCgroup | PrivateRoot | Setting
)


class OwnOutput(msgspec.Struct, frozen=True):
    """Streams for commands whose output is only runc's own: files in memory, read after the exit.

    Attributes:
        limit: Maximal bytes of each file; writes of runc beyond the limit fail.
    """

    limit: int = 64 << 20


class StreamedOutput(msgspec.Struct, frozen=True):
    """Streams for commands whose output is only runc's own, and read while runc runs.

    stdout and stderr are pipes; stderr also replaces a `PrivateLog`. `Completed` has neither output. A runner without
    support leaves `Process.stderr` None, and returns both outputs in `Completed`.
    """


Streams: TypeAlias = NullIO | InheritedIO | CapturedIO | PipedIO | RedirectIO | PtyIO | OwnOutput | StreamedOutput


class Sandbox(msgspec.Struct, frozen=True):
    """The sandbox with the process of an `exec`, whose processes have no pids on the host.

    Attributes:
        runtime: The runtime's name.
        options: The argument vector of each command, up to the command's name.
        container_id: The container's id.
    """

    runtime: str
    options: tuple[Argument, ...]
    container_id: str


class StopPolicy(msgspec.Struct, frozen=True):
    """The procedure for stopping runc after a cancellation or timeout. Times in seconds.

    Attributes:
        patience: Time for runc to end by itself before SIGTERM; with `waits_for_process` and a `PidFile`, only until
            the container's process has started.
        grace: Time between SIGTERM and SIGKILL. Zero, together with zero patience, sends SIGKILL at once.
        waits_for_process: Whether runc waits for a container's process. Then the process is killed first after the
            grace, and runc has `grace` seconds more to report the end. SIGKILL for runc alone would orphan the process.
        tree: Whether runc waits for a container's process whose descendants get SIGKILL too, after the end of the
            process or the grace. If the process ends by itself, the descendants run on.
        hooks: Whether descendants of runc, such as a hook that hangs, get SIGKILL after runc has ended.
        helpers: Whether runc has helpers, such as criu, that have to end too: SIGKILL follows `grace` seconds after
            the end of runc.
        helpers_first: Whether runc cleans up after its helpers: after the patience the helpers get SIGKILL, and runc
            has `grace` seconds for the cleanup.
    """

    patience: float = 0.0
    grace: float = 0.0
    waits_for_process: bool = False
    tree: bool = False
    hooks: bool = False
    helpers: bool = False
    helpers_first: bool = False


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """One start of runc: a complete value without open descriptors.

    Attributes:
        command: The name of the command, such as `state`.
        argv: The argument vector; the first element is the program's name or path.
        container_id: The container's id, if any.
        streams: The standard streams.
        input: Input for stdin, for streams with support.
        env: The whole environment, or None for the caller's.
        cwd: The working directory, or None for the caller's.
        timeout: Seconds until runc is stopped, or None.
        drain_timeout: Maximal seconds to read captured output after the exit while other processes hold the pipe;
            reading stops after 0.05 seconds without data.
        stop: The procedure for stopping runc.
        preserve_fds: Descriptors of the caller that runc gets as 3, 4, ...
        pass_fds: Descriptors of the caller that runc gets with the same numbers.
        pdeathsig: Signal for runc after the death of the thread that started runc, or None.
        process_group: Process group for runc (0 for a new one), or None.
        reported: Called when runc has reported the process in the `PidFile`, or None. A runner without support ignores
            the function.
        sandbox: For an `exec` whose process has no pid on the host: the sandbox, reached by commands of the runtime.
        restore_signals: Whether runc starts with no signal blocked or ignored, whatever this process blocks or ignores.
        detach_at: For an `exec` with the terminal of `PtyIO`, or an `exec` or `run` with stderr in the same pipe as
            stdout: the index in `argv` after the command's name. A runner may insert words there with which runc hands
            the streams over and ends, and then waits for the process instead of runc. None for other commands.
        limits: Limits for the container's process, or None: see `Completed.exceeded`. A runner without support ignores
            the limits.
    """

    command: str
    argv: tuple[Argument, ...]
    container_id: str | None = None
    streams: Streams = OwnOutput()
    input: bytes | None = None
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    timeout: float | None = None
    drain_timeout: float = 1.0
    stop: StopPolicy = StopPolicy()
    preserve_fds: tuple[int, ...] = ()
    pass_fds: tuple[int, ...] = ()
    pdeathsig: int | None = None
    process_group: int | None = None
    reported: Callable[[], None] | None = None
    sandbox: Sandbox | None = None
    restore_signals: bool = False
    detach_at: int | None = None
    limits: Limits | None = None

    @property
    def args(self) -> tuple[str, ...]:
        """The argument vector without secrets: see `Response.args`."""
        return tuple(map(str, self.argv))

    def __repr__(self) -> str:
        """Show the arguments without the environment and the input."""
        return f"<Invocation {one_line(' '.join(self.args))}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same in rich, which ignores the repr of a struct."""
        return [("args", self.args)]


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an ended runc process.

    Attributes:
        pid: The process id.
        returncode: The exit code; -n if signal n ended runc; None if runc was to report a process and didn't.
        stdout: The captured stdout.
        stderr: The captured stderr.
        log: The private log.
        truncated: Whether bytes of stdout or stderr are missing.
        timed_out: Whether the timeout has ended the call.
        wait_status: The wait status of the container's process, as in wait(2), if the kernel reports it.
        exceeded: The limit of the invocation that has ended the process; None if none.
        oom_kills: Number of processes in the container's cgroup that the kernel has killed for lack of memory during
            the call; None if unknown.
        process: The fate of the process reported in the `PidFile`; None without such a file, or if unknown.
    """

    pid: int
    returncode: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    log: bytes = b""
    truncated: bool = False
    timed_out: bool = False
    wait_status: int | None = None
    exceeded: EndReason | None = None
    oom_kills: int | None = None
    process: Fate | None = None


class StartedProcess(Protocol):
    """The container's process started by runc, as used by the client."""

    @property
    def pid(self) -> int:
        """The process id; 0 before the start."""
        ...

    @property
    def process(self) -> ProcessIdentity | None:
        """The pid with the start time; start time 0 if the process was gone before a look; None before the start."""
        ...

    @property
    def exited_at(self) -> dt.datetime | None:
        """The time when the end was noticed; None before."""
        ...

    def send_signal(self, signum: int) -> None:
        """Send a signal. Does nothing if the process has ended or hasn't started."""
        ...

    def take(self) -> tuple[int, int]:
        """Return the pid and the pidfd, which belong to the caller from now on.

        Raises:
            ProcessLookupError: If the process has ended, or runc has reported none.
            OSError: If no descriptor was left.
        """
        ...


class Process(Protocol):
    """A running runc, with our ends of the streams."""

    @property
    def pid(self) -> int:
        """The process id."""
        ...

    @property
    def stdin(self) -> PipeWriter | None:
        """The writing end of stdin, if stdin is a pipe."""
        ...

    @property
    def stdout(self) -> PipeReader | None:
        """The reading end of stdout, if stdout is a pipe of ours."""
        ...

    @property
    def stderr(self) -> PipeReader | None:
        """The reading end of stderr, if stderr is a pipe of ours."""
        ...

    @property
    def pty(self) -> Pty | None:
        """Our end of the terminal, if there is one."""
        ...

    @property
    def workload(self) -> StartedProcess | None:
        """The container's process, if the invocation has a `PidFile`; None if the runner doesn't report a process."""
        ...

    def close_workload(self) -> None:
        """Release the container's process, as `aclose` does too. Idempotent."""
        ...

    async def started(self) -> Completed | None:
        """Wait until the container's process runs. Return runc's result if runc has ended without starting one."""
        ...

    async def ended(self) -> int | None:
        """Wait for the end of the container's process. Return the wait status, or None if only runc can report it."""
        ...

    async def wait(self) -> Completed:
        """Wait for the exit. Cancelling the wait leaves runc running."""
        ...

    async def finish(self) -> Completed:
        """Wait for the exit, for at most the invocation's timeout; stop runc after that."""
        ...

    def send_signal(self, signum: int) -> None:
        """Send a signal. Does nothing after the exit."""
        ...

    def signal_tree(self, signum: int) -> None:
        """Send a signal to the container's process and to all descendants; see `ContainerProcess.send_signal`."""
        ...

    async def aclose(self) -> None:
        """Stop a running runc by its policy, reap it, and close the streams. Can't be cancelled."""
        ...


class Runner(Protocol):
    """Starts runc. Pass a custom runner as `Runc(runner=...)`; the default is `ProcessRunner`."""

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Start runc and wait for the exit.

        Cancelling stops runc by `Invocation.stop`; the call returns after the exit.

        Args:
            invocation: The invocation.
            started: Called with runc's process id after the spawn.

        Raises:
            RuncNotFound: If the program doesn't exist.
            OSError: If the start fails.
        """
        ...

    async def open(self, invocation: Invocation) -> Process:
        """Start runc and return the running process.

        Cancelling stops runc, as in `run`.

        Raises:
            RuncNotFound: If the program doesn't exist.
            OSError: If the start fails.
        """
        ...
