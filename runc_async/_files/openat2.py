"""Paths below a foreign root, with openat2(2), which Python lacks."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Generator

from .._linux.files import opened

# <linux/openat2.h>; the number of the call is the same on each architecture.
_SYS_OPENAT2 = 437
_NO_XDEV = 0x01
_NO_MAGICLINKS = 0x02
_IN_ROOT = 0x10

_CLONE_FS = 0x200  # <sched.h>
_PR_GET_SECUREBITS = 27  # <sys/prctl.h>
_PR_SET_SECUREBITS = 28
_NO_SETUID_FIXUP = 1 << 2  # <linux/securebits.h>

# statfs(2). Reading these has side effects: /proc/kmsg and trace_pipe block, and remove the bytes from the host's log;
# others depend on the reader, which isn't the container here.
_KERNELS_OWN = {0x9FA0: "procfs", 0x74726163: "tracefs", 0x64626720: "debugfs"}
# No contents that could be stored in an archive.
_WITHOUT_CONTENT = _KERNELS_OWN.keys() | {
    0x62656572,  # sysfs
    0x27E0EB,  # cgroup
    0x63677270,  # cgroup2
    0x1CD1,  # devpts
    0x19800202,  # mqueue
    0x73636673,  # securityfs
    0xCAFE4A11,  # bpf
    0x62656570,  # configfs
}

_RACES = 1000
"""Maximal number of lookups of a path that is being renamed; each takes some microseconds."""

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    """struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_inside(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open a path like a process whose `/` is the directory `root`.

    Absolute links and `..` never lead above `root`, and magic links of procfs are refused, even during renames.

    Raises:
        OSError: If the path can't be opened.
    """
    for _ in range(_RACES):
        try:
            return _openat2(root, path, flags, _IN_ROOT | _NO_MAGICLINKS)
        except BlockingIOError:  # a `..`, and a rename that could have led it astray
            continue
    return _openat2(root, path, flags, _IN_ROOT | _NO_MAGICLINKS)


def look_at(folder: int, name: str) -> int | None:
    """Return type and permissions of a directory entry, as in stat(2); None if there is no entry.

    Raises:
        OSError: If the entry can't be inspected; EBUSY for a mount point.
    """
    # In our mount namespace, rename(2) and unlink(2) don't see the container's mount point, and would remove the mount
    # together with the file.
    try:
        fd = _openat2(folder, name, os.O_PATH | os.O_NOFOLLOW, _NO_XDEV)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise OSError(errno.EBUSY, "it is a mount point", name) from None
        raise
    try:
        return os.fstat(fd).st_mode
    finally:
        os.close(fd)


def _openat2(folder: int, path: str, flags: int, resolve: int) -> int:
    """Call openat2(2)."""
    how = _How(flags | os.O_CLOEXEC, 0, resolve)
    fd: int = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(folder),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if fd < 0:
        _fail(path)
    return fd


@contextlib.contextmanager
def opened_inside(root: int, path: str, flags: int = os.O_PATH) -> Generator[int]:
    """Open a path below a root for as long as the block runs: see `open_inside`."""
    fd = open_inside(root, path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def opened_regular(pinned: int) -> Generator[int]:
    """Open the regular file of an O_PATH descriptor for reading; nothing else is ever opened.

    A FIFO would wait for its other end, and a device would answer to us, who are not bound by the container's rules.

    Raises:
        OSError: If it is something else; EWOULDBLOCK if a process holds a lease on it.
    """
    mode = os.fstat(pinned).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if (kind := file_system(pinned)) in _KERNELS_OWN:
        raise PermissionError(errno.EACCES, f"it is a file of {_KERNELS_OWN[kind]}, to be read by a process inside")
    with opened(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_NONBLOCK) as fd:
        yield fd


def has_content(fd: int) -> bool:
    """Return whether a directory is on a file system with files to keep, and not on one like procfs."""
    return file_system(fd) not in _WITHOUT_CONTENT


def file_system(fd: int) -> int:
    """Return the type of a descriptor's file system: statfs(2)."""
    buffer = (ctypes.c_long * 32)()
    if _libc.fstatfs(ctypes.c_int(fd), buffer) < 0:
        _fail("")
    return buffer[0] & 0xFFFFFFFF


def leave_umask() -> None:
    """Give the calling thread a umask of its own, which is zero, and a working directory of its own with it.

    Where a seccomp filter refuses that, the umask of the process goes on to hold, and new directories may have fewer
    permissions.
    """
    if _libc.unshare(ctypes.c_int(_CLONE_FS)) == 0:
        os.umask(0)


def act_as(uid: int, gid: int) -> None:
    """Let the calling thread make files as another user, while it may do all it might before.

    Who isn't mapped in a container's user namespace can't make files on the file systems that are mounted there.
    A process that isn't root stays who it is.

    Raises:
        OSError: If the kernel refuses.
    """
    if os.geteuid() != 0:
        return
    bits = _libc.prctl(ctypes.c_int(_PR_GET_SECUREBITS), *[ctypes.c_ulong(0)] * 4)
    # Else a change from 0 to another user takes away the capabilities that root has for files. For this thread only.
    if _libc.prctl(_PR_SET_SECUREBITS, ctypes.c_ulong(bits | _NO_SETUID_FIXUP), *[ctypes.c_ulong(0)] * 3) < 0:
        _fail("")
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))


def _fail(path: str) -> None:
    """Raise the error of the last call.

    Raises:
        OSError: In any case.
    """
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)
