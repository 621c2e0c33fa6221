"""Runs scripts, each in a container of its own: so many at once, so many more in a queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import AsyncGenerator, Generator
from typing import Self

import anyio

from runc_async import Bundle, PipedIO, Runc, RuncError

from .limits import Limits, confined
from .messages import Ended, Tell, Waiting
from .metrics import Metrics
from .watch import Watch

log = logging.getLogger(__name__)

GRACE = 0.5
"""Seconds that a script has after SIGTERM."""

LAST_WORD = 5.0
"""Seconds that a client may take to read how its run has ended."""


class Sandbox:
    """Runs scripts for any number of tasks; comes from `open`.

    Attributes:
        limits: What each script may use.
        resumable: Whether clients can come back to a run.
    """

    resumable = False

    def __init__(
        self,
        runc: Runc,
        metrics: Metrics,
        limits: Limits,
        *,
        bundles: str,
        rootfs: os.PathLike[str],
        name: str,
        at_once: int,
        queue: int,
    ) -> None:
        self.limits = limits
        self._runc = runc
        self._metrics = metrics
        self._bundles = bundles
        self._rootfs = rootfs
        self._name = name
        self._at_once = at_once
        self._queue = queue
        self._places = anyio.Semaphore(at_once)
        self._runs: set[anyio.CancelScope] = set()
        self._stopping = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        runc: Runc,
        metrics: Metrics,
        limits: Limits,
        *,
        bundles: str,
        name: str = "sandbox",
        at_once: int = 4,
        queue: int = 100,
    ) -> AsyncGenerator[Self]:
        """Make the root filesystem that all containers share, and none of them can write to.

        Args:
            runc: The client. Its root directory is the service's alone: what is there was left behind by a service that
                was killed, and is deleted.
            metrics: Where runs are counted.
            limits: What each script may use.
            bundles: A directory for bundles, likewise; whatever is in it is deleted. Its filesystem must not be mounted
                `noexec`.
            name: What the containers' ids begin with.
            at_once: How many scripts may run at once.
            queue: How many more may wait.
        """
        for left in await runc.list():
            log.warning("deleting %s, which was left behind", left.id)
            await runc.delete(left.id, force=True)
        shutil.rmtree(bundles, ignore_errors=True)
        os.makedirs(bundles, mode=0o700)
        async with Bundle.busybox(directory=bundles) as shared:
            yield cls(
                runc, metrics, limits, bundles=bundles, rootfs=shared.rootfs, name=name, at_once=at_once, queue=queue
            )

    def refusal(self) -> str | None:
        """Say why no script is taken now; None if one is."""
        if self._stopping:
            return "the service is about to end"
        return "too many scripts wait already" if len(self._runs) >= self._at_once + self._queue else None

    def stop(self) -> None:
        """Take no more scripts, and end those that run or wait; their clients are told."""
        self._stopping = True
        for scope in self._runs:
            scope.cancel()

    async def run(self, script: str, tell: Tell) -> None:
        """Run a script, and tell of it.

        However this ends, by itself, by `stop` or by a cancel, the container is gone. The place is free for the next
        script before the client is told of the end.
        """
        end = Ended("failed")
        try:
            with self._stoppable() as scope:
                await tell(Waiting(max(0, len(self._runs) - self._at_once)))
                async with self._place():
                    end = await self._run(script, tell)
            if scope.cancelled_caught:
                end = Ended("stopped")
        except asyncio.CancelledError:
            end = Ended("abandoned")
            raise
        finally:
            self._metrics.ended(end)
        with anyio.move_on_after(LAST_WORD):
            await tell(end)

    @contextlib.contextmanager
    def _stoppable(self) -> Generator[anyio.CancelScope]:
        """Have `stop` end the block."""
        with anyio.CancelScope() as scope:
            self._runs.add(scope)
            try:
                yield scope
            finally:
                self._runs.remove(scope)

    @contextlib.asynccontextmanager
    async def _place(self) -> AsyncGenerator[None]:
        """Wait for a place, and hold it."""
        with self._metrics.waiting.track_inprogress():
            await self._places.acquire()
        try:
            with self._metrics.running.track_inprogress():
                yield
        finally:
            self._places.release()

    async def _run(self, script: str, tell: Tell) -> Ended:
        """Make a container, see it through, and delete it."""
        name = f"{self._name}-{uuid.uuid4().hex}"
        try:
            spec = confined(script, self.limits)
            async with Bundle.temporary(rootfs=self._rootfs, spec=spec, directory=self._bundles) as bundle:
                opening = self._runc.open_container(name, bundle, io=PipedIO(stdin=False), grace=GRACE)
                async with opening as container:
                    watch = Watch(container, self.limits, tell)
                    try:
                        broken = await watch.follow()
                    finally:
                        self._metrics.output.inc(watch.printed)
                return watch.end(broken, await container.wait())  # its status is kept when it is deleted
        except (RuncError, OSError) as error:
            log.exception("%s could not be run", name)
            return Ended("failed", message=type(error).__name__)  # the rest is the operator's matter
