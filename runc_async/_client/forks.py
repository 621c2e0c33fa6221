"""Copies of a running container, restored from one checkpoint."""

# `_calls` is of the client's own package.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from .._commands.options import DEFAULT
from ..errors import UnsupportedError
from ..stdio import StdIO
from .live import check_live

if TYPE_CHECKING:
    from ..state import State
    from .calls import Calls

ContainerT = TypeVar("ContainerT")
ContainerT_co = TypeVar("ContainerT_co", covariant=True)


class Original(Protocol):
    """The parts of a `Container` that are needed to copy it."""

    @property
    def id(self) -> str:
        """The container's id."""
        ...

    async def state(self) -> State:
        """See `Container.state`."""
        ...


class Forking(Protocol[ContainerT_co]):
    """The parts of a client that are needed to copy a container."""

    _calls: Calls

    async def checkpoint(self, container_id: str, image_path: str, *, leave_running: bool) -> None:
        """See `Runc.checkpoint`."""
        ...

    def open_restored(
        self, container_id: str, bundle: str, image_path: str, *, io: StdIO | None
    ) -> AbstractAsyncContextManager[ContainerT_co]:
        """See `Runc.open_restored`."""
        ...


@asynccontextmanager
async def open_forks(
    runc: Forking[ContainerT], container: Original, n: int, io: StdIO | None
) -> AsyncGenerator[list[ContainerT]]:
    """Create copies of a container: see `Container.fork`."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be a number of copies, at least 1: {n!r}")
    check_live(io)
    calls = runc._calls  # noqa: SLF001 - of the client's own package
    version = await calls.identify(DEFAULT)
    bundle = (await container.state()).bundle
    # The images have no contents of files. Copies share the bundle's root filesystem, so a container that writes there
    # would get the other copies' changes.
    forks = calls.dialect.forks
    if forks is None or (forks == "read-only root" and not await _has_read_only_root(bundle)):
        missing = "fork" if forks is None else "fork of a container with a writable root filesystem"
        raise UnsupportedError(missing, f"{version.runtime} {version.version}")
    token = secrets.token_hex(4)
    image = tempfile.mkdtemp(prefix="runc_async-fork-")
    try:
        await runc.checkpoint(container.id, image, leave_running=True)
        async with AsyncExitStack() as stack:
            # The images must exist until the last copy has ended: a sandbox may read its memory lazily.
            names = (f"{container.id}-fork-{token}-{number}" for number in range(n))
            yield [await stack.enter_async_context(runc.open_restored(name, bundle, image, io=io)) for name in names]
    finally:
        shutil.rmtree(image, ignore_errors=True)


async def _has_read_only_root(bundle: str) -> bool:
    """Return whether the root filesystem of a bundle's container can't have changed."""
    from ..bundle import Bundle  # noqa: PLC0415 - it loads the whole of `spec`, which takes milliseconds

    root = (await Bundle.open(bundle, strict=False)).spec.root
    return root is not None and bool(root.readonly)
