"""The directory of a bundle, created completely or not at all. All functions block, and run in a worker thread."""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .._linux.files import REMOVAL_DESCRIPTORS, opened, remove_tree, reserved, write_private
from .._linux.owner import Claim, HeldBundle, make_directory
from .._linux.scratch import CHOICES, MEMORY
from ..errors import CleanupWarning
from ..rootfs import Busybox, Host, Overlay, Rootfs, Tar
from ..spec import Spec
from .check import CONFIG, check_rootfs
from .init import with_init

if TYPE_CHECKING:
    from .unpack import Check

_ROOM: Final = 1 << 20
"""Free bytes in memory required for a bundle there; a config.json has some ten thousand."""


class Made:
    """A new bundle, complete or in progress.

    Attributes:
        path: The directory, absolute.
        config: The contents of the config.json.
        closing: Removes the parts with the bundle's lifetime: the mount, the temporary directory.
    """

    def __init__(self, path: str) -> None:
        """Start empty."""
        self.path = path
        self.config = b""
        self.closing = contextlib.ExitStack()
        self._undoing = contextlib.ExitStack()
        self._is_temporary = False
        self._claim: Claim | None = None

    def undo(self) -> None:
        """Remove all parts; warn about leftovers, because another error is being raised."""
        try:
            with self._undoing:
                self.closing.close()
        except OSError as error:
            warnings.warn(f"bundle {self.path!r} is left behind: {error}", CleanupWarning, stacklevel=2)

    def make_directory(self) -> None:
        """Create the bundle's directory, or accept a directory without a config.json.

        Only the owner can enter the directory.
        """
        try:
            os.mkdir(self.path, 0o700)
        except FileExistsError:
            with opened(self.path):  # a link may have been put there by somebody else
                config = os.path.join(self.path, CONFIG)
                if os.path.lexists(config):
                    raise FileExistsError(errno.EEXIST, "there is a bundle already", config) from None
        else:
            self._undoing.callback(self._leave)

    def make_temporary_directory(self, parent: str | None) -> None:
        """Create a directory with a random name, private to the owner."""
        if parent is None:
            import tempfile  # noqa: PLC0415 - it takes milliseconds to load

            parent = tempfile.gettempdir()
        self.path, self._claim = make_directory("runc-async-", parent, lambda path: HeldBundle(path, temporary=True))
        self.closing.callback(self._release)
        # Called before `_release`, in reverse order: the record stays as long as a part of the bundle does.
        self.closing.callback(remove_tree, self.path)
        self._is_temporary = True

    def make_rootfs(self, rootfs: Tar | Busybox | Overlay | Host, spec: Spec, check: Check) -> None:
        """Create the root filesystem inside the bundle, and add the mounts to `spec`."""
        # Each kind is imported on use: tarfile and ctypes take ten milliseconds.
        if isinstance(rootfs, Overlay):
            from .overlay import mount_overlay  # noqa: PLC0415

            writes = self._make_inside("overlay", 0o700)
            target = os.path.join(self.path, "rootfs")
            # Before the mount: a kill in between leaves a record without a mount, which a sweep copes with.
            self._record_mount()
            self.closing.callback(mount_overlay(rootfs, target, writes, keep=not self._is_temporary))
        elif isinstance(rootfs, Tar):
            from .unpack import unpack  # noqa: PLC0415

            unpack(rootfs, self._make_inside("rootfs", 0o755), check)
        elif isinstance(rootfs, Host):
            from .host import fill_from_host  # noqa: PLC0415

            fill_from_host(self._make_inside("rootfs", 0o755), spec)
        else:
            from .busybox import fill  # noqa: PLC0415

            fill(rootfs, self._make_inside("rootfs", 0o755))

    def make_config(self, spec: Spec, init: str | None) -> None:
        """Write config.json as the last step: a directory without the file is no bundle."""
        self.config = with_init(spec, init).encode(indent=2)
        write_private(self.path, CONFIG, self.config, replace=False, durable=not self._is_temporary)
        self._on_undo(os.unlink, os.path.join(self.path, CONFIG))

    def _record_mount(self) -> None:
        """Record a future overlay mount for a sweep, in case the current process is killed."""
        held = HeldBundle(os.fsencode(os.path.realpath(self.path)), temporary=self._is_temporary, mounted=True)
        if self._claim is None:
            self._claim = Claim(held)
            self.closing.callback(self._release)
        else:
            self._claim.change(held)

    def _release(self) -> None:
        """Delete the record, unless the bundle is left behind."""
        left = self._is_temporary and os.path.lexists(self.path)
        mounted = any(os.path.ismount(os.path.join(self.path, name)) for name in ("rootfs", "overlay"))
        if self._claim is not None and not left and not mounted:
            self._claim.release()

    def _make_inside(self, name: str, mode: int) -> str:
        """Create a directory in the bundle with exact permissions, independent of the umask."""
        path = os.path.join(self.path, name)
        os.mkdir(path)
        self._on_undo(remove_tree, path)
        # mkdir(2) applies the umask; chmod(2) doesn't.
        os.chmod(path, mode)
        return path

    def _on_undo(self, remove: Callable[[str], None], path: str) -> None:
        """Register the removal of a new file; a temporary directory is removed as a whole."""
        if not self._is_temporary:
            self._undoing.callback(remove, path)

    def _leave(self) -> None:
        """Remove the directory, unless another process has created a bundle there meanwhile."""
        with contextlib.suppress(OSError):
            os.rmdir(self.path)


def place_in_memory(rootfs: Rootfs | None) -> str | None:
    """Return the directory in memory for a temporary bundle; None if another place is required."""
    # A bundle with its own root filesystem would take memory, and the user's choice of a place comes first.
    has_own = isinstance(rootfs, (Tar, Busybox, Host)) or (isinstance(rootfs, Overlay) and rootfs.memory is None)
    if has_own or any(name in os.environ for name in CHOICES):
        return None
    try:
        found = os.statvfs(MEMORY)
    except OSError:
        return None
    is_suited = found.f_bavail * found.f_frsize >= _ROOM and os.access(MEMORY, os.W_OK | os.X_OK)
    return MEMORY if is_suited else None


def make(
    path: str | None, parent: str | None, rootfs: Rootfs | None, spec: Spec, check: Check, *, init: str | None = None
) -> Made:
    """Create a whole bundle, or no bundle.

    Args:
        path: The directory, absolute: new, or without config.json. None for a temporary directory.
        parent: The parent of a temporary directory; None for Python's default.
        rootfs: The source of the root filesystem; None if `spec` names a directory.
        spec: The contents of config.json; the root is set.
        check: Called often; raises to stop the work.
        init: The host's program that is the first process and starts the program of `spec`; None for none.

    Raises:
        BundleNotFound: If the directory of the root filesystem is missing.
        RootfsError: If the root filesystem can't be created.
        OSError: If a file can't be written; a FileExistsError if there is a bundle already.
    """
    made = Made(path or "")
    # Descriptors for the removal are reserved first: a lack of descriptors is itself a reason to undo.
    with reserved(REMOVAL_DESCRIPTORS) as for_undoing:
        try:
            if path is None:
                made.make_temporary_directory(parent)
            else:
                made.make_directory()
            if isinstance(rootfs, (Tar, Busybox, Overlay, Host)):
                made.make_rootfs(rootfs, spec, check)
                spec.set_root("rootfs")
            elif rootfs is not None:
                spec.set_root(_seen_from(made.path, os.path.abspath(rootfs)))
            check_rootfs(made.path, spec.root.path if spec.root else None)
            made.make_config(spec, init)
            check()
        except BaseException:
            for_undoing.close()
            made.undo()
            raise
    return made


def _seen_from(bundle: str, path: str) -> str:
    """Return a path inside the bundle as a relative path, so the bundle can be moved."""
    return os.path.relpath(path, bundle) if path.startswith(bundle + os.sep) else path
