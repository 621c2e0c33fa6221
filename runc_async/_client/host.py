"""What is asked of a host with all its containers, and not of one container."""

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
    """What is asked of all containers below the root directory."""

    def watch(self, *, on_lag: OnLag = "block") -> ChangeStream:
        """Watch the life of all containers below the root directory, whoever makes them.

        It sees what this client does, other programs that drive the same runtime, and the runtime's own command line.
        The root directory may come later, and go. Nothing is polled: the kernel tells of all changes (inotify(7),
        pidfd_open(2), the events of cgroups). Nothing is opened before the stream is entered or iterated.

        What the kernel doesn't tell: on cgroup v1 a container counts as paused when the runtime writes so, and not when
        a cgroup above it is frozen. A pause that is over before it is looked at may be missed, and so may be anything
        if containers change faster than this process takes note (16,384 events, `fs.inotify.max_queued_events`): then
        all are looked at again, and what is reported is true. The freeze that a runtime makes for a moment by itself,
        as to kill all processes, may be reported as a pause.

        It takes one inotify instance, of which a user has 128 by default, one pidfd for each container that runs, and
        with cgroup v1 one eventfd.

        Args:
            on_lag: What happens if changes come faster than they are taken. "block": 10,000 wait, and then those that
                the kernel keeps; no change is lost before. "latest": of each container the newest change waits, and of
                one that comes and goes meanwhile none; what made way is counted in `ChangeStream.skipped`.

        Raises:
            ValueError: If `on_lag` is another word.
            UnsupportedError: With `Runsc`: what happens in a sandbox isn't seen from the host.
        """
        if on_lag not in {"block", "latest"}:
            raise ValueError(f"on_lag must be 'block' or 'latest', not {on_lag!r}")
        self._require_host_records("watch")
        return ChangeStream(self._calls.state_directory(), on_lag=on_lag)

    def stats_reader(self) -> StatsReader:
        """Return a reader of the resource usage of all containers below the root directory.

        Use it as `async with`: it keeps descriptors open. Reading 1,000 containers takes some 200 ms of one CPU, and
        `stats` with a runtime process for each takes 12 s.

        Raises:
            UnsupportedError: With `Runsc`: its records aren't read.
        """
        self._require_host_records("stats_reader")
        return StatsReader(self._calls.state_directory())

    def _require_host_records(self, feature: str) -> None:
        """Raise if the runtime is known to have containers of which the host sees too little."""
        if self._calls.dialect.inside is not None:
            raise UnsupportedError(feature, self._calls.dialect.name)

    async def sweep(self, *, timeout: Timeout = DEFAULT) -> Swept:
        """Remove what killed processes of this user have left: containers, mounts, temporary bundles, private files.

        It removes what blocks held: the containers of `open_container`, `open_restored`, and of a foreground `run` or
        `restore` without `keep`; the overlay and the directory of a `Bundle`; the private directories of calls. A
        process that holds such things records them in a file in `/dev/shm`, or in $XDG_RUNTIME_DIR, that it has locked,
        flock(2); the kernel releases the lock when the process ends. What belongs to live processes isn't touched, nor
        are detached containers, containers of a keeper, and bundles that any of them uses.

        A container is deleted only if it is below this client's root directory, and its first process is the recorded
        one, or, if the owner was killed before that was known, its bundle. A `create` that was in flight is waited for,
        15.0 seconds at most. Directories are removed through no symbolic link and no mount.

        What can't be removed is named in a `CleanupWarning`, and stays recorded for the next sweep. Several processes
        may sweep at the same time: each sweeps after other owners.

        Cancelling lets the deletions in progress finish or ends them; what is not removed stays recorded.

        Args:
            timeout: Seconds for listing the containers, or None for no limit; the client's own if left out.

        Returns:
            What was removed; private directories are not in it.

        Raises:
            DecodeError: If the runtime's list of containers can't be understood.
            RuncTimeout: If listing takes longer than `timeout`.
            RuncNotFound: If there is no runc.
            CommandError: If listing the containers fails.
        """
        from .sweeping import Sweeper  # noqa: PLC0415 - few programs need it

        sweeper = Sweeper(
            self._calls.state_directory(), self._undo, list_=lambda: self.list(timeout=timeout), delete=self.delete
        )
        return await sweeper.sweep()
