"""Commands for all containers of a host."""

from __future__ import annotations

from .._commands.options import DEFAULT, Timeout
from ..changes import ChangeStream
from ..errors import UnsupportedError
from ..events import OnLag
from ..statsreader import StatsReader
from ..swept import Swept
from .lifecycle import Lifecycle
from .queries import Queries


class Host(Queries, Lifecycle):
    """Commands for all containers below the root directory."""

    def watch(self, *, on_lag: OnLag = "block") -> ChangeStream:
        """Watch all containers below the root directory, including containers of other programs.

        The stream reports changes made by this client, by other programs with the same runtime, and by the runtime's
        own command line. The root directory may appear later, and disappear. There is no polling: the kernel reports
        all changes (inotify(7), pidfd_open(2), the events of cgroups). Nothing is opened before the stream is entered
        or iterated.

        Limits of the kernel's reports: on cgroup v1, a container counts as paused when the runtime writes the state,
        and not when a parent cgroup is frozen. A short pause may be missed. If containers change faster than this
        process reads (16,384 events, `fs.inotify.max_queued_events`), changes are lost; then all containers are looked
        at again, and the reported state is current. The short freeze that a runtime uses itself, as for killing all
        processes, may appear as a pause.

        A stream uses one inotify instance (128 per user by default), one pidfd for each running container, and with
        cgroup v1 one eventfd.

        Args:
            on_lag: The behaviour if changes arrive faster than they are read. "block": 10,000 changes are queued, then
                the kernel's queue fills; no change is lost before. "latest": only the newest change of each container
                is kept, and none for a container that appears and disappears meanwhile; `ChangeStream.skipped` counts
                the dropped changes.

        Raises:
            ValueError: If `on_lag` is another word.
            UnsupportedError: With runsc, on enter at the latest: the host doesn't see the processes in a sandbox.
        """
        if on_lag not in {"block", "latest"}:
            raise ValueError(f"on_lag must be 'block' or 'latest', not {on_lag!r}")
        self._require_host_records("watch")
        return ChangeStream(self._calls.state_directory(), on_lag=on_lag, check=lambda: self._check_records("watch"))

    def stats_reader(self) -> StatsReader:
        """Return a reader of the resource usage of all containers below the root directory.

        Use the reader as `async with`: it keeps descriptors open. Reading 1,000 containers takes some 200 ms of one
        CPU, whereas `stats`, with a runtime process for each container, takes 12 s.

        Raises:
            UnsupportedError: With runsc, on enter at the latest: its records have no resource usage.
        """
        self._require_host_records("stats_reader")
        return StatsReader(self._calls.state_directory(), check=lambda: self._check_records("stats_reader"))

    async def _check_records(self, feature: str) -> None:
        """Raise if the host sees too little of the containers of a runtime that isn't known yet."""
        if self._calls.identity.must_ask:
            await self._calls.identify()
            self._require_host_records(feature)

    def _require_host_records(self, feature: str) -> None:
        """Raise if the host sees too little of the runtime's containers."""
        if self._calls.dialect.inside is not None:
            raise UnsupportedError(feature, self._calls.dialect.name)

    async def sweep(self, *, timeout: Timeout = DEFAULT) -> Swept:
        """Remove leftovers of killed processes of this user: containers, mounts, temporary bundles, private files.

        A sweep removes the resources of blocks and calls: the containers of `open_container`, `open_restored`, and of a
        foreground `run` or `restore` without `keep`; the overlay and the directory of a `Bundle`; the private
        directories of calls. A process records such resources in a file in `/dev/shm` or $XDG_RUNTIME_DIR, and keeps
        the file locked, flock(2); the kernel releases the lock when the process ends. Not removed: resources of live
        processes, detached containers, containers of a keeper, and bundles in use by any of these.

        A container is deleted only if it is below this client's root directory, and has the recorded first process; if
        the owner was killed before recording the process, the bundle has to match. A `create` in progress is waited
        for, 15.0 seconds at most. Directories are removed without following symbolic links or mounts.

        Leftovers that can't be removed are named in a `CleanupWarning`, and stay recorded for the next sweep. Several
        processes may sweep at the same time: each sweeps after other owners.

        Cancelling lets the deletions in progress finish or ends them; the rest stays recorded.

        Args:
            timeout: Seconds for listing the containers, or None for no limit; the client's default if left out.

        Returns:
            The removed resources, without private directories.

        Raises:
            DecodeError: If the runtime's list of containers can't be decoded.
            RuncTimeout: If listing takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If listing the containers fails.
            OSError: If no descriptor is left in this process; it stops there, and what is left stays recorded.
        """
        from .sweeping import Sweeper  # noqa: PLC0415 - few programs need it

        sweeper = Sweeper(
            self._calls.state_directory(), self._undo, list_=lambda: self.list(timeout=timeout), delete=self.delete
        )
        return await sweeper.sweep()
