"""Removal of leftovers of dead owners: containers first, then mounts, then directories."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Final

import anyio

from .._bundles.config import begin, finished
from .._containers.ownership import is_being_made, recorded_process, retried
from .._host.owners import ROOTFS, DeadOwner, files, held_by_living, is_open, remove_bundle, remove_scratch
from .._linux.files import ignoring_absence
from .._linux.owner import HeldBundle, HeldContainer, HeldScratch
from .._linux.procfs import ProcessIdentity
from .._runtimes.known import RECORDS, has_record, read_record, recorded_ids
from .._shield import retried_once
from ..errors import ContainerNotFound, RuncError
from ..state import State
from ..swept import Swept
from .undo import Undo, warn

PATIENCE: Final = 15.0
"""Seconds for a runtime process of a dead owner to finish: `create` runs on without its owner."""

DELETE_TIMEOUT: Final = 30.0
"""Seconds for deleting a container; the runtime itself may need ten."""

_GLANCE: Final = 0.02


class Sweeper:
    """One sweep below one root directory."""

    def __init__(
        self,
        root: str,
        undo: Undo,
        *,
        list_: Callable[[], Awaitable[list[State]]],
        delete: Callable[..., Awaitable[None]],
    ) -> None:
        """Start with empty results.

        Args:
            root: The runtime's root directory.
            undo: Decides whose a container is.
            list_: Lists the containers.
            delete: Deletes a container.
        """
        self._root = os.path.abspath(root)
        self._undo = undo
        self._list = list_
        self._delete = delete
        self._containers: list[str] = []
        self._bundles: list[str] = []
        self._mounts: list[str] = []

    async def sweep(self) -> Swept:
        """Sweep after all dead owners of this user, one owner at a time.

        Raises:
            OSError: If no descriptor is left.
        """
        for path in files():
            owner = DeadOwner.take(path)
            if owner is not None:
                with owner:
                    await self._sweep_after(owner)
        return Swept(tuple(self._containers), tuple(self._bundles), tuple(self._mounts))

    async def _sweep_after(self, owner: DeadOwner) -> None:
        """Remove the leftovers of one owner in the order of their dependencies."""
        async with anyio.create_task_group() as tasks:
            for number, held in list(owner.held.items()):
                if isinstance(held, HeldContainer) and held.root == os.fsencode(self._root):
                    tasks.start_soon(self._sweep_container, owner, number, held)
        # A container that is still there may use a bundle of the same owner, so bundles wait for the next sweep.
        if not any(isinstance(held, HeldContainer) for held in owner.held.values()):
            await self._sweep_bundles(owner)
        for number, scratch in list(owner.held.items()):
            if isinstance(scratch, HeldScratch):
                await self._sweep_scratch(owner, number, scratch)

    async def _sweep_container(self, owner: DeadOwner, number: int, held: HeldContainer) -> None:
        """Delete the recorded container, if it still exists."""
        try:
            if not await self._is_settled(held):
                warn(f"container {held.id!r} is left behind: a runtime process is still making one of that id")
                return
            # A container that another live process has recorded too is left for later.
            if owned := await retried_once(lambda: self._is_recorded(held)):
                await retried_once(lambda: retried(lambda: self._end(held)))
                self._containers.append(held.id)
            elif owned is None:
                return
        except (RuncError, OSError) as error:
            warn(f"container {held.id!r} is left behind: {error}")
            return
        try:
            if not is_being_made(held.id, ""):
                await self._undo.remove_leftovers(held.id)
        except OSError as error:
            warn(f"cgroups of container {held.id!r} may be left behind: {error}")
            return
        owner.strike(number)

    async def _is_settled(self, held: HeldContainer) -> bool:
        """Wait until no runtime process is creating the container any more; return whether that was reached."""
        deadline = time.monotonic() + PATIENCE
        while is_being_made(held.id, self._root):
            # A runtime process that lives as long as its container has finished the creation once there is a record.
            if held.foreground and _process_of(self._root, held.id) is not None:
                return True
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(_GLANCE)
        return True

    async def _is_recorded(self, held: HeldContainer) -> bool | None:
        """Return whether the recorded container still exists; None if only a later sweep can decide.

        Raises:
            RuncError: If the runtime has to be asked, and fails.
            OSError: If the runtime can't be started.
        """
        claimed = any(
            isinstance(other, HeldContainer) and (other.root, other.id) == (held.root, held.id)
            for other in held_by_living()
        )
        if _is_unfinished(os.path.join(self._root, held.id)):
            # The runtime was killed in the middle, and no other runtime process is at work: the directory is no
            # container.
            return None if claimed else True
        if held.pid:
            return not await self._undo.is_foreign(held.id, ProcessIdentity(held.pid, held.start_time))
        try:
            state = await self._undo.ask(held.id)
        except ContainerNotFound:
            return False
        # The owner was killed before it recorded the first process, so that the bundle has to identify the container.
        if os.path.realpath(state.bundle) != os.path.realpath(os.fsdecode(held.bundle)):
            return False
        return None if claimed else True

    async def _end(self, held: HeldContainer) -> None:
        """Delete a container, and wait for a runtime process that lives as long as the container.

        Raises:
            RuncError: If the container can't be deleted.
            OSError: If the runtime can't be started.
        """
        try:
            await self._delete(held.id, force=True, timeout=DELETE_TIMEOUT)
        except RuncError:
            if has_record(self._root, held.id):
                raise
        with anyio.move_on_after(PATIENCE):
            while held.foreground and is_being_made(held.id, self._root):  # noqa: ASYNC110 - it is no child of ours
                await asyncio.sleep(_GLANCE)

    async def _sweep_bundles(self, owner: DeadOwner) -> None:
        """Unmount overlays and remove temporary bundles that no container uses."""
        root = os.fsencode(self._root)
        found = {number: held for number, held in owner.held.items() if isinstance(held, HeldBundle)}
        found = {number: held for number, held in found.items() if not held.roots or root in held.roots}
        if not found:
            return
        # Detached containers are in no owner's file, but may use a bundle.
        used = {path for state in await self._list() for path in (state.bundle, state.rootfs)}
        for held in held_by_living():
            if isinstance(held, (HeldContainer, HeldBundle)):
                used.add(os.fsdecode(held.bundle if isinstance(held, HeldContainer) else held.path))
        for number, held in found.items():
            elsewhere = (place for place in held.roots if place != root)
            if not _contains(held.path, {*used, *_used_below(map(os.fsdecode, elsewhere))}):
                await self._remove_bundle(owner, number, held)

    async def _remove_bundle(self, owner: DeadOwner, number: int, held: HeldBundle) -> None:
        """Remove a bundle."""
        path = os.fsdecode(held.path)
        try:
            mounted = await finished(begin(lambda: remove_bundle(held)))
        except FileNotFoundError:
            mounted = False
        except OSError as error:
            warn(f"bundle {path!r} is left behind: {error}")
            return
        owner.strike(number)
        if mounted:
            self._mounts.append(os.path.join(path, ROOTFS))
        if held.temporary:
            self._bundles.append(path)

    async def _sweep_scratch(self, owner: DeadOwner, number: int, held: HeldScratch) -> None:
        """Remove the private directory of a call, unless its runtime process still runs, as after an `exec`."""
        if await finished(begin(lambda: is_open(held.path))):
            return
        try:
            await finished(begin(lambda: remove_scratch(held.path)))
        except FileNotFoundError:
            pass
        except OSError as error:
            warn(f"directory {os.fsdecode(held.path)!r} is left behind: {error}")
            return
        owner.strike(number)


def _process_of(root: str, container_id: str) -> ProcessIdentity | None:
    """Return the recorded first process of a container; None without a record."""
    try:
        return recorded_process(root, container_id)
    except OSError:
        return None


def _is_unfinished(directory: str) -> bool:
    """Return whether the runtime's directory for a container has no record of a container."""
    try:
        return RECORDS.isdisjoint(os.listdir(directory))
    except OSError:  # there is none, or it isn't ours to look into
        return False


def _used_below(roots: Iterable[str]) -> set[str]:
    """Return the bundles and root filesystems of the containers below other root directories.

    Raises:
        OSError: If no descriptor is left.
    """
    used: set[str] = set()
    for root in roots:
        with ignoring_absence():
            for container_id in recorded_ids(root):
                if (record := read_record(root, container_id)) is not None:
                    used |= {record.bundle, record.rootfs}
    return used


def _contains(directory: bytes, paths: Collection[str]) -> bool:
    """Return whether any of the paths is the directory or below it."""
    top = os.path.realpath(os.fsdecode(directory))
    return any(path == top or path.startswith(top + "/") for path in map(os.path.realpath, filter(None, paths)))
