"""The first process of a container that reaps: one of the host's small inits, in front of the program."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from runc_async.errors import InitNotFound
from runc_async.spec import Mount, Spec

from .busybox import is_static

Choice: TypeAlias = bool | str | os.PathLike[str]

PLACE: Final = "/dev/init"
"""Where it is in the container: in /dev, which is a tmpfs in nearly all of them, so that no file is left elsewhere."""

KNOWN: Final[Mapping[str, Sequence[str]]] = {
    # -s: orphans come to it also without a pid namespace, where it isn't process 1.
    "tini-static": ("-s",),
    "catatonit": (),
    # Without -c it would start a session of its own, and send signals to all of that.
    "dumb-init": ("-c",),
}
"""The programs that are looked for, in this order, and their options."""


def find_init() -> str | None:
    """Return the path of an init of this host's that needs no shared libraries; None if there is none."""
    found = (shutil.which(name) for name in KNOWN)
    return next((path for path in found if path is not None and is_static(path)), None)


def chosen_init(init: Choice) -> str | None:
    """Return the path of the init that is asked for; None for none.

    Args:
        init: True for one of this host's; the path, or the name in $PATH, of another; False for none.

    Raises:
        InitNotFound: If there is none, or if it needs shared libraries, which the container may not have.
    """
    if isinstance(init, bool):
        if not init:
            return None
        if (path := find_init()) is None:
            raise InitNotFound(" or ".join(KNOWN), "none is here that is statically linked; install the package tini")
        return path
    command = os.fspath(init)
    if (found := shutil.which(command)) is None:
        raise InitNotFound(command, "there is no such program; install the package tini, or name another")
    if not is_static(found):
        raise InitNotFound(command, "it is no statically linked program")
    return os.path.abspath(found)


def with_init(spec: Spec, init: str | None) -> Spec:
    """Return a configuration in which an init starts the program; the one that is given stays as it is.

    Args:
        spec: The configuration; one without a program is returned unchanged.
        init: The path of the init on this host; None for none.
    """
    if init is None or spec.process is None or not spec.process.args:
        return spec
    args = [PLACE, *KNOWN.get(os.path.basename(init), ()), "--", *spec.process.args]
    mount = Mount(destination=PLACE, type="bind", source=init, options=["bind", "ro", "nosuid", "nodev"])
    return msgspec.structs.replace(
        spec,
        process=msgspec.structs.replace(spec.process, args=args),
        mounts=[*(spec.mounts or ()), mount],
    )
