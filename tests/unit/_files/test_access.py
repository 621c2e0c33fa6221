"""Reading, writing and archives below a root that is not ours, without a container: a directory is the root."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import archives
import proof
import pytest
from tampering import PATHS, SCRIPT

from runc_async._files import writing
from runc_async._files.access import Content, FileAccess
from runc_async._files.openat2 import look_at
from runc_async._files.root import IdMap, Root
from runc_async.errors import ArchiveError, ContainerNotRunning, UnsupportedError

ALL = IdMap(((0, 0, 2**32 - 1),))
ATTEMPTS = proof.amount(500, 100)


class Folder(FileAccess):
    """The files of a directory, as if that were a container's root."""

    def __init__(self, path: Path, ids: IdMap = ALL) -> None:
        self.path = path
        self._ids = ids

    async def _open_root(self) -> Root:
        return Root(os.open(self.path, os.O_PATH | os.O_DIRECTORY), self._ids, self._ids)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a directory beside the root, with a file that must not be reached."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "file").write_text("secret")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Return an empty root."""
    (tmp_path / "root").mkdir()
    return Folder(tmp_path / "root")


async def read_all(folder: FileAccess, path: str) -> bytes:
    """Read a whole archive."""
    async with folder.get_archive(path) as archive:
        return b"".join([data async for data in archive])


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    """Return the entries of an archive by their names."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {member.name: member for member in opened}


async def test_what_is_written_is_read(folder: Folder) -> None:
    """A file has its content, permissions and owner, whatever the umask is, and so have the directories above it."""
    before = os.umask(0o077)
    try:
        await folder.write_file("/a/b/file", b"content", mode=0o4751, parents=True)
        await folder.write_file("plain", bytearray(b"more"))
    finally:
        os.umask(before)
    assert await folder.read_file("a/b/file") == b"content"
    found = [stat.S_IMODE((folder.path / name).stat().st_mode) for name in ("a", "a/b", "a/b/file", "plain")]
    assert found == [0o755, 0o755, 0o4751, 0o644]
    assert os.listdir(folder.path / "a" / "b") == ["file"]


@pytest.mark.root
async def test_owners_are_those_inside(folder: Folder) -> None:
    """Ids are mapped on their way in and out; one that isn't mapped is an error before anything is made."""
    mapped = Folder(folder.path, IdMap(((0, 100_000, 1000), (5000, 7, 1))))
    await mapped.write_file("/d/file", b"", owner=(5, 5000), parents=True)
    for name in ("d", "d/file"):
        status = (folder.path / name).stat()
        assert (status.st_uid, status.st_gid) == (100_005, 7)
    entry = members(await read_all(mapped, "/d"))["d/file"]
    assert (entry.uid, entry.gid) == (5, 5000)
    (folder.path / "foreign").touch()
    assert members(await read_all(mapped, "/foreign"))["foreign"].uid == 65534
    with pytest.raises(ValueError, match="no user or group 1000"):
        await mapped.write_file("/e/file", b"", owner=(1000, 0), parents=True)
    assert not (folder.path / "e").exists()


async def test_paths_lead_where_they_do_inside(folder: Folder, outside: Path) -> None:
    """Absolute links and `..` stay below the root; a link in the place of the file is replaced and not followed."""
    (folder.path / "real").mkdir()
    (folder.path / "real" / "file").write_text("inside")
    (folder.path / "absolute").symlink_to("/real")
    (folder.path / "climbing").symlink_to("../../../../real/file")
    (folder.path / "leaving").symlink_to(outside)
    (folder.path / "target").symlink_to(outside / "file")
    assert await folder.read_file("/absolute/file") == b"inside"
    assert await folder.read_file("/../climbing") == b"inside"
    await folder.write_file("absolute/new", b"")
    assert (folder.path / "real" / "new").exists()
    await folder.write_file("target", b"mine")
    assert not (folder.path / "target").is_symlink()
    for path in ("leaving/file", "/real/../../outside/file"):
        with pytest.raises(FileNotFoundError) as caught:
            await folder.read_file(path)
        assert caught.value.filename == path
    with pytest.raises(FileNotFoundError):
        await folder.write_file("leaving/file", b"", parents=True)
    assert (outside / "file").read_text() == "secret"


async def test_nothing_but_regular_files(folder: Folder) -> None:
    """A FIFO, a socket, a device and a directory are neither opened nor replaced; archives leave them out."""
    os.mkfifo(folder.path / "fifo")
    (folder.path / "directory").mkdir()
    names = {"fifo": errno.EINVAL, "directory": errno.EISDIR}
    if os.geteuid() == 0:
        os.mknod(folder.path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        names["device"] = errno.EINVAL
    for name, code in names.items():
        for call in (folder.read_file(name), folder.write_file(name, b"x")):
            with pytest.raises(OSError, match=name) as caught:
                await call
            assert caught.value.errno == code
    assert list(members(await read_all(folder, "/"))) == [".", "./directory"]
    with pytest.raises(OSError, match="neither file nor directory"):
        await read_all(folder, "fifo")


async def test_limits_of_reading(folder: Folder) -> None:
    """A file at the limit is read; one beyond it is an error, also if it doesn't tell its size."""
    (folder.path / "file").write_bytes(bytes(1000))
    assert len(await folder.read_file("file", limit=1000)) == 1000
    with pytest.raises(OSError, match="more than 999 bytes") as caught:
        await folder.read_file("file", limit=999)
    assert caught.value.errno == errno.EFBIG
    assert await folder.read_file("file", limit=None) == bytes(1000)
    system = Folder(Path("/sys"))
    with pytest.raises(OSError, match="more than 1 bytes"):
        await system.read_file("kernel/uevent_seqnum", limit=1)


async def test_files_of_the_kernel(folder: Folder) -> None:
    """Procfs, which may wait for ever and shows what the reader may see, is refused."""
    del folder
    with pytest.raises(PermissionError, match="procfs"):
        await Folder(Path("/proc")).read_file("meminfo")
    with pytest.raises(OSError, match="self"):
        await Folder(Path("/proc")).read_file("self/root/etc/passwd")


async def test_arguments_are_checked(folder: Folder) -> None:
    """What can't be right is refused before anything is opened."""
    wrong: dict[str, Callable[[], object]] = {
        "empty": lambda: folder.read_file(""),
        "NUL": lambda: folder.read_file("a\0b"),
        "limit": lambda: folder.read_file("a", limit=-1),
        "name a file": lambda: folder.write_file("/a/", b""),
        "a file": lambda: folder.write_file("/a/..", b""),
        "mode": lambda: folder.write_file("/a", b"", mode=0o10000),
    }
    for says, call in wrong.items():
        with pytest.raises(ValueError, match=says):
            await call()  # type: ignore[misc]
    with pytest.raises(TypeError, match="asynchronous iterable"):
        await folder.write_file("/a", "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        await folder.write_file("/a", strings())  # type: ignore[arg-type]
    assert os.listdir(folder.path) == []


async def strings() -> AsyncIterator[str]:
    """Yield what is no bytes."""
    yield "text"


async def counted(number: int, size: int = 1000) -> AsyncIterator[bytes]:
    """Yield pieces that differ."""
    for index in range(number):
        yield bytes([index % 256]) * size


async def test_streams_are_written(folder: Folder) -> None:
    """A stream of small pieces, and one without any, becomes a file."""
    await folder.write_file("file", counted(3000))
    assert await folder.read_file("file") == b"".join([piece async for piece in counted(3000)])
    await folder.write_file("file", counted(0))
    assert await folder.read_file("file") == b""


async def failing() -> AsyncIterator[bytes]:
    """Fail after a megabyte."""
    yield bytes(1 << 20)
    raise RuntimeError("no more")


async def test_half_a_file_is_none(folder: Folder) -> None:
    """If the stream fails, or the caller is cancelled, the old file is there and nothing else."""
    await folder.write_file("file", b"old")
    with pytest.raises(RuntimeError, match="no more"):
        await folder.write_file("file", failing())
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 19)
            begun.set()

    task = asyncio.create_task(folder.write_file("file", endless()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert os.listdir(folder.path) == ["file"]
    assert await folder.read_file("file") == b"old"


async def test_without_unnamed_files(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without them, the file has a name of its own until it is whole, and none after a failure."""
    real = os.open

    def lacking(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", lacking)
    await folder.write_file("file", b"one")
    await folder.write_file("file", b"two")
    with pytest.raises(RuntimeError):
        await folder.write_file("file", failing())
    assert os.listdir(folder.path) == ["file"]
    assert await folder.read_file("file") == b"two"


async def test_a_name_that_comes_meanwhile(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that gets the name after the look is replaced all the same."""
    looks = iter([None, None])

    def late(fd: int, name: str) -> int | None:
        try:
            return next(looks)
        except StopIteration:
            return look_at(fd, name)

    monkeypatch.setattr(writing, "look_at", late)
    (folder.path / "file").write_text("theirs")
    await folder.write_file("file", b"ours")
    assert await folder.read_file("file") == b"ours"


@pytest.mark.parametrize("size", [0, 1, 512, 1 << 20])
async def test_archives_there_and_back(size: int, folder: Folder) -> None:
    """Files, links and permissions come through an archive unchanged, and an archive of one file holds that."""
    await folder.write_file("/from/dir/file", bytes(range(256)) * (size // 256) + bytes(size % 256), parents=True)
    (folder.path / "from" / "dir" / "link").symlink_to("/absolute")
    os.link(folder.path / "from" / "dir" / "file", folder.path / "from" / "second")
    (folder.path / "from" / "dir" / "file").chmod(0o640)
    (folder.path / "to").mkdir()
    async with folder.get_archive("/from") as archive:
        await folder.put_archive("/to", archive)
    there = folder.path / "to" / "from"
    assert (there / "dir" / "file").read_bytes() == (folder.path / "from" / "second").read_bytes()
    assert os.readlink(there / "dir" / "link") == "/absolute"
    assert (there / "second").stat().st_ino == (there / "dir" / "file").stat().st_ino
    assert stat.S_IMODE((there / "second").stat().st_mode) == 0o640
    assert list(members(await read_all(folder, "/from/second"))) == ["second"]


@pytest.mark.parametrize("holes", [1, 3, 5000])
async def test_holes_stay_holes(holes: int, folder: Folder) -> None:
    """A sparse file makes a small archive and is sparse where it is unpacked; only 4096 holes count."""
    size = 1 << 30 if holes < 5000 else 5000 * 8192 + 100_000
    step = size // holes // 4096 * 4096
    with (folder.path / "sparse").open("wb") as file:
        for index in range(holes):
            file.seek(index * step)
            file.write(f"data {index}".encode())
        file.truncate(size)
    (folder.path / "to").mkdir()
    archive = await read_all(folder, "sparse")
    assert len(archive) < 1 << 25
    await folder.put_archive("to", archive)
    before, after = [(folder.path / name).stat() for name in ("sparse", "to/sparse")]
    assert after.st_size == before.st_size
    assert after.st_blocks < before.st_blocks * 1.5 + 64
    with (folder.path / "sparse").open("rb") as one, (folder.path / "to" / "sparse").open("rb") as other:
        for index in range(0, holes, 97):
            one.seek(index * step)
            other.seek(index * step)
            assert one.read(4096) == other.read(4096) != b""


async def test_what_is_unpacked_replaces(folder: Folder, outside: Path) -> None:
    """Files and links that are there are replaced, directories kept; nothing is written through a link."""
    (folder.path / "d").mkdir()
    (folder.path / "d" / "kept").touch()
    (folder.path / "first").symlink_to(outside / "file")
    (folder.path / "second").write_text("old")
    await folder.put_archive("/", archives.HONEST)
    assert (outside / "file").read_text() == "secret"
    assert not (folder.path / "first").is_symlink()
    assert (folder.path / "d" / "kept").exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../x", "absolute or has"),
        ("/x", "absolute or has"),
        ("link/x", "leads through"),
        ("d", "place of a directory"),
    ],
)
async def test_archives_that_are_refused(name: str, says: str, folder: Folder, outside: Path) -> None:
    """An archive that would leave the directory, or replace one, is refused."""
    (folder.path / "link").symlink_to(outside)
    (folder.path / "d").mkdir()
    with pytest.raises(ArchiveError, match=says):
        await folder.put_archive("/", archives.tar(archives.file(name, "x")))
    assert os.listdir(outside) == ["file"]


@pytest.mark.parametrize(
    "content", [b"", b"x" * 2000, archives.HONEST[:1000], archives.PACKERS["gzip"](archives.HONEST)]
)
async def test_what_is_no_archive(content: bytes, folder: Folder) -> None:
    """What is empty, nonsense, cut short or packed is refused."""
    with pytest.raises(ArchiveError):
        await folder.put_archive("/", content)


async def test_a_refused_stream_is_left(folder: Folder) -> None:
    """An endless stream whose archive is refused is not read on, and one that fails gives its own error."""
    with pytest.raises(ArchiveError):
        await folder.put_archive("/", counted(1 << 30, 1 << 16))
    with pytest.raises(RuntimeError, match="no more"):
        await folder.put_archive("/", failing_archive())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await folder.put_archive("/nowhere", counted(1 << 30, 1 << 16))


async def failing_archive() -> AsyncIterator[bytes]:
    """Begin an archive, and fail."""
    yield archives.HONEST[:1000]
    raise RuntimeError("no more")


async def test_unpacking_can_be_cancelled(folder: Folder) -> None:
    """While it waits for a stream, the call ends at once when it is cancelled."""
    waiting = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield archives.HONEST[:1000]
        waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(folder.put_archive("/", stuck()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_archive_that_is_left(folder: Folder) -> None:
    """A stream that nobody reads to its end is closed by its block; a cancelled receive loses nothing."""
    await folder.write_file("file", bytes(3 << 20))
    async with folder.get_archive("/") as archive:
        with anyio.move_on_after(0):
            await archive.receive()
        data = b"".join([piece async for piece in archive])
    assert members(data)["./file"].size == 3 << 20
    async with folder.get_archive("/") as archive:
        await archive.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await archive.receive()


async def test_trees_that_are_too_deep(folder: Folder) -> None:
    """Directories deeper than 256 levels are an error of the archive, and take no more descriptors."""
    fd = os.open(folder.path, os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(OSError, match="256 directories"):
        await read_all(folder, "/")


def test_our_own_root_is_nobody_elses() -> None:
    """A process that shares our root filesystem, or has ended, gives no root."""
    with pytest.raises(UnsupportedError, match="no root filesystem of its own"):
        Root.open("web", os.getpid(), lambda: True)
    with pytest.raises(ContainerNotRunning, match="web"):
        Root.open("web", os.getpid(), lambda: False)
    with pytest.raises(ContainerNotRunning):
        Root.open("web", 2**30, lambda: True)


@pytest.mark.root
async def test_renames_and_links_meanwhile(folder: Folder, outside: Path) -> None:
    """While directories and files change places with links that lead out, nothing outside is read or written."""
    command = [sys.executable, "-c", SCRIPT, "/", str(outside), str(folder.path)]
    read: set[bytes] = set()
    done = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as hostile:  # noqa: ASYNC220 - it stays
        try:
            assert hostile.stdout
            assert hostile.stdout.readline() == b"ready\n"
            for number in range(ATTEMPTS):
                path = PATHS[number % len(PATHS)]
                with contextlib.suppress(OSError):
                    await folder.write_file(path, b"inside")
                    done += 1
                with contextlib.suppress(OSError):
                    read.add(await folder.read_file(path))
                if number % 50 == 0:
                    with contextlib.suppress(OSError, ArchiveError):
                        await folder.put_archive("/", archives.tar(archives.file("way/file", "inside")))
                    with contextlib.suppress(OSError):
                        assert b"secret" not in await read_all(folder, "/")
        finally:
            hostile.kill()
    assert done
    assert read <= {b"inside", b""}
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("file", "secret")]


CONTENTS: dict[str, Content] = {"bytes": b"x", "bytearray": bytearray(b"x"), "memoryview": memoryview(b"x")}


@pytest.mark.parametrize("kind", CONTENTS)
async def test_kinds_of_bytes(kind: str, folder: Folder) -> None:
    """Everything that holds bytes can be written."""
    await folder.write_file("file", CONTENTS[kind])
    assert await folder.read_file("file") == b"x"
