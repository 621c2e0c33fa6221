"""Tar archives for tests: honest ones, and hostile ones of every kind that we know of."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **fields: Any) -> tarfile.TarInfo:
    """Make the header of an entry; `fields` are attributes of `tarfile.TarInfo`."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def file(name: str, text: str = "hostile", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """Make a file."""
    data = text.encode()
    return entry(name, size=len(data), **fields), data


def directory(name: str, **fields: Any) -> tarfile.TarInfo:
    """Make a directory."""
    return entry(name, tarfile.DIRTYPE, mode=fields.pop("mode", 0o755), **fields)


def symlink(name: str, target: str, **fields: Any) -> tarfile.TarInfo:
    """Make a symbolic link."""
    return entry(name, tarfile.SYMTYPE, target, **fields)


def hardlink(name: str, target: str) -> tarfile.TarInfo:
    """Make a hard link."""
    return entry(name, tarfile.LNKTYPE, target)


def tar(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """Make an archive."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=form) as archive:
        for item in entries:
            info, data = item if isinstance(item, tuple) else (item, b"")
            archive.addfile(info, io.BytesIO(data))
    return written.getvalue()


def rootfs_tar(program: Path) -> bytes:
    """Make the archive of a root filesystem with a static busybox in it, its links absolute as in most images."""
    data = program.read_bytes()
    return tar(
        directory("./"),
        *map(directory, ("bin", "dev", "etc", "proc", "sys", "tmp")),
        (entry("bin/busybox", size=len(data), mode=0o755), data),
        *(symlink(f"bin/{name}", "/bin/busybox") for name in ("sh", "cat", "echo", "ls", "touch", "id")),
    )


def header(data: bytes, **fields: tuple[int, bytes]) -> bytes:
    """Overwrite fields of an archive's first header, each an offset and bytes, and set its checksum right."""
    block = bytearray(data[: tarfile.BLOCKSIZE])
    for offset, value in fields.values():
        block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[tarfile.BLOCKSIZE :]


def long_name_chain(length: int) -> bytes:
    """Make many headers of the kind that announces a longer name for the next, in a row."""
    one = header(tar(entry("x", tarfile.GNUTYPE_LONGNAME)), size=(124, b"00000000001\0"))[: tarfile.BLOCKSIZE]
    return (one + b"y".ljust(tarfile.BLOCKSIZE, b"\0")) * length + tar(file("x"))


HONEST = tar(file("first", "1"), file("second", "2" * 2000))
END = bytes(2 * tarfile.BLOCKSIZE)

# What `outside` stands for is the absolute path of a directory that nothing may touch.
HOSTILE: Mapping[str, Callable[[str], bytes]] = {
    "absolute name": lambda outside: tar(file(f"{outside}/planted")),
    "name above the root": lambda _: tar(file("../planted")),
    "name that comes back": lambda _: tar(file("a/../../rootfs/planted")),
    "directory above the root": lambda _: tar(directory("../planted")),
    "absolute directory": lambda outside: tar(directory(f"{outside}/planted")),
    "file through an absolute link": lambda outside: tar(symlink("way", outside), file("way/planted")),
    "file through a relative link": lambda _: tar(symlink("way", "../../outside"), file("way/planted")),
    "file through a link to the root": lambda _: tar(symlink("way", "."), file("way/../planted")),
    "file through two links": lambda outside: tar(symlink("a", outside), symlink("b", "a"), file("b/planted")),
    "directory through a link": lambda outside: tar(symlink("way", outside), directory("way/planted")),
    "directory in place of a link": lambda outside: tar(symlink("way", outside), directory("way", mode=0o777)),
    "link through a link": lambda outside: tar(symlink("way", outside), symlink("way/planted", "x")),
    "link above the root": lambda _: tar(symlink("a/b", "../../outside")),
    "link that goes down before it climbs": lambda _: tar(symlink("a", "b/../../outside")),
    "link to nothing": lambda _: tar(symlink("a", "")),
    "link as the root": lambda outside: tar(symlink(".", outside), file("planted")),
    "hard link to an absolute name": lambda outside: tar(hardlink("a", f"{outside}/kept"), file("a", "changed")),
    "hard link above the root": lambda _: tar(hardlink("a", "../../outside/kept")),
    "hard link through a link": lambda outside: tar(symlink("way", outside), hardlink("a", "way/kept")),
    "hard link to the root": lambda _: tar(hardlink("a", ".")),
    "hard link to a directory": lambda _: tar(directory("d"), hardlink("a", "d")),
    "hard link to what isn't there": lambda _: tar(hardlink("a", "b/c")),
    "hard link to itself": lambda _: tar(file("a"), hardlink("a", "a")),
    "character device": lambda _: tar(entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3)),
    "block device": lambda _: tar(entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0)),
    "FIFO": lambda _: tar(entry("fifo", tarfile.FIFOTYPE)),
    "entry of an unknown kind": lambda _: tar(entry("what", b"Z")),
    "file in place of a directory": lambda _: tar(directory("d"), file("d")),
    "file below a file": lambda _: tar(file("a"), file("a/b")),
    "name too long": lambda _: tar(file("n" * 300)),
    "directory name too long": lambda _: tar(file("n" * 300 + "/a")),
    "NUL in a name": lambda _: tar(entry("a", pax_headers={"path": "a\0b"})),
    "NUL in a link": lambda _: tar(entry("a", tarfile.SYMTYPE, "b", pax_headers={"linkpath": "a\0b"})),
    "owner beyond any": lambda _: tar(file("a", uid=2**40)),
    "time beyond any": lambda _: tar(file("a", pax_headers={"mtime": "1e400"})),
    "negative size": lambda _: header(HONEST, size=(124, b"\xff" * 11 + b"\0")),
    "negative size of a link": lambda _: header(tar(symlink("a", "b")), kind=(156, b"Z"), size=(124, b"\xff" * 12)),
    "huge header": lambda _: header(tar(entry("x", tarfile.GNUTYPE_LONGNAME)), size=(124, b"77777777777\0")),
    "thousands of headers for one entry": lambda _: long_name_chain(3000),
    "more bytes than allowed": lambda _: tar(file("a", "x" * 5001)),
    "more bytes than allowed in all": lambda _: tar(file("a", "x" * 3000), file("b", "x" * 3000)),
    "sparse file without end": lambda _: tar(
        entry("a", pax_headers={"GNU.sparse.map": "0,0", "GNU.sparse.size": str(2**50)})
    ),
    "sparse file that points back": lambda _: tar(
        file("a", "x" * 20, pax_headers={"GNU.sparse.map": "0,10,10,-20,10,10", "GNU.sparse.size": "20"})
    ),
    "compression bomb": lambda _: gzip.compress(tar(file("a", "\0" * 2_000_000))),
    "more entries than allowed": lambda _: tar(*(directory(f"d{number}") for number in range(21))),
    "more directories than allowed on the way": lambda _: tar(file("d/" * 21 + "a")),
    "nothing": lambda _: b"",
    "no archive": lambda _: b"hello" * 1000,
    "cut short in a file": lambda _: HONEST[:1500],
    "cut short between files": lambda _: HONEST[:1024],
    "cut short in a header": lambda _: HONEST[:1200],
    "damaged header": lambda _: HONEST[:1024] + b"?" * 512 + HONEST[1536:],
    "damaged gzip": lambda _: gzip.compress(HONEST)[:-40] + bytes(40),
    "cut short gzip": lambda _: gzip.compress(HONEST)[:-9],
    "wrong checksum": lambda _: gzip.compress(HONEST)[:-8] + b"checksum",
    "more after its end": lambda _: HONEST + b"x" * 1_100_000,
    "damaged bzip2": lambda _: bz2.compress(HONEST)[:30] + bytes(40),
    "damaged xz": lambda _: lzma.compress(HONEST)[:40] + bytes(40),
}
