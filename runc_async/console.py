"""Terminals: `Pty`, our end of one, and `attach()`, which connects it with the caller's own."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import termios

import anyio
import anyio.abc

from ._streams.pipes import ReadingMixin, WritingMixin
from ._streams.terminal import CallersInput, CallersOutput, DetachKeys, on_signals, raw_mode, window_size

_MAX_SIZE = 0xFFFF  # ioctl_tty(2): unsigned short


class AttachEnd(enum.Enum):
    """Why `Pty.attach` has returned."""

    DETACHED = "detached"
    """The user has typed the keys for it; the container runs on."""

    ENDED = "ended"
    """Nobody holds the container's terminal any more."""


class Pty(ReadingMixin, WritingMixin, anyio.abc.ByteStream):
    r"""Our end of a container's terminal, as anyio's `ByteStream`: what is sent is typed, what is received is shown.

    There is one stream for both of the container's outputs, and the terminal echoes what is typed and writes `\r\n`
    for every line feed until the program inside decides otherwise. The stream ends when nobody holds the terminal any
    more, which the kernel reports as EIO.

    `Container.pty` and `ContainerProcess.pty` are such streams, with `PtyIO`. One task reads and one writes at a time.
    """

    def __init__(self, fd: int) -> None:
        """Take over `fd`, the master of a pseudo-terminal.

        Raises:
            ValueError: If `fd` is no terminal. It stays the caller's then.
            OSError: If `fd` is no open descriptor.
        """
        os.fstat(fd)
        if not os.isatty(fd):
            raise ValueError(f"descriptor {fd} is no terminal")
        super().__init__(fd)
        self._line_is_open = False

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns, (0, 0) if nobody has set them.

        Raises:
            anyio.ClosedResourceError: If it is closed.
        """
        rows, cols = termios.tcgetwinsize(self._open_fd())
        return rows, cols

    def resize(self, rows: int, cols: int) -> None:
        """Set the size; the processes in the foreground of the terminal get SIGWINCH.

        Args:
            rows: Lines, 0 to 65535.
            cols: Characters in a line, 0 to 65535.

        Raises:
            ValueError: If a number is out of range.
            anyio.ClosedResourceError: If it is closed.
        """
        for number in (rows, cols):
            if not 0 <= number <= _MAX_SIZE:
                raise ValueError(f"a terminal has 0 to {_MAX_SIZE} rows and columns, not {number}")
        termios.tcsetwinsize(self._open_fd(), (rows, cols))

    async def send(self, item: bytes) -> None:
        """Type all of `item`, waiting as often as the program inside is slow.

        While the terminal edits lines, which is its mode at first, the kernel cuts a line after 4095 bytes: termios(3).
        A cancelled call may have typed a first part.

        Raises:
            anyio.BrokenResourceError: If nobody holds the terminal any more, or the kernel reports another error.
            anyio.ClosedResourceError: If our end is closed, before the call or while it waits.
            anyio.BusyResourceError: If another task is sending.
        """
        if self._is_hung_up():
            raise anyio.BrokenResourceError
        await super().send(item)
        if item:
            self._line_is_open = item[-1:] not in {b"\r", b"\n"}

    async def send_eof(self) -> None:
        """Type the end-of-file character, Ctrl-D if nothing else is set, as a user would: twice in an unfinished line.

        It is the end of the input for a program that reads lines from the terminal, and a character like any other for
        one that has set raw mode. Our end stays open.

        Raises:
            anyio.BrokenResourceError: As `send`.
            anyio.ClosedResourceError: As `send`.
            anyio.BusyResourceError: As `send`.
        """
        try:
            # Asked of our end, the kernel answers for the other one.
            key = termios.tcgetattr(self._open_fd())[6][termios.VEOF]
        except termios.error as exc:
            raise anyio.BrokenResourceError from exc
        await self.send(key * (2 if self._line_is_open else 1))
        self._line_is_open = False

    async def attach(self, *, stdin: int = 0, stdout: int = 1, detach_keys: str | None = "ctrl-p,ctrl-q") -> AttachEnd:
        """Connect the caller's terminal with the container's until the container's ends, or the user detaches.

        The caller's terminal is in raw mode meanwhile, so that every key goes to the container, and is restored in
        every case: end, exception, cancel, and a signal that ends this process. The size follows the caller's window
        (SIGWINCH, if called in the main thread). The flags of the two descriptors, which other programs share, aren't
        touched, and nothing is read from `stdin` that isn't typed into the container.

        `stdin` and `stdout` may be pipes or files too: the end of such an input is typed as `send_eof` does, and the
        output is shown to its end. Then there are no keys to detach with.

        A cancelled call leaves the container running and the stream open; output on its way to `stdout` may be lost.

        Args:
            stdin: Where to read what is typed.
            stdout: Where to show what the container writes. Write to it by nothing else meanwhile.
            detach_keys: The keys that detach, as docker(1) writes them; None: there are none. A key that may be the
                first of them arrives together with the next.

        Raises:
            ValueError: If `detach_keys` can't be understood.
            anyio.BrokenResourceError: If `stdout` is gone, or the kernel reports another error.
            anyio.ClosedResourceError: If the stream is closed, before the call or meanwhile.
            anyio.BusyResourceError: If another task is receiving or sending.
            OSError: If a descriptor isn't open, or none is left.
        """
        keys = DetachKeys(detach_keys) if detach_keys is not None and os.isatty(stdin) else None
        screen = stdout if window_size(stdout) else stdin
        with (
            CallersInput(stdin) as typed,
            CallersOutput(stdout) as shown,
            raw_mode(stdin),
            on_signals([signal.SIGWINCH], lambda: self._follow(screen)),
        ):
            self._follow(screen)
            return await self._connect(typed, shown, keys)

    async def _connect(self, typed: CallersInput, shown: CallersOutput, keys: DetachKeys | None) -> AttachEnd:
        """Copy in both directions until the output ends or the user detaches."""
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._type, typed, keys, group.cancel_scope)
                async for chunk in self:
                    await shown.write(chunk)
                group.cancel_scope.cancel()
        except ExceptionGroup as failures:
            failure = failures.exceptions[0]
        if failure is not None:
            # The group is our own affair, and the first failure has cancelled the other half.
            raise failure
        return AttachEnd.DETACHED if keys is not None and keys.found else AttachEnd.ENDED

    async def _type(self, typed: CallersInput, keys: DetachKeys | None, scope: anyio.CancelScope) -> None:
        """Type what the user types; at the keys that detach, cancel `scope`."""
        # A program that is gone takes no input; the end of its output is what ends us.
        with contextlib.suppress(anyio.BrokenResourceError):
            while data := await typed.read():
                await self.send(data if keys is None else keys.feed(data))
                if keys is not None and keys.found:
                    scope.cancel()
                    return
            if not typed.is_terminal:
                await self.send_eof()

    def _follow(self, screen: int) -> None:
        """Set the size of the caller's window, if it has one. Called by a signal handler, at any time."""
        size = window_size(screen)
        if size is not None:
            with contextlib.suppress(anyio.ClosedResourceError, termios.error):
                self.resize(*size)


def open_pty(rows: int, cols: int) -> tuple[int, int]:
    """Make a terminal of a size.

    Returns:
        Both descriptors: ours, which is non-blocking, and the child's. Neither is inheritable.

    Raises:
        OSError: If no terminal or descriptor is left.
    """
    ours, childs = os.openpty()
    try:
        os.set_blocking(ours, False)
        termios.tcsetwinsize(ours, (rows, cols))
    except BaseException:
        os.close(ours)
        os.close(childs)
        raise
    return ours, childs
