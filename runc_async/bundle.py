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
from typing import TYPE_CHECKING, Any, Self

from ._bundles.check import CONFIG, check_bundle, check_rootfs, find_rootfs
from ._bundles.config import ConfigFile, begin, finished
from ._bundles.init import chosen_init, with_init
from ._linux.files import read_bounded
from ._shield import wait_shielded
from .errors import CleanupWarning
from .rootfs import Busybox, Host, Overlay, Rootfs, Tar
from .spec import Spec
from .spec._json import MAX_DOCUMENT, dump, parse
from .spec._violation import is_array, is_object

if TYPE_CHECKING:
    from ._bundles.directory import Made


class Bundle:
    """A bundle on the disk, and its configuration in memory.

    Comes from `create`, `open`, `temporary` or `busybox`. It is an `os.PathLike`, so it can be given wherever a path
    of a bundle can. runc reads the disk: a command that gets a `Bundle` saves its `spec` first, if that has changed. A
    command that gets the path of the directory doesn't; call `save` before it.

    A command encodes the spec in its first step; later changes are for later commands. A spec that has to be saved
    waits until the commands in flight on this object have reported their process, so none of them runs the spec of
    another. A `run` with a `pid_file` of the caller's counts as in flight until its end.

    A bundle is an asynchronous context manager that closes it at the end; only one with an `Overlay` needs that, and a
    temporary one does it by itself::

        async with Bundle.temporary(rootfs=rootfs.Busybox()) as bundle:
            bundle.spec.set_args("hostname").set_hostname("web").set_terminal(enabled=False)
            response = await Runc().run("named", bundle)
        print(response.output.strip())  # web

    Work on files is done in worker threads; only a temporary bundle in memory is made at once, for that takes
    microseconds. Cancelling waits for the thread: what was being made is removed again, what was being written is there
    whole, and then the cancel goes on. What can't be removed, here or after an error, is named in a `CleanupWarning`.
    """

    def __init__(
        self,
        path: str,
        spec: Spec,
        closing: contextlib.ExitStack | None = None,
        *,
        config: ConfigFile | None = None,
        init: str | None = None,
        is_small: bool = False,
    ) -> None:
        self._path = path
        self._config = config or ConfigFile(path)
        self._init = init
        self._is_small = is_small
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
            directory: Where the bundle's directory is created. None: in memory (/dev/shm) if $TMPDIR isn't set and no
                root filesystem on the disk belongs to the bundle; otherwise where Python creates temporary files.
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
        directory, spec, config = await finished(begin(lambda: _read(path, strict=strict)))
        return cls(directory, spec, config=config)

    async def save(self) -> None:
        """Write `spec` to config.json, whatever is there.

        Commands that get this object do so by themselves. A spec that differs from what was last written or read waits
        until the commands in flight have reported their process.

        The old file is replaced at once by a new one that is on the disk already: whoever reads it, and whatever
        breaks down meanwhile, finds one of them whole. Cancelling ends the wait, and doesn't stop the writing.

        Raises:
            ValueError: If a value in `spec` has no form in JSON.
            TypeError: Likewise.
            OSError: If it can't be written; the old one is still there then.
        """
        await self._config.save(self._encoded())

    def saved(self) -> contextlib.AbstractAsyncContextManager[Callable[[], None]]:
        """Save `spec` if it has changed, and keep config.json so while the block runs: what commands do by themselves.

        It is for a runtime that is started in another way. The spec is encoded by the call, before the block. Another
        one isn't written before the block has ended, or has called the function that it gets, which lets config.json
        go earlier::

            async with Bundle.busybox(["true"]) as bundle, bundle.saved() as read:
                ...  # start a runtime; once it has read config.json:
                read()

        Cancelling ends the wait for other blocks, and doesn't stop the writing.

        Raises:
            BundleChanged: On enter, if `spec` has changed, and config.json as well, by other means than this object.
            ValueError: If a value in `spec` has no form in JSON.
            TypeError: Likewise.
            OSError: On enter, if config.json can't be read or written.
        """
        return self._config.held(self._encoded())

    async def aclose(self) -> None:
        """Unmount an overlay, and remove a temporary bundle. Can be called again, and isn't stopped by a cancel.

        What can't be removed is named in a `CleanupWarning`.
        """
        if self._is_small:
            self._close_now()
            return
        work = begin(self._closing.pop_all().close)
        cancelled = await wait_shielded(work)
        if error := work.exception():
            warnings.warn(f"bundle {self._path!r} is left behind: {error}", CleanupWarning, stacklevel=2)
        if cancelled:
            raise cancelled

    def _close_now(self) -> None:
        """Remove a bundle that is in memory: a directory with one file."""
        try:
            self._closing.pop_all().close()
        except OSError as error:
            warnings.warn(f"bundle {self._path!r} is left behind: {error}", CleanupWarning, stacklevel=3)

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
        memory = _place_in_memory(rootfs) if path is None and parent is None else None
        if memory is not None:
            made = _make(None, memory, rootfs, own, threading.Event(), init=chosen)
        else:
            made = await _made_by_thread(path, parent, rootfs, own, init=chosen)
        config = ConfigFile(made.path, made.config, made.config, durable=path is not None)
        # The end of a tmpfs isn't quick: the kernel takes 150 ms for the files of a gigabyte.
        is_small = memory is not None and not isinstance(rootfs, Overlay)
        return cls(made.path, own, made.closing, config=config, init=chosen, is_small=is_small)

    def _encoded(self) -> bytes:
        """Return what config.json is to be: the spec, with the arguments wrapped if there is an init."""
        return with_init(self.spec, self._init).encode(indent=2)


async def _made_by_thread(
    path: str | None,
    parent: str | os.PathLike[str] | None,
    rootfs: Rootfs | None,
    spec: Spec,
    *,
    init: str | None,
) -> Made:
    """Make a bundle in a worker thread, or nothing if the calling task is cancelled."""
    given_up = threading.Event()
    directory = None if parent is None else os.path.abspath(parent)
    work = begin(lambda: _make(path, directory, rootfs, spec, given_up, init=init))
    try:
        await asyncio.wait((work,))
    except asyncio.CancelledError:
        given_up.set()
        await wait_shielded(work)
        if work.exception() is None:  # too late to be given up
            await finished(begin(work.result().undo))
        raise
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
    """Make a bundle."""
    from ._bundles.directory import make  # noqa: PLC0415 - few callers need it

    def check() -> None:
        if given_up.is_set():
            raise _GivenUpError

    return make(path, parent, rootfs, spec, check, init=init)


def _place_in_memory(rootfs: Rootfs | None) -> str | None:
    """Return the directory for a temporary bundle that is made in microseconds; None if there is no such directory."""
    from ._bundles.directory import place_in_memory  # noqa: PLC0415 - as above

    return place_in_memory(rootfs)


def _read(path: str | os.PathLike[str], *, strict: bool) -> tuple[str, Spec, ConfigFile]:
    """Read a bundle; in a worker thread."""
    bundle = check_bundle(path)
    config = os.path.join(bundle, CONFIG)
    try:
        data = read_bounded(config, MAX_DOCUMENT)
        spec = Spec.decode(data, strict=strict)
    except ValueError as error:
        error.add_note(f"in {config!r}")
        raise
    check_rootfs(bundle, spec.root.path if spec.root else None)
    # Keys that a runtime would take for others are dropped: such a file isn't what the spec says, and is written anew.
    is_whole = _sorted(parse(data)) == _sorted(spec.to_builtins())
    return bundle, spec, ConfigFile(bundle, data, spec.encode(indent=2) if is_whole else None)


def _sorted(document: Any) -> bytes:
    """Return the text of a document, the same for each order of its keys; 1, 1.0 and true are apart."""
    if is_object(document):
        items = sorted(document.items())
        return b"{%b}" % b",".join(dump(key) + b":" + _sorted(value) for key, value in items)
    if is_array(document):
        return b"[%b]" % b",".join(map(_sorted, document))
    return dump(document)


def _own_spec(spec: Spec | None, rootfs: Rootfs | None) -> Spec:
    """Copy a configuration, so that bundles don't share one, or propose one."""
    if spec is not None:
        return copy.deepcopy(spec)
    own = Spec.default(rootless=os.geteuid() != 0)
    return own.set_root("rootfs", readonly=False) if isinstance(rootfs, (Overlay, Tar, Busybox, Host)) else own
