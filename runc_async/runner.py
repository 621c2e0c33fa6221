"""The one seam: an `Invocation` goes into a `Runner`, a `Completed` (or a live `Process`) comes out."""

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
"""What has become of a process when its runc has ended.

- "none": runc has told none.
- "ended": so it has, as runc says, as far as is known.
- "lost": it goes on without its runc, or has ended otherwise than runc says.
"""


class Document(msgspec.Struct, frozen=True):
    """A document for runc that stands in the argument vector; the runner puts a path there from which it can be read.

    Attributes:
        name: What it is, such as `process.json`.
        data: Its bytes.
    """

    name: str
    data: bytes

    def __str__(self) -> str:
        """Show the name and never the contents."""
        return f"<{self.name}>"

    __repr__ = __str__

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same to rich, which doesn't ask for the repr of a struct."""
        return [("name", self.name)]


class PrivateLog(msgspec.Struct, frozen=True):
    """The place of the runner's own log file in the argument vector: what runc writes there is `Completed.log`."""

    def __str__(self) -> str:
        """Show that it is a log."""
        return "<log>"


class PidFile(msgspec.Struct, frozen=True):
    """A file for the pid of the process that runc waits for; the runner looks out for it.

    Attributes:
        path: The caller's own; None for a private one.
    """

    path: str | None = None

    def __str__(self) -> str:
        """Show the path."""
        return self.path or "<pid file>"


class InsidePidFile(msgspec.Struct, frozen=True):
    """A private file for the pid of the process that is waited for, as the container's own kernel numbers it."""

    def __str__(self) -> str:
        """Show that it is a pid file."""
        return "<inside pid file>"


class PidfdSocket(msgspec.Struct, frozen=True):
    """The runner's own socket, to which runc sends a pidfd of the process; behind a `PidFile`."""

    def __str__(self) -> str:
        """Show that it is a socket."""
        return "<pidfd socket>"


class OwnCgroup(msgspec.Struct, frozen=True):
    """A cgroup of its own for the process of an `exec`, below the container's: the runner makes and removes it.

    It stands for `--cgroup`, once for each hierarchy; where the cgroup can't be made, for nothing.

    Attributes:
        name: A name that no other cgroup has.
        parents: For each hierarchy its controllers, as `--cgroup` takes them, and the directory of the container's
            cgroup, that of `pids` first. cgroup v2 has one, without controllers.
        memory: The directory of the container's cgroup that counts its memory; empty if there is none.
    """

    name: str
    parents: tuple[tuple[str, str], ...]
    memory: str = ""

    def __str__(self) -> str:
        """Show that it is a cgroup."""
        return "--cgroup=<own cgroup>"

    def words(self) -> list[str]:
        """Write the options."""
        return [f"--cgroup={controllers}{':' * bool(controllers)}{self.name}" for controllers, _ in self.parents]


class Setting(msgspec.Struct, frozen=True):
    """An argument of the form `NAME=value` whose value is shown to nobody.

    Attributes:
        name: The variable's name.
        value: Its value.
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
        """Show the same to rich, which doesn't ask for the repr of a struct."""
        return [(self.name, "***")]


Argument: TypeAlias = str | Document | PrivateLog | PidFile | InsidePidFile | PidfdSocket | OwnCgroup | Setting


class OwnOutput(msgspec.Struct, frozen=True):
    """The streams of a command whose output is runc's own and never a container's: memory files, read after the exit.

    Attributes:
        limit: Bytes that each may hold; runc's writes fail beyond it.
    """

    limit: int = 64 << 20


class StreamedOutput(msgspec.Struct, frozen=True):
    """The streams of a command whose output is runc's own and is read while it runs.

    stdout is a pipe, and so is stderr, which takes the place of a `PrivateLog` too: `Completed` has neither. A runner
    that can't do that leaves `Process.stderr` None, and gives both in `Completed`.
    """


Streams: TypeAlias = NullIO | InheritedIO | CapturedIO | PipedIO | RedirectIO | PtyIO | OwnOutput | StreamedOutput


class Sandbox(msgspec.Struct, frozen=True):
    """The sandbox that has the process of an `exec`: its processes have no numbers on the host.

    Attributes:
        runtime: The runtime's name.
        options: The argument vector of each command, up to the command's name.
        container_id: The container's id.
    """

    runtime: str
    options: tuple[str, ...]
    container_id: str


class StopPolicy(msgspec.Struct, frozen=True):
    """How a runc whose caller was cancelled, or ran out of time, is made to end. Times in seconds.

    Attributes:
        patience: How long it may go on and end by itself, before SIGTERM; with `waits_for_process` and a
            `PidFile` only until that process has started.
        grace: How long it may live after SIGTERM, before SIGKILL. Zero with zero patience: SIGKILL at once.
        waits_for_process: It waits for a process of a container's: after the grace that process is killed first, and
            runc has `grace` seconds more to report it. SIGKILL for runc alone would orphan the process.
        tree: It waits for a process of a container's, and all that this has started gets SIGKILL when the process has
            ended, or after the grace. A process that had ended by itself leaves them alone.
        hooks: What it has started, such as a hook that hangs, gets SIGKILL as soon as it has been ended itself.
        helpers: It has started others, such as criu, that have to end too: they have `grace` seconds after runc's end,
            before SIGKILL.
        helpers_first: It takes back by itself what it has made for those, when they have ended: after the patience they
            get SIGKILL, and it has `grace` seconds for that.
    """

    patience: float = 0.0
    grace: float = 0.0
    waits_for_process: bool = False
    tree: bool = False
    hooks: bool = False
    helpers: bool = False
    helpers_first: bool = False


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """One start of runc: a value, complete, and free of descriptors.

    Attributes:
        command: runc's name for it, such as `state`.
        argv: The argument vector; the first is the program's name or path.
        container_id: The container that it acts on, if any.
        streams: What its stdin, stdout and stderr are.
        input: What it reads on stdin, for the streams that take it.
        env: Its whole environment, or None for the caller's.
        cwd: Its working directory, or None for the caller's.
        timeout: Seconds until it is stopped, or None.
        drain_timeout: Seconds for which captured output is read on after its exit, at most, while others hold the pipe;
            it ends when nothing has come for 0.05 seconds.
        stop: How it is stopped.
        preserve_fds: Descriptors of the caller that it gets as 3, 4, ...
        pass_fds: Descriptors of the caller that it gets under their own numbers.
        pdeathsig: Signal that it gets when the thread which started it dies, or None.
        process_group: Process group that it is put into (0: one of its own), or None.
        reported: Called when runc has reported the process in its `PidFile`, or None. A runner that can't tell
            leaves it.
        sandbox: For an `exec` whose process has no number on the host: how it is reached, by commands of the runtime.
        restore_signals: It begins with no signal blocked and none ignored, whatever this process does about signals.
        terminal_at: For an `exec` whose process has the terminal of `PtyIO`: the index in `argv` behind the command's
            name. A runner that can put words there may have runc hand over the terminal itself, and wait for the
            process in its place. None for all others.
        limits: Limits for the container's process, or None: see `Completed.exceeded`. A runner that can't hold them
            leaves them.
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
    terminal_at: int | None = None
    limits: Limits | None = None

    @property
    def args(self) -> tuple[str, ...]:
        """The argument vector as it may be shown: see `Response.args`."""
        return tuple(map(str, self.argv))

    def __repr__(self) -> str:
        """Show what is started, without the environment and the input."""
        return f"<Invocation {one_line(' '.join(self.args))}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Show the same to rich, which doesn't ask for the repr of a struct."""
        return [("args", self.args)]


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """A runc that has ended.

    Attributes:
        pid: The process id that it had.
        returncode: Its exit code; -n if signal n ended it; None if it waited for a process whose end it never told.
        stdout: What it printed, as far as its streams captured it.
        stderr: Likewise.
        log: What it wrote into its private log.
        truncated: Bytes of stdout or stderr are missing.
        timed_out: It was stopped because its time was up.
        wait_status: How the container's process ended, as wait(2) has it, where the kernel tells.
        exceeded: The limit of the invocation's that the process had reached, for which it was ended; None if none.
        oom_kills: Processes that the kernel has killed, while the process ran, because the memory of its container's
            cgroup was used up; None if that can't be known, and for a `returncode` of 0, of which it says nothing.
        process: What had become of the process that it was to tell in its `PidFile` and to wait for; None if it
            wasn't, or that can't be known.
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
    """The container's process that runc has started: what the client needs of it."""

    @property
    def pid(self) -> int:
        """Its process id; 0 before it has started."""
        ...

    @property
    def process(self) -> ProcessIdentity | None:
        """The same with its start time, which is 0 if it was gone before a look; None before it has started."""
        ...

    @property
    def exited_at(self) -> dt.datetime | None:
        """When its end was seen; None before that."""
        ...

    def send_signal(self, signum: int) -> None:
        """Send it a signal; nothing happens if it has ended, or hasn't started."""
        ...

    def take(self) -> tuple[int, int]:
        """Give its pid and its pidfd away; the pidfd is the caller's from now on.

        Raises:
            ProcessLookupError: If it has ended, or runc has reported none.
            OSError: If no descriptor was left.
        """
        ...


class Process(Protocol):
    """A runc that is running, with the ends of its streams that are ours."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    @property
    def stdin(self) -> PipeWriter | None:
        """Its stdin, if that is a pipe."""
        ...

    @property
    def stdout(self) -> PipeReader | None:
        """Its stdout, if that is a pipe of ours."""
        ...

    @property
    def stderr(self) -> PipeReader | None:
        """Its stderr, if that is a pipe of ours."""
        ...

    @property
    def pty(self) -> Pty | None:
        """Its terminal, if that is ours."""
        ...

    @property
    def workload(self) -> StartedProcess | None:
        """The container's process, if the invocation has a `PidFile`; None if the runner can't tell it."""
        ...

    def close_workload(self) -> None:
        """Let go of the container's process, which `aclose` does too. Idempotent."""
        ...

    async def started(self) -> Completed | None:
        """Wait until the container's process runs; return runc's end if runc ended without one."""
        ...

    async def ended(self) -> int | None:
        """Wait for the end of the container's process; return its wait status, None if only runc can tell."""
        ...

    async def wait(self) -> Completed:
        """Wait for its exit. Cancelling the wait leaves it running."""
        ...

    async def finish(self) -> Completed:
        """Wait for its exit, for the invocation's timeout at most, and stop it then."""
        ...

    def send_signal(self, signum: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        ...

    def signal_tree(self, signum: int) -> None:
        """Send a signal to the container's process and all that it has started; see `ContainerProcess.send_signal`."""
        ...

    async def aclose(self) -> None:
        """Stop it by its invocation's policy if it runs, reap it, and close the streams. Can't be cancelled."""
        ...


class Runner(Protocol):
    """What starts runc. `Runc(runner=...)` takes one; `ProcessRunner` is the one that is used otherwise."""

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Start runc and wait for its end.

        Cancelling stops it by `Invocation.stop`; the call returns when it is gone.

        Args:
            invocation: What to start.
            started: Called with runc's process id as soon as it runs.

        Raises:
            RuncNotFound: If the program doesn't exist.
            OSError: If it can't be started.
        """
        ...

    async def open(self, invocation: Invocation) -> Process:
        """Start runc and return it running.

        Cancelling stops it, as for `run`.

        Raises:
            RuncNotFound: If the program doesn't exist.
            OSError: If it can't be started.
        """
        ...
