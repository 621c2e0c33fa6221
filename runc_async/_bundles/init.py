"""An init as the first process of a container, to reap zombies: a small init of the host."""

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
"""The path in the container: in /dev, which is a tmpfs in nearly all containers, so that no file is left elsewhere."""

KNOWN: Final[Mapping[str, Sequence[str]]] = {
    # -s: adopt orphans also without a pid namespace, where the init isn't process 1.
    "tini-static": ("-s",),
    "catatonit": (),
    # Without -c, dumb-init would start a session, and send signals to the whole session.
    "dumb-init": ("-c",),
}
"""The known programs in order of preference, with their options."""


def find_init() -> str | None:
    """Return the path of a statically linked init of the host; None if there is none."""
    found = (shutil.which(name) for name in KNOWN)
    return next((path for path in found if path is not None and is_static(path)), None)


def chosen_init(init: Choice) -> str | None:
    """Return the path of the requested init; None for none.

    Args:
        init: True for an init of the host; the path, or the name in $PATH, of another; False for none.

    Raises:
        InitNotFound: If there is no init, or an init with shared libraries, perhaps missing in the container.
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
    """Return a configuration in which an init starts the program; the argument stays unchanged.

    Args:
        spec: The configuration; returned unchanged without a program.
        init: The path of the init on the host; None for none.
    """
    if init is None or spec.process is None or not spec.process.args:
        return spec
    # A bind mount instead of a copy: the bundle may share its root filesystem with others.
    args = [PLACE, *KNOWN.get(os.path.basename(init), ()), "--", *spec.process.args]
    mount = Mount(destination=PLACE, type="bind", source=init, options=["bind", "ro", "nosuid", "nodev"])
    return msgspec.structs.replace(
        spec,
        process=msgspec.structs.replace(spec.process, args=args),
        mounts=[*(spec.mounts or ()), mount],
    )
