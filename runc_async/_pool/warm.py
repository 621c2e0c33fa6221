"""One container of a pool: how it is made, what it does while it waits, and how it is given to a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio
import msgspec

from runc_async.errors import ContainerNotRunning

from .._commands.options import CreateOptions, Timeout
from .._commands.words import StrPath
from .._shield import shielded
from ..stdio import StdIO

if TYPE_CHECKING:
    from runc_async.client import Runc
    from runc_async.container import Container

WarmState: TypeAlias = Literal["created", "running", "paused"]
"""What a container of a pool does while it waits."""


class Warm:
    """A container that was made in advance.

    Attributes:
        container: The handle.
        paused: Whether it is paused.
        used: Whether it was given to a caller.
        over: Done as soon as the pool has no more use for it.
    """

    def __init__(self, container: Container) -> None:
        self.container = container
        self.paused = False
        self.used = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def has_ended(self) -> bool:
        """Whether its first process has ended, at this moment."""
        return self.container._has_ended()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def watched(self, changed: Callable[[], object]) -> AbstractContextManager[None]:
        """Call `changed` when its first process has ended, and perhaps once more, while the block runs."""
        return self.container._watched(changed)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def check(self) -> None:
        """Raise if its first process has ended.

        Raises:
            ContainerNotRunning: If it has.
        """
        if self.has_ended:
            message = "its process has ended before the container was taken"
            raise ContainerNotRunning((), None, container_id=self.container.id, message=message)

    def end(self) -> None:
        """Let its task delete it. Idempotent."""
        if not self.over.done():
            self.over.set_result(None)


class Kind(msgspec.Struct, frozen=True):
    """What all containers of a pool have in common.

    Attributes:
        runc: The client.
        state: What they do while they wait.
        io: Their streams.
        test: Returns when a container that was started is ready.
        timeout: Seconds for each command.
        grace: Seconds between SIGTERM and SIGKILL for one that was used.
        options: Those of `create`.
    """

    runc: Runc
    state: WarmState
    io: StdIO | None
    test: Callable[[Container], Awaitable[object]] | None
    timeout: Timeout
    grace: float
    options: CreateOptions

    async def make(self, container_id: str, bundle: StrPath, *, pause: Callable[[], bool]) -> Warm:
        """Make a container, and bring it to its state; cut short, or failed, it leaves nothing behind.

        Args:
            container_id: The container's id.
            bundle: What it is made from.
            pause: Asked when it is ready: whether to pause one that is to be paused, which a caller that waits for it
                doesn't need.
        """
        container = await self.runc._create_live(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            container_id, bundle, self.io, timeout=self.timeout, options=self.options
        )
        warm = Warm(container)
        try:
            if self.state != "created":
                await container.start(timeout=self.timeout)
                await self._wait_ready(warm)
            if self.state == "paused" and pause():
                await container.pause(timeout=self.timeout)
                warm.paused = True
            warm.check()
        except BaseException:
            await shielded(container.aclose())
            raise
        return warm

    async def _wait_ready(self, warm: Warm) -> None:
        """Wait until a container has passed the test, or has ended."""
        if self.test is None:
            return
        with anyio.CancelScope() as scope, warm.watched(lambda: scope.cancel() if warm.has_ended else None):
            await self.test(warm.container)

    async def let_run(self, warm: Warm) -> None:
        """Start a container, or resume it, if that is to be done; let it be deleted if that fails."""
        warm.used = True
        try:
            if self.state == "created":
                await warm.container.start(timeout=self.timeout)
                return  # its program may have ended by now, as it may at any time
            if warm.paused:
                await warm.container.resume(timeout=self.timeout)
            warm.check()
            warm.container._restart_usage()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        except BaseException:
            warm.end()
            raise

    async def delete(self, warm: Warm, turns: asyncio.Semaphore) -> None:
        """Delete a container, when it is its turn."""
        try:
            async with turns:
                await warm.container.aclose(grace=self.grace if warm.used else 0.0)
        finally:
            await warm.container.aclose()  # the end of the loop cancels the wait for a turn
