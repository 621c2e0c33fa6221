"""Directories on top of each other: mount(2) and umount2(2), which Python doesn't have."""

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

# The kernel copies one page of options, and forgets the rest without a word.
_OPTIONS_LIMIT = 4095

_MS_NOSUID = 2  # mount(2)
_MS_NODEV = 4
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LEAST_INODES = 1024

_VOLATILE = ",volatile"
"""Don't sync: otherwise the end of the mount waits until the whole disk is synced, which takes 30 ms on a busy one."""

_LAYER = os.O_PATH | os.O_DIRECTORY

_REASONS = {
    errno.EPERM: "mounting needs root (CAP_SYS_ADMIN)",
    errno.ENODEV: "the kernel has no overlay filesystem; 'modprobe overlay' loads it if there is one",
    errno.EINVAL: "the kernel refuses these directories, and says why in its log; the bundle can't be on an overlay "
    "itself, as inside most containers, or on NFS",
}


def mount_overlay(overlay: Overlay, target: str, writes: str, *, keep: bool = True) -> Callable[[], object]:
    """Mount an overlay, and return the function that takes its mounts and its directory away.

    Args:
        overlay: What to mount.
        target: Where; a directory that is made for it.
        writes: An empty directory, which gets two: `upper` for what is written, and `work` for the kernel.
        keep: Whether what is written is kept after the end of the mount.

    Raises:
        RootfsError: If it can't be mounted.
        OSError: If a directory isn't there.
    """
    with contextlib.ExitStack() as undo:
        if overlay.memory is not None:
            _mount_memory(writes, overlay.memory)
            undo.callback(detach, writes)
        _mount_layers(overlay, target, writes, keep=keep)
        undo.callback(_unmount, target)
        return undo.pop_all().close


def _mount_memory(target: str, size: int) -> None:
    """Mount a file system in memory, with a limit for its files, and for their number too, which takes memory as well.

    Raises:
        RootfsError: If it can't be mounted.
    """
    options = f"size={size},nr_inodes={max(size // _PAGE, _LEAST_INODES)},mode=0700".encode()
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    if code := call_libc("mount", b"tmpfs", os.fsencode(target), b"tmpfs", flags, options):
        raise RootfsError(target, _REASONS.get(code, f"mounting a tmpfs fails: {os.strerror(code)}"))


def _mount_layers(overlay: Overlay, target: str, writes: str, *, keep: bool) -> None:
    """Mount an overlay: see `mount_overlay`."""
    upper, work = os.path.join(writes, "upper"), os.path.join(writes, "work")
    with contextlib.ExitStack() as layers:
        lower = [layers.enter_context(opened(os.fspath(path), _LAYER)) for path in overlay.lower]
        for made in (upper, work):
            os.mkdir(made, 0o700)
        _resemble(upper, lower[0])
        os.mkdir(target)
        try:
            above = [layers.enter_context(opened(path, _LAYER)) for path in (upper, work, target)]
            _mount([_by_descriptor(fd) for fd in lower], *map(_by_descriptor, above), source=_names(overlay), keep=keep)
        except BaseException:
            os.rmdir(target)
            raise


def _names(overlay: Overlay) -> str:
    """Name the directories in an error."""
    return ":".join(os.fspath(path) for path in overlay.lower)


def _by_descriptor(fd: int) -> str:
    """Give an open directory a path that is short and has no colon or comma, which separate options."""
    return f"/proc/self/fd/{fd}"


def _resemble(path: str, model: int) -> None:
    """Give a directory the owner and the permissions of another: the upper one is what `/` looks like inside."""
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
    """Call mount(2), and return its errno, or 0."""
    return call_libc("mount", b"overlay", target.encode(), b"overlay", ctypes.c_ulong(0), options.encode())


def _unmount(target: str) -> None:
    """Take a mount away, with its directory: nobody then takes what is left for a bundle with an empty root."""
    detach(target)
    os.rmdir(target)
