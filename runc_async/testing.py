"""`FakeRunner`: test code that uses `Runc` without a runtime, without privileges, and without a process.

Tell it what runc prints, hand it to the client, and look at what was started afterwards; see `FakeRunner.reply`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable

import anyio
import anyio.lowlevel
import msgspec

from ._streams.pipes import PipeReader
from .runner import Completed, Invocation

_FIRST_PID = 1001


class FakeReply(msgspec.Struct, frozen=True, kw_only=True):
    """What a `FakeRunner` answers to one invocation. Attributes are those of `FakeRunner.reply`."""

    stdout: tuple[bytes, ...] = ()
    stderr: bytes = b""
    exit_code: int = 0
    log: bytes = b""
    truncated: bool = False
    hang: bool = False
    error: BaseException | None = None


class FakeRunner:
    """A `Runner` that starts nothing: it keeps each invocation, and gives the replies that it was told.

    A command without a reply succeeds and prints nothing::

        runner = FakeRunner()
        runner.reply("ps", stdout=b"[17, 18]")
        print(await Runc(runner=runner).ps("web"))  # [17, 18]
        print(runner.invocations[0].command)  # ps

    Attributes:
        invocations: What was started, in order.
    """

    def __init__(self) -> None:
        self.invocations: list[Invocation] = []
        self._replies: defaultdict[str, deque[FakeReply]] = defaultdict(deque)
        self._pids = itertools.count(_FIRST_PID)

    def reply(
        self,
        command: str,
        *,
        stdout: bytes | Iterable[bytes] = b"",
        stderr: bytes = b"",
        exit_code: int = 0,
        log: bytes = b"",
        truncated: bool = False,
        hang: bool = False,
        error: BaseException | None = None,
    ) -> None:
        """Tell what to answer to the next invocation of a command.

        Replies to one command are given in the order in which they were told; the last one again and again.

        Args:
            command: runc's name for it, such as "state"; "version" for `runc --version`.
            stdout: What it prints; several pieces are received one by one where the stream is live.
            stderr: What it prints on stderr.
            exit_code: Its exit code; -n for an end by signal n.
            log: What it writes into its private log: JSON lines. With a record of level error, runc has failed.
            truncated: Whether output was lost.
            hang: Don't end before it is cancelled, out of time, or gets a signal.
            error: Raise this instead of starting anything.
        """
        pieces = (stdout,) if isinstance(stdout, bytes) else tuple(stdout)
        self._replies[command].append(
            FakeReply(
                stdout=pieces,
                stderr=stderr,
                exit_code=exit_code,
                log=log,
                truncated=truncated,
                hang=hang,
                error=error,
            )
        )

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Give the reply as a runc that has ended: see `Runner.run`."""
        process = await self.open(invocation)
        if started is not None:
            started(process.pid)
        return await process.finish()

    async def open(self, invocation: Invocation) -> FakeProcess:
        """Give the reply as a runc that is running: see `Runner.open`."""
        self.invocations.append(invocation)
        replies = self._replies[invocation.command]
        reply = (replies.popleft() if len(replies) > 1 else replies[0]) if replies else FakeReply()
        await anyio.lowlevel.checkpoint()
        if reply.error is not None:
            raise reply.error
        return FakeProcess(next(self._pids), reply, invocation.timeout)


class FakeProcess:
    """A runc that doesn't exist, running: what `FakeRunner.open` returns.

    Attributes:
        pid: A number that no other process of the runner's has; no process of this machine is meant.
        stdin: None.
        stdout: The pieces of the reply's stdout.
        stderr: None.
        pty: None.
        workload: None: there is no process of a container's.
        signals: The signals that were sent to it.
    """

    def __init__(self, pid: int, reply: FakeReply, timeout: float | None = None) -> None:
        ended = anyio.Event()
        if not reply.hang:
            ended.set()
        self.pid: int = pid
        self.stdin: None = None
        self.stdout: PipeReader = _Pieces(reply.stdout, ended)
        self.stderr: None = None
        self.pty: None = None
        self.workload: None = None
        self.signals: list[int] = []
        self._reply = reply
        self._ended = ended
        self._timeout = timeout

    async def started(self) -> Completed | None:
        """Return its end if runc fails by the reply's log or exit code; else the process is taken to run."""
        return self.completed() if self._reply.log or self._reply.exit_code else None

    async def ended(self) -> int | None:
        """Tell nothing, as only runc knows how the process has ended."""
        return None

    async def finish(self) -> Completed:
        """Wait for its end, for the invocation's timeout at most."""
        with anyio.move_on_after(self._timeout):
            return await self.wait()
        return self.completed(timed_out=True)

    async def wait(self) -> Completed:
        """Wait for its end: that comes at once, or with the first signal for a reply that hangs."""
        await self._ended.wait()
        return self.completed()

    def completed(self, *, timed_out: bool = False) -> Completed:
        """Return its end."""
        return Completed(
            pid=self.pid,
            returncode=-self.signals[-1] if self.signals else self._reply.exit_code,
            stdout=b"".join(self._reply.stdout),
            stderr=self._reply.stderr,
            log=self._reply.log,
            truncated=self._reply.truncated,
            timed_out=timed_out,
        )

    def send_signal(self, signum: int) -> None:
        """Note a signal; it ends a process that hangs."""
        self.signals.append(signum)
        self._ended.set()

    def close_workload(self) -> None:
        """Do nothing: there is no process of a container's."""

    async def aclose(self) -> None:
        """Close its stream, and end it."""
        self.stdout.close()
        self._ended.set()


class _Pieces(PipeReader):
    """A pipe that doesn't exist: the pieces of a reply, then the end of the stream."""

    def __init__(self, pieces: Iterable[bytes], ended: anyio.Event) -> None:
        # not the pipe's own constructor, which takes a descriptor
        self._ahead = bytearray()
        self._rest = deque([memoryview(piece) for piece in pieces if piece])  # cutting a view copies nothing
        self._ended = ended
        self._open = True

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._open

    def close(self) -> None:
        """Close the stream."""
        self._open = False

    def _open_fd(self) -> int:
        """Raise if the stream is closed; there is no descriptor."""
        if not self._open:
            raise anyio.ClosedResourceError
        return -1

    async def _receive(self, max_bytes: int) -> bytes:
        """Return the next piece, `max_bytes` of it at most."""
        await anyio.lowlevel.checkpoint()
        self._open_fd()
        if not self._rest:
            await self._ended.wait()
            self._open_fd()
            raise anyio.EndOfStream
        piece = self._rest.popleft()
        if len(piece) > max_bytes:
            self._rest.appendleft(piece[max_bytes:])
        return bytes(piece[:max_bytes])
