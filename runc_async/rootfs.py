"""Where the root filesystem of a bundle comes from: values that are given to `Bundle` as `rootfs=`.

| value | the container's `/` is | writes go to |
|---|---|---|
| a path | that directory | that directory |
| `Overlay` | some directories on top of each other | a directory of the bundle's own |
| `Tar` | an archive, unpacked into the bundle | the bundle |
| `Busybox` | a shell and the usual small commands, from this host | the bundle |
| `Host` | the programs of this host, in its /usr | the bundle |

The values hold no resource and can be used for any number of bundles.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import msgspec


class Overlay(msgspec.Struct, frozen=True):
    """Directories that are only read, on top of each other, and above them one of the bundle's own for all writes.

    Needs root. What the container writes is in `overlay/upper` inside the bundle. The overlay is there until the bundle
    is closed; one that stays on the disk is of use to nobody after that, but for what was written.

    Attributes:
        lower: The directories that are only read; the first is the topmost, as in the kernel's own option.
    """

    lower: Sequence[str | os.PathLike[str]]

    def __post_init__(self) -> None:
        """Refuse what is no list of directories."""
        if isinstance(self.lower, (str, bytes)):
            raise TypeError(f"lower must be a sequence of directories, not one: {self.lower!r}")
        if not self.lower:
            raise ValueError("lower must name at least one directory")


class Tar(msgspec.Struct, frozen=True):
    """A tar archive of a whole root filesystem: plain, or packed with gzip, bzip2 or xz.

    The archive may come from anywhere. Refused, with everything that was unpacked before removed again:

    - names that are absolute or have `..` in them, and names that lead through a symbolic link or a file;
    - relative symbolic links that climb above the root, and hard links to anything but a file unpacked before;
    - devices, FIFOs and everything else that is neither file, directory nor link (runc makes /dev itself);
    - archives beyond the limits, cut short or damaged.

    A symbolic link to an absolute path is kept as it is, since nearly every root filesystem has some: inside the
    container `/` is the root of that filesystem. On the host it leads elsewhere, so nothing here ever follows one, and
    nor should whoever looks into an unpacked root filesystem from outside.

    Permissions are kept, those to act as the file's owner or group (setuid) among them, and as root the numeric owners
    too; the bundle's own directory keeps other users of the host out. Extended attributes are not.

    Attributes:
        path: The archive.
        max_size: Bytes that all files together may have.
        max_entries: Files, directories and links that there may be.
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
    """A root filesystem around the programs of this host, its python3 among them: no image is needed.

    The host's /usr is mounted read-only, without setuid. Around it is what programs need: /bin, /lib and the like as on
    the host; /etc with two users, root and nobody, and copies of some public files of the host's; an empty /root, /run,
    /tmp and /var. Nothing else of the host is there: no home, no password, no key, and what is mounted below /usr
    isn't either. docs/howto/host-programs.md has the list.
    """


Rootfs: TypeAlias = str | os.PathLike[str] | Overlay | Tar | Busybox | Host
"""Everything that `rootfs=` takes."""
