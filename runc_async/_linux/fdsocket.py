"""Receives a descriptor over AF_UNIX from runc: a terminal (`--console-socket`) or a pidfd (`--pidfd-socket`).

runc connects as a client, sends a message with a single descriptor, and closes. The socket listens in a fresh private
directory before runc is spawned, because runc may connect at once.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import os
import socket
import struct
from types import TracebackType
from typing import Self

from ..errors import RuncError
from .owner import HeldScratch, make_directory
from .procfs import descends_from
from .scratch import discard

PATH_LIMIT = 107
"""Bytes of the path of a socket, without the final zero: unix(7), `sun_path`."""

_PREFIX = "runc-"
_NAME = "s"
_UCRED = struct.Struct("iII")
_MAX_DESCRIPTORS = 253  # SCM_MAX_FD of unix(7): room for more than one, so that extras are seen and closed
_MAX_DATA = 4096
_EXCERPT = 80


class FDSocket:
    """A socket for a descriptor from the runc process of a call.

    On enter, `async with FDSocket() as sock:` creates the directory and listens. On exit the directory is removed and
    all descriptors are closed, also a received descriptor not yet taken with `detach()`. So `receive()` can be
    cancelled, or raced against runc's exit, at any time.

    The peer must have the user id of the current process or root's, and must be the spawned process or a descendant,
    as with `sudo` in front.
    """

    def __init__(self) -> None:
        self._cleanup = contextlib.ExitStack()
        self._listener: socket.socket | None = None
        self._connection: socket.socket | None = None
        self._path = ""
        self._data = b""
        self._fd = -1

    def open(self) -> None:
        """Create the directory and listen, as `async with` does.

        Raises:
            OSError: If no directory, no path short enough, or no descriptor is available.
        """
        with contextlib.ExitStack() as undo:
            self._path = _make_directory(undo)
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            undo.callback(self._listener.close)
            self._listener.setblocking(False)
            self._listener.bind(self._path)
            self._listener.listen()
            self._cleanup = undo.pop_all()

    def close(self) -> None:
        """Close and remove all parts. Idempotent."""
        self._disconnect()
        if self._fd >= 0:
            os.close(self.detach())
        self._listener = None
        self._cleanup.close()

    async def __aenter__(self) -> Self:
        """Create the directory and listen.

        Raises:
            OSError: If no directory, no path short enough, or no descriptor is available.
        """
        self.open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close and remove all parts."""
        self.close()

    def __repr__(self) -> str:
        if self._listener is None:
            return "<FDSocket closed>"
        return f"<FDSocket {self._path!r} {'waiting' if self._fd < 0 else f'holds fd {self._fd}'}>"

    @property
    def path(self) -> str:
        """The absolute path for `--console-socket` or `--pidfd-socket`."""
        return self._path

    async def receive(self, pid: int) -> bytes:
        """Wait until a descriptor has arrived, to be taken with `detach()`. Connections of other processes are closed.

        Cancelling has no effect: the call can be repeated.

        Args:
            pid: The spawned process: runc, or the program that starts runc.

        Returns:
            The bytes sent beside the descriptor: for a terminal an arbitrary name, for a pidfd `standard` (the
            container's first process) or `setns` (the process of an exec).

        Raises:
            RuncError: If the message doesn't have exactly one descriptor.
            OSError: If no descriptor is left for the connection.
        """
        while not self.receive_nowait(pid):
            await _readable(self._open_listener() if self._connection is None else self._connection)
        return self._data

    def receive_nowait(self, pid: int) -> bool:
        """Take a descriptor after its arrival; return whether `detach()` has a descriptor.

        Call after runc's exit: a descriptor sent by then is there, and no other will come.

        Raises:
            RuncError: As `receive()`.
            OSError: As `receive()`.
        """
        if self._fd >= 0:
            return True
        try:
            if self._connection is None:
                self._connection = _accept(self._open_listener(), pid)
            self._data, self._fd = _receive_one(self._connection)
        except BlockingIOError:
            return False
        except BaseException:
            self._disconnect()
            raise
        self._disconnect()
        return True

    @property
    def data(self) -> bytes:
        """The bytes of the message, as returned by `receive()`; empty until then."""
        return self._data

    def detach(self) -> int:
        """Return the descriptor, non-inheritable, and give up ownership.

        Raises:
            ValueError: If no descriptor has arrived, or the descriptor was taken already.
        """
        if self._fd < 0:
            raise ValueError("there is no descriptor to take")
        fd, self._fd = self._fd, -1
        return fd

    def _open_listener(self) -> socket.socket:
        """Return the listening socket."""
        if self._listener is None:
            raise ValueError("the socket is only there inside `async with`")
        return self._listener

    def _disconnect(self) -> None:
        """Close the connection, if any."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _make_directory(undo: contextlib.ExitStack) -> str:
    """Create a directory for the socket and return the socket's path; `undo` removes the directory."""
    failures: list[OSError] = []
    for parent in _parents():
        size = len(os.fsencode(parent)) + len(f"/{_PREFIX}12345678/{_NAME}")
        if size > PATH_LIMIT:
            failures.append(OSError(errno.ENAMETOOLONG, f"a socket's path has at most {PATH_LIMIT} bytes", parent))
            continue
        try:
            directory, claim = make_directory(_PREFIX, parent, HeldScratch)
        except OSError as exc:
            failures.append(exc)
        else:
            undo.callback(claim.release)
            undo.callback(discard, directory, _NAME)
            return f"{directory}/{_NAME}"
    raise failures[0]


def _parents() -> list[str]:
    """List the possible parents of the socket's directory, best first."""
    import tempfile  # noqa: PLC0415  (it takes a millisecond to load, and many programs need no socket)

    runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
    return [
        *([runtime_dir] if os.path.isabs(runtime_dir) else []),
        *(["/run"] if os.geteuid() == 0 else []),
        os.path.abspath(tempfile.gettempdir()),
        "/tmp",  # noqa: S108  (mkdtemp makes a directory of our own in it)
    ]


def _accept(listener: socket.socket, pid: int) -> socket.socket:
    """Accept the connection of the spawned process, and close connections of other processes.

    Raises:
        BlockingIOError: If the spawned process has not connected yet.
    """
    while True:
        connection, _ = listener.accept()
        try:
            connection.setblocking(False)
            if _is_expected(connection, pid):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()


def _is_expected(connection: socket.socket, pid: int) -> bool:
    """Return whether the peer is the spawned process or a descendant: unix(7), SO_PEERCRED."""
    # A peer that has exited can't be traced any more, and is accepted: its user id was right, and processes of one user
    # aren't protected from each other in any case.
    peer_pid, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid in {0, os.geteuid()} and descends_from(peer_pid, pid) is not False


def _receive_one(connection: socket.socket) -> tuple[bytes, int]:
    """Receive a message with a non-inheritable descriptor.

    Raises:
        BlockingIOError: If there is no message yet.
        RuncError: If the message has no descriptor, or several.
    """
    # `socket.recv_fds` ignores its flags (cpython#128881). Without MSG_CMSG_CLOEXEC the descriptor would leak into each
    # process that another thread spawns meanwhile.
    fds = array.array("i")
    space = socket.CMSG_SPACE(_MAX_DESCRIPTORS * fds.itemsize)
    try:
        data, ancillary, flags, _ = connection.recvmsg(_MAX_DATA, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError as exc:
        raise RuncError("the runtime broke its connection off without sending a descriptor") from exc
    for _, _, content in ancillary:  # descriptors: other kinds come only to sockets that have asked for them
        fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if len(fds) == 1 and not flags & socket.MSG_CTRUNC:
        return data, fds[0]
    for fd in fds:
        os.close(fd)
    if flags & socket.MSG_CTRUNC:
        raise RuncError("the descriptor that the runtime sent was lost: too many descriptors are open in this process")
    raise RuncError(f"the runtime sent {len(fds) or 'no'} descriptors instead of one, with {data[:_EXCERPT]!r}")


async def _readable(sock: socket.socket) -> None:
    """Wait until a connection can be accepted, or data received."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())
