"""Whether there is a bundle: asked before runc is started, and without imports that take time."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

from ..errors import BundleNotFound

if TYPE_CHECKING:
    from ..spec import Spec

CONFIG = "config.json"
"""The name of the configuration in a bundle: runtime-spec bundle.md."""


@runtime_checkable
class SavesItself(Protocol):
    """A `Bundle`, for modules that don't load it: there is none in a program that hasn't."""

    spec: Spec

    def saved(self) -> contextlib.AbstractAsyncContextManager[Callable[[], None]]:
        """Do what `Bundle.saved` does."""
        ...


class Source(NamedTuple):
    """What a container is made from.

    Attributes:
        path: The directory of the bundle, absolute.
        saved: Keeps its config.json as it has to be; the function that it gives lets that go. None for a path.
        document: The configuration as plain values, if it was asked for and is known.
    """

    path: str
    saved: contextlib.AbstractAsyncContextManager[Callable[[], None]] | None
    document: dict[str, Any] | None

    def held(self) -> contextlib.AbstractAsyncContextManager[Callable[[], None] | None]:
        """Return a context in which config.json is as it has to be: see `Bundle.saved`. For a path it does nothing."""
        return contextlib.nullcontext() if self.saved is None else self.saved


def check_bundle(bundle: str | os.PathLike[str]) -> str:
    """Return the absolute path of a bundle, having seen that its directory and its config.json are there.

    Costs two stat(2). The path is not normalised, because `link/..` is not where it seems to be.

    Args:
        bundle: The directory, or a `Bundle`.

    Raises:
        BundleNotFound: If there is no such directory or no config.json in it; also if they can't be looked at, as at
            the end of a loop of symbolic links.
        ValueError: If the path has a NUL in it.
    """
    path = os.fspath(bundle)
    _check(path, stat.S_IFDIR, path)
    _check(os.path.join(path, CONFIG), stat.S_IFREG, path)
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)  # the working directory may be gone


def find_rootfs(bundle: str, path: str | None) -> str:
    """Return where the root filesystem of a bundle is, from what its config.json says: absolute or inside the bundle.

    Raises:
        BundleNotFound: If it says nothing.
    """
    if path is None:
        raise _missing(bundle, f"its {CONFIG} names no root filesystem")
    return os.path.join(bundle, path)


def check_rootfs(bundle: str, path: str | None) -> None:
    """See that the directory of a bundle's root filesystem is there.

    Raises:
        BundleNotFound: If it isn't.
    """
    _check(find_rootfs(bundle, path), stat.S_IFDIR, bundle)


def _missing(bundle: str, what: str) -> BundleNotFound:
    """Make the error for a bundle that lacks something."""
    return BundleNotFound((), None, message=f"bundle {bundle!r}: {what}")


def _check(path: str, kind: int, bundle: str) -> None:
    """Compare the type of a file, having followed links."""
    try:
        found = stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        raise _missing(bundle, f"{path!r}: {error.strerror}") from None
    if found != kind:
        raise _missing(bundle, f"{path!r} is no {'directory' if kind == stat.S_IFDIR else 'regular file'}")
