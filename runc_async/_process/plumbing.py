"""Convert the streams of an invocation to descriptors: three for the child, and the caller's ends."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import stat
import termios
from asyncio.subprocess import DEVNULL
from collections.abc import Callable

from .._linux.fdsocket import FDSocket
from .._linux.memfd import MemoryOutput
from .._streams.pipes import PipeReader, PipeWriter
from .._streams.pump import Drain, Feed
from ..console import Pty, open_pty
from ..errors import TerminalError
from ..runner import OwnOutput, StreamedOutput, Streams
from ..stdio import (
    CAPTURE_LIMIT,
    JOINED,
    CapturedIO,
    InheritedIO,
    NullIO,
    PipedIO,
    PtyIO,
    RedirectIO,
    Redirection,
    Target,
)
from .terminal import receive_terminal

_NAMES = ("stdin", "stdout", "stderr")


class RelayedPty(Pty):
    """The caller's end of the terminal of an attached runc, which copies to and from the container's terminal."""

    def __init__(self, fd: int, send_signal: Callable[[int], object]) -> None:
        """Take over `fd`, and a function to send a signal to runc."""
        super().__init__(fd)
        self._send_signal = send_signal

    def resize(self, rows: int, cols: int) -> None:
        """Set the size: see `Pty.resize`."""
        super().resize(rows, cols)
        # runc copies a new size when it gets SIGWINCH. The kernel sends SIGWINCH only to processes whose controlling
        # terminal this is, and runc isn't one: it would have to lead a session of its own.
        self._send_signal(signal.SIGWINCH)


class Plumbing:
    """The streams of a child: opened before the spawn, completed by `spawned`, closed after the child's exit.

    Attributes:
        child: The child's descriptors 0, 1 and 2.
        stdin: The caller's end of stdin, as a stream, if stdin is live and the child has been spawned.
        stdout: The caller's end of stdout, likewise.
        stderr: The caller's end of stderr, likewise.
        pty: The caller's end of the terminal, likewise.
    """

    def __init__(self, streams: Streams, *, data: bytes | None, live: bool, receives: bool = False) -> None:
        """Open all streams; after a failure, close all streams again.

        Args:
            streams: The streams to open.
            data: The input to write to the child's stdin.
            live: Whether pipes and terminals are handed out as streams, or captured.
            receives: Whether the child makes the terminal and sends it later: see `receive`.

        Raises:
            OSError: If a file can't be opened, or no descriptor is left.
        """
        self.child: list[int] = [DEVNULL, DEVNULL, DEVNULL]
        self.stdin: PipeWriter | None = None
        self.stdout: PipeReader | None = None
        self.stderr: PipeReader | None = None
        self.pty: Pty | None = None
        self._live = live
        self._receives = receives
        self._size = PtyIO()
        self._problem: Exception | None = None
        self._outputs: list[MemoryOutput | Drain | None] = [None, None]
        self._drains: list[Drain] = []
        self._childs: list[int] = []  # closed by the spawn
        self._ours: list[MemoryOutput | Drain | Feed] = []  # closed at the end
        self._ends: dict[str, int] = {}  # handed out by the spawn, closed by us only without one
        try:
            self._open(streams)
            if data is not None:
                self._feed(data)
        except BaseException:
            self.close()
            raise

    def _open(self, streams: Streams) -> None:
        """Open the streams of a kind."""
        match streams:
            case NullIO():
                pass
            case InheritedIO():
                self.child = [0 if streams.stdin else DEVNULL, 1, 2]
            case OwnOutput():
                self._memory(0, streams.limit)
                self._memory(1, streams.limit)
            case StreamedOutput():
                if self._live:
                    self._hand_out("stdout", self._our_read_end(1))
                    self._hand_out("stderr", self._our_read_end(2))
                    # runc opens its stderr again by path, as its log, and may run as another user than this process.
                    os.fchmod(self.child[2], 0o622)
                else:
                    self._memory(0, OwnOutput().limit)
                    self._memory(1, OwnOutput().limit)
            case CapturedIO():
                self._drain(1, streams)
                self._drain(2, streams) if streams.stderr is None else self._join()
            case PipedIO():
                self._pipes(streams)
            case RedirectIO():
                self._redirect(streams)
            case PtyIO():
                self._terminal(streams)

    def _memory(self, index: int, limit: int) -> None:
        """Give the child a file in memory as stdout (0) or stderr (1)."""
        output = MemoryOutput(("stdout", "stderr")[index], limit)
        self._ours.append(output)
        self._outputs[index] = output
        self.child[index + 1] = output.fd

    def _pipe(self) -> tuple[int, int]:
        """Create a pipe; both ends are closed on exec."""
        return os.pipe2(os.O_CLOEXEC)

    def _our_read_end(self, fd: int) -> int:
        """Give the child the writing end of a new pipe as `fd`, and return the reading end."""
        ours, self.child[fd] = self._pipe()
        self._childs.append(self.child[fd])
        os.set_blocking(ours, False)
        return ours

    def _our_write_end(self) -> int:
        """Give the child the reading end of a new pipe as stdin, and return the writing end."""
        self.child[0], ours = self._pipe()
        self._childs.append(self.child[0])
        os.set_blocking(ours, False)
        return ours

    def _join(self) -> None:
        """Give the child the same stream as stdout and stderr."""
        self.child[2] = self.child[1]

    def _drain(self, fd: int, capture: CapturedIO) -> None:
        """Give the child a captured pipe as `fd`."""
        drain = Drain(self._our_read_end(fd), capture.limit, keep=capture.keep)
        self._ours.append(drain)
        self._outputs[fd - 1] = drain
        self._drains.append(drain)

    def _hand_out(self, name: str, fd: int) -> None:
        """Keep `fd` for the stream `name`, which is created after the spawn."""
        self._ends[name] = fd

    def _feed(self, data: bytes) -> None:
        """Give the child a pipe as stdin into which `data` is written; `/dev/null` if `data` is empty."""
        if data:
            self._ours.append(Feed(self._our_write_end(), data))

    def _pipes(self, streams: PipedIO) -> None:
        """Give the child the requested pipes, and open the files."""
        pipes = [fd for fd, target in enumerate((streams.stdin, streams.stdout, streams.stderr)) if target is True]
        self._redirect(streams)
        for fd in pipes:
            if not self._live:
                if fd > 0:  # there is nothing to read on stdin but `input`
                    self._drain(fd, CapturedIO())
            elif fd == 0:
                self._hand_out("stdin", self._our_write_end())
            else:
                self._hand_out(_NAMES[fd], self._our_read_end(fd))
        if streams.stderr == JOINED:
            self._join()
        owner = tuple(-1 if number is None else number for number in (streams.uid, streams.gid))
        # A container's process that isn't root couldn't open /dev/stdout again otherwise: the pipe belongs to this
        # process.
        if self._live and owner != (-1, -1):
            for fd in pipes:
                os.fchown(self.child[fd], *owner)

    def _redirect(self, streams: RedirectIO | PipedIO) -> None:
        """Open paths, and lend descriptors."""
        self.child[0] = self._target(streams.stdin, os.O_RDONLY)
        self.child[1] = self._target(streams.stdout, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if isinstance(streams.stdout, str | os.PathLike) and streams.stderr == streams.stdout:
            self._join()
        elif not (isinstance(streams, PipedIO) and streams.stderr == JOINED):
            self.child[2] = self._target(streams.stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _target(self, target: Redirection | Target, flags: int) -> int:
        """Open a target of a redirection; `/dev/null` without a target, or before a pipe takes the place.

        Raises:
            OSError: If the file can't be opened, or the descriptor isn't open.
        """
        if target is None or isinstance(target, bool):
            return DEVNULL
        if not isinstance(target, str | os.PathLike):
            fd = target if isinstance(target, int) else target.fileno()
            os.fstat(fd)  # a closed one would be an error between fork and exec
            return fd
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISFIFO(os.stat(target).st_mode):
                flags = os.O_RDWR  # fifo(7): never blocks in Linux, unlike the other two
        fd = os.open(target, flags | os.O_CLOEXEC | os.O_NOCTTY, 0o666)
        self._childs.append(fd)
        return fd

    def _terminal(self, streams: PtyIO) -> None:
        """Give the child a terminal as all three streams. runc creates a second terminal inside the container."""
        if self._receives:
            self._size = streams
            self._memory(1, OwnOutput().limit)  # runc's own: the process has the terminal
            return
        master, slave = open_pty(streams.rows, streams.cols)
        self._childs.append(slave)
        self.child = [slave, slave, slave]
        if self._live:
            self._hand_out("pty", master)
        else:
            self._capture(master)

    def _capture(self, master: int) -> None:
        """Take over the caller's end of a terminal, and capture the output as stdout."""
        drain = Drain(master, CAPTURE_LIMIT)
        self._ours.append(drain)
        self._outputs[0] = drain
        self._drains.append(drain)

    def receive(self, console: FDSocket, runc_pid: int) -> None:
        """Take the terminal handed over by runc. `check` raises the error after a failure.

        Args:
            console: The socket to which the terminal was sent.
            runc_pid: The started process: runc, or a program that starts runc.
        """
        try:
            master = receive_terminal(console, runc_pid, self._size)
        except (TerminalError, OSError) as exc:
            self._problem = exc
        else:
            if self._live:
                self.pty = Pty(master)
            else:
                self._capture(master)

    def check(self) -> None:
        """Raise the error of a failed `receive`.

        Raises:
            TerminalError: If runc has sent anything else.
            OSError: If no descriptor was left.
        """
        if self._problem is not None:
            raise self._problem

    def spawned(self, send_signal: Callable[[int], object] = lambda _: None) -> None:
        """Close the caller's copies of the child's ends, and make streams of the other ends.

        Args:
            send_signal: Sends a signal to the child; does nothing if left out.
        """
        self._close_childs()
        ends = self._ends
        self.stdin = PipeWriter(ends["stdin"]) if "stdin" in ends else None
        self.stdout = PipeReader(ends["stdout"]) if "stdout" in ends else None
        self.stderr = PipeReader(ends["stderr"]) if "stderr" in ends else None
        self.pty = RelayedPty(ends["pty"], send_signal) if "pty" in ends else None
        self._ends = {}

    @property
    def draining(self) -> list[asyncio.Future[None]]:
        """Futures for the end of each open captured pipe."""
        return [drain.ended for drain in self._drains if not drain.ended.done()]

    @property
    def came(self) -> int:
        """The number of arrivals of data through the captured pipes."""
        return sum(drain.came for drain in self._drains)

    @property
    def handed_out(self) -> bool:
        """Whether a caller reads some of the streams."""
        return any(stream is not None for stream in (self.stdout, self.stderr, self.pty))

    async def drain(self, seconds: float, quiet: float) -> bool:
        """Read on while other processes hold the captured pipes, until no data has arrived for a while.

        Args:
            seconds: The limit.
            quiet: Seconds without data after which the output counts as complete.

        Returns:
            Whether data still arrived at the limit, so that more may follow.
        """
        loop = asyncio.get_running_loop()
        deadline, came = loop.time() + seconds, -1
        while (draining := self.draining) and came != self.came:
            left, came = deadline - loop.time(), self.came
            if left <= 0:
                return seconds > 0
            await asyncio.wait(draining, timeout=min(left, quiet))
        return False

    def drained(self) -> bool:
        """Read the captured pipes for the last time; return whether another process still holds a pipe."""
        complete = [drain.close() for drain in self._drains]
        return not all(complete)

    @property
    def quiet(self) -> bool:
        """Whether all data in the streams that were handed out has been read: ioctl_tty(2), FIONREAD."""
        waiting = bytearray(4)
        for stream in (self.stdout, self.stderr, self.pty):
            if stream is not None and not stream.closed:
                fcntl.ioctl(stream.fileno(), termios.FIONREAD, waiting)
                if any(waiting):
                    return False
        return True

    def when_dropped(self, act: Callable[[], object]) -> None:
        """Call `act`, possibly several times, when output beyond the limit is dropped."""
        for drain in self._drains:
            drain.when_dropped = act

    @property
    def dropped(self) -> bool:
        """Whether output beyond the limit was dropped."""
        out, err = self._outputs
        return (out is not None and out.dropped) or (err is not None and err.dropped)

    def captured(self, index: int) -> bytes:
        """Return the captured bytes of stdout (0) or stderr (1)."""
        output = self._outputs[index]
        return b"" if output is None else output.data

    def close(self) -> None:
        """Close all streams not handed out."""
        self._close_childs()
        while self._ours:
            self._ours.pop().close()
        while self._ends:
            os.close(self._ends.popitem()[1])

    def _close_childs(self) -> None:
        """Close the caller's copies of the child's ends."""
        while self._childs:
            os.close(self._childs.pop())
