"""What a runc process has started, noted before runc is ended: afterwards those processes have another parent."""

from __future__ import annotations

import contextlib

from .._containers.adoption import adopt_copies, looking_again
from .._containers.ownership import current_attempt
from .._containers.workload import Workload
from .._linux.procfs import ProcessIdentity, descendants
from .._linux.subreaper import adopt, adopt_stray, adopting
from ..runner import Invocation
from .child import Child
from .descendants import Descendants

STRAYS = 64
"""Descendants of a runc that is ended whose end is watched: those of a runc that works on no container are fewer."""


class Offspring:
    """What one runc process has started.

    Attributes:
        seen: Its descendants, if it was about to make a container when it was ended; else None.
        helpers: Those that end with it, if it has any.
    """

    def __init__(self, invocation: Invocation, child: Child, workload: Workload | None) -> None:
        self.seen: set[ProcessIdentity] | None = None
        self.helpers: Descendants | None = None
        self._child = child
        self._command = invocation.command
        self._stop = invocation.stop
        self._workload = workload
        self._attempt = current_attempt(invocation)

    def note(self) -> None:
        """Note it, before runc is ended.

        That is for the end of its helpers, and to know which container it has made. What becomes our child then is
        reaped: the nearest ones are strays. Their number is a container's to decide, and each stray takes a descriptor.
        """
        if self._child.returncode is not None:
            return
        if self._has_helpers:
            if self.helpers is None:
                self.helpers = Descendants(self._child.pid)
            else:
                self.helpers.look(self._child.pid)
        if self._is_making:
            self.seen = self.seen or set()
            for pid, _ in descendants(self._child.pid):
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    self.seen.add(ProcessIdentity.of(pid))
        if adopting():
            again = looking_again(self._child.since)
            for number, (pid, _) in enumerate(reversed(descendants(self._child.pid))):
                if number < STRAYS:
                    adopt_stray(pid, again)
                else:
                    adopt(pid)

    def adopt_left(self) -> None:
        """Reap what runc has left behind: a process that it has detached from, copies of itself if it failed."""
        if self._workload is not None and not self._stop.waits_for_process:
            self._workload.look()
            (adopt_stray if self._command == "exec" else adopt)(self._workload.pid)
        if self._child.returncode != 0:
            adopt_copies(self._child.since)

    def counts(self) -> bool:
        """Return whether runc is stopped before it is ended, since each process that it has started counts."""
        return adopting() or self._has_helpers or self._is_making

    @property
    def _has_helpers(self) -> bool:
        """Whether it may have started what has to end with it, and isn't the container's."""
        return self._stop.hooks or self._stop.helpers

    @property
    def _is_making(self) -> bool:
        """Whether it is about to make a container, and has not yet reported its first process."""
        return self._attempt is not None and (self._workload is None or self._workload.process is None)
