"""A sandbox whose runs outlive the service: a keeper has the containers, and journals have what clients are told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import uuid
from collections.abc import AsyncGenerator, Generator
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from runc_async import Bundle, BundleNotFound, ContainerNotFound, ExitStatus, Keeper, PipedIO, Runc, RuncError
from runc_async.rootfs import Busybox

from .journal import Journal
from .limits import Limits, confined
from .messages import Ended, Tell, Waiting
from .metrics import Metrics
from .sandbox import Sandbox
from .watch import Watch

log = logging.getLogger(__name__)

RETURN = 30.0
"""Seconds that a client may be away before its script is ended."""

KEEP = 60.0
"""Seconds for which the end of a run can be asked for."""


class KeptSandbox(Sandbox):
    """Runs scripts in containers of a keeper; comes from `open_kept`."""

    resumable = True

    def __init__(self, *args: Any, keeper: Keeper, journals: str, tasks: TaskGroup, **options: Any) -> None:
        super().__init__(*args, **options)
        self._keeper = keeper
        self._directory = journals
        self._tasks = tasks
        self._journals: dict[str, Journal] = {}
        self._giving_up: dict[str, asyncio.TimerHandle] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def open_kept(
        cls, runc: Runc, metrics: Metrics, limits: Limits, *, keeper: str, bundles: str, name: str, **options: Any
    ) -> AsyncGenerator[Self]:
        """Go on with the runs of a service that was here before; at the end of the block, leave them to the next one.

        Args:
            runc: The client.
            metrics: Where runs are counted.
            limits: What each script may use.
            keeper: The keeper's directory; a keeper is started if there is none.
            bundles: A directory for bundles, and beside it one for journals. The root filesystem that all share stays
                there.
            name: What the containers' ids begin with.
            options: The rest of `Sandbox`.
        """
        journals = os.path.join(os.path.dirname(bundles), "journals")
        for directory in (bundles, journals):
            os.makedirs(directory, mode=0o700, exist_ok=True)
        others = {"bundles": bundles, "journals": journals, "name": name, **options}
        with contextlib.ExitStack() as closing:
            async with Keeper.connect(keeper, start=True) as connected, anyio.create_task_group() as tasks:
                rootfs = (await shared_bundle(os.path.join(bundles, "shared"))).rootfs
                sandbox = cls(runc, metrics, limits, rootfs=rootfs, keeper=connected, tasks=tasks, **others)
                closing.callback(sandbox._close)
                await sandbox._resume()
                yield sandbox
                tasks.cancel_scope.cancel()  # the streams go back to the keeper

    def stop(self) -> None:
        """Take no more scripts, and let the clients go; the scripts run on."""
        self._stopping = True
        for journal in self._journals.values():
            journal.leave()

    async def run(self, script: str, tell: Tell) -> None:
        """Run a script, and tell of it. It is ended if its client hangs up and doesn't come back."""
        journal = Journal(os.path.join(self._directory, f"{self._name}-{uuid.uuid4().hex}"), new=True)
        self._see_through(journal, script)
        await self.follow(journal.name, 0, tell)

    def knows(self, name: str) -> bool:
        """Say whether there is such a run."""
        return name in self._journals

    async def follow(self, name: str, after: int, tell: Tell) -> None:
        """Tell of a run that there is, after the message of a number."""
        journal = self._journals[name]
        with self._reading(journal):
            await journal.follow(after, tell)

    @contextlib.contextmanager
    def _reading(self, journal: Journal) -> Generator[None]:
        """Note that a client is there; when none is, the run is ended soon."""
        journal.readers += 1
        if timer := self._giving_up.pop(journal.name, None):
            timer.cancel()
        try:
            yield
        finally:
            journal.readers -= 1
            self._expect_client(journal)

    def _expect_client(self, journal: Journal) -> None:
        """End a run if no client comes; one that waits for a place at once, for it has done nothing."""
        scope = self._scopes.get(journal.name)
        if scope is not None and not journal.readers and not self._stopping:
            patience = RETURN if journal.seconds is not None else 0.0
            timer = asyncio.get_running_loop().call_later(patience, scope.cancel)
            self._giving_up[journal.name] = timer

    def _close(self) -> None:
        """Close the journals."""
        for journal in self._journals.values():
            journal.close()

    async def _resume(self) -> None:
        """Go on with what another service has left."""
        kept = {container.id for container in await self._keeper.list()}
        for name in sorted(os.listdir(self._directory)):
            journal = Journal(os.path.join(self._directory, name), new=False)
            if not journal.ended and name not in kept:
                await journal.write(Ended("stopped"))  # it was waiting
            if journal.ended:
                await self._discard(name)
            self._see_through(journal)
            self._expect_client(journal)

    def _see_through(self, journal: Journal, script: str | None = None) -> None:
        """Follow a run to its end, whether its client is there or not."""
        self._journals[journal.name] = journal
        if not journal.ended:
            self._scopes[journal.name] = anyio.CancelScope()
        self._tasks.start_soon(self._to_the_end, journal, script)

    async def _to_the_end(self, journal: Journal, script: str | None) -> None:
        """Have the container follow its course, delete it, and forget the run some time later."""
        if not journal.ended:
            end = Ended("abandoned")
            self._runs.add(scope := self._scopes[journal.name])
            try:
                with scope:
                    if script is not None:
                        await journal.write(Waiting(max(0, len(self._runs) - self._at_once)))
                    async with self._place():
                        end = await self._go(journal, script)
            finally:
                self._runs.discard(scope)
                del self._scopes[journal.name]
            await self._discard(journal.name)
            self._metrics.ended(end)
            await journal.write(end)
        await anyio.sleep(KEEP)
        del self._journals[journal.name]
        journal.remove()

    async def _go(self, journal: Journal, script: str | None) -> Ended:
        """Start the container, or find it, and follow it."""
        name = journal.name
        try:
            if script is not None:
                spec = confined(script, self.limits)
                bundle = await Bundle.create(os.path.join(self._bundles, name), rootfs=self._rootfs, spec=spec)
                await self._keeper.start(self._runc, name, bundle, io=PipedIO(stdin=False))
            async with self._keeper.attach(name) as container:
                before = journal.printed
                watch = Watch(container, self.limits, journal.write, seconds=journal.seconds, printed=before)
                try:
                    broken = await watch.follow()
                finally:
                    self._metrics.output.inc(watch.printed - before)
                return watch.end(broken, ExitStatus() if broken else await container.wait())
        except (RuncError, OSError) as error:
            log.exception("%s could not be run", name)
            return Ended("failed", message=type(error).__name__)

    async def _discard(self, name: str) -> None:
        """Delete a container and its bundle, if they are there."""
        try:
            await self._keeper.delete(name, force=True)
        except ContainerNotFound:
            pass
        except (RuncError, OSError):
            log.exception("%s could not be deleted", name)
        shutil.rmtree(os.path.join(self._bundles, name), ignore_errors=True)


async def shared_bundle(path: str) -> Bundle:
    """Open the bundle whose root filesystem all containers share, or make it."""
    try:
        return await Bundle.open(path)
    except BundleNotFound:
        shutil.rmtree(path, ignore_errors=True)  # what a kill has left of it
        return await Bundle.create(path, rootfs=Busybox())
