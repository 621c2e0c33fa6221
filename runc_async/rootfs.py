"""Sources of a bundle's root filesystem: values for the `rootfs=` argument of `Bundle`.

| value | the container's `/` | writes go to |
|---|---|---|
| a path | the directory | the directory |
| `Overlay` | directories on top of each other | a directory of the bundle |
| `Tar` | an archive, unpacked into the bundle | the bundle |
| `Busybox` | a shell and common small commands, from this host | the bundle |
| `Host` | the programs of this host, in its /usr | the bundle |

The values hold no resource and can be used for any number of bundles.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import msgspec


class Overlay(msgspec.Struct, frozen=True):
    """Read-only directories on top of each other, and above them a directory of the bundle for all writes.

    Needs root. Files written by the container are in `overlay/upper` inside the bundle. The overlay is mounted until
    the bundle is closed; in a bundle that stays on the disk only the written files are of use after that.

    With `memory` written files are in a tmpfs of that size, which is lost when the bundle is closed: a container that
    writes more gets ENOSPC. The memory in use is charged to the container. A temporary bundle is then created in less
    than a millisecond, even where the disk is busy.

    Attributes:
        lower: The read-only directories, topmost first, as in the kernel's option `lowerdir`.
        memory: Size of the tmpfs for written files, in bytes; None for the disk, without a limit.
    """

    lower: Sequence[str | os.PathLike[str]]
    memory: int | None = None

    def __post_init__(self) -> None:
        """Check that `lower` is a sequence of directories, and `memory` a size."""
        if isinstance(self.memory, bool) or not isinstance(self.memory, int | None):
            raise TypeError(f"memory must be a number of bytes, or None: {self.memory!r}")
        if self.memory is not None and self.memory < 1:
            raise ValueError(f"memory must be at least 1 byte: {self.memory}")
        if isinstance(self.lower, (str, bytes)):
            raise TypeError(f"lower must be a sequence of directories, not one: {self.lower!r}")
        if not self.lower:
            raise ValueError("lower must name at least one directory")


class Tar(msgspec.Struct, frozen=True):
    """A tar archive of a whole root filesystem: plain, or compressed with gzip, bzip2 or xz.

    The archive may come from an untrusted source. Refused, with all files unpacked before removed again:

    - absolute names, names with `..`, and names that lead through a symbolic link or a file;
    - relative symbolic links that climb above the root, and hard links to anything but a file unpacked before;
    - devices, FIFOs and all other types than file, directory and link (runc creates /dev itself);
    - archives beyond the limits, cut short or damaged.

    A symbolic link to an absolute path is kept, since nearly every root filesystem has some: inside the container `/`
    is the root of the filesystem. On the host the link leads elsewhere. The library never follows it; tools that read
    an unpacked root filesystem from outside shouldn't either.

    Permissions are kept, including setuid and setgid, and as root the numeric owners too; the mode of the bundle's own
    directory keeps other users of the host out. Extended attributes are dropped.

    Attributes:
        path: The archive.
        max_size: Largest size of all files together, in bytes.
        max_entries: Largest number of files, directories and links.
    """

    path: str | os.PathLike[str]
    max_size: int = 4 << 30
    max_entries: int = 500_000


class Busybox(msgspec.Struct, frozen=True):
    """A root filesystem of one program, for demos and tests: busybox under the names of its usual commands.

    Attributes:
        command: A statically linked busybox: a name looked up in $PATH, or a path.
    """

    command: str | os.PathLike[str] = "busybox"


class Host(msgspec.Struct, frozen=True):
    """A root filesystem around the programs of this host, including its python3: no image is needed.

    The host's /usr is mounted read-only, without setuid. Around it is the environment that programs need: /bin, /lib
    and the like as on the host; /etc with two users, root and nobody, and copies of some public files of the host; an
    empty /root, /run, /tmp and /var. No other file of the host is visible: no home, no password, no key, and no mount
    below /usr. docs/howto/host-programs.md has the list.
    """


Rootfs: TypeAlias = str | os.PathLike[str] | Overlay | Tar | Busybox | Host
"""All types that `rootfs=` takes."""
