"""Copies of a running container, restored from one checkpoint."""

# `_calls` is of the client's own package.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from .._commands import argv
from .._commands.options import DEFAULT
from .._process.running import ProcessRunner
from ..errors import UnsupportedError
from ..stdio import StdIO
from .calls import KILL, OWN_OUTPUT
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
    obstacle: str | None = None if calls.dialect.forks else "fork"
    if calls.dialect.forks == "read-only root":
        obstacle = _without_criu(calls) or await _obstacle(bundle)
    if obstacle is not None:
        raise UnsupportedError(obstacle, f"{version.runtime} {version.version}")
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


def _without_criu(calls: Calls) -> str | None:
    """Return "fork without criu" if the runtime would find none; None if it would, or if that can't be seen."""
    invocation = calls.invocation(argv.version(), OWN_OUTPUT, stop=KILL)
    if not isinstance(calls.runner, ProcessRunner) or "--criu" in invocation.argv:
        return None
    environment = os.environ if invocation.env is None else invocation.env
    found = shutil.which("criu", path=environment.get("PATH", os.defpath))
    return None if found else "fork without criu in $PATH"


async def _obstacle(bundle: str) -> str | None:
    """Return why the container of a bundle can't be copied by criu; None if it can be.

    The images have no contents of files, and no cgroup or namespace of a copy's own: copies with the same root
    filesystem would get each other's changes, with the same cgroup each other's limits and signals, and two processes
    can't have the same pid in one namespace.
    """
    from ..bundle import Bundle  # noqa: PLC0415 - it loads the whole of `spec`, which takes milliseconds

    spec = (await Bundle.open(bundle, strict=False)).spec
    linux = spec.linux
    if spec.root is None or not spec.root.readonly:
        return "fork of a container with a writable root filesystem"
    if linux is not None and linux.cgroups_path:
        return "fork of a container with a cgroupsPath"
    own = any(space.type == "pid" and not space.path for space in (linux and linux.namespaces) or ())
    return None if own else "fork of a container without a pid namespace of its own"
