"""The listening socket of a keeper, usable even without a free descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable

from .channel import Channel, check_peer
from .errors import KeeperError

TURN = 16
"""Number of connections to accept before other tasks run."""

REST = 0.2
"""Seconds without accepting if even the spare descriptor can't be opened."""

_NONE_LEFT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Listener:
    """Accepts the connections of our own user."""

    def __init__(self, sock: socket.socket, accepted: Callable[[Channel], object]) -> None:
        """Take over a listening socket.

        Raises:
            OSError: If no descriptor is left.
        """
        sock.setblocking(False)
        self._sock = sock
        self._accepted = accepted
        # A spare descriptor. Without any other free descriptor a connection is accepted with the spare one and closed
        # at once. Otherwise the socket would stay readable, the event loop would spin, and the client would wait for an
        # answer.
        self._spare = -1
        self._rest: asyncio.TimerHandle | None = None
        self._hold_spare()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    def resume(self) -> None:
        """Accept connections from now on."""
        self._rest = None
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._accept)

    def pause(self) -> None:
        """Stop accepting; connections wait in the backlog."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        asyncio.get_running_loop().remove_reader(self._sock.fileno())

    def close(self) -> None:
        """Stop listening."""
        self.pause()
        self._sock.close()
        self._drop_spare()

    def _accept(self) -> None:
        """Accept the waiting connections."""
        # A flood of connections must not starve the other tasks.
        for _ in range(TURN):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as exc:
                if exc.errno not in _NONE_LEFT:
                    raise
                self._turn_away()
                return
            try:
                check_peer(sock)
                channel = Channel(sock)
            except (KeeperError, OSError):
                sock.close()
            else:
                self._accepted(channel)

    def _turn_away(self) -> None:
        """Close one connection for which no descriptor is left, or pause."""
        if self._spare >= 0:
            self._drop_spare()
            with contextlib.suppress(OSError):
                self._sock.accept()[0].close()
            with contextlib.suppress(OSError):
                self._hold_spare()
        else:
            self.pause()
            self._rest = asyncio.get_running_loop().call_later(REST, self._retry)

    def _retry(self) -> None:
        """Continue after a pause."""
        with contextlib.suppress(OSError):
            self._hold_spare()
        self.resume()

    def _hold_spare(self) -> None:
        """Open the spare descriptor."""
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _drop_spare(self) -> None:
        """Close the spare descriptor."""
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
