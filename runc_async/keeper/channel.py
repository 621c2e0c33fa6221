"""Messages with descriptors over an AF_UNIX socket that keeps each message whole (SOCK_SEQPACKET)."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Self

from .errors import KeeperError, KeeperLost
from .protocol import DESCRIPTOR_LIMIT, MESSAGE_LIMIT

KIND = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK

SEND_TIME = 10.0
"""Seconds for the receiver to make room for a message; the first message always has room."""

_UCRED = struct.Struct("iII")
_INT = array.array("i").itemsize
_SPACE = socket.CMSG_SPACE(253 * _INT)  # SCM_MAX_FD of unix(7): all that can come, so that all can be closed


class Passed:
    """The descriptors of a message; descriptors that aren't taken out are closed at the end of the block."""

    def __init__(self, fds: Sequence[int] = ()) -> None:
        self._fds: list[int] = list(fds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the remaining descriptors."""
        self.close()

    def __len__(self) -> int:
        return len(self._fds)

    def get(self, index: int) -> int:
        """Return a descriptor, and keep ownership.

        Raises:
            KeeperError: If there is none at this index.
        """
        if index >= len(self._fds) or self._fds[index] < 0:
            raise KeeperError(f"descriptor {index} is missing beside the message")
        return self._fds[index]

    def take(self, index: int) -> int:
        """Return a descriptor, which belongs to the caller from now on.

        Raises:
            KeeperError: If there is none at this index.
        """
        fd = self.get(index)
        self._fds[index] = -1
        return fd

    def close(self) -> None:
        """Close the remaining descriptors. Idempotent."""
        fds, self._fds = self._fds, []
        for fd in fds:
            if fd >= 0:
                os.close(fd)


class Channel:
    """One end of a connection. A cancelled call has sent or received nothing."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over a connected socket."""
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # the kernel's default has room for one message, too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MESSAGE_LIMIT)
        self._sock = sock

    @classmethod
    async def connect(cls, address: str) -> Channel:
        """Connect to the keeper that listens at a path.

        Raises:
            KeeperError: If another user's process listens there.
            OSError: If there is no socket, no listening process, or no descriptor left.
        """
        sock = socket.socket(socket.AF_UNIX, KIND)
        channel = cls(sock)
        try:
            while True:
                try:
                    sock.connect(address)
                    break
                except BlockingIOError:  # unix(7): the queue of the listener is full, and poll(2) tells nothing of it
                    await asyncio.sleep(0.01)
            check_peer(sock)
        except BaseException:
            channel.close()
            raise
        return channel

    def fileno(self) -> int:
        """Return the descriptor; -1 once closed."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._sock.close()

    def finish(self) -> None:
        """Close our direction: the other side reads the end of the connection, and can still answer."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def send_nowait(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message if there is room.

        Raises:
            BlockingIOError: If there is no room.
            KeeperLost: If the connection has ended.
        """
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            # MSG_NOSIGNAL: a peer that is gone is an error here, and no SIGPIPE for the whole process.
            self._sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
        except (ConnectionError, TimeoutError) as exc:
            raise KeeperLost("the connection has ended") from exc

    async def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message with descriptors, which stay open here.

        Raises:
            KeeperLost: If the connection has ended, or the receiver makes no room within ten seconds.
            OSError: If the kernel refuses: too many descriptors are in flight.
        """
        try:
            async with asyncio.timeout(SEND_TIME):
                while True:
                    with contextlib.suppress(BlockingIOError):
                        self.send_nowait(data, fds)
                        return
                    loop = asyncio.get_running_loop()
                    await self._ready(loop.add_writer, loop.remove_writer)
        except TimeoutError:
            raise KeeperLost("the other side doesn't read") from None

    async def receive(self) -> tuple[bytes, Passed]:
        """Receive a message with non-inheritable descriptors.

        Raises:
            KeeperLost: If the connection has ended.
            KeeperError: If the message is too long, or descriptors were lost, as when too many are open.
        """
        while True:
            try:
                return self._receive()
            except BlockingIOError:
                await self.readable()

    def _receive(self) -> tuple[bytes, Passed]:
        """Receive a message that has arrived."""
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(MESSAGE_LIMIT, _SPACE, socket.MSG_CMSG_CLOEXEC)
        except (ConnectionError, TimeoutError) as exc:
            raise KeeperLost("the connection has ended") from exc
        # All received descriptors are owned by `Passed` before anything can fail, so that none leaks.
        fds = array.array("i")
        for _, kind, content in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % _INT])
        passed = Passed(fds)
        problem: KeeperError | None = None
        # unix(7): the kernel drops descriptors that this process has no room for, and delivers the message all the
        # same.
        if flags & socket.MSG_CTRUNC:
            problem = KeeperError("descriptors were lost: too many are open in this process")
        elif flags & socket.MSG_TRUNC:
            problem = KeeperError(f"a message has at most {MESSAGE_LIMIT} bytes")
        elif len(fds) > DESCRIPTOR_LIMIT:
            problem = KeeperError(f"a message has at most {DESCRIPTOR_LIMIT} descriptors")
        elif not data:
            problem = KeeperLost("the connection has ended without an answer")
        if problem is not None:
            passed.close()
            raise problem
        return data, passed

    @property
    def has_news(self) -> bool:
        """Whether a message, or the end of the connection, has arrived."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    async def readable(self) -> None:
        """Wait for a message or the end of the connection."""
        loop = asyncio.get_running_loop()
        await self._ready(loop.add_reader, loop.remove_reader)

    async def _ready(self, watch: Callable[..., object], forget: Callable[[int], object]) -> None:
        """Wait until the event loop reports the socket."""
        fd = self._sock.fileno()
        if fd < 0:
            raise KeeperLost("the connection is closed")
        ready = asyncio.Event()
        watch(fd, ready.set)
        try:
            await ready.wait()
        finally:
            forget(fd)


def check_peer(sock: socket.socket) -> None:
    """Check that the peer runs as our own user or as root: unix(7), SO_PEERCRED.

    Raises:
        KeeperError: If the peer is another user.
    """
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid not in {0, os.geteuid()}:
        raise KeeperError(f"the other side is user {uid}, and this keeper is for user {os.geteuid()} alone")
