"""`StatsReader`: the resource usage of all containers of a host, without a process for each."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Final, Self

from ._host.usage import HostUsage
from .stats import Stats

_TURN: Final = 0.002
"""Maximal seconds of blocking the event loop."""


class StatsReader:
    """The resource usage of the containers below one root directory, from `Runc.stats_reader`.

    The metrics are the same as from `Runc.stats`, with the same type, but read from the files of the containers'
    cgroups, whose descriptors stay open until the reader is closed::

        runc = Runc()
        async with Bundle.busybox(["sleep", "60"]) as bundle, runc.open_container("web", bundle):
            async with runc.stats_reader() as reader:
                stats = await reader.read()
        print(stats["web"].cpu.usage.total > 0)  # True

    The reader keeps descriptors up to three quarters of RLIMIT_NOFILE: some 35 for each container with cgroup v1, some
    20 with v2. The files of further containers are opened each time, which takes three times as long.

    Four differences from `Runc.stats`: a container that has ended and isn't deleted is read too; `intel_rdt` and
    `network_interfaces` stay empty; pressure (`psi`) is read with any version of the runtime, on cgroup v2; and the
    reader works with crun, which has no stats command.

    A closed reader can be used again.

    Attributes:
        root: The root directory.
    """

    def __init__(self, root: str, *, check: Callable[[], Awaitable[None]] | None = None) -> None:
        """Store the root directory, and a check of the runtime on enter; see `Runc.stats_reader`."""
        self.root = root
        self._check = check
        self._usage = HostUsage(root)
        self._open = False

    def __repr__(self) -> str:
        """Show the root directory."""
        return f"<StatsReader {self.root!r}>"

    async def __aenter__(self) -> Self:
        """Return the reader; nothing is opened before the first reading."""
        if self._check is not None:
            await self._check()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the reader."""
        self.close()

    async def read(self, ids: Iterable[str] | None = None) -> dict[str, Stats]:
        """Read the resource usage of containers.

        Other tasks run every 2 ms. The metrics of one container are from the same moment; those of several are not.
        Cancelling loses nothing.

        Args:
            ids: The containers' ids; all if left out.

        Returns:
            The metrics by container id. A container that doesn't exist, or has no cgroup (possible without privileges),
            is left out.

        Raises:
            OSError: If the root directory can't be read, or no descriptor is left.
        """
        found: dict[str, Stats] = {}
        listed = _listed(ids)
        self._open = True
        pause = time.monotonic() + _TURN
        for record, stats in self._usage.read(listed):
            found[record.id] = stats
            # 1,000 containers take 200 ms: other tasks run in between.
            if time.monotonic() >= pause:
                await asyncio.sleep(0)
                pause = time.monotonic() + _TURN
        return found

    def read_now(self, ids: Iterable[str] | None = None) -> dict[str, Stats]:
        """Read without an event loop, for a thread such as an exporter's. Any number of threads may read.

        Args:
            ids: The containers' ids; all if left out.

        Raises:
            OSError: If the root directory can't be read, or no descriptor is left.
        """
        listed = _listed(ids)
        self._open = True
        return {record.id: stats for record, stats in self._usage.read(listed)}

    def close(self) -> None:
        """Close the descriptors. Idempotent."""
        self._usage.close()
        self._open = False

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.close()


def _listed(ids: Iterable[str] | None) -> Iterable[str] | None:
    """Return the given ids without duplicates.

    Raises:
        TypeError: If `ids` is one id, whose letters would be taken for ids.
    """
    if isinstance(ids, str):
        raise TypeError(f"ids must be a collection of ids, not one: {ids!r}")
    return None if ids is None else dict.fromkeys(ids)
