"""Deletion of the container that a cancelled call has made, and of no other container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import warnings
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

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
    InvalidContainerID,
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
    """Deletion of the containers of failed calls."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    @contextlib.asynccontextmanager
    async def creating(
        self, container_id: str, *, keep: bool = False, whatever: bool = False, passing: str | None = None
    ) -> AsyncGenerator[None]:
        """Delete the container if the block is cancelled, runs out of time, or loses runc while creating it.

        Args:
            container_id: The container's id.
            keep: Leave the container in any case.
            whatever: Delete the container after each exception: a failed `runc run --keep` leaves its container.
            passing: The bundle, for a container that lives as long as its runtime process: recorded for `Runc.sweep`.
                None if the caller records the container, or the container is to stay.
        """
        # A container that existed before the call is not ours. The file system is asked, which costs a microsecond,
        # whereas runc costs ten milliseconds.
        existed = await self.exists(container_id)
        attempt = Attempt(self._calls.state_directory(), container_id)
        claim = ContainerClaim(self._calls.state_directory(), container_id, foreground=True)
        with claim, attempt.compared():
            if container_id.startswith("-") and not self._calls.dialect.dashed_ids:
                message = f"{self._calls.dialect.name} takes no id that begins with a dash"
                raise InvalidContainerID((), None, container_id=container_id, message=message)
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
                # A lack of processes or threads also keeps runc from undoing its own part.
                cut_short = isinstance(exc, asyncio.CancelledError | RuncTimeout | RuncCrashed | ResourceError)
                cut_short |= self._calls.dialect.leaves_cgroups and isinstance(exc, CommandError)
                foreign = existed or any(refused_as_existing(*end) for end in attempt.ends)
                if (cut_short or whatever) and attempt.asked and not (keep or foreign):
                    await shielded(self._discard(attempt))
                raise
            finally:
                self._adopt_leaves()

    async def exists(self, container_id: str) -> bool:
        """Return whether a container with the id exists."""
        try:
            return has_record(self._calls.state_directory(), words.check_container_id(container_id))
        except OSError:  # not ours to look into, as under a runner that goes through sudo
            try:
                await self._calls.run_now(self.state_invocation(container_id))
            except CommandError:
                return False
        return True

    def state_invocation(self, container_id: str) -> Invocation:
        """Return the invocation of `state`, for a call that has its turn already."""
        return self._calls.invocation(argv.state(container_id), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=KILL)

    async def _discard(self, attempt: Attempt) -> None:
        """Delete the container of a call that was cut short; warn about leftovers."""
        container_id = attempt.container_id
        delete = self._calls.invocation(
            argv.delete(container_id, force=True), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=LET_FINISH
        )

        async def undo() -> None:
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
                left.extend(await self.remove_leftovers(container_id, may_hold=attempt.may_hold))

        # The deletion doesn't wait for a turn, which could take any time; and a signal to the process group may end
        # runc, so the deletion is retried.
        left: list[Path] = []
        try:
            await retried_once(lambda: retried(undo))
        except (RuncError, OSError, asyncio.CancelledError) as exc:
            warn(f"container {container_id!r} may be left behind: {str(exc) or type(exc).__name__}")
        if left:
            warn(f"cgroups of container {container_id!r} are left behind: {', '.join(map(str, left))}")

    async def remove_leftovers(self, container_id: str, **options: Any) -> list[Path]:
        """Remove what no command removes after a deletion, or without a record; return the cgroups that are busy.

        Args:
            container_id: The container.
            options: The options of `remove_cgroups`.
        """
        from .._containers.leftovers import remove_cgroups, remove_files  # noqa: PLC0415  (it loads pathlib, which takes milliseconds)

        dialect = self._calls.dialect
        if dialect.leftovers and not await self.exists(container_id):
            remove_files(self._calls.state_directory(), container_id, dialect.leftovers)
        return await remove_cgroups(container_id, at_root=dialect.cgroups_at_root, **options)

    async def remove(self, container_id: str, *, force: bool = False) -> None:
        """Delete a container whose process has ended, without waiting for a turn; warn if that fails."""
        delete = self._calls.invocation(
            argv.delete(container_id, force=force), OWN_OUTPUT, timeout=UNDO_TIMEOUT, stop=LET_FINISH
        )

        async def undo() -> None:
            with self.ending(container_id), contextlib.suppress(ContainerNotFound):
                await self._calls.run_now(delete)

        try:
            await retried_once(lambda: retried(undo))
        except (RuncError, OSError) as exc:
            warn(f"container {container_id!r} may be left behind: {exc}")

    async def ask(self, container_id: str) -> State:
        """Return the state of a container, for a call that has its turn already.

        Raises:
            RuncError: If runc fails, or its output can't be decoded.
            OSError: If runc can't be started.
        """
        return decode_state((await self._calls.run_now(self.state_invocation(container_id))).stdout)

    async def is_foreign(self, container_id: str, process: ProcessIdentity) -> bool:
        """Return whether the container is gone, or has another first process than expected.

        Args:
            container_id: The container's id.
            process: The process; with start time 0 if only the pid is known.

        Raises:
            RuncError: If runc has to be asked, and fails.
            OSError: If runc can't be started.
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
        """Remove obstacles to the end of a container: leftover mounts, and zombies that are our children.

        Raises:
            OSError: If the root filesystem, mounted for a restore that was killed, can't be protected from a deletion.
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
        """Adopt the orphans of a sandbox."""
        if self._calls.dialect.inside is not None:
            adopt_leaves(self._calls.dialect.leaves)


def warn(message: str) -> None:
    """Warn about leftovers of a cleanup."""
    warnings.warn(message, CleanupWarning, stacklevel=3)
