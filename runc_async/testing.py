"""`FakeRunner`: test code that uses `Runc` without a runtime, without privileges, and without a process.

Define the output of runc, pass the runner to the client, and check the invocations afterwards; see `FakeRunner.reply`.
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
    """The reply of a `FakeRunner` to one invocation. The attributes are the arguments of `FakeRunner.reply`."""

    stdout: tuple[bytes, ...] = ()
    stderr: bytes = b""
    exit_code: int = 0
    log: bytes = b""
    truncated: bool = False
    hang: bool = False
    error: BaseException | None = None


class FakeRunner:
    """A `Runner` that starts no process: it records each invocation and gives prepared replies.

    A command without a reply succeeds and prints nothing::

        runner = FakeRunner()
        runner.reply("ps", stdout=b"[17, 18]")
        print(await Runc(runner=runner).ps("web"))  # [17, 18]
        print(runner.invocations[0].command)  # ps

    Attributes:
        invocations: The invocations so far, in order.
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
        """Add a reply to a command.

        Replies to one command are given in the order of their addition; the last reply is repeated.

        Args:
            command: The command's name, such as "state"; "version" for `runc --version`.
            stdout: The output; where the stream is live, several pieces are received one by one.
            stderr: The error output.
            exit_code: The exit code; -n for an end by signal n.
            log: The content of the private log: JSON lines. A record of level error makes the command fail.
            truncated: Whether output was lost.
            hang: Don't end before a cancellation, a timeout, or a signal.
            error: An exception to raise instead of starting.
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
        """Return the reply as a runc process that has ended: see `Runner.run`."""
        process = await self.open(invocation)
        if started is not None:
            started(process.pid)
        return await process.finish()

    async def open(self, invocation: Invocation) -> FakeProcess:
        """Return the reply as a running runc process: see `Runner.open`."""
        self.invocations.append(invocation)
        replies = self._replies[invocation.command]
        # The last reply stays, so that a test needs one reply for any number of calls.
        reply = (replies.popleft() if len(replies) > 1 else replies[0]) if replies else FakeReply()
        await anyio.lowlevel.checkpoint()
        # After the checkpoint: as with a real runtime, a cancelled call raises its cancellation and no error.
        if reply.error is not None:
            raise reply.error
        return FakeProcess(next(self._pids), reply, invocation.timeout)


class FakeProcess:
    """A runc process that doesn't exist: returned by `FakeRunner.open`.

    Attributes:
        pid: A number unique within the runner; it means no process of this machine.
        stdin: None.
        stdout: The pieces of the reply's stdout.
        stderr: None.
        pty: None.
        workload: None: there is no container process.
        signals: The signals sent so far.
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
        """Return the result if the reply's log or exit code is a failure; otherwise the process counts as running."""
        return self.completed() if self._reply.log or self._reply.exit_code else None

    async def ended(self) -> int | None:
        """Return None: only runc knows how the process has ended."""
        return None

    async def finish(self) -> Completed:
        """Wait for the end, for the invocation's timeout at most."""
        with anyio.move_on_after(self._timeout):
            return await self.wait()
        return self.completed(timed_out=True)

    async def wait(self) -> Completed:
        """Wait for the end: immediate, or with the first signal for a reply that hangs."""
        await self._ended.wait()
        return self.completed()

    def completed(self, *, timed_out: bool = False) -> Completed:
        """Return the result."""
        return Completed(
            pid=self.pid,
            # As for a real process: -n is the end by signal n.
            returncode=-self.signals[-1] if self.signals else self._reply.exit_code,
            stdout=b"".join(self._reply.stdout),
            stderr=self._reply.stderr,
            log=self._reply.log,
            truncated=self._reply.truncated,
            timed_out=timed_out,
        )

    def send_signal(self, signum: int) -> None:
        """Record a signal; it ends a process that hangs."""
        self.signals.append(signum)
        self._ended.set()

    def signal_tree(self, signum: int) -> None:
        """Note a signal, as `send_signal` does."""
        self.send_signal(signum)

    def close_workload(self) -> None:
        """Do nothing: there is no container process."""

    async def aclose(self) -> None:
        """Close the stream, and end the process."""
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
        """Whether the stream was closed."""
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
        """Return the next piece, or its first `max_bytes` bytes."""
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
