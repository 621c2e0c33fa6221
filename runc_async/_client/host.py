"""What is asked of a host with all its containers, and not of one container."""

from __future__ import annotations

from ..changes import ChangeStream
from ..events import OnLag
from ..statsreader import StatsReader
from .calls import Calls


class Host:
    """What is asked of all containers below the root directory. No runtime is started for it."""

    _calls: Calls

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
        """
        if on_lag not in {"block", "latest"}:
            raise ValueError(f"on_lag must be 'block' or 'latest', not {on_lag!r}")
        return ChangeStream(self._calls.state_directory(), on_lag=on_lag)

    def stats_reader(self) -> StatsReader:
        """Return a reader of the resource usage of all containers below the root directory.

        Use it as `async with`: it keeps descriptors open. Reading 1,000 containers takes some 200 ms of one CPU, and
        `stats` with a runtime process for each takes 12 s.
        """
        return StatsReader(self._calls.state_directory())
