"""Terminals: `Pty`, our end of one."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios

import anyio.abc

from ._streams import ReadingMixin, WritingMixin

_WINSIZE = struct.Struct("HHHH")  # ioctl_tty(2): rows, columns, and two that nobody uses


class Pty(ReadingMixin, WritingMixin, anyio.abc.ByteStream):
    """Our end of a pseudo-terminal, as anyio's `ByteStream`: what is sent is typed, what is received is the screen's.

    The stream ends when nobody holds the terminal any more, which the kernel reports as EIO. There is no half of it to
    close: `send_eof` types the end-of-file character instead.
    """

    def __init__(self, fd: int) -> None:
        ReadingMixin.__init__(self, fd)
        WritingMixin.__init__(self, fd)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, cols, _, _ = _WINSIZE.unpack(fcntl.ioctl(self._open_fd(), termios.TIOCGWINSZ, bytes(_WINSIZE.size)))
        return rows, cols

    def resize(self, rows: int, cols: int) -> None:
        """Set the size; the foreground processes of the terminal get SIGWINCH.

        Raises:
            anyio.ClosedResourceError: If it is closed.
            struct.error: If a number isn't from 0 to 65535.
        """
        fcntl.ioctl(self._open_fd(), termios.TIOCSWINSZ, _WINSIZE.pack(rows, cols, 0, 0))

    async def send_eof(self) -> None:
        """Type Ctrl-D, which is the end of file for whoever reads lines from the terminal."""
        await self.send(b"\x04")


def open_pty(rows: int, cols: int) -> tuple[int, int]:
    """Make a terminal of that size; return the descriptors of both ends, ours first. Both are closed on exec."""
    ours, childs = pty.openpty()
    try:
        fcntl.ioctl(ours, termios.TIOCSWINSZ, _WINSIZE.pack(rows, cols, 0, 0))
    except BaseException:
        os.close(ours)
        os.close(childs)
        raise
    return ours, childs
