"""Bundles: the directory from which runc creates a container, with its config.json and its root filesystem."""

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
    """A bundle on the disk, with its configuration in memory.

    Created by `create`, `open`, `temporary` or `busybox`. A bundle is an `os.PathLike`, accepted wherever the path of a
    bundle is. runc reads the file: a command that gets a `Bundle` saves a changed `spec` first. A command that gets the
    path of the directory doesn't; call `save` before.

    A command encodes the spec in its first step; later changes apply to later commands. A spec that has to be saved
    waits until the commands in flight with this object have reported their process, so that no command uses the spec of
    another. A `run` with a `pid_file` of the caller's counts as in flight until its end.

    A bundle is an asynchronous context manager and closes itself on exit. Only a bundle with an `Overlay` needs this; a
    temporary one does so by itself::

        async with Bundle.temporary(rootfs=rootfs.Busybox()) as bundle:
            bundle.spec.set_args("hostname").set_hostname("web").set_terminal(enabled=False)
            response = await Runc().run("named", bundle)
        print(response.output.strip())  # web

    Files are read and written in worker threads; only a temporary bundle in memory is created at once, which takes
    microseconds. Cancelling waits for the thread: a bundle in progress is removed again, a file in progress is written
    completely, and then the cancellation continues. Leftovers are named in a `CleanupWarning`.
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
        """The directory of the root filesystem, absolute, from `spec`.

        Raises:
            BundleNotFound: If there is no root filesystem.
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
        """Create a permanent bundle.

        Only the owner can enter the directory and read the config.json, which may have secrets. A container with its
        own user namespace has to pass through the directory too: set mode 0711 in this case.

        Args:
            path: The directory of the bundle: a new one, or an existing one without a config.json.
            rootfs: The source of the root filesystem: the path of a directory, which stays in place, or one of
                `runc_async.rootfs`. None: `spec` names an existing directory.
            spec: The configuration; the bundle gets a copy with its own `root.path`. None: the configuration of
                `runc spec`, with `sh` on a terminal; rootless if the caller isn't root. A root filesystem that belongs
                to the bundle is then writable.
            init: Whether a small init is the first process, and starts the program of `spec`: an init reaps zombies and
                forwards signals. True: the first statically linked one of tini-static, catatonit and dumb-init on this
                host; otherwise the path of another init or its name in $PATH, started as `INIT -- PROGRAM ARGUMENTS`.
                The config.json has the init, `spec` only the program.

        Raises:
            InitNotFound: If there is no such init, or the init isn't statically linked.
            FileExistsError: If there is a bundle already.
            BundleNotFound: If the directory of the root filesystem is missing.
            RootfsError: If the root filesystem can't be created from `rootfs`.
            OSError: If a file can't be read or written.
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
        """Create a bundle for the block of an `async with`.

        On exit the directory is removed, including everything that a container has written to a root filesystem of the
        bundle. Delete the container before.

        Args:
            rootfs: As for `create`.
            spec: As for `create`.
            directory: The parent of the bundle's directory. None: memory (/dev/shm) if $TMPDIR isn't set and no
                root filesystem on the disk belongs to the bundle; otherwise Python's directory for temporary files.
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
        """Create a temporary bundle with this host's busybox, without a terminal: for demos and tests.

        The bundle has all commands of busybox, and a writable root filesystem::

            async with Bundle.busybox(["echo", "hello"]) as bundle:
                response = await Runc().run("greeter", bundle)

        Args:
            args: The program and its arguments.
            spec: The rest of the configuration; None as for `create`.
            command: A statically linked busybox: a name to look up in $PATH, or a path. Debian's package is
                busybox-static.
            directory: As for `temporary`.
            init: As for `create`.

        Raises:
            InitNotFound: As `create` does.
            RootfsError: If there is no busybox, or it isn't statically linked.
            OSError: As `create` does.
        """
        if isinstance(args, str):
            raise TypeError(f"args must be a sequence of arguments, not one: {args!r}")
        rootfs = Busybox(command)
        own = _own_spec(spec, rootfs).set_args(*args).set_terminal(enabled=False)
        return cls.temporary(rootfs=rootfs, spec=own, directory=directory, init=init)

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, strict: bool = True) -> Self:
        """Read an existing bundle. For a bundle with an init, `spec` includes the init and its arguments.

        Args:
            path: The directory of the bundle.
            strict: Whether to check config.json against the whole schema of the runtime-spec: see `Spec.decode`.

        Raises:
            BundleNotFound: If the directory, the config.json or the root filesystem is missing.
            DecodeError: If config.json violates the schema, isn't JSON, or has more than 16 MiB.
            OSError: If config.json can't be read.
        """
        directory, spec, config = await finished(begin(lambda: _read(path, strict=strict)))
        return cls(directory, spec, config=config)

    async def save(self) -> None:
        """Write `spec` to config.json, replacing the present file.

        Commands that get this object save by themselves. A spec that differs from the last one written or read waits
        until the commands in flight have reported their process.

        The file is replaced atomically by a new file that is already on the disk, so that readers, and a crash, see one
        of both completely. Cancelling ends the wait, and doesn't stop the writing.

        Raises:
            ValueError: If a value in `spec` has no form in JSON.
            TypeError: If a value in `spec` has a wrong type.
            OSError: If the file can't be written; the old file stays.
        """
        await self._config.save(self._encoded())

    def saved(self) -> contextlib.AbstractAsyncContextManager[Callable[[], None]]:
        """Save a changed `spec`, and keep config.json unchanged while the block runs; commands do so by themselves.

        For runtimes that are started in another way. The spec is encoded by the call, before the block. Another spec
        isn't written before the end of the block, or before the block calls its function, which releases config.json
        earlier::

            async with Bundle.busybox(["true"]) as bundle, bundle.saved() as read:
                ...  # start a runtime; after the runtime has read config.json:
                read()

        Cancelling ends the wait for other blocks, and doesn't stop the writing.

        Raises:
            BundleChanged: On enter, if `spec` has changed, and config.json was changed too by other means.
            ValueError: If a value in `spec` has no form in JSON.
            TypeError: If a value in `spec` has a wrong type.
            OSError: On enter, if config.json can't be read or written.
        """
        return self._config.held(self._encoded())

    async def aclose(self) -> None:
        """Unmount an overlay, and remove a temporary bundle. Idempotent. A cancellation waits for the end.

        Leftovers are named in a `CleanupWarning`.
        """
        # A directory with one file in memory: quicker to remove than to start a thread.
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
        """Remove a bundle in memory: a directory with one file."""
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
        """Create a bundle; nothing is left behind if the calling task is cancelled."""
        own = _own_spec(spec, rootfs)
        chosen = chosen_init(init)
        memory = _place_in_memory(rootfs) if path is None and parent is None else None
        if memory is not None:
            # In memory: some files in microseconds, less than the start of a thread takes.
            made = _make(None, memory, rootfs, own, threading.Event(), init=chosen)
        else:
            made = await _made_by_thread(path, parent, rootfs, own, init=chosen)
        config = ConfigFile(made.path, made.config, made.config, durable=path is not None)
        # The end of a tmpfs isn't quick: the kernel takes 150 ms for the files of a gigabyte.
        is_small = memory is not None and not isinstance(rootfs, Overlay)
        return cls(made.path, own, made.closing, config=config, init=chosen, is_small=is_small)

    def _encoded(self) -> bytes:
        """Return the contents of config.json: the spec, with the arguments wrapped by an init if there is one."""
        return with_init(self.spec, self._init).encode(indent=2)


async def _made_by_thread(
    path: str | None,
    parent: str | os.PathLike[str] | None,
    rootfs: Rootfs | None,
    spec: Spec,
    *,
    init: str | None,
) -> Made:
    """Create a bundle in a worker thread; nothing is left behind if the calling task is cancelled."""
    given_up = threading.Event()
    directory = None if parent is None else os.path.abspath(parent)
    work = begin(lambda: _make(path, directory, rootfs, spec, given_up, init=init))
    try:
        # asyncio.wait doesn't cancel the thread's future: the thread can't be stopped from outside.
        await asyncio.wait((work,))
    except asyncio.CancelledError:
        given_up.set()
        await wait_shielded(work)
        # The thread checks `given_up` only between its steps; a bundle finished meanwhile is removed again.
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
    """Create a bundle."""
    from ._bundles.directory import make  # noqa: PLC0415 - few callers need it

    def check() -> None:
        if given_up.is_set():
            raise _GivenUpError

    return make(path, parent, rootfs, spec, check, init=init)


def _place_in_memory(rootfs: Rootfs | None) -> str | None:
    """Return the directory for a temporary bundle that is created in microseconds; None if there is no such place."""
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
    # Keys that a runtime would confuse with others are dropped by the decoder. Such a file differs from the spec, and
    # is written again before its first use.
    is_whole = _sorted(parse(data)) == _sorted(spec.to_builtins())
    return bundle, spec, ConfigFile(bundle, data, spec.encode(indent=2) if is_whole else None)


def _sorted(document: Any) -> bytes:
    """Return the text of a document, independent of the order of its keys; 1, 1.0 and true differ."""
    if is_object(document):
        items = sorted(document.items())
        return b"{%b}" % b",".join(dump(key) + b":" + _sorted(value) for key, value in items)
    if is_array(document):
        return b"[%b]" % b",".join(map(_sorted, document))
    return dump(document)


def _own_spec(spec: Spec | None, rootfs: Rootfs | None) -> Spec:
    """Copy a configuration, so that bundles don't share it, or return the default."""
    if spec is not None:
        return copy.deepcopy(spec)
    own = Spec.default(rootless=os.geteuid() != 0)
    return own.set_root("rootfs", readonly=False) if isinstance(rootfs, (Overlay, Tar, Busybox, Host)) else own
