"""A keeper under a service manager, which these tests play: its socket, and the store of descriptors."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import keepers
import pytest

from runc_async import Keeper, PipedIO, PtyIO, Runc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containers import MakeBundle

pytestmark = pytest.mark.runc

LAUNCH = """
import fcntl, os, sys
numbers, words = sys.argv[1].split(","), sys.argv[2:]
numbers = [fcntl.fcntl(int(number), fcntl.F_DUPFD_CLOEXEC, 100) for number in numbers]  # above where they go
for place, number in enumerate(numbers, 3):
    os.dup2(number, place)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(words[0], words)
"""
"""What a service manager does between fork and exec."""


class Manager:
    """A service manager with one socket unit, and a store of descriptors."""

    def __init__(self, place: Path) -> None:
        place.mkdir(mode=0o700)
        self.place = place
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(place / "socket"))
        self.listener.listen(64)
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(place / "notify"))
        self.notices.setblocking(False)
        self.stored: dict[str, int] = {}
        self.ready = 0

    async def start(self) -> asyncio.subprocess.Process:
        """Start the keeper as a unit is started."""
        fds = [self.listener.fileno(), *self.stored.values()]
        variables = {
            "LISTEN_FDS": str(len(fds)),
            "LISTEN_FDNAMES": ":".join(["my-keeper.socket", *self.stored]),
            "NOTIFY_SOCKET": str(self.place / "notify"),
        }
        numbers = ",".join(map(str, fds))
        argv = (sys.executable, "-c", LAUNCH, numbers, *keepers.words(self.place))
        process = await asyncio.create_subprocess_exec(
            *argv, env={**os.environ, **variables}, pass_fds=fds, stderr=asyncio.subprocess.PIPE
        )
        await keepers.listens(process)
        self.read()
        return process

    def read(self) -> None:
        """Do what the keeper has asked for."""
        while True:
            try:
                data, fds, *_ = socket.recv_fds(self.notices, 4096, 4)
            except BlockingIOError:
                return
            fields = dict(line.split("=", 1) for line in data.decode().splitlines())
            self.ready += "READY" in fields
            if "FDSTORE" in fields:
                (self.stored[fields["FDNAME"]],) = fds
            if "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.stored:
                os.close(self.stored.pop(fields["FDNAME"]))

    def close(self) -> None:
        """Let go of everything."""
        self.read()
        self.listener.close()
        self.notices.close()
        for fd in self.stored.values():
            os.close(fd)


@pytest.fixture
def manager(scratch: Path) -> Iterator[Manager]:
    """Return a service manager."""
    manager = Manager(scratch / f"k{os.urandom(3).hex()}")
    yield manager
    manager.close()
    keepers.remove(manager.place)


async def test_stored_streams_survive_a_killed_keeper(
    manager: Manager, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Pipes and a terminal go on with the next keeper, and are taken out of the store with their container."""
    piped, shown = container_id(), container_id()
    process = await manager.start()
    async with Keeper.connect(manager.place, timeout=60) as keeper:
        script = "echo one; read line; echo $line; exit 42"
        await keeper.start(client, piped, make_bundle(["sh", "-c", script]), io=PipedIO())
        bundle = make_bundle(["sh", "-c", "read line; exit 7"], process={"terminal": True})
        await keeper.start(client, shown, bundle, io=PtyIO())
        manager.read()
        assert sorted(manager.stored) == sorted(
            [f"{piped}/stderr", f"{piped}/stdin", f"{piped}/stdout", f"{shown}/pty"]
        )
        process.kill()
        await process.wait()
        listing = asyncio.create_task(keeper.list())  # it waits in the queue of the socket unit
        process = await manager.start()
        assert sorted(kept.id for kept in await listing) == sorted([piped, shown])
        async with keeper.attach(piped) as container:
            assert container.stdin
            assert container.stdout
            await container.stdin.send(b"two\n")
            await container.stdin.aclose()
            assert [line async for line in container.stdout.lines()] == ["one", "two"]
            assert (await container.wait()).code in {42, None}
        async with keeper.attach(shown) as container:
            assert container.pty
            await container.pty.send(b"x\n")
            assert (await container.wait()).code in {7, None}
        await keeper.delete(piped)
        await keeper.delete(shown)
        manager.read()
        assert (manager.stored, manager.ready) == ({}, 2)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
