"""Root filesystems with the programs of the host."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from typing import Final

from runc_async.errors import RootfsError
from runc_async.spec import Mount, Spec

BORROWED: Final = "/usr"
"""The host's directory that is mounted read-only."""

_AT_THE_TOP: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""Links to /usr on most hosts; directories on others, which are mounted as well."""

_DIRECTORIES: Final = {
    "dev": 0o755,
    "etc": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}

_FILES: Final = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

COPIED: Final = (
    "alternatives",  # what many names in /usr/bin lead to
    "debian_version",
    "ld.so.cache",  # where the loader finds libraries, and what it is made from
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "os-release",
    "protocols",
    "python3",  # of Debian, whose Pythons have part of themselves here
    "services",
    "ssl/certs",  # the public certificates
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)
"""The parts of the host's /etc that are copied: only files that all users of the host may read."""

_PYTHON: Final = "python3."


def fill_from_host(directory: str, spec: Spec, etc: str = "/etc") -> None:
    """Create a root filesystem around the host's /usr in an empty directory, and add the mount.

    Args:
        directory: The directory.
        spec: The configuration; gets the mounts.
        etc: The host's /etc.

    Raises:
        RootfsError: If the host has no programs in /usr.
        OSError: If a file can't be written.
    """
    if not os.path.isdir(f"{BORROWED}/bin"):
        raise RootfsError(BORROWED, "this host has no programs there")
    for name, mode in _DIRECTORIES.items():
        _make_directory(os.path.join(directory, name), mode)
    for name, text in _FILES.items():
        path = os.path.join(directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, 0o644)
    for name in _copied(etc):
        _copy(os.path.join(etc, name), os.path.join(directory, "etc", name))
    # nosuid and nodev: a setuid program of the host must not gain rights in a container with the host's users.
    mounts = [_borrowed(BORROWED), *_top(directory)]
    # Before the caller's own mounts, some of which may lie in it.
    spec.mounts = [*mounts, *(spec.mounts or ())]


def _borrowed(path: str) -> Mount:
    """Return a read-only mount of a host directory at the same path, without mounts below the directory."""
    return Mount(destination=path, type="bind", source=path, options=["bind", "ro", "nosuid", "nodev"])


def _top(directory: str) -> Iterator[Mount]:
    """Create the links to /usr; yield mounts for directories."""
    for name in _AT_THE_TOP:
        path = f"/{name}"
        if os.path.islink(path):
            os.symlink(os.readlink(path), os.path.join(directory, name))
        elif os.path.isdir(path):
            _make_directory(os.path.join(directory, name), 0o755)
            yield _borrowed(path)


def _copied(etc: str) -> Iterator[str]:
    """Yield the existing names to copy from /etc."""
    versions = (name for name in os.listdir(etc) if name.startswith(_PYTHON))
    yield from (name for name in (*COPIED, *versions) if os.path.lexists(os.path.join(etc, name)))


def _copy(source: str, target: str) -> None:
    """Copy a file, a link or a directory, but only if readable by all users."""
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    # Links are copied as links: inside they lead to the container's files, and never to the host's.
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_mode & stat.S_IXOTH:
        _make_directory(target, 0o755)
        for name in os.listdir(source):
            _copy(os.path.join(source, name), os.path.join(target, name))
    elif stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH:
        shutil.copyfile(source, target, follow_symlinks=False)
        os.chmod(target, 0o644)


def _make_directory(path: str, mode: int) -> None:
    """Create a directory with exact permissions, independent of the umask."""
    os.mkdir(path)
    os.chmod(path, mode)
