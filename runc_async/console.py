"""Terminals: `Pty`, the caller's end of a terminal, and `attach()` to connect it with the caller's own terminal."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
import termios

import anyio
import anyio.abc

from ._streams.pipes import ReadingMixin, WritingMixin
from ._streams.terminal import (
    CallersInput,
    CallersOutput,
    DetachKeys,
    on_signals,
    raw_mode,
    window_size,
    woken_by_signals,
)

_MAX_SIZE = 0xFFFF  # ioctl_tty(2): unsigned short


class AttachEnd(enum.Enum):
    """The reason for the end of `Pty.attach`."""

    DETACHED = "detached"
    """The user has typed the detach keys; the container runs on."""

    ENDED = "ended"
    """No process holds the container's terminal any more."""


class Pty(ReadingMixin, WritingMixin, anyio.abc.ByteStream):
    r"""The caller's end of a container's terminal, as anyio's `ByteStream`: send types, receive shows.

    One stream carries both outputs of the container. The terminal echoes typed characters and writes `\r\n` for every
    line feed until the program inside decides otherwise. The stream ends when no process holds the terminal any more,
    which the kernel reports as EIO.

    `Container.pty` and `ContainerProcess.pty` are such streams, with `PtyIO`. One task reads and one writes at a time.
    """

    def __init__(self, fd: int) -> None:
        """Take over `fd`, the master of a pseudo-terminal.

        Raises:
            ValueError: If `fd` is no terminal. The caller keeps it then.
            OSError: If `fd` is no open descriptor.
        """
        # isatty(3) alone would report a closed descriptor as no terminal.
        os.fstat(fd)
        if not os.isatty(fd):
            raise ValueError(f"descriptor {fd} is no terminal")
        super().__init__(fd)
        self._line_is_open = False

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns; (0, 0) if they were never set.

        Raises:
            anyio.ClosedResourceError: If the stream is closed.
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
            anyio.ClosedResourceError: If the stream is closed.
        """
        for number in (rows, cols):
            if not 0 <= number <= _MAX_SIZE:
                raise ValueError(f"a terminal has 0 to {_MAX_SIZE} rows and columns, not {number}")
        termios.tcsetwinsize(self._open_fd(), (rows, cols))

    async def send(self, item: bytes) -> None:
        """Type all of `item`, waiting while the program inside is slow.

        While the terminal edits lines, its first mode, the kernel cuts a line after 4095 bytes: termios(3). A cancelled
        call may have typed the first part of `item`.

        Raises:
            anyio.BrokenResourceError: If no process holds the terminal any more, or the kernel reports another error.
            anyio.ClosedResourceError: If this end is closed, before the call or during the wait.
            anyio.BusyResourceError: If another task is sending.
        """
        # The master takes bytes even if no process holds the terminal any more, without an error: ask poll(2) first.
        if self._is_hung_up():
            raise anyio.BrokenResourceError
        await super().send(item)
        if item:
            self._line_is_open = item[-1:] not in {b"\r", b"\n"}

    async def send_eof(self) -> None:
        """Type the end-of-file character (Ctrl-D by default) as a user would: twice in an unfinished line.

        For a program that reads lines from the terminal this is the end of the input; in raw mode it is a normal
        character. This end stays open.

        Raises:
            anyio.BrokenResourceError: As `send`.
            anyio.ClosedResourceError: As `send`.
            anyio.BusyResourceError: As `send`.
        """
        try:
            # tcgetattr(3) on the master returns the settings of the slave.
            key = termios.tcgetattr(self._open_fd())[6][termios.VEOF]
        except termios.error as exc:
            raise anyio.BrokenResourceError from exc
        await self.send(key * (2 if self._line_is_open else 1))
        self._line_is_open = False

    async def attach(self, *, stdin: int = 0, stdout: int = 1, detach_keys: str | None = "ctrl-p,ctrl-q") -> AttachEnd:
        """Connect the caller's terminal with the container's terminal until the latter ends, or the user detaches.

        Meanwhile the caller's terminal is in raw mode, so that every key goes to the container. It is restored in every
        case: end, exception, cancellation, and a signal that ends this process. The size follows the caller's window
        (SIGWINCH, if called in the main thread). The flags of the two descriptors, which other programs share, aren't
        changed, and all bytes read from `stdin` are typed into the container.

        `stdin` and `stdout` may be pipes or files too: the end of such an input is typed as by `send_eof`, and the
        output is shown to its end. Detach keys have no effect then.

        A cancelled call leaves the container running and the stream open; output on its way to `stdout` may be lost.

        Args:
            stdin: The descriptor to read typed characters from.
            stdout: The descriptor to show the output on. Don't write to it otherwise meanwhile.
            detach_keys: The keys that detach, as in docker(1); None for none. A key that may be the first of the
                sequence arrives together with the next key.

        Raises:
            ValueError: If `detach_keys` is invalid.
            anyio.BrokenResourceError: If `stdout` is closed at its other end, or the kernel reports another error.
            anyio.ClosedResourceError: If the stream is closed, before the call or meanwhile.
            anyio.BusyResourceError: If another task is receiving or sending.
            OSError: If a descriptor isn't open, or none is left.
        """
        keys = DetachKeys(detach_keys) if detach_keys is not None and os.isatty(stdin) else None
        # Either of them may be redirected; the size comes from the one that is a terminal.
        screen = stdout if window_size(stdout) else stdin
        with (
            CallersInput(stdin) as typed,
            CallersOutput(stdout) as shown,
            woken_by_signals(),
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
                # The output has ended; the other task would wait for a key for ever.
                group.cancel_scope.cancel()
        except ExceptionGroup as failures:
            failure = failures.exceptions[0]
        if failure is not None:
            # Callers need not know of the task group: its first failure has cancelled the other task.
            raise failure
        return AttachEnd.DETACHED if keys is not None and keys.found else AttachEnd.ENDED

    async def _type(self, typed: CallersInput, keys: DetachKeys | None, scope: anyio.CancelScope) -> None:
        """Type the user's input; on the detach keys, cancel `scope`."""
        # A program that has ended takes no input, but its last output is still to be shown; its end ends `attach`.
        with contextlib.suppress(anyio.BrokenResourceError):
            while data := await typed.read():
                await self.send(data if keys is None else keys.feed(data))
                if keys is not None and keys.found:
                    scope.cancel()
                    return
            if not typed.is_terminal:
                await self.send_eof()

    def _follow(self, screen: int) -> None:
        """Set the size of the caller's window, if it has a window. Called by a signal handler, at any time."""
        size = window_size(screen)
        if size is not None:
            with contextlib.suppress(anyio.ClosedResourceError, termios.error):
                self.resize(*size)


def open_pty(rows: int, cols: int) -> tuple[int, int]:
    """Open a terminal of the given size.

    Returns:
        Both descriptors: the master, which is non-blocking, and the child's. Neither is inheritable.

    Raises:
        OSError: If no terminal or descriptor is left.
    """
    ours, childs = os.openpty()
    try:
        os.set_blocking(ours, False)
        # Before the program starts: it asks for the size at once, and SIGWINCH tells only of later changes.
        termios.tcsetwinsize(ours, (rows, cols))
    except BaseException:
        os.close(ours)
        os.close(childs)
        raise
    return ours, childs
