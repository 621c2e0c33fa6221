"""What a call that was cut short has made is deleted: only that, and although it was cut short."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING

from .._answers.decode import decode_state
from .._answers.outcome import refused_as_existing
from .._commands import argv, words
from .._containers.adoption import adopt_leaves, adopt_processes
from .._containers.ownership import Attempt, find_process, retried
from .._containers.state_mounts import unmount
from .._linux.procfs import ProcessIdentity
from .._linux.subreaper import reap_adopted
from .._runtimes.known import has_record
from .._shield import retried_once, shielded
from ..errors import (
    CleanupWarning,
    CommandError,
    ContainerExists,
    ContainerNotFound,
    ResourceError,
    RuncCrashed,
    RuncError,
    RuncTimeout,
)
from ..runner import Invocation
from .calls import KILL, LET_FINISH, OWN_OUTPUT, UNDO_TIMEOUT, Calls
from .claim import ContainerClaim

if TYPE_CHECKING:
    from pathlib import Path

    from ..state import State


class Undo:
    """The deletion of what a call has made."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @contextlib.asynccontextmanager
    async def creating(
        self, container_id: str, *, keep: bool = False, whatever: bool = False, passing: str | None = None
    ) -> AsyncGenerator[None]:
        """Delete the container if the block is cancelled, runs out of time, or loses runc, while it makes one.

        Only what this call has made is deleted: see `Attempt`. A container that existed before the call is not its own.
        That is asked of the file system, for it costs a microsecond and a call of runc ten milliseconds.

        Args:
            container_id: Its id.
            keep: Leave the container in any case.
            whatever: Delete it after each exception: a `runc run --keep` that fails leaves what it has made.
            passing: The bundle of a container that is there for as long as its runtime process: it is recorded for
                `Runc.sweep`. None: the caller does that, or wants the container to stay.
        """
        existed = await self.exists(container_id)
        attempt = Attempt(self._calls.state_directory(), container_id)
        claim = ContainerClaim(self._calls.state_directory(), container_id, foreground=True)
        with claim, attempt.compared():
            if self._calls.dialect.spoils_taken and (existed or attempt.shared):
                raise ContainerExists(
                    (), None, container_id=container_id, message="a container of this id exists already"
                )
            try:
                if passing is not None:
                    claim.begin(passing)
                with attempt.noted():
                    yield
            except BaseException as exc:
                # With no process or thread to be had, runc can't take back what it has made either.
                cut_short = isinstance(exc, asyncio.CancelledError | RuncTimeout | RuncCrashed | ResourceError)
                foreign = existed or any(refused_as_existing(*end) for end in attempt.ends)
                if (cut_short or whatever) and attempt.asked and not (keep or foreign):
                    await shielded(self._discard(attempt))
                raise
            finally:
                self._adopt_leaves()

    async def exists(self, container_id: str) -> bool:
        """Tell whether there is a container of that id."""
        try:
            return has_record(self._calls.state_directory(), words.check_container_id(container_id))
        except OSError:  # not ours to look into, as under a runner that goes through sudo
            try:
                await self._calls.run_now(self.state_invocation(container_id))
            except CommandError:
                return False
        return True

    def state_invocation(self, container_id: str) -> Invocation:
        """Ask for the state of a container, for a call that has its turn already."""
        return self._calls.invocation(argv.state(container_id), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=KILL)

    async def _discard(self, attempt: Attempt) -> None:
        """Delete what a call that was cut short has made; name what may be left behind.

        It doesn't wait for a turn, which could take any time.
        """
        container_id = attempt.container_id
        delete = self._calls.invocation(
            argv.delete(container_id, force=True), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=LET_FINISH
        )

        async def undo() -> None:
            from .._containers.leftovers import remove_cgroups  # noqa: PLC0415  (it loads pathlib, which takes milliseconds)

            try:
                owned = await attempt.judge(self.ask)
            except ContainerNotFound:
                pass  # its cgroups may be there all the same
            else:
                if owned is None:
                    warn(f"container {container_id!r} may be left behind: another call may have made it")
                if not owned:
                    return
                with self.ending(container_id):
                    await self._calls.run_now(delete)
            if not attempt.has_rivals(""):  # an empty cgroup may be what another one has just made
                left.extend(await remove_cgroups(container_id, may_hold=attempt.may_hold))

        left: list[Path] = []
        try:
            await retried_once(lambda: retried(undo))
        except (RuncError, OSError, asyncio.CancelledError) as exc:
            warn(f"container {container_id!r} may be left behind: {str(exc) or type(exc).__name__}")
        if left:
            warn(f"cgroups of container {container_id!r} are left behind: {', '.join(map(str, left))}")

    async def remove(self, container_id: str) -> None:
        """Delete a container whose process has ended, without waiting for a turn; name it if it may be left behind."""
        delete = self._calls.invocation(
            argv.delete(container_id, force=False), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=LET_FINISH
        )

        async def undo() -> None:
            with self.ending(container_id), contextlib.suppress(ContainerNotFound):
                await self._calls.run_now(delete)

        try:
            await retried_once(lambda: retried(undo))
        except (RuncError, OSError) as exc:
            warn(f"container {container_id!r} may be left behind: {exc}")

    async def ask(self, container_id: str) -> State:
        """Ask for the state of a container, for a call that has its turn already.

        Raises:
            RuncError: If runc fails, or says what can't be understood.
            OSError: If runc can't be started.
        """
        return decode_state((await self._calls.run_now(self.state_invocation(container_id))).stdout)

    async def is_foreign(self, container_id: str, process: ProcessIdentity) -> bool:
        """Tell whether no container of that id is there that has this first process: it is gone, or is another one.

        Args:
            container_id: Its id.
            process: The process; with start time 0 if only its number is known.

        Raises:
            RuncError: If runc has to be asked, and can't be.
            OSError: Likewise.
        """
        try:
            found = await find_process(self._calls.state_directory(), container_id, self.ask)
        except ContainerNotFound:
            return True
        if found is None or (process.pid == found.pid and not (process.start_time and found.start_time)):
            return False
        return process != found

    @contextlib.contextmanager
    def ending(self, container_id: str) -> Generator[None]:
        """Take away what keeps a container from ending within the block: mounts, and processes that are our children.

        Raises:
            OSError: If the root filesystem, mounted for a restore that was killed, can't be kept from a deletion.
        """
        unmount(os.path.join(self._calls.state_directory(), container_id))
        reap_adopted()
        adopt_processes(self._calls.state_directory(), container_id)
        try:
            yield
        finally:
            self._adopt_leaves()
            reap_adopted()

    def _adopt_leaves(self) -> None:
        """Note what a sandbox has left to us."""
        if self._calls.dialect.inside is not None:
            adopt_leaves(self._calls.dialect.leaves)


def warn(message: str) -> None:
    """Warn of what a clean-up has to leave behind."""
    warnings.warn(message, CleanupWarning, stacklevel=3)
