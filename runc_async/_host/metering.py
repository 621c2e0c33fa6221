"""The resource usage of one container, for its handle: finds the cgroup, the start and the end."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import time
from typing import TYPE_CHECKING

from .._linux.pidfd import has_exited, open_pidfd
from .._runtimes.known import FIFOS, read_record
from ..errors import ContainerNotFound
from ..usage import Usage
from .meter import Meter

if TYPE_CHECKING:
    from collections.abc import Generator

    from .._containers.first_process import Init
    from .._runtimes.dialect import Record


class Metering:
    """Finds the cgroup of a container in the runtime's record, and reads it without a runtime process.

    Args:
        root: The runtime's root directory.
        container_id: The container's id.
        init: The first process, if held by the handle.
        strict: Whether a container without a record is an error. It isn't if the root directory may be elsewhere.
    """

    def __init__(self, root: str, container_id: str, init: Init | None, *, strict: bool) -> None:
        self._root = root
        self._id = container_id
        self._init = init
        self._strict = strict
        self._record: Record | None = None
        self._meter: Meter | None = None
        self._began = 0.0
        self._is_prepared = False

    def begin(self) -> None:
        """Count the usage so far as the runtime's own. Call just before the program is started."""
        meter = self._meter = self._current() or Meter({}, self._is_running)
        meter.begin()
        self._began = time.monotonic()

    def prepare(self) -> None:
        """Read now what `starting` would read: a container that waits for its start uses nothing more."""
        self.begin()
        self._is_prepared = True

    @contextlib.contextmanager
    def starting(self) -> Generator[None]:
        """Count the usage so far as the runtime's own; the block starts the program."""
        if self._is_prepared:
            self._began = time.monotonic()
        else:
            self.begin()
        fifo = self._open_fifo()
        try:
            yield
            self._started(fifo)
        finally:
            if fifo >= 0:
                os.close(fifo)

    def _open_fifo(self) -> int:
        """Open the runtime's FIFO with O_PATH; -1 if there is no visible FIFO."""
        directory = os.path.join(self._root, self._id)
        for name in FIFOS:
            with contextlib.suppress(OSError):
                return os.open(os.path.join(directory, name), os.O_PATH | os.O_CLOEXEC)
        return -1

    def _started(self, fifo: int) -> None:
        """Record the start of the program."""
        meter, now = self._meter, time.monotonic()
        if meter is None:
            return
        # The init writes into the FIFO, and then executes the program. The runtime then removes the FIFO from the
        # directory, perhaps much later on a busy host.
        moments: list[float] = []
        if fifo >= 0:
            moments.append(os.fstat(fifo).st_mtime)
        with contextlib.suppress(OSError):
            moments.append(os.stat(os.path.join(self._root, self._id)).st_mtime)
        since = [now - (time.time() - moment) for moment in moments]
        meter.started = next((moment for moment in since if self._began <= moment <= now), self._began)
        if self._init is not None:
            with contextlib.suppress(OSError):  # no descriptor is left: then only a task that waits sees the end
                self._init.notify(meter.end)

    def restart(self) -> None:
        """Count from now on: the container was started before it was given to its user."""
        self.begin()
        if self._meter is not None:
            self._meter.started = self._began

    def read(self) -> Usage:
        """Read the usage so far; return the last values if the container is gone.

        Raises:
            ContainerNotFound: If there is no such container, and this handle has never read one.
        """
        if (meter := self._current()) is not None:
            return meter.read()
        if self._meter is not None:
            return self._meter.usage
        if self._strict and self._init is None:
            raise ContainerNotFound((), None, container_id=self._id, message="container does not exist")
        return Usage()

    def keep(self) -> None:
        """Read the last values before a deletion."""
        with contextlib.suppress(ContainerNotFound):
            self.read()
        self.close()

    def close(self) -> None:
        """Close the descriptors; the last values can still be read. Idempotent."""
        if self._meter is not None:
            self._meter.close()

    def _current(self) -> Meter | None:
        """Return the meter of the container with this id; None if it is gone, or isn't the handle's container."""
        if self._record is not None and self._init is not None and not self._init.exited:
            return self._meter  # as long as it runs there is no other of its id
        try:
            record = read_record(self._root, self._id)
        except OSError:
            return self._meter
        if record is None:
            return None
        if self._record is not None and _key(record) == _key(self._record):
            return self._meter
        if self._init is not None and (self._record is not None or record.process.pid != self._init.pid):
            return None
        self.close()
        self._record, self._meter = record, Meter(record.cgroups, self._is_running)
        if record.created is not None:
            age = dt.datetime.now(dt.UTC) - record.created
            self._meter.started = time.monotonic() - age.total_seconds()
        return self._meter

    def _is_running(self) -> bool:
        """Return whether the first process runs."""
        if self._init is not None:
            return not self._init.exited
        if self._record is None:
            return False
        try:
            pidfd = open_pidfd(self._record.process)
        except OSError:
            return False
        try:
            return not has_exited(pidfd)
        finally:
            os.close(pidfd)


def _key(record: Record) -> tuple[object, ...]:
    """Return a key that differs between containers with the same id."""
    return record.process, record.created


def read_usage(root: str, container_id: str, *, started: float, ended: float) -> Usage:
    """Read the usage of an ended container, including the start of the runtime.

    Args:
        root: The runtime's root directory.
        container_id: The container's id.
        started: The start of the runtime, by the monotonic clock.
        ended: The end of the runtime.
    """
    try:
        record = read_record(root, container_id)
    except OSError:
        record = None
    meter = Meter({} if record is None else record.cgroups, lambda: False)
    meter.started, meter.ended = started, ended
    return meter.read()
