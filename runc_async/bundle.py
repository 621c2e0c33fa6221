"""A bundle: the directory that runc makes a container from, with its config.json and its root filesystem."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import threading
import warnings
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from ._bundle_check import CONFIG, check_bundle, check_rootfs, find_rootfs
from ._bundles.init import chosen_init, with_init
from ._process import outwait
from ._tree import read_bounded, write_private
from .errors import CleanupWarning
from .rootfs import Busybox, Host, Overlay, Rootfs, Tar
from .spec import Spec
from .spec._json import MAX_DOCUMENT

if TYPE_CHECKING:
    from ._bundle_dir import Made

T = TypeVar("T")


class Bundle:
    """A bundle on the disk, and its configuration in memory.

    Comes from `create`, `open`, `temporary` or `busybox`. It is an `os.PathLike`, so it can be given wherever a path
    of a bundle can. runc reads the disk: what is changed in `spec` counts once `save` has written it.

    A bundle is an asynchronous context manager that closes it at the end; only one with an `Overlay` needs that, and a
    temporary one does it by itself::

        async with Bundle.temporary(rootfs=rootfs.Busybox()) as bundle:
            bundle.spec.set_args("hostname").set_hostname("web").set_terminal(enabled=False)
            await bundle.save()
            response = await Runc().run("named", bundle)
        print(response.output.strip())  # web

    All work on files is done in worker threads. Cancelling waits for the thread: what was being made is removed again,
    what was being written is there whole, and then the cancel goes on. What can't be removed, here or after an error,
    is named in a `CleanupWarning`.
    """

    def __init__(
        self, path: str, spec: Spec, closing: contextlib.ExitStack | None = None, init: str | None = None
    ) -> None:
        self._path = path
        self._init = init
        self._closing = closing or contextlib.ExitStack()
        self.spec = spec
        """The configuration; change it at will."""

    def __fspath__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}>"

    @property
    def path(self) -> Path:
        """The directory, absolute."""
        return Path(self._path)

    @property
    def rootfs(self) -> Path:
        """The directory of the root filesystem, absolute, as `spec` has it.

        Raises:
            BundleNotFound: If it has none.
        """
        return Path(find_rootfs(self._path, self.spec.root.path if self.spec.root else None))

    @classmethod
    async def create(
        cls,
        path: str | os.PathLike[str],
        *,
        rootfs: Rootfs | None = None,
        spec: Spec | None = None,
        init: bool | str | os.PathLike[str] = False,
    ) -> Self:
        """Make a bundle that stays.

        Only the owner can enter its directory and read config.json, in which there may be secrets. A container with
        a user namespace of its own has to pass through the directory too: give it mode 0711 then.

        Args:
            path: The directory of the bundle. It is made; or it is there, and has no config.json yet.
            rootfs: Where the root filesystem comes from: the path of a directory, which stays where it is, or one of
                `runc_async.rootfs`. None: `spec` names a directory that is there.
            spec: The configuration, of which the bundle gets a copy with its own `root.path`. None: what `runc spec`
                proposes, that is `sh` on a terminal; for a caller who isn't root, rootless. If the root filesystem is
                the bundle's own, the container can write to it.
            init: Whether a small init is the first process, and starts the program of `spec`: it reaps what other
                processes leave behind, and passes signals on. True: tini-static, catatonit or dumb-init of this host,
                the first that is there and statically linked; else the path of another, or its name in $PATH, which is
                started as `INIT -- PROGRAM ARGUMENTS`. The config.json has it, and `spec` the program alone.

        Raises:
            InitNotFound: If there is no such init, or if it isn't statically linked.
            FileExistsError: If there is a bundle already.
            BundleNotFound: If the directory of the root filesystem isn't there.
            RootfsError: If the root filesystem can't be made from `rootfs`.
            OSError: If something can't be read or written.
        """
        return await cls._make(os.path.abspath(path), None, rootfs, spec, init=init)

    @classmethod
    @contextlib.asynccontextmanager
    async def temporary(
        cls,
        *,
        rootfs: Rootfs | None = None,
        spec: Spec | None = None,
        directory: str | os.PathLike[str] | None = None,
        init: bool | str | os.PathLike[str] = False,
    ) -> AsyncGenerator[Self]:
        """Make a bundle for the time of an `async with`.

        At the end its directory is removed, with everything that a container has left in a root filesystem of the
        bundle's own. Delete the container before that.

        Args:
            rootfs: As for `create`.
            spec: As for `create`.
            directory: Where the bundle's directory is made; None: where Python makes temporary files.
            init: As for `create`.

        Raises:
            InitNotFound: As `create` does.
            BundleNotFound: As `create` does.
            RootfsError: As `create` does.
            OSError: As `create` does.
        """
        async with await cls._make(None, directory, rootfs, spec, init=init) as bundle:
            yield bundle

    @classmethod
    def busybox(
        cls,
        args: Sequence[str] = ("sh",),
        *,
        spec: Spec | None = None,
        command: str | os.PathLike[str] = "busybox",
        directory: str | os.PathLike[str] | None = None,
        init: bool | str | os.PathLike[str] = False,
    ) -> contextlib.AbstractAsyncContextManager[Self]:
        """Make a temporary bundle around the busybox of this host, without a terminal: for demos and tests.

        It has all of busybox's commands, and a root filesystem that can be written to::

            async with Bundle.busybox(["echo", "hello"]) as bundle:
                response = await Runc().run("greeter", bundle)

        Args:
            args: What the container runs.
            spec: The rest of the configuration; None as for `create`.
            command: A statically linked busybox: a name looked up in $PATH, or a path. Debian has one in the package
                busybox-static.
            directory: As for `temporary`.
            init: As for `create`.

        Raises:
            InitNotFound: As `create` does.
            RootfsError: If there is no busybox, or if it isn't statically linked.
            OSError: As `create` does.
        """
        if isinstance(args, str):
            raise TypeError(f"args must be a sequence of arguments, not one: {args!r}")
        rootfs = Busybox(command)
        own = _own_spec(spec, rootfs).set_args(*args).set_terminal(enabled=False)
        return cls.temporary(rootfs=rootfs, spec=own, directory=directory, init=init)

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, strict: bool = True) -> Self:
        """Read a bundle that is there. Of one with an init, `spec` has the init and its arguments.

        Args:
            path: Its directory.
            strict: Whether config.json is held against all of the runtime-spec's schema: see `Spec.decode`.

        Raises:
            BundleNotFound: If there is no such directory, no config.json in it, or no root filesystem.
            DecodeError: If config.json breaks the schema, and where; if it isn't JSON, or has more than 16 MiB.
            OSError: If config.json can't be read.
        """
        return cls(*await _finished(_begin(lambda: _read(path, strict=strict))))

    async def save(self) -> None:
        """Write `spec` to config.json.

        The old file is replaced at once by a new one that is on the disk already: whoever reads it, and whatever
        breaks down meanwhile, finds one of them whole. Cancelling doesn't stop it.

        Raises:
            ValueError: If a value in `spec` has no form in JSON.
            TypeError: Likewise.
            OSError: If it can't be written; the old one is still there then.
        """
        data = with_init(self.spec, self._init).encode(indent=2)
        await _finished(_begin(lambda: write_private(self._path, CONFIG, data, replace=True)))

    async def aclose(self) -> None:
        """Unmount an overlay, and remove a temporary bundle. Can be called again, and isn't stopped by a cancel.

        What can't be removed is named in a `CleanupWarning`.
        """
        work = _begin(self._closing.pop_all().close)
        cancelled = await outwait(work)
        if error := work.exception():
            warnings.warn(f"bundle {self._path!r} is left behind: {error}", CleanupWarning, stacklevel=2)
        if cancelled:
            raise cancelled

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    @classmethod
    async def _make(
        cls,
        path: str | None,
        parent: str | os.PathLike[str] | None,
        rootfs: Rootfs | None,
        spec: Spec | None,
        *,
        init: bool | str | os.PathLike[str],
    ) -> Self:
        """Make a bundle, or nothing if the calling task is cancelled."""
        own = _own_spec(spec, rootfs)
        chosen = chosen_init(init)
        given_up = threading.Event()
        directory = None if parent is None else os.path.abspath(parent)
        work = _begin(lambda: _make(path, directory, rootfs, own, given_up, init=chosen))
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError:
            given_up.set()
            await outwait(work)
            if work.exception() is None:  # too late to be given up
                await _finished(_begin(work.result().undo))
            raise
        made = work.result()
        return cls(made.path, own, made.closing, chosen)


def _begin(work: Callable[[], T]) -> asyncio.Future[T]:
    """Have something done by a worker thread.

    By the event loop's own, because `asyncio.run` waits for these; and with a future, because it cancels all tasks
    first: one that waits for a thread would leave it alone with a bundle half made.
    """
    return asyncio.get_running_loop().run_in_executor(None, work)


async def _finished(work: asyncio.Future[T]) -> T:
    """Wait for a worker thread, whatever happens to the calling task; a cancel goes on afterwards."""
    if cancelled := await outwait(work):
        work.exception()  # retrieved: what the caller gets to see is the cancel
        raise cancelled
    return work.result()


class _GivenUpError(Exception):
    """The calling task was cancelled."""


def _make(
    path: str | None,
    parent: str | None,
    rootfs: Rootfs | None,
    spec: Spec,
    given_up: threading.Event,
    *,
    init: str | None,
) -> Made:
    """Make a bundle; in a worker thread."""
    from ._bundle_dir import make  # noqa: PLC0415 - tarfile, tempfile and ctypes take 15 ms, and few callers need them

    def check() -> None:
        if given_up.is_set():
            raise _GivenUpError

    return make(path, parent, rootfs, spec, check, init=init)


def _read(path: str | os.PathLike[str], *, strict: bool) -> tuple[str, Spec]:
    """Read a bundle; in a worker thread."""
    bundle = check_bundle(path)
    config = os.path.join(bundle, CONFIG)
    try:
        spec = Spec.decode(read_bounded(config, MAX_DOCUMENT), strict=strict)
    except ValueError as error:
        error.add_note(f"in {config!r}")
        raise
    check_rootfs(bundle, spec.root.path if spec.root else None)
    return bundle, spec


def _own_spec(spec: Spec | None, rootfs: Rootfs | None) -> Spec:
    """Copy a configuration, so that bundles don't share one, or propose one."""
    if spec is not None:
        return copy.deepcopy(spec)
    own = Spec.default(rootless=os.geteuid() != 0)
    return own.set_root("rootfs", readonly=False) if isinstance(rootfs, (Overlay, Tar, Busybox, Host)) else own
