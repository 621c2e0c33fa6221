"""`Swept`: the result of `Runc.sweep`."""

from __future__ import annotations

import msgspec


class Swept(msgspec.Struct, frozen=True):
    """The leftovers of killed processes that `Runc.sweep` has removed.

    Attributes:
        containers: The ids of the deleted containers.
        bundles: The absolute paths of the removed temporary bundles.
        mounts: The absolute paths of the unmounted overlays.
    """

    containers: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
