"""Resources from systemd: the listening socket, and a descriptor store that outlives the process.

sd_listen_fds(3), sd_notify(3) and sd_pid_notify_with_fds(3), with plain sockets and variables instead of the library.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping
from typing import get_args

from .protocol import StreamName

FIRST = 3  # SD_LISTEN_FDS_START
_SEPARATOR = "/"  # a character that no id has


class Inherited:
    """The descriptors inherited from systemd.

    Attributes:
        listener: The socket of a socket unit; None without one.
        streams: The descriptors of the store, by container and stream.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take over the descriptors, and remove the variables from the environment."""
        given = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
        self.listener: socket.socket | None = None
        self.streams: dict[str, dict[StreamName, int]] = {}
        # sd_listen_fds(3): the variables may be inherited from another service.
        if given["LISTEN_PID"] != str(os.getpid()):
            return
        names = given["LISTEN_FDNAMES"].split(":")
        for number in range(int(given["LISTEN_FDS"] or 0)):
            fd = FIRST + number
            os.set_inheritable(fd, False)
            self._sort(fd, names[number] if number < len(names) else "")

    def _sort(self, fd: int, name: str) -> None:
        """Keep a descriptor by name, or close it."""
        container_id, _, stream = name.rpartition(_SEPARATOR)
        known = next((known for known in get_args(StreamName) if known == stream), None)
        if container_id and known is not None:
            previous = self.streams.setdefault(container_id, {}).pop(known, None)
            if previous is not None:
                os.close(previous)
            self.streams[container_id][known] = fd
        elif self.listener is None and not container_id:
            self.listener = socket.socket(fileno=fd)
        else:
            os.close(fd)

    def take(self, container_id: str) -> dict[StreamName, int]:
        """Return the descriptors of a container, which belong to the caller from now on."""
        return self.streams.pop(container_id, {})

    def close(self) -> None:
        """Close the remaining descriptors."""
        while self.streams:
            for fd in self.streams.popitem()[1].values():
                os.close(fd)


class Store:
    """systemd's descriptor store: `FileDescriptorStoreMax=` in the unit limits the number."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Find the socket of the service manager; without a socket nothing is stored."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """Report that the service has started."""
        self._send("READY=1")

    def add(self, container_id: str, streams: Mapping[StreamName, int]) -> None:
        """Store the descriptors of a container."""
        for name, fd in streams.items():
            # FDPOLL=0: otherwise systemd drops a pipe whose writers are gone, with bytes still to be read.
            self._send(f"FDSTORE=1\nFDNAME={container_id}{_SEPARATOR}{name}\nFDPOLL=0", fd)

    def remove(self, container_id: str, names: tuple[StreamName, ...] = get_args(StreamName)) -> None:
        """Remove the descriptors of a container from the store."""
        for name in names:
            self._send(f"FDSTOREREMOVE=1\nFDNAME={container_id}{_SEPARATOR}{name}")

    def _send(self, text: str, *fds: int) -> None:
        """Send a message to the service manager, which may be gone."""
        if not self._address:
            return
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            sock.sendmsg([text.encode()], ancillary, socket.MSG_NOSIGNAL, self._address)
