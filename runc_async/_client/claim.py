"""Record a block's container, so that `Runc.sweep` can delete the container if this process is killed."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final, Self

import msgspec

from .._linux.owner import Claim, HeldContainer
from .._linux.procfs import ProcessIdentity
from .._runtimes.known import has_record
from ..errors import ContainerExists


class ContainerClaim:
    """The record of one container, kept until the container is gone: a context manager around the creation.

    A container that couldn't be deleted stays recorded.
    """

    def __init__(self, root: str, container_id: str, *, foreground: bool = False) -> None:
        """Start without a record.

        Args:
            root: The runtime's root directory.
            container_id: The container's id.
            foreground: Whether the runtime process lives as long as the container.
        """
        self._root = root
        self._id = container_id
        self._foreground = foreground
        self._claim: Claim | None = None
        self._handed_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Delete the record of a container that is gone or not ours; keep a record that was handed over."""
        # The container belongs to another call, so this record must not lead to its deletion.
        if isinstance(error, ContainerExists):
            self._release()
        elif not self._handed_over:
            self.end()

    def hand_over(self, process: ProcessIdentity | None) -> None:
        """Record the first process, if known; from now on the caller has to call `end`."""
        self._handed_over = True
        if process is not None and self._claim is not None and isinstance(held := self._claim.held, HeldContainer):
            self._claim.change(msgspec.structs.replace(held, pid=process.pid, start_time=process.start_time))

    def end(self) -> None:
        """Delete the record if the container is gone; otherwise `release_gone` does so later. Idempotent."""
        if not self._exists():
            self._release()
        elif self._claim is not None:
            _left.add(self)

    def forget(self) -> None:
        """Delete the record: the container is gone, and its id belongs to another container."""
        self._release()

    def begin(self, bundle: str) -> None:
        """Record a container that is about to be created from a bundle, unless the id is in use."""
        if self._exists():
            return
        # Before the creation: a process that is killed in between leaves a record without a container, which
        # `Runc.sweep` deletes. The other order would leave a container without a record.
        root = os.fsencode(os.path.abspath(self._root))
        self._claim = Claim(HeldContainer(root, self._id, os.fsencode(bundle), self._foreground))

    def _exists(self) -> bool:
        try:
            return has_record(self._root, self._id)
        except OSError:
            return False

    def _release(self) -> None:
        _left.discard(self)
        if self._claim is not None:
            self._claim.release()


_left: Final[set[ContainerClaim]] = set()
"""The records of containers that a cleanup couldn't delete."""


def release_gone() -> None:
    """Delete the records of containers that a cleanup couldn't delete, and that are gone by now."""
    for claim in list(_left):
        claim.end()
