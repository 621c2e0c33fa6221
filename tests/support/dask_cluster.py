"""A Dask cluster of separate processes: a scheduler, and workers with nannies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import proof
from distributed import Client
from waiting import until

_START = 60.0  # seconds for a busy machine


class DaskCluster:
    """The processes of a cluster.

    Attributes:
        scheduler_file: The file by which clients and workers find the scheduler.
    """

    def __init__(self, place: Path, root: Path, address: str = "127.0.0.1") -> None:
        self._address = address
        self._port = "0"
        self.scheduler_file = place / "scheduler.json"
        self._place = place
        self._env = os.environ | {
            "DASK_RUNC_ASYNC__ROOT": str(root),
            "DASK_RUNC_ASYNC__DIRECTORY": str(place / "cache"),
            "DASK_TEMPORARY_DIRECTORY": str(place),
            "DASK_DISTRIBUTED__WORKER__MEMORY__TERMINATE": "False",
        }
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start_scheduler(self) -> None:
        """Start the scheduler, the second time at the same address, and wait until it can be found."""
        self.scheduler_file.unlink(missing_ok=True)
        await self._start("scheduler", "distributed.cli.dask_scheduler", "--host", self._address, "--port", self._port)
        await until(lambda: self.scheduler_file.exists() and self.scheduler_file.read_text().endswith("}"), _START)
        self._port = json.loads(self.scheduler_file.read_text())["address"].rpartition(":")[2]

    def pid(self, name: str) -> int:
        """Return the pid of a process: of a worker that of its nanny."""
        return self._processes[name].pid

    def ended(self, name: str) -> bool:
        """Return whether a process has ended."""
        return self._processes[name].returncode is not None

    async def start_worker(self, name: str, *, host: tuple[str, str] | None = None, **settings: str) -> None:
        """Start a worker, in a proof with a nanny: a process more, which starts a killed worker again.

        Args:
            name: The worker's name.
            host: The path of a network namespace, and an address in it.
            settings: Settings of Dask's configuration below `runc-async`.
        """
        self._env |= {f"DASK_RUNC_ASYNC__{key.upper()}": value for key, value in settings.items()}
        options = ["--nthreads", "1", "--name", name, "--local-directory", str(self._place / name)]
        options += [] if proof.WHOLE else ["--no-nanny"]
        prefix = [] if host is None else ["nsenter", f"--net={host[0]}"]
        address = self._address if host is None else host[1]
        await self._start(name, "distributed.cli.dask_worker", "--host", address, *options, prefix=prefix)

    async def _start(self, name: str, module: str, *options: str, prefix: Sequence[str] = ()) -> None:
        """Start one process."""
        command = [
            *prefix,
            sys.executable,
            "-m",
            module,
            "--scheduler-file",
            str(self.scheduler_file),
            "--no-dashboard",
        ]
        with (self._place / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *command, *options, env=self._env, cwd=self._place, stdout=log, stderr=log, start_new_session=True
            )

    async def stop(self, name: str, number: int = signal.SIGKILL) -> None:
        """End a process with all that its session has, such as a nanny with its worker."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        await process.wait()

    async def close(self) -> None:
        """End all processes."""
        for name in reversed(list(self._processes)):
            await self.stop(name, signal.SIGTERM)


@contextlib.asynccontextmanager
async def dask_cluster(place: Path, root: Path, *names: str) -> AsyncGenerator[tuple[DaskCluster, Any]]:
    """Run a cluster with workers of these names, and a client of it."""
    cluster = DaskCluster(place, root)
    try:
        await cluster.start_scheduler()
        for name in names:
            await cluster.start_worker(name)
        connect: Any = Client  # its methods are coroutines with asynchronous=True, which their annotations don't know
        async with connect(scheduler_file=str(cluster.scheduler_file), asynchronous=True) as client:
            if names:
                await client.wait_for_workers(len(names), timeout=_START)
            yield cluster, client
    finally:
        await cluster.close()
