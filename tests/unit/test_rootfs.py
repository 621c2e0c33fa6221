"""Root filesystems from their sources, honest and hostile."""

from __future__ import annotations

import contextlib
import copy
import errno
import gzip
import hashlib
import io
import os
import pickle
import random
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import archives
import pytest
from archives import directory, file, hardlink, symlink, tar
from hypothesis import given, strategies as st

from runc_async._bundles import overlay
from runc_async._bundles.unpack import unpack
from runc_async._linux.files import remove_tree
from runc_async.bundle import Bundle
from runc_async.errors import CleanupWarning, RootfsError
from runc_async.rootfs import Busybox, Overlay, Tar


@pytest.fixture
def place(scratch: Path) -> Iterator[Path]:
    """Return a directory with an empty `rootfs` in it, and one `outside` that nothing may touch."""
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        prepare(Path(made))
        yield Path(made)


def prepare(place: Path) -> None:
    """Make both directories."""
    (place / "rootfs").mkdir()
    (place / "outside").mkdir()
    (place / "outside" / "kept").write_text("as it was")


def unpack_bytes(data: bytes, place: Path, *, max_size: int = 5000, max_entries: int = 20) -> Path:
    """Unpack an archive into the `rootfs` of a place, and return that."""
    (place / "archive").write_bytes(data)
    unpack(Tar(place / "archive", max_size, max_entries), str(place / "rootfs"), lambda: None)
    return place / "rootfs"


def snapshot(place: Path) -> dict[str, tuple[int, int, str]]:
    """Return type, permissions and contents of everything in a place that an archive may not touch."""
    found: dict[str, tuple[int, int, str]] = {}
    for path in (place, *place.rglob("*")):
        if path.relative_to(place).parts[:1] not in {("rootfs",), ("archive",)}:
            status = path.lstat()
            contents = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (status.st_mode, status.st_nlink if path.is_file() else 0, contents)
    return found


@pytest.mark.parametrize("kind", archives.HOSTILE)
def test_hostile_archives_leave_nothing_outside(kind: str, place: Path) -> None:
    """A hostile or damaged archive is refused by our own error, and what isn't the root filesystem stays as it was."""
    before = snapshot(place)
    with pytest.raises(RootfsError) as caught:
        unpack_bytes(archives.HOSTILE[kind](str(place / "outside")), place)
    assert caught.value.source == str(place / "archive")
    assert str(caught.value) == f"no root filesystem from {caught.value.source!r}: {caught.value.reason}"
    assert snapshot(place) == before


@pytest.mark.proof(every=2)
@pytest.mark.parametrize("kind", archives.HOSTILE)
async def test_hostile_archives_leave_no_bundle(kind: str, place: Path) -> None:
    """A bundle whose archive is refused isn't there afterwards, nor anything of it."""
    (place / "archive").write_bytes(archives.HOSTILE[kind](str(place / "outside")))
    before = snapshot(place)
    with pytest.raises(RootfsError):
        await Bundle.create(place / "bundle", rootfs=Tar(place / "archive", max_size=5000, max_entries=20))
    assert snapshot(place) == before


NAMES = st.lists(st.sampled_from(["..", ".", "", "a", "b", "/", "outside"]), min_size=1, max_size=4).map("/".join)
ENTRIES = st.one_of(
    st.builds(file, NAMES),
    st.builds(directory, NAMES),
    st.builds(symlink, NAMES, NAMES),
    st.builds(hardlink, NAMES, NAMES),
)


@given(st.lists(ENTRIES, max_size=6))
def test_no_sequence_of_entries_gets_outside(entries: list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]) -> None:
    """Whatever files, directories and links an archive combines, nothing of it gets outside."""
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        prepare(place)
        before = snapshot(place)
        with contextlib.suppress(RootfsError):
            unpack_bytes(tar(*entries), place)
        assert snapshot(place) == before


@given(st.sampled_from(sorted(archives.PACKERS)), st.randoms(use_true_random=False))
def test_no_damage_gets_past(packer: str, chance: random.Random) -> None:
    """An archive with bytes changed at random is unpacked or refused by our own error, and by no other."""
    data = bytearray(archives.PACKERS[packer](archives.HONEST))
    for _ in range(chance.randrange(1, 10)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        prepare(place)
        with contextlib.suppress(RootfsError):
            unpack_bytes(bytes(data), place)


@pytest.mark.parametrize("packer", archives.PACKERS)
def test_archives_are_unpacked(packer: str, place: Path) -> None:
    """Plain archives, and those packed with gzip, bzip2 or xz, give their files."""
    root = unpack_bytes(archives.PACKERS[packer](archives.HONEST), place)
    assert [(root / name).read_text() for name in ("first", "second")] == ["1", "2" * 2000]


def test_holes_are_filled(place: Path) -> None:
    """A sparse file has zeros where the archive has nothing."""
    sparse = file("a", "12345", pax_headers={"GNU.sparse.map": "5,5", "GNU.sparse.size": "20"})
    assert (unpack_bytes(tar(sparse), place) / "a").read_bytes() == bytes(5) + b"12345" + bytes(10)


def test_archives_come_through_pipes(place: Path) -> None:
    """An archive can be read from a pipe."""
    reading, writing = os.pipe()
    os.write(writing, archives.HONEST)
    os.close(writing)
    try:
        unpack(Tar(f"/proc/self/fd/{reading}"), str(place / "rootfs"), lambda: None)
    finally:
        os.close(reading)
    assert (place / "rootfs" / "first").read_text() == "1"


def test_links_are_kept_as_they_are(place: Path) -> None:
    """Symbolic links keep their text, absolute ones too; hard links share the file; links may climb inside the root."""
    root = unpack_bytes(
        tar(
            file("bin/busybox", "program"),
            symlink("bin/sh", "/bin/busybox"),
            symlink("etc/mtab", "../proc/self/mounts"),
            symlink("loop", "loop"),
            hardlink("bin/ls", "bin/busybox"),
            hardlink("bin/ash", "bin/sh"),
        ),
        place,
    )
    assert [os.readlink(root / name) for name in ("bin/sh", "etc/mtab", "loop", "bin/ash")] == [
        "/bin/busybox",
        "../proc/self/mounts",
        "loop",
        "/bin/busybox",
    ]
    assert (root / "bin" / "ls").stat().st_ino == (root / "bin" / "busybox").stat().st_ino


def test_permissions_and_times_are_kept(place: Path) -> None:
    """Files keep their mode, setuid included, and time; directories can always be entered by their owner."""
    old = os.umask(0o077)
    try:
        root = unpack_bytes(
            tar(
                directory("./", mode=0o755),
                file("su", mode=0o4755, mtime=1_000_000),
                directory("tmp", mode=0o1777),
                directory("closed", mode=0),
                file("closed/implied/file", mode=0o644),
            ),
            place,
        )
    finally:
        os.umask(old)
    names = ("", "su", "tmp", "closed", "closed/implied", "closed/implied/file")
    modes = [stat.S_IMODE((root / name).stat().st_mode) for name in names]
    assert modes == [0o755, 0o4755, 0o1777, 0o700, 0o755, 0o644]
    assert (root / "su").stat().st_mtime == 1_000_000


@pytest.mark.root
def test_root_keeps_owners(place: Path) -> None:
    """As root the numeric owners of the archive are kept, those of links too."""
    root = unpack_bytes(tar(file("a", uid=7, gid=8), symlink("b", "a", uid=9, gid=10), directory("c", uid=11)), place)
    found = [(status.st_uid, status.st_gid) for status in ((root / name).lstat() for name in "abc")]
    assert found == [(7, 8), (9, 10), (11, 0)]


def test_others_own_what_they_unpack(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who isn't root owns everything: giving files away is root's."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    root = unpack_bytes(tar(file("a", uid=7), symlink("b", "a", uid=9)), place)
    assert {(root / name).lstat().st_uid for name in "ab"} == {os.getuid()}


def test_a_later_entry_wins(place: Path) -> None:
    """Of two entries with one name the later counts, and doesn't write into what a link of that name leads to."""
    root = unpack_bytes(
        tar(file("a", "old"), file("a", "new"), symlink("b", str(place / "outside" / "kept")), file("b", "mine")), place
    )
    assert [(root / name).read_text() for name in "ab"] == ["new", "mine"]
    assert (place / "outside" / "kept").read_text() == "as it was"


def test_limits_are_for_the_whole(place: Path) -> None:
    """An archive exactly at both limits is unpacked."""
    unpack_bytes(tar(directory("d"), file("a", "x" * 3000), file("b", "x" * 2000)), place, max_entries=3)


def test_real_errors_stay_what_they_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, an archive that isn't there, and one that is a directory are an OSError."""
    with pytest.raises(FileNotFoundError):
        unpack(Tar(place / "missing"), str(place / "rootfs"), lambda: None)
    with pytest.raises(IsADirectoryError):
        unpack(Tar(place), str(place / "rootfs"), lambda: None)

    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fchmod", full)
    with pytest.raises(OSError, match="no space left"):
        unpack_bytes(archives.HONEST, place)


class BrokenDisk(io.RawIOBase):
    """A file on a disk that fails."""

    def readinto(self, _buffer: object) -> int:
        """Fail."""
        raise OSError(errno.EIO, "Input/output error")

    def readable(self) -> bool:
        """Say that it can be tried."""
        return True


def test_errors_of_the_disk_under_an_archive(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that can't be read for the disk's sake, from its start or later, is an OSError too."""
    with pytest.raises(OSError, match="Input/output error"):
        unpack(Tar("/proc/self/mem"), str(place / "rootfs"), lambda: None)

    def broken(_packed: object) -> io.BufferedReader:
        return io.BufferedReader(BrokenDisk())

    monkeypatch.setattr(gzip, "open", broken)
    with pytest.raises(OSError, match="Input/output error"):
        unpack_bytes(archives.PACKERS["gzip"](archives.HONEST), place)


def test_unpacking_can_be_given_up(place: Path) -> None:
    """An exception from the check that is called between two reads stops the unpacking."""
    calls = iter([False] * 5)

    def check() -> None:
        if next(calls, True):
            raise InterruptedError

    (place / "archive").write_bytes(archives.HONEST)
    with pytest.raises(InterruptedError):
        unpack(Tar(place / "archive"), str(place / "rootfs"), check)


def test_trees_are_removed_however_deep(place: Path) -> None:
    """A tree deeper than Python's stack and the number of descriptors is removed, and no link in it followed."""
    deep = place / "deep"
    deep.mkdir()
    (deep / "way").symlink_to(place / "outside")
    fd = os.open(deep, os.O_RDONLY)
    for number in range(3000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
        if number % 1000 == 0:
            os.symlink(place / "outside", "way", dir_fd=fd)
    os.close(fd)
    remove_tree(str(deep))
    assert not deep.exists()
    assert (place / "outside" / "kept").exists()


def test_a_link_is_no_tree(place: Path) -> None:
    """What a link leads to isn't removed in its place."""
    (place / "link").symlink_to(place / "outside")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        remove_tree(str(place / "link"))
    assert (place / "outside" / "kept").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("no-such-busybox", "there is no such program"),
        (sys.executable, "it is no statically linked program"),
        ("ldd", "it is no statically linked program"),
    ],
)
async def test_busybox_has_to_be_static(command: str, says: str, scratch: Path) -> None:
    """A busybox that isn't there, needs shared libraries or is a script is refused, with the remedy."""
    before = set(scratch.iterdir())
    with pytest.raises(RootfsError, match=says) as caught:
        async with Bundle.busybox(command=command):
            pass
    assert "install the package busybox-static" in str(caught.value)
    assert set(scratch.iterdir()) == before


def test_sources_are_checked() -> None:
    """An overlay needs a sequence of directories."""
    with pytest.raises(TypeError, match="must be a sequence"):
        Overlay("/rootfs")
    with pytest.raises(ValueError, match="at least one"):
        Overlay([])
    assert Busybox() == Busybox("busybox")


def test_the_error_can_be_copied() -> None:
    """The error keeps its data, and is one line whatever the names in it hold."""
    error = RootfsError("a\x1b[31m", "b\nc")
    pickled: RootfsError = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    for same in (error, copy.copy(error), pickled):
        assert (same.source, same.reason) == ("a\x1b[31m", "b\nc")
        assert str(same) == r"no root filesystem from 'a\\x1b[31m': b; c"


@pytest.mark.root
async def test_overlays_isolate_writes(place: Path) -> None:
    """What is written through an overlay is in the bundle's own directory; the topmost of the lower ones wins."""
    top = place / "to,p:x"
    top.mkdir(mode=0o711)
    (top / "kept").write_text("topmost")
    async with Bundle.temporary(rootfs=Overlay([top, place / "outside"]), directory=place) as bundle:
        assert (bundle.rootfs / "kept").read_text() == "topmost"
        (bundle.rootfs / "kept").write_text("written")
        assert (bundle.path / "overlay" / "upper" / "kept").read_text() == "written"
        assert stat.S_IMODE(bundle.rootfs.stat().st_mode) == 0o711
    assert (top / "kept").read_text() == "topmost"
    assert (place / "outside" / "kept").read_text() == "as it was"
    assert not bundle.path.exists()


@pytest.mark.root
async def test_an_overlay_lasts_until_the_bundle_is_closed(place: Path) -> None:
    """What was written outlasts the overlay of a bundle that stays; the bundle without it isn't taken for one."""
    async with await Bundle.create(place / "bundle", rootfs=Overlay([place / "outside"])) as bundle:
        (bundle.rootfs / "new").write_text("written")
    assert (bundle.path / "overlay" / "upper" / "new").read_text() == "written"
    assert not bundle.rootfs.exists()
    await bundle.aclose()


@pytest.mark.root
async def test_an_overlay_in_use_is_unmounted(place: Path) -> None:
    """An overlay in which somebody has a file open is unmounted all the same."""
    async with Bundle.temporary(rootfs=Overlay([place / "outside"])) as bundle:
        held = (bundle.rootfs / "kept").open()
    with held:
        assert held.read() == "as it was"
    assert not bundle.path.exists()
    assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.root
async def test_an_overlay_that_somebody_else_unmounted(place: Path) -> None:
    """An overlay that isn't there any more is a warning, and the temporary bundle is removed all the same."""
    temporary = Bundle.temporary(rootfs=Overlay([place / "outside"]), directory=place)
    bundle = await temporary.__aenter__()
    await anyio.run_process(["umount", str(bundle.rootfs)])
    with pytest.warns(CleanupWarning, match="Invalid argument"):
        await temporary.__aexit__(None, None, None)
    assert not bundle.path.exists()


@pytest.mark.root
async def test_writes_into_memory(place: Path) -> None:
    """With `memory` writes go to a file system of that size, and nothing of it is left when the bundle is closed."""
    before = snapshot(place)
    overlay_in_memory = Overlay([place / "outside"], memory=1 << 20)
    async with Bundle.temporary(rootfs=overlay_in_memory, directory=place) as bundle:
        (bundle.rootfs / "fits").write_bytes(bytes(1 << 19))
        with pytest.raises(OSError, match="No space left"):
            (bundle.rootfs / "too_much").write_bytes(bytes(1 << 20))
        assert (bundle.path / "overlay" / "upper" / "fits").exists()
    assert snapshot(place) == before


@pytest.mark.parametrize(("memory", "error"), [(0, ValueError), (-1, ValueError), (True, TypeError), ("1", TypeError)])
def test_memory_is_a_number_of_bytes(memory: Any, error: type[Exception]) -> None:
    """A size that can't be one is refused."""
    with pytest.raises(error, match="memory must be"):
        Overlay(["/rootfs"], memory=memory)


@pytest.mark.root
async def test_failures_after_the_mount_unmount(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the last step takes the overlay away again."""
    before = snapshot(place)

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("runc_async._bundles.directory.write_private", fail)
    for memory in (None, 1 << 20):
        with pytest.raises(OSError, match="no space left"):
            await Bundle.create(place / "bundle", rootfs=Overlay([place / "outside"], memory=memory))
        assert snapshot(place) == before


@pytest.mark.root
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.EPERM, "mounting needs root"),
        (errno.ENODEV, "modprobe overlay"),
        (errno.EINVAL, "says why in its log"),
        (errno.EBUSY, "Device or resource busy"),
    ],
)
async def test_mounts_that_fail(code: int, says: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that the kernel refuses is an error that says what is missing, and leaves nothing."""
    before = snapshot(place)

    def refuse(*_args: object) -> int:
        return code

    monkeypatch.setattr(overlay, "call_libc", refuse)
    for memory in (None, 1 << 20):
        with pytest.raises(RootfsError, match=says):
            await Bundle.create(place / "bundle", rootfs=Overlay([place / "outside"], memory=memory))
        assert snapshot(place) == before
    with pytest.raises(RootfsError, match=says):
        await Bundle.create(place / "bundle", rootfs=Overlay([place / "outside"]))
    assert snapshot(place) == before


@pytest.mark.root
async def test_too_many_layers(place: Path) -> None:
    """More directories than fit into one page of options are refused, and not cut down as the kernel would."""
    with pytest.raises(RootfsError, match="300 directories are too many") as caught:
        await Bundle.create(place / "bundle", rootfs=Overlay([place / "outside"] * 300))
    assert len(str(caught.value)) < 500  # it fits on a screen
    assert len(caught.value.source) > 3000


@pytest.mark.root
async def test_layers_have_to_be_there(place: Path) -> None:
    """A lower directory that isn't there is an OSError that names it."""
    with pytest.raises(FileNotFoundError, match="missing"):
        await Bundle.create(place / "bundle", rootfs=Overlay([place / "missing"]))
    assert not (place / "bundle").exists()


OVERLAY_WITHOUT_PRIVILEGES = """
import asyncio, sys
from runc_async.bundle import Bundle
from runc_async.errors import RootfsError
from runc_async.rootfs import Overlay

async def main():
    try:
        await Bundle.create(sys.argv[1] + "/bundle", rootfs=Overlay([sys.argv[1] + "/outside"]))
    except RootfsError as error:
        print(error.reason)

asyncio.run(main())
"""


@pytest.mark.root
def test_overlays_need_privileges(place: Path) -> None:
    """Without the capability to mount, the error says so and nothing is left."""
    without = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", sys.executable, "-c"]
    ended = subprocess.run([*without, OVERLAY_WITHOUT_PRIVILEGES, place], capture_output=True, text=True, check=True)
    assert ended.stdout == "mounting needs root (CAP_SYS_ADMIN)\n"
    assert not (place / "bundle").exists()
