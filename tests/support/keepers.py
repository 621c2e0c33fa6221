"""Keepers for tests, which are ended with the test however they were started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from containers import ended

from runc_async import Keeper
from runc_async.keeper import protocol, sending
from runc_async.keeper.channel import Channel
from runc_async.keeper.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runc_async import Runc

PROC = Path("/proc")


def pids(place: Path) -> Iterator[int]:
    """Yield the keepers at a place."""
    for name in filter(str.isdecimal, os.listdir(PROC)):
        with contextlib.suppress(OSError):
            words = (PROC / name / "cmdline").read_bytes().split(b"\0")
            if b"runc_async.keeper" in words and os.fsencode(place) in words:
                yield int(name)


async def end(place: Path, signum: signal.Signals = signal.SIGTERM) -> None:
    """End the keepers at a place, and wait until they are gone."""
    for pid in list(pids(place)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)
        await ended(pid)


def open_descriptors(pid: int) -> dict[str, str]:
    """Return the open descriptors of a process, and what they are."""
    found: dict[str, str] = {}
    for entry in os.listdir(PROC / str(pid) / "fd"):
        with contextlib.suppress(OSError):
            found[entry] = os.readlink(PROC / str(pid) / "fd" / entry)
    # The file in which it records its private directories is there while it has any, under another name each time.
    return {entry: target for entry, target in found.items() if not target.startswith("/dev/shm/#")}


def memory(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no such line")


def words(place: Path, *options: str) -> tuple[str, ...]:
    """Return the command line of a keeper."""
    return (sys.executable, "-m", "runc_async.keeper", *options, str(place))


async def child(place: Path, *options: str, **settings: object) -> asyncio.subprocess.Process:
    """Start a keeper as our child, and wait until it listens."""
    process = await asyncio.create_subprocess_exec(*words(place, *options), stderr=asyncio.subprocess.PIPE, **settings)  # type: ignore[arg-type]
    await listens(process)
    return process


async def listens(process: asyncio.subprocess.Process) -> None:
    """Wait until a keeper, or its successor in the same process, reports that it listens."""
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b"keeps" not in (line := await process.stderr.readline()):
            assert line, "the keeper has ended"


async def begin(place: Path) -> None:
    """Start a keeper in the background."""
    async with Keeper.connect(place, start=True, timeout=60):
        pass


def remove(place: Path) -> None:
    """Remove what a keeper has left at its place."""
    with contextlib.suppress(OSError):
        shutil.rmtree(os.readlink(place / "scratch"), ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)


async def upgrade(process: asyncio.subprocess.Process) -> None:
    """Have a keeper replaced by itself, and wait until the successor listens."""
    process.send_signal(signal.SIGHUP)
    await listens(process)


def requests(name: str, client: Runc, bundle: Path, new: str) -> list[protocol.Request]:
    """Return a request of each kind, for a container that is there and one that isn't."""
    start = protocol.Start(
        id=new,
        bundle=os.fsencode(bundle),
        client=sending.client_of(client),
        streams=protocol.Streams(kind="piped", stdin=True, stdout=True, stderr=True),
    )
    return [
        protocol.Hello(),
        start,
        protocol.Attach(id=name),
        protocol.Attach(id=name, streams=False),
        protocol.List(),
        protocol.Wait(id=name),
        protocol.Delete(id=new),
        protocol.Detach(),
        protocol.Close(stream="stdin"),
    ]


async def send_and_die(place: Path, request: protocol.Request) -> None:
    """Send a request, and end the connection at once."""
    channel = await connect(place)
    try:
        await channel.send(protocol.encode(request))
    finally:
        channel.close()


async def connect(place: Path) -> Channel:
    """Connect with a keeper, without its client."""
    with Place(str(place)) as opened:
        return await Channel.connect(opened.address)
