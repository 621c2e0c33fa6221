"""Overlay mounts with mount(2) and umount2(2), which Python lacks."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Callable

from .._linux.files import opened
from .._linux.libc import call_libc, detach
from ..errors import RootfsError
from ..rootfs import Overlay

# The kernel copies one page of options, and ignores the rest without an error.
_OPTIONS_LIMIT = 4095

_MS_NOSUID = 2  # mount(2)
_MS_NODEV = 4
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LEAST_INODES = 1024

_VOLATILE = ",volatile"
"""Don't sync. Otherwise unmounting syncs the whole disk, which takes 30 ms on a busy one."""

_LAYER = os.O_PATH | os.O_DIRECTORY

_REASONS = {
    errno.EPERM: "mounting needs root (CAP_SYS_ADMIN)",
    errno.ENODEV: "the kernel has no overlay filesystem; 'modprobe overlay' loads it if there is one",
    errno.EINVAL: "the kernel refuses these directories, and says why in its log; the bundle can't be on an overlay "
    "itself, as inside most containers, or on NFS",
}


def mount_overlay(overlay: Overlay, target: str, writes: str, *, keep: bool = True) -> Callable[[], object]:
    """Mount an overlay, and return the function for removing the mounts and the directory.

    Args:
        overlay: The overlay.
        target: The mount point, a directory to create.
        writes: An empty directory for two directories: `upper` for written files, and `work` for the kernel.
        keep: Whether written files are kept after the end of the mount.

    Raises:
        RootfsError: If the mount fails.
        OSError: If a directory is missing.
    """
    with contextlib.ExitStack() as undo:
        if overlay.memory is not None:
            _mount_memory(writes, overlay.memory)
            undo.callback(detach, writes)
        _mount_layers(overlay, target, writes, keep=keep)
        undo.callback(_unmount, target)
        return undo.pop_all().close


def _mount_memory(target: str, size: int) -> None:
    """Mount a file system in memory, limited in size and, since inodes take memory too, in the number of files.

    Raises:
        RootfsError: If the mount fails.
    """
    options = f"size={size},nr_inodes={max(size // _PAGE, _LEAST_INODES)},mode=0700".encode()
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    if code := call_libc("mount", b"tmpfs", os.fsencode(target), b"tmpfs", flags, options):
        raise RootfsError(target, _REASONS.get(code, f"mounting a tmpfs fails: {os.strerror(code)}"))


def _mount_layers(overlay: Overlay, target: str, writes: str, *, keep: bool) -> None:
    """Mount an overlay: see `mount_overlay`."""
    upper, work = os.path.join(writes, "upper"), os.path.join(writes, "work")
    with contextlib.ExitStack() as layers:
        # Mounted by descriptors: paths could be replaced, be too long for the page of options, or have separators.
        lower = [layers.enter_context(opened(os.fspath(path), _LAYER)) for path in overlay.lower]
        for made in (upper, work):
            os.mkdir(made, 0o700)
        # The root of the overlay has the attributes of the upper directory.
        _resemble(upper, lower[0])
        os.mkdir(target)
        try:
            above = [layers.enter_context(opened(path, _LAYER)) for path in (upper, work, target)]
            _mount([_by_descriptor(fd) for fd in lower], *map(_by_descriptor, above), source=_names(overlay), keep=keep)
        except BaseException:
            os.rmdir(target)
            raise


def _names(overlay: Overlay) -> str:
    """Return the directories for an error message."""
    return ":".join(os.fspath(path) for path in overlay.lower)


def _by_descriptor(fd: int) -> str:
    """Return a short path for an open directory, without colons and commas, the separators of options."""
    return f"/proc/self/fd/{fd}"


def _resemble(path: str, model: int) -> None:
    """Copy owner and permissions to the upper directory, which appears as `/` inside."""
    found = os.stat(_by_descriptor(model))
    os.chown(path, found.st_uid, found.st_gid)
    os.chmod(path, stat.S_IMODE(found.st_mode))


def _mount(lower: list[str], upper: str, work: str, target: str, *, source: str, keep: bool) -> None:
    """Call mount(2)."""
    options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work}"
    if len(options) + len(_VOLATILE) > _OPTIONS_LIMIT:
        raise RootfsError(source, f"{len(lower)} directories are too many for one mount")
    code = errno.EINVAL if keep else _call(target, options + _VOLATILE)
    if code == errno.EINVAL:  # before Linux 5.10 there is no such option
        code = _call(target, options)
    if code:
        raise RootfsError(source, _REASONS.get(code, f"mounting them fails: {os.strerror(code)}"))


def _call(target: str, options: str) -> int:
    """Call mount(2), and return the errno, or 0."""
    return call_libc("mount", b"overlay", target.encode(), b"overlay", ctypes.c_ulong(0), options.encode())


def _unmount(target: str) -> None:
    """Remove a mount and the directory."""
    detach(target)
    # The empty directory would look like a bundle's root filesystem.
    os.rmdir(target)
