"""The container's filesystem: config.md, sections "Root" and "Mounts"."""

from __future__ import annotations

from ._base import SpecObject
from .linux import LinuxIDMapping


class Root(SpecObject, kw_only=True):
    """The container's root filesystem: config.md, "Root".

    Attributes:
        path: Directory on the host, absolute or relative to the bundle.
        readonly: Whether the container can't write to it.
    """

    path: str
    readonly: bool | None = None


class Mount(SpecObject, kw_only=True):
    """A mount besides the root, made in the order of the list: config.md, "Mounts".

    Attributes:
        destination: Where, inside the container; absolute. Relative to its root since 1.2.0.
        type: Filesystem, as in /proc/filesystems; anything for a bind mount.
        source: Device, or for a bind mount the file or directory on the host, absolute or relative to the bundle.
        options: Options as in fstab(5), and those of the specification (``rbind``, ``rro``, ``idmap`` ...).
        uid_mappings: User ids of an id-mapped mount. Since 1.1.0.
        gid_mappings: Group ids of an id-mapped mount. Since 1.1.0.
    """

    destination: str
    type: str | None = None
    source: str | None = None
    options: list[str] | None = None
    uid_mappings: list[LinuxIDMapping] | None = None
    gid_mappings: list[LinuxIDMapping] | None = None
