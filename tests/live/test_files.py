"""Files of real containers, read, written and archived from outside."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import archives
import proof
import pytest
from containers import heard
from tampering import PATHS, SCRIPT

from runc_async import rootfs
from runc_async.bundle import Bundle
from runc_async.errors import ArchiveError, ContainerNotFound, ContainerNotRunning
from runc_async.spec import Spec
from runc_async.state import Status
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from containers import MakeContainer
    from proof import Tried

    from runc_async.client import Runc

pytestmark = [pytest.mark.runc, pytest.mark.needs("files")]

WRITABLE = {"root": {"readonly": False}}
SIZE = int(os.environ.get("RUNC_ASYNC_FILE_SIZE", str(32 << 20)))
"""Bytes of the large file; there and back with a gibibyte takes a minute."""
SMALL_FILES = int(os.environ.get("RUNC_ASYNC_SMALL_FILES", "300"))
ATTEMPTS = int(os.environ.get("RUNC_ASYNC_ATTEMPTS", proof.amount(300, 60)))
FLAT = 24 << 20
"""Bytes by which the memory may grow, however large a file is: some pieces of a mebibyte, and the modules."""


def tmpfs(*more: dict[str, Any]) -> list[dict[str, Any]]:
    """Return mounts: procfs, /dev, and a file system in memory at /work."""
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
        {"destination": "/work", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]},
        *more,
    ]


@pytest.fixture(autouse=True)
def work(rootfs: Path) -> Iterator[None]:
    """Give the root filesystem the directory where the tests write."""
    (rootfs / "work").mkdir(exist_ok=True)
    yield
    (rootfs / "work").rmdir()


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING, Status.PAUSED])
async def test_each_status(status: Status, client: Runc, make_container: MakeContainer) -> None:
    """Files are written and read while a container is created, running or paused; a process inside sees them."""
    name = await make_container(status, mounts=tmpfs())
    container = client.container(name)
    await container.write_file("/work/file", b"content", mode=0o640, owner=(7, 8))
    assert await container.read_file("/work/file") == b"content"
    async with container.get_archive("/work") as archive:
        await container.put_archive("/work", archive)
    if status == Status.CREATED:
        await container.start()
    if status == Status.PAUSED:
        await container.resume()
    shown = await container.exec(["stat", "-c", "%a %u %g", "/work/file", "/work/work/file"])
    assert shown.output == "640 7 8\n640 7 8\n"


async def test_stopped_and_missing(client: Runc, make_container: MakeContainer) -> None:
    """A stopped container has no files that could be reached, and one that isn't there is an error too."""
    stopped = client.container(await make_container(Status.STOPPED))
    for call in (stopped.read_file("/bin/busybox"), stopped.write_file("/x", b""), stopped.put_archive("/", b"")):
        with pytest.raises(ContainerNotRunning):
            await call
    with pytest.raises(ContainerNotFound):
        await client.container("no-such-container").read_file("/x")


async def test_a_handle_needs_no_runc(client: Runc, container_id: Callable[[], str]) -> None:
    """A container that was opened here is known: also after its end, when there are no files any more."""
    async with Bundle.busybox(["sleep", "100"]) as bundle:
        async with client.open_container(container_id(), bundle) as container:
            await container.write_file("/new/file", b"x", parents=True)
            assert (bundle.rootfs / "new" / "file").read_bytes() == b"x"
            await container.kill("KILL")
            await container.wait()
            with pytest.raises(ContainerNotRunning):
                await container.read_file("/new/file")
        with pytest.raises(ContainerNotRunning):
            await container.read_file("/new/file")


async def test_mount_points(client: Runc, make_container: MakeContainer, scratch: Path) -> None:
    """A file that is mounted is read and never replaced; what is mounted stays so."""
    with tempfile.NamedTemporaryFile(dir=scratch) as file:
        file.write(b"mounted")
        file.flush()
        mount = {"destination": "/work/file", "type": "bind", "source": file.name, "options": ["bind", "rw"]}
        container = client.container(await make_container(mounts=tmpfs(mount)))
        assert await container.read_file("/work/file") == b"mounted"
        with pytest.raises(OSError, match="mount point") as caught:
            await container.write_file("/work/file", b"new")
        assert caught.value.errno == errno.EBUSY
        with pytest.raises(OSError, match="mount point"):
            await container.put_archive("/work", archives.tar(archives.file("file", "new")))
        assert (await container.exec(["cat", "/work/file"])).output == "mounted"
        with pytest.raises(OSError, match="Read-only"):
            await container.write_file("/bin/new", b"")


async def test_links_of_procfs_lead_nowhere(client: Runc, make_container: MakeContainer) -> None:
    """The magic links of procfs are not followed, nor is procfs read."""
    container = client.container(await make_container(mounts=tmpfs()))
    await container.exec(["ln", "-s", "/proc/1/root/work", "/work/link"], check=True)
    for path in ("/work/link/file", "/proc/1/root/bin/busybox", "/proc/1/cwd/bin/busybox", "/proc/self/exe"):
        with pytest.raises(OSError, match=r"symbolic links|No such file"):
            await container.read_file(path)
    with pytest.raises(PermissionError, match="procfs"):
        await container.read_file("/proc/kmsg")
    async with container.get_archive("/") as archive:
        data = b"".join([piece async for piece in archive])
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        names = opened.getnames()
    assert {"./proc", "./work/link", "./bin/busybox"} <= set(names)
    assert [name for name in names if name.startswith("./proc/")] == []


async def test_a_user_namespace(client: Runc, make_container: MakeContainer, scratch: Path) -> None:
    """With a user namespace, owners are those inside, also on a file system that was mounted there."""
    scratch.chmod(0o711)  # its users pass through
    mapping = [{"containerID": 0, "hostID": 100_000, "size": 65_536}]
    kinds = ("pid", "ipc", "uts", "mount", "user")
    linux = {"namespaces": [{"type": kind} for kind in kinds], "uidMappings": mapping, "gidMappings": mapping}
    container = client.container(await make_container(mounts=tmpfs(), linux=linux))
    await container.write_file("/work/a/file", b"x", owner=(5, 6), parents=True)
    entry = archives.tar(archives.directory("d", uid=7), archives.file("d/file", "y", uid=8, gid=9))
    await container.put_archive("/work", entry)
    paths = ("/work/a", "/work/a/file", "/work/d", "/work/d/file")
    shown = await container.exec(["stat", "-c", "%u %g", *paths], check=True)
    assert shown.output.splitlines() == ["5 6", "5 6", "7 0", "8 9"]
    with pytest.raises(ValueError, match="no user or group 65536"):
        await container.write_file("/work/file", b"", owner=(65_536, 0))
    with pytest.raises(ArchiveError, match="no user or group 70000"):
        await container.put_archive("/work", archives.tar(archives.file("file", "y", uid=70_000)))


def resident() -> int:
    """Return the memory of this process."""
    pages = Path("/proc/self/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


async def test_large_files(client: Runc, container_id: Callable[[], str]) -> None:
    """A large file goes in and out by streams, unchanged, and the memory of this process stays flat."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    peak = 0

    async def content() -> AsyncIterator[bytes]:
        nonlocal peak
        for index in range(SIZE >> 20):
            piece = hashlib.sha256(str(index).encode()).digest() * (1 << 15)
            sent.update(piece)
            peak = max(peak, resident())
            yield piece

    async with (
        Bundle.busybox(["sleep", "1000"]) as bundle,
        client.open_container(container_id(), bundle) as container,
    ):
        await container.write_file("/warm", b"")
        before = resident()
        await container.write_file("/large", content())
        inside = await container.exec(["sha256sum", "/large"], check=True)
        async with container.get_archive("/large") as archive:
            await archive.receive(512)  # its header
            left = SIZE
            async for piece in archive:
                received.update(piece[:left])
                left -= len(piece[:left])
                peak = max(peak, resident())
        async with container.get_archive("/large") as archive:
            await container.exec(["mkdir", "/copy"], check=True)
            await container.put_archive("/copy", archive)
            peak = max(peak, resident())
        copied = await container.exec(["sha256sum", "/copy/large"], check=True)
    assert sent.hexdigest() == received.hexdigest() == inside.output.split()[0] == copied.output.split()[0]
    assert peak - before < FLAT


async def test_many_small_files(client: Runc, container_id: Callable[[], str]) -> None:
    """A tree of many small files goes out and in by one archive."""
    script = (
        f"mkdir -p /t/a; i=0; while [ $i -lt {SMALL_FILES} ]; do echo $i >/t/a/$i; i=$((i+1)); done; exec sleep 100"
    )
    async with (
        Bundle.busybox(["sh", "-c", script]) as bundle,
        client.open_container(container_id(), bundle) as container,
    ):
        await container.exec(["sh", "-c", f"until test -s /t/a/{SMALL_FILES - 1}; do sleep 0.05; done"], check=True)
        await container.exec(["mkdir", "/copy"], check=True)
        async with container.get_archive("/t") as archive:
            await container.put_archive("/copy", archive)
        assert (await container.exec(["sh", "-c", "ls /copy/t/a | wc -l"])).output.strip() == str(SMALL_FILES)
        assert (await container.exec(["diff", "-r", "/t", "/copy/t"])).exit_code == 0


@pytest.mark.proof  # it compares times, which a busy machine makes alike
async def test_it_is_faster_than_tar(client: Runc, container_id: Callable[[], str], tried: Tried) -> None:
    """Eight mebibytes are written in a fraction of the time that tar in the container takes."""
    data = os.urandom(8 << 20)
    archive = make_tar(data)
    async with (
        Bundle.busybox(["sleep", "100"]) as bundle,
        client.open_container(container_id(), bundle) as container,
    ):
        ours: list[float] = []
        tars: list[float] = []
        for _ in range(5):
            began = time.perf_counter()
            await container.write_file("/ours", data)
            ours.append(time.perf_counter() - began)
            began = time.perf_counter()
            await container.exec(["tar", "-x", "-C", "/tmp"], input=archive, check=True)
            tars.append(time.perf_counter() - began)
        assert await container.read_file("/tmp/file") == await container.read_file("/ours") == data
    tried("times as fast as tar by exec", round(min(tars) / min(ours)))
    assert min(ours) * 2 < min(tars)  # five times and more on a machine that does nothing else


def make_tar(data: bytes) -> bytes:
    """Make an archive of one file."""
    with io.BytesIO() as target:
        with tarfile.open(fileobj=target, mode="w") as archive:
            entry = tarfile.TarInfo("file")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        return target.getvalue()


async def test_a_hostile_container(client: Runc, container_id: Callable[[], str], scratch: Path, tried: Tried) -> None:
    """While a container exchanges directories, files, FIFOs and links to the host's, nothing outside is touched."""
    spec = Spec.default().set_args("python3", "-c", SCRIPT, "/w", "OUTSIDE").set_terminal(enabled=False)
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        outside = Path(made)
        (outside / "file").write_text("secret")
        assert spec.process
        assert spec.process.args
        spec.process.args[-1] = made
        read: set[bytes] = set()
        written = 0
        async with (
            Bundle.temporary(rootfs=rootfs.Host(), spec=spec.set_root("x", readonly=False)) as bundle,
            client.open_container(container_id(), bundle, io=PipedIO()) as container,
        ):
            assert container.stdout
            assert await heard(container.stdout.fileno(), b"ready\n")
            for number in range(ATTEMPTS):
                path = f"/w/{PATHS[number % len(PATHS)]}"
                with contextlib.suppress(OSError):
                    await container.write_file(path, b"inside", parents=number % 7 == 0)
                    written += 1
                with contextlib.suppress(OSError):
                    read.add(await container.read_file(path, limit=100))
        tried("files of a hostile container", 2 * ATTEMPTS)
        assert written
        assert read <= {b"inside", b""}
        assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("file", "secret")]


async def test_cancelled(client: Runc, make_container: MakeContainer) -> None:
    """A call that is cancelled leaves no file, no thread and no descriptor behind."""
    container = client.container(await make_container(mounts=tmpfs()))
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 19)
            begun.set()
            await asyncio.sleep(0)

    task = asyncio.create_task(container.write_file("/work/file", endless()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await container.exec(["ls", "-A", "/work"])).output == ""
