"""A service that is killed at random moments and started again, and reads a container of a keeper's all the while.

As a program it lives many lives, each in a process of its own, and prints what became of each as JSON:

    python kept_service.py PLACE ID DIRECTORY KILLS SEED

What a life has read is in DIRECTORY, in a file of its own: it is written at once after it was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runc_async import Keeper

if TYPE_CHECKING:
    from runc_async import Container

CHUNK = 4096
AHEAD = 1 << 18
"""Bytes that `lines()` may have read and not handed over."""

LONGEST = 0.12
"""Seconds after which a life is killed at the latest."""


class Life(msgspec.Struct):
    """One life of the service.

    Attributes:
        how: What it does: "receive" bytes, or "lines", or "leave" after some lines.
        killed: Whether it was killed, and has not ended by itself.
        code: The exit status of the container, if it has seen it.
    """

    how: str
    killed: bool
    code: int | None = None


async def serve(place: str, name: str, out: Path, how: str, seed: int) -> int | None:
    """Read what there is; return the exit code of the container if it has ended."""
    chance = random.Random(seed)  # noqa: S311 - it is to be repeated
    with out.open("ab", buffering=0) as file:
        async with Keeper.connect(place) as keeper, keeper.attach(name) as container:
            if not await read(container, file.write, how, chance):
                return None
            return (await container.wait()).code


async def read(container: Container, write: object, how: str, chance: random.Random) -> bool:
    """Read to the end, slowly; return whether that was the end."""
    assert callable(write)
    stream = container.stdout or container.pty
    assert stream is not None
    if how == "rest":
        async for chunk in stream:
            write(chunk)
        return True
    if how == "receive":
        with contextlib.suppress(EOFError, StopAsyncIteration):
            while True:
                try:
                    write(await stream.receive(chance.randrange(1, CHUNK)))
                except Exception as exc:  # noqa: BLE001 - the end of the stream, of which anyio has its own
                    return type(exc).__name__ == "EndOfStream"
                await asyncio.sleep(chance.uniform(0, 0.004))
    left = chance.randrange(1, 200)
    async for line in stream.lines(keepends=True, errors="strict"):
        write(line.encode())
        left -= 1
        if how == "leave" and not left:
            return False
        if not left % 50:
            await asyncio.sleep(chance.uniform(0, 0.004))
    return True


def live(place: str, name: str, out: Path, how: str, seed: int) -> Life:
    """Live once, in a child."""
    pid = os.fork()
    if not pid:
        code = 255
        try:
            code = asyncio.run(serve(place, name, out, how, seed)) or 0
        finally:
            os._exit(code)
    killed = False
    if how in {"receive", "lines"}:
        deadline = time.monotonic() + random.Random(seed).uniform(0, LONGEST)  # noqa: S311 - as above
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
            time.sleep(0.001)
        if ended[0] == 0:
            os.kill(pid, signal.SIGKILL)
            ended = os.waitpid(pid, 0)
    else:
        ended = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(ended[1])
    return Life(how, killed, None if killed else os.waitstatus_to_exitcode(ended[1]))


def main(place: str, name: str, directory: str, kills: str, seed: str) -> None:
    """Live until there were enough kills, and then once more to the end."""
    chance = random.Random(int(seed))  # noqa: S311 - as above
    lives: list[Life] = []
    while sum(life.killed for life in lives) < int(kills):
        out = Path(directory) / str(len(lives))
        lives.append(live(place, name, out, chance.choice(["receive", "lines", "leave"]), chance.randrange(1 << 30)))
        if lives[-1].code not in {None, 0}:
            break
    else:
        lives.append(live(place, name, Path(directory) / str(len(lives)), "rest", 0))
    sys.stdout.buffer.write(msgspec.json.encode(lives))


def lost(lives: list[Life], directory: Path, expected: bytes) -> int:
    """Check what all lives have read together; return how many bytes killed ones had read and not written.

    Nothing comes twice, nothing comes in another order, and what is missing is missing where a life was killed, and no
    more of it than that life can have had in its memory.
    """
    position = missing = room = 0
    for number, life in enumerate(lives):
        data = (directory / str(number)).read_bytes() if (directory / str(number)).exists() else b""
        gap = expected.find(data, position, position + room + len(data)) - position
        assert gap >= 0, f"life {number}, {life}: {data[:60]!r} doesn't follow {expected[position - 60 : position]!r}"
        position += gap + len(data)
        missing += gap
        room = (room if not data else 0) + (0 if not life.killed else CHUNK if life.how == "receive" else AHEAD)
    assert position == len(expected), f"{len(expected) - position} bytes are missing at the end"
    return missing


if __name__ == "__main__":
    main(*sys.argv[1:])
