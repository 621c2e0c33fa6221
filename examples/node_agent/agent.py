"""Follows all containers below a root directory, measures them, and starts those again that crash."""

from __future__ import annotations

import logging
import time
from collections import defaultdict

import anyio
import msgspec
from anyio.abc import TaskGroup
from prometheus_client import CollectorRegistry, Counter

from runc_async import Change, ChangeKind, ContainerExists, Runc, RuncError, State, Stats, Status
from runc_async.figures import cpu_percent, memory_working_set

log = logging.getLogger("node_agent")

RESTART = "runc-async.restart"
"""Annotation of the containers that are to be restarted; its value has to be `on-failure`."""

FIRST_DELAY = 0.5
LONGEST_DELAY = 60.0
"""Seconds before a restart: the first one, and at most. Each is twice as long as the one before."""

STEADY = 120.0
"""Seconds after which a container counts as healthy: its next crash is a first one again."""


class Row(msgspec.Struct):
    """What is known of a container; None: nothing. 100 `cpu` are one core, `delay` is that of the next restart."""

    state: str = ""
    cpu: float | None = None
    memory: int | None = None
    pids: int | None = None
    restarts: int = 0
    end: str = ""
    lived: float = 0.0
    delay: float = FIRST_DELAY
    started: float | None = None
    restarting: bool = False


class Agent:
    """Follows containers.

    Attributes:
        rows: What is known, by id.
    """

    def __init__(self, runc: Runc, registry: CollectorRegistry) -> None:
        self.rows: dict[str, Row] = defaultdict(Row)
        self._runc = runc
        self._restarts = Counter("node_agent_restarts", "Containers restarted", ["id"], registry=registry)

    async def follow(self) -> None:
        """Take note of each change, until the task is cancelled; a container that crashes is restarted."""
        async with anyio.create_task_group() as tasks, self._runc.watch() as changes:
            async for change in changes:
                log.info("%s %s%s", change.id, change.kind, f", {change.status}" if change.status else "")
                self._note(change, tasks)

    def _note(self, change: Change, tasks: TaskGroup) -> None:
        """Take note of a change."""
        row = self.rows[change.id]
        row.state = "out of memory" if change.kind == ChangeKind.OOM else str(change.kind)
        if change.kind == ChangeKind.STARTED:
            row.started, row.restarting = time.monotonic(), False
        elif change.kind == ChangeKind.EXITED:
            row.end, row.lived = str(change.status), time.monotonic() - (row.started or 0.0)
            row.started = row.cpu = row.memory = row.pids = None
            # An exit status that isn't known is no crash: a job that is done would be repeated for ever.
            failed = change.status is not None and (change.status.code or change.status.signal)
            if failed and change.state and change.state.annotations.get(RESTART) == "on-failure":
                tasks.start_soon(self._restart, change.state, row)
        elif change.kind == ChangeKind.DELETED and not row.restarting:
            del self.rows[change.id]

    async def _restart(self, ended: State, row: Row) -> None:
        """Start a container again after a while, unless something else happens to it meanwhile."""
        if row.lived > STEADY:
            row.delay = FIRST_DELAY
        while True:
            row.state = f"restart in {row.delay:.1f} s"
            await anyio.sleep(row.delay)
            row.delay = min(2 * row.delay, LONGEST_DELAY)
            try:
                return await self._replace(ended, row)
            except RuncError as error:
                log.warning("%s can't be restarted: %s", ended.id, error)

    async def _replace(self, ended: State, row: Row) -> None:
        """Make a container anew from its bundle, in place of the one that has ended."""
        if not row.restarting:
            found = {state.id: state for state in await self._runc.list()}.get(ended.id)
            if found is None or found.created != ended.created or found.status != Status.STOPPED:
                return  # it was deleted, or made anew
            row.restarting = True
            await self._runc.delete(ended.id)
        try:
            await self._runc.run(ended.id, ended.bundle, detach=True)
        except ContainerExists:
            return
        row.restarts += 1
        self._restarts.labels(ended.id).inc()

    async def measure(self, interval: float) -> None:
        """Read the usage of all containers again and again, until the task is cancelled."""
        before: dict[str, tuple[float, Stats]] = {}
        async with self._runc.stats_reader() as reader:
            while True:
                now = time.monotonic()
                running = {name for name, row in self.rows.items() if row.started is not None}
                readings = {name: (now, stats) for name, stats in (await reader.read(running)).items()}
                for name, (_, stats) in readings.items():
                    row = self.rows[name]
                    if name in before:
                        row.cpu = cpu_percent(before[name][1], stats, now - before[name][0])
                    row.memory, row.pids = memory_working_set(stats), stats.pids.current
                before = readings
                await anyio.sleep(interval)
