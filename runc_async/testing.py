"""`FakeRunner`: test code that uses `Runc` without a runtime, without privileges, and without a process.

Tell it what runc prints, hand it to the client, and look at what was started afterwards; see `FakeRunner.reply`.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec

from ._call import Completed, Invocation

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

    A command without a reply succeeds and prints nothing.

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
            hang: Never end, until it is cancelled or out of time.
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
        with anyio.move_on_after(invocation.timeout):
            return await process.wait()
        return process.completed(timed_out=True)

    async def open(self, invocation: Invocation) -> FakeProcess:
        """Give the reply as a runc that is running: see `Runner.open`."""
        self.invocations.append(invocation)
        replies = self._replies[invocation.command]
        reply = (replies.popleft() if len(replies) > 1 else replies[0]) if replies else FakeReply()
        await anyio.lowlevel.checkpoint()
        if reply.error is not None:
            raise reply.error
        return FakeProcess(next(self._pids), reply)


class FakeProcess:
    """A runc that doesn't exist, running: what `FakeRunner.open` returns.

    Attributes:
        pid: A number that no other process of the runner's has; no process of this machine is meant.
        stdin: None.
        stdout: The pieces of the reply's stdout.
        stderr: None.
        signals: The signals that were sent to it.
    """

    def __init__(self, pid: int, reply: FakeReply) -> None:
        self.pid = pid
        self.stdin = None
        self.stdout = _Pieces(reply)
        self.stderr = None
        self.signals: list[int] = []
        self._reply = reply

    async def wait(self) -> Completed:
        """Wait for its end: at once, or never for a reply that hangs."""
        await anyio.lowlevel.checkpoint()
        if self._reply.hang and not self.signals:
            await anyio.sleep_forever()
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
        """Note a signal."""
        self.signals.append(signum)

    async def aclose(self) -> None:
        """Close its stream."""
        await self.stdout.aclose()


class _Pieces(anyio.abc.ByteReceiveStream):
    """The pieces of a reply, then the end of the stream."""

    def __init__(self, reply: FakeReply) -> None:
        self._rest = deque(reply.stdout)
        self._hang = reply.hang
        self._closed = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return the next piece, `max_bytes` of it at most."""
        await anyio.lowlevel.checkpoint()
        if self._closed:
            raise anyio.ClosedResourceError
        if not self._rest:
            if self._hang:
                await anyio.sleep_forever()
            raise anyio.EndOfStream
        piece = self._rest.popleft()
        if len(piece) > max_bytes:
            self._rest.appendleft(piece[max_bytes:])
        return piece[:max_bytes]

    async def aclose(self) -> None:
        """Close the stream."""
        self._closed = True
