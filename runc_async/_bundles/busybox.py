"""Root filesystems with a single program."""

from __future__ import annotations

import os
import shutil
import struct

from ..errors import RootfsError
from ..rootfs import Busybox

_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "sys", "tmp")

# Commands for demos and tests. `busybox --list` would take a process; a command missing in this busybox reports an
# error when it is run.
_COMMANDS = """
    [ ash awk base64 basename cat chgrp chmod chown clear cmp cp cut date dd df diff dirname dmesg du echo env expr
    false find free grep groups gunzip gzip head hexdump hostname id ifconfig install ip kill killall ln ls md5sum mkdir
    mkfifo mknod mktemp mount mv nc nproc od pgrep pidof ping pkill printenv printf ps pwd readlink realpath reset rm
    rmdir route sed seq setsid sh sha256sum sleep sort stat stty sync sysctl tail tar tee test time timeout top touch tr
    true truncate tty umount uname uniq uptime usleep vi watch wc wget which who whoami xargs yes
"""

_ACCOUNTS = {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}

_EXECUTABLE = 0o755
_REMEDY = "install the package busybox-static, or name another busybox"

# Names and offsets are those of elf(5).
_ELF = b"\x7fELF"
_HEADER_SIZE = 64
_EI_CLASS, _EI_DATA = 4, 5
_LITTLE_ENDIAN = 1
_PT_INTERP = 3
# For each class, that is 32 and 64 bits: the type and offset of e_phoff, and the offset of e_phentsize and e_phnum.
_PROGRAM_HEADERS = {1: ("I", 28, 42), 2: ("Q", 32, 54)}


def fill(busybox: Busybox, directory: str) -> None:
    """Put busybox, the command names, and root's account into an empty directory.

    Raises:
        RootfsError: If there is no busybox, or a busybox with shared libraries.
        OSError: If a file can't be written.
    """
    command = os.fspath(busybox.command)
    program = shutil.which(command)
    if program is None:
        raise RootfsError(command, f"there is no such program; {_REMEDY}")
    if not is_static(program):
        raise RootfsError(program, f"it is no statically linked program; {_REMEDY}")
    for name in _DIRECTORIES:
        _make_directory(os.path.join(directory, name), 0o1777 if name == "tmp" else _EXECUTABLE)
    shutil.copyfile(program, os.path.join(directory, "bin/busybox"))
    os.chmod(os.path.join(directory, "bin/busybox"), _EXECUTABLE)
    for name in _COMMANDS.split():
        os.symlink("busybox", os.path.join(directory, "bin", name))
    for name, text in _ACCOUNTS.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)


def _make_directory(path: str, mode: int) -> None:
    """Create a directory with exact permissions, independent of the umask."""
    os.mkdir(path)
    os.chmod(path, mode)


def is_static(program: str) -> bool:
    """Return whether a program needs no dynamic linker from the root filesystem."""
    with open(program, "rb") as file:
        start = file.read(_HEADER_SIZE)
        if len(start) < _HEADER_SIZE or not start.startswith(_ELF):
            return False
        kind, table_at, sizes_at = _PROGRAM_HEADERS[start[_EI_CLASS]]
        order = "<" if start[_EI_DATA] == _LITTLE_ENDIAN else ">"
        (table,) = struct.unpack_from(order + kind, start, table_at)
        size, count = struct.unpack_from(order + "HH", start, sizes_at)
        file.seek(table)
        headers = file.read(size * count)
    # The p_type of each program header, which is the first field in both classes.
    kinds = (struct.unpack_from(order + "I", headers, at)[0] for at in range(0, len(headers) - 3, size or 1))
    return _PT_INTERP not in kinds
