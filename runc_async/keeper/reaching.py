"""Connect to the keeper at a place, or start one; and wait for its answer."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TypeVar

from .._client.calls import STRIPPED
from .._process.running import ProcessRunner
from ..runner import Invocation, OwnOutput, StopPolicy
from .channel import Channel
from .errors import KeeperError
from .failures import to_error
from .place import Place
from .protocol import Answer, AnyAnswer, Failed, decode_answer

A = TypeVar("A", bound=Answer)

START_TIME = 10.0
"""Default seconds for a keeper to start."""

RETRY_TIME = 0.02
"""Seconds between two tries to reach a keeper that another process is starting."""

BUSY = 3
"""Exit code of the program if another keeper runs at its place."""


async def reach(path: str, *, start: bool, seconds: float) -> Channel:
    """Connect to the keeper at a place; with `start`, start a keeper first if there is none.

    Raises:
        KeeperError: If there is none, or it doesn't listen in time, or the place isn't private.
        OSError: If the socket can't be used.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            with Place(path) as place:
                return await Channel.connect(place.address)
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            if not start:
                raise KeeperError(f"none listens at {path}") from exc
        # No keeper listens. Several services may start one at the same time: the lock of the place decides, and the
        # others find the winner in the next round.
        left = deadline - loop.time()
        if left <= 0:
            raise KeeperError(f"none has begun to listen at {path} in {seconds:g} seconds")
        if not await _launch(path, left):
            await asyncio.sleep(RETRY_TIME)


async def _launch(path: str, seconds: float) -> bool:
    """Start a keeper in the background; return whether it listens, False if another process was faster.

    Raises:
        KeeperError: If the start fails.
    """
    argv = (sys.executable, "-m", "runc_async.keeper", "--detach", path)
    # The keeper outlives this service: variables that describe this process, such as of systemd, aren't passed on.
    env = {name: value for name, value in os.environ.items() if name not in STRIPPED}
    completed = await ProcessRunner().run(
        Invocation(command="keeper", argv=argv, streams=OwnOutput(), env=env, timeout=seconds, stop=StopPolicy())
    )
    if completed.returncode not in {0, BUSY}:
        said = completed.stderr.decode(errors="replace").strip().splitlines()
        reason = "it takes too long" if completed.timed_out else (said or [f"exit code {completed.returncode}"])[-1]
        raise KeeperError(f"none could be started at {path}: {reason}")
    return completed.returncode == 0


async def answer_to(channel: Channel, kind: type[A]) -> A:
    """Wait for an answer of a class, without descriptors.

    Raises:
        KeeperError: If the connection ends, or the answer is of another class.
        Exception: The error of a failed request.
    """
    data, passed = await channel.receive()
    with passed:
        return checked(data, kind)


def checked(data: bytes, kind: type[A]) -> A:
    """Decode an answer of a class.

    Raises:
        KeeperError: If the answer is of another class.
        Exception: The error of a failed request.
    """
    answer: AnyAnswer = decode_answer(data)
    if isinstance(answer, Failed):
        raise to_error(answer)
    if not isinstance(answer, kind):
        raise KeeperError(f"an answer of another kind: {type(answer).__name__}")
    return answer
