"""Check for a bundle before runc is started, without slow imports."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeGuard

import msgspec

from ..errors import BundleNotFound

if TYPE_CHECKING:
    from ..spec import Spec

CONFIG = "config.json"
"""The name of the configuration in a bundle: runtime-spec bundle.md."""

_CONFIG_LIMIT = 16 << 20


class SavesItself(Protocol):
    """A `Bundle`, for modules that don't import the class: without the import there is no instance."""

    spec: Spec

    def saved(self) -> contextlib.AbstractAsyncContextManager[Callable[[], None]]:
        """Do the same as `Bundle.saved`."""
        ...


def saves_itself(bundle: str | os.PathLike[str]) -> TypeGuard[SavesItself]:
    """Return whether the object is a `Bundle`."""
    # Not `isinstance`, which takes longer to look at a protocol than all else takes for a bundle.
    return hasattr(bundle, "saved") and hasattr(bundle, "spec")


class Source(NamedTuple):
    """The source of a container.

    Attributes:
        path: The directory of the bundle, absolute.
        saved: Keeps the config.json in the required form until the yielded function is called. None for a path.
        document: The configuration as plain values, if requested and known.
    """

    path: str
    saved: contextlib.AbstractAsyncContextManager[Callable[[], None]] | None
    document: dict[str, Any] | None

    def held(self) -> contextlib.AbstractAsyncContextManager[Callable[[], None] | None]:
        """Return a context manager to keep config.json in the required form: see `Bundle.saved`.

        No effect for a path.
        """
        return contextlib.nullcontext() if self.saved is None else self.saved


def check_bundle(bundle: str | os.PathLike[str]) -> str:
    """Return the absolute path of a bundle after checking the directory and the config.json.

    Costs two stat(2). The path isn't normalised, because `link/..` may be a different directory.

    Args:
        bundle: The directory, or a `Bundle`.

    Raises:
        BundleNotFound: If the directory or the config.json is missing or inaccessible, as in a loop of symbolic links.
        ValueError: If the path has a NUL byte.
    """
    path = os.fspath(bundle)
    _check(path, stat.S_IFDIR, path)
    _check(os.path.join(path, CONFIG), stat.S_IFREG, path)
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)  # the working directory may be gone


class _Process(msgspec.Struct):
    terminal: bool = False


class _Namespace(msgspec.Struct):
    type: str = ""


class _Linux(msgspec.Struct):
    namespaces: list[_Namespace] | None = None


class _Config(msgspec.Struct):
    process: _Process | None = None
    linux: _Linux | None = None


def takes_pipes(bundle: str | os.PathLike[str]) -> bool:
    """Return whether the process of a bundle can use our pipes in place of runc's; False if unknown.

    A terminal takes the place of pipes. In a user namespace the program couldn't open `/dev/stderr` again: our pipe
    belongs to a user from outside, whereas runc's pipes belong to the container's root.

    Args:
        bundle: The directory, or a `Bundle`; an unsaved spec counts.
    """
    config: Spec | _Config
    if saves_itself(bundle):
        config = bundle.spec
    else:
        try:
            with open(os.path.join(bundle, CONFIG), "rb") as file:
                config = msgspec.json.decode(file.read(_CONFIG_LIMIT), type=_Config)
        except (OSError, msgspec.MsgspecError, ValueError):
            return False
    namespaces = (config.linux.namespaces if config.linux else None) or []
    has_terminal = config.process is not None and config.process.terminal
    return not has_terminal and "user" not in {namespace.type for namespace in namespaces}


def find_rootfs(bundle: str, path: str | None) -> str:
    """Return the path of a bundle's root filesystem from the path in config.json: absolute or inside the bundle.

    Raises:
        BundleNotFound: If config.json has no such path.
    """
    if path is None:
        raise _missing(bundle, f"its {CONFIG} names no root filesystem")
    return os.path.join(bundle, path)


def check_rootfs(bundle: str, path: str | None) -> None:
    """Check that the directory of a bundle's root filesystem exists.

    Raises:
        BundleNotFound: If the directory is missing.
    """
    _check(find_rootfs(bundle, path), stat.S_IFDIR, bundle)


def _missing(bundle: str, what: str) -> BundleNotFound:
    """Return the error for an incomplete bundle."""
    return BundleNotFound((), None, message=f"bundle {bundle!r}: {what}")


def _check(path: str, kind: int, bundle: str) -> None:
    """Check the type of a file, following links."""
    try:
        found = stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        raise _missing(bundle, f"{path!r}: {error.strerror}") from None
    if found != kind:
        raise _missing(bundle, f"{path!r} is no {'directory' if kind == stat.S_IFDIR else 'regular file'}")
