"""A container of a pool: creation, state while waiting, and start for a caller."""

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

    from .._host.metering import Metering

WarmState: TypeAlias = Literal["created", "running", "paused"]
"""The state of a waiting container."""


class Warm:
    """A container created in advance.

    Attributes:
        container: The handle.
        paused: Whether the container is paused.
        used: Whether a caller has taken the container.
        over: Done as soon as the pool doesn't need the container any more.
    """

    def __init__(self, container: Container) -> None:
        self.container = container
        self.paused = False
        self.used = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def metering(self) -> Metering:
        """The figures of the container."""
        return self.container._metering  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    @property
    def has_ended(self) -> bool:
        """Whether the first process has ended."""
        return self.container._has_ended()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def watched(self, changed: Callable[[], object]) -> AbstractContextManager[None]:
        """Call `changed` after the end of the first process, and possibly again, while the block runs."""
        return self.container._watched(changed)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    def check(self) -> None:
        """Raise if the first process has ended.

        Raises:
            ContainerNotRunning: If the process has ended.
        """
        if self.has_ended:
            message = "its process has ended before the container was taken"
            raise ContainerNotRunning((), None, container_id=self.container.id, message=message)

    def end(self) -> None:
        """Let the container's task delete the container. Idempotent."""
        if not self.over.done():
            self.over.set_result(None)


class Kind(msgspec.Struct, frozen=True):
    """The common properties of a pool's containers.

    Attributes:
        runc: The client.
        state: The state of waiting containers.
        io: The streams.
        test: Returns when a started container is ready.
        timeout: Seconds for each command.
        grace: Seconds between SIGTERM and SIGKILL for a used container.
        options: The options of `create`.
    """

    runc: Runc
    state: WarmState
    io: StdIO | None
    test: Callable[[Container], Awaitable[object]] | None
    timeout: Timeout
    grace: float
    options: CreateOptions

    async def make(self, container_id: str, bundle: StrPath, *, pause: Callable[[], bool]) -> Warm:
        """Create a container in the state of the pool; without leftovers on failure or cancellation.

        Args:
            container_id: The container's id.
            bundle: The bundle.
            pause: Called when the container is ready; returns whether to pause it, which isn't needed for a waiting
                caller.
        """
        container = await self.runc._create_live(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            container_id, bundle, self.io, timeout=self.timeout, options=self.options
        )
        warm = Warm(container)
        try:
            if self.state != "created":
                await container.start(timeout=self.timeout)
                await self._wait_ready(warm)
            # Asked as late as possible: a caller may have begun to wait during the test.
            if self.state == "paused" and pause():
                await container.pause(timeout=self.timeout)
                warm.paused = True
            if self.state == "created":
                warm.metering.prepare()
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
        """Start or resume a container if necessary; have the container deleted after a failure."""
        warm.used = True
        try:
            if self.state == "created":
                await warm.container.start(timeout=self.timeout)
                return  # its program may have ended by now, as it may at any time
            if warm.paused:
                await warm.container.resume(timeout=self.timeout)
            warm.check()
            warm.metering.restart()
        except BaseException:
            warm.end()
            raise

    async def delete(self, warm: Warm, turns: asyncio.Semaphore) -> None:
        """Delete a container in turn."""
        try:
            async with turns:
                await warm.container.aclose(grace=self.grace if warm.used else 0.0)
        finally:
            await warm.container.aclose()  # the end of the loop cancels the wait for a turn
