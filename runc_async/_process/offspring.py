"""Processes started by runc, noted before runc is ended: afterwards they have another parent."""

from __future__ import annotations

import contextlib

from .._containers.adoption import adopt_copies, looking_again
from .._containers.ownership import current_attempt
from .._containers.workload import Workload
from .._linux.procfs import ProcessIdentity, descendants
from .._linux.subreaper import adopt, adopt_stray, adopting
from ..runner import Invocation
from .child import Child
from .descendants import Descendants, kill_descendants

STRAYS = 64
"""Maximal number of adopted strays per runc process: each takes a descriptor.

A runc that makes no container has fewer.
"""


class Offspring:
    """The descendants of a runc process.

    Attributes:
        seen: The descendants, if runc was ended while creating a container; else None.
        helpers: Processes that end together with runc, if there are any.
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
        """Note the descendants before runc is ended: its helpers, and processes of the container being made."""
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
            # With `subreaper()` the orphans become our children and have to be reaped. The nearest ones are strays; a
            # container decides how many more there are, and each stray takes a descriptor.
            again = looking_again(self._child.since)
            for number, (pid, _) in enumerate(reversed(descendants(self._child.pid))):
                if number < STRAYS:
                    adopt_stray(pid, again)
                else:
                    adopt(pid)

    async def stop(self) -> None:
        """Stop runc by the policy, and end the helpers: before runc, or afterwards."""
        try:
            # criu first: runc then notices the failure and undoes its own part.
            if self._stop.helpers_first and self._child.returncode is None:
                self.note()
                kill_descendants(self._child.pid)
                await self._child.wait(self._stop.grace)
            await self._child.stop(self._stop.grace)
        finally:
            if self.helpers is not None:
                await self.helpers.end(self._stop.grace if self._stop.helpers else 0)

    def adopt_left(self) -> None:
        """Reap orphans of runc: a process from which runc has detached, or copies of runc if it failed."""
        if self._workload is not None and not self._stop.waits_for_process:
            self._workload.look()
            (adopt_stray if self._command == "exec" else adopt)(self._workload.pid)
        if self._child.returncode != 0:
            adopt_copies(self._child.since)

    def counts(self) -> bool:
        """Return whether runc has to be stopped (SIGSTOP) before it is ended, because no descendant may be missed."""
        return adopting() or self._has_helpers or self._is_making

    @property
    def _has_helpers(self) -> bool:
        """Whether runc may have started processes outside the container that have to end with runc."""
        return self._stop.hooks or self._stop.helpers

    @property
    def _is_making(self) -> bool:
        """Whether runc is creating a container, and hasn't yet reported the first process."""
        return self._attempt is not None and (self._workload is None or self._workload.process is None)
