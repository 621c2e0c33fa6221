"""`Swept`: what `Runc.sweep` has removed."""

from __future__ import annotations

import msgspec


class Swept(msgspec.Struct, frozen=True):
    """What `Runc.sweep` has removed of what killed processes had left.

    Attributes:
        containers: The ids of the containers that were deleted.
        bundles: The absolute paths of the temporary bundles that were removed.
        mounts: The absolute paths at which overlays were unmounted.
    """

    containers: tuple[str, ...] = ()
    bundles: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
