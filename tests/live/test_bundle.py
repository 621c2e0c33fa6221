"""Bundles as a runtime sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import archives
import pytest
from containers import heard

from runc_async.bundle import Bundle
from runc_async.errors import BundleChanged, BundleNotFound, CommandError
from runc_async.rootfs import Overlay, Tar
from runc_async.spec import Spec
from runc_async.stdio import CapturedIO, RedirectIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runc_async.client import Runc
    from runc_async.response import Response

pytestmark = pytest.mark.runc


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    """Return an empty directory that the users of a container's user namespace can enter."""
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        yield Path(made)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe's reading and writing end."""
    ends = os.pipe2(os.O_CLOEXEC)
    yield ends
    for end in ends:
        os.close(end)


def shell(script: str) -> Spec:
    """Return a configuration that runs a script, and can write to its root filesystem."""
    return Spec.default().set_args("sh", "-c", script).set_terminal(enabled=False).set_root("rootfs", readonly=False)


async def test_a_busybox_bundle_runs(client: Runc, container_id: Callable[[], str]) -> None:
    """The container of a busybox bundle runs its arguments, knows root by name, and can write."""
    async with Bundle.busybox(["sh", "-c", "whoami; echo $0 > /tmp/x; cat /tmp/x; ls -d /root"]) as bundle:
        response = await client.run(container_id(), bundle, io=CapturedIO())
    assert (response.exit_code, response.output) == (0, "root\nsh\n/root\n")


async def test_a_changed_bundle_is_saved_before_it_is_used(client: Runc, container_id: Callable[[], str]) -> None:
    """The runtime runs what the spec says, saved or not; one that gets the path runs what was saved last."""
    async with Bundle.busybox(["id", "-u"]) as bundle:
        bundle.spec.set_user(1000, 1000)
        bundle.path.chmod(0o711)
        assert (await client.run(container_id(), bundle.path)).output == "0\n"
        assert (await client.run(container_id(), bundle)).output == "1000\n"
        assert (await client.run(container_id(), bundle.path)).output == "1000\n"
        bundle.spec.set_user(0, 0).set_args("sleep", "100")
        async with client.open_container(container_id(), bundle) as container:
            assert (await client.exec(container.id, ["id", "-u"])).output == "0\n"
        bundle.spec.set_args("sleep", "50")
        await client.create(name := container_id(), bundle)
        await client.delete(name, force=True)
        assert b'"50"' in (bundle.path / "config.json").read_bytes()


async def test_each_run_has_the_spec_of_its_beginning(client: Runc, container_id: Callable[[], str]) -> None:
    """Of many runs of one bundle at once, each runs the spec that it had when the call began."""
    async with Bundle.busybox() as bundle:
        runs: list[asyncio.Task[Response]] = []
        for number in range(8):
            bundle.spec.set_args("echo", str(number // 2))
            runs.append(asyncio.create_task(client.run(container_id(), bundle)))
            await asyncio.sleep(0)
        bundle.spec.set_args("echo", "too late")
        assert [(await run).output for run in runs] == [f"{number // 2}\n" for number in range(8)]


async def test_a_run_lets_the_next_one_save(client: Runc, container_id: Callable[[], str]) -> None:
    """A spec is saved while the container of an earlier run still runs."""
    async with Bundle.busybox(["sleep", "100"]) as bundle:
        first = asyncio.create_task(client.run(container_id(), bundle))
        await asyncio.sleep(0)
        bundle.spec.set_args("echo", "second")
        assert (await client.run(container_id(), bundle)).output == "second\n"
        assert not first.done()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_a_bundle_that_was_changed_by_others(client: Runc, container_id: Callable[[], str]) -> None:
    """Nothing is overwritten, and nothing run, where both the file and the spec were changed; `save` overwrites."""
    async with Bundle.busybox(["echo", "first"]) as bundle:
        config = bundle.path / "config.json"
        theirs = config.read_bytes().replace(b'"first"', b'"theirs"')
        config.write_bytes(theirs)
        assert (await client.run(container_id(), bundle)).output == "theirs\n"
        bundle.spec.set_args("echo", "mine")
        with pytest.raises(BundleChanged, match=r"config\.json was changed by others"):
            await client.run(container_id(), bundle)
        assert config.read_bytes() == theirs
        await bundle.save()
        assert (await client.run(container_id(), bundle)).output == "mine\n"


@pytest.mark.parametrize("strict", [True, False])
async def test_keys_in_another_spelling_have_no_effect(
    client: Runc, container_id: Callable[[], str], *, strict: bool
) -> None:
    """A bundle is saved before it is used if reading it has dropped keys that the runtime would have taken."""
    async with Bundle.busybox(["echo", "known"]) as made:
        config = made.path / "config.json"
        document = json.loads(config.read_bytes())
        document["process"] |= {"ARGS": ["echo", "folded"], "later": None}
        config.write_text(json.dumps(document))
        assert (await client.run(container_id(), made.path)).output == "folded\n"
        opened = await Bundle.open(made.path, strict=strict)
        assert (await client.run(container_id(), opened)).output == "known\n"
        assert "later" in json.loads(config.read_bytes())["process"]


async def test_containers_share_what_they_only_read(
    client: Runc, rootfs: Path, container_id: Callable[[], str]
) -> None:
    """Each of many containers sees its own writes on top of the same directory, which stays as it was."""
    before = sorted(path.name for path in rootfs.iterdir())

    async def write_and_read(number: int) -> str:
        spec = shell(f"ls / | wc -l; echo {number} > /mine; rm /bin/ls; cat /mine")
        async with Bundle.temporary(rootfs=Overlay([rootfs]), spec=spec) as bundle:
            return (await client.run(container_id(), bundle, io=CapturedIO())).output

    outputs = await asyncio.gather(*map(write_and_read, range(5)))
    assert outputs == [f"{len(before)}\n{number}\n" for number in range(5)]
    assert sorted(path.name for path in rootfs.iterdir()) == before
    assert (rootfs / "bin" / "ls").exists()


async def test_writes_into_memory_have_a_limit(client: Runc, rootfs: Path, container_id: Callable[[], str]) -> None:
    """A container with an overlay in memory runs, keeps its files apart, and can't write more than the limit."""
    spec = shell("echo x > /mine; cat /mine; dd if=/dev/zero of=/big bs=64k count=64 2>&1 | grep -o 'No space.*'")
    for _ in range(2):
        async with Bundle.temporary(rootfs=Overlay([rootfs], memory=1 << 20), spec=spec) as bundle:
            output = (await client.run(container_id(), bundle, io=CapturedIO())).output
        assert output == "x\nNo space left on device\n"
        assert is_gone(bundle.path)
    assert not (rootfs / "mine").exists()


def is_gone(path: Path) -> bool:
    """Say whether nothing is left of a bundle: no directory, and no mount."""
    return not path.exists() and str(path) not in Path("/proc/self/mountinfo").read_text()


async def test_an_overlay_is_gone_after_a_failure(client: Runc, rootfs: Path, container_id: Callable[[], str]) -> None:
    """When the container can't be started, the overlay is unmounted and removed."""
    spec = shell("").set_args("/no/such/program")
    async with contextlib.AsyncExitStack() as stack:
        bundle = await stack.enter_async_context(Bundle.temporary(rootfs=Overlay([rootfs]), spec=spec))
        with pytest.raises(CommandError):
            await client.run(container_id(), bundle)
        assert not is_gone(bundle.path)
    assert is_gone(bundle.path)


async def test_an_overlay_is_gone_after_a_cancel(
    client: Runc, rootfs: Path, container_id: Callable[[], str], pipe: tuple[int, int]
) -> None:
    """When the task is cancelled while the container runs and writes, the overlay is unmounted and removed."""
    reading, writing = pipe
    paths: list[Path] = []

    async def use() -> None:
        spec = shell("trap exit TERM; while true; do echo x >> /y; echo; done")
        async with Bundle.temporary(rootfs=Overlay([rootfs]), spec=spec) as bundle:
            paths.append(bundle.path)
            await client.run(container_id(), bundle, io=RedirectIO(stdout=writing))

    task = asyncio.create_task(use())
    await heard(reading)
    assert not is_gone(paths[0])
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert is_gone(paths[0])


async def test_an_unpacked_archive_runs(client: Runc, folder: Path, container_id: Callable[[], str]) -> None:
    """A root filesystem from an archive runs, with absolute links that lead to where the container has them."""
    (folder / "rootfs.tar.gz").write_bytes(archives.PACKERS["gzip"](archives.rootfs_tar(Path("/bin/busybox"))))
    bundle = await Bundle.create(folder / "b", rootfs=Tar(folder / "rootfs.tar.gz"), spec=shell("echo hello; ls /"))
    response = await client.run(container_id(), bundle, io=CapturedIO())
    assert response.output.split() == ["hello", "bin", "dev", "etc", "proc", "sys", "tmp"]
    assert stat.S_IMODE(bundle.path.stat().st_mode) == 0o700


@pytest.mark.needs("user namespaces")
async def test_a_user_namespace_needs_the_way(client: Runc, folder: Path, container_id: Callable[[], str]) -> None:
    """A container with a user namespace can't enter a new bundle before its directory has mode 0711."""
    for directory in (folder, folder.parent):
        directory.chmod(0o711)
    async with Bundle.busybox(["id", "-u"], directory=folder) as bundle:
        bundle.spec.map_uids(0, 100_000, 65_536).map_gids(0, 100_000, 65_536)
        await bundle.save()
        with pytest.raises(CommandError, match="ermission denied"):
            await client.run(container_id(), bundle, io=CapturedIO())
        bundle.path.chmod(0o711)
        assert (await client.run(container_id(), bundle, io=CapturedIO())).output == "0\n"


@pytest.mark.needs("files")
async def test_a_tree_that_a_container_dug_is_removed(client: Runc, container_id: Callable[[], str]) -> None:
    """A temporary bundle is removed though its container made directories deeper than a path can be long."""
    script = f"i=0; while [ $i -lt 30 ]; do mkdir -p {'dddd/' * 50} && cd -P {'dddd/' * 50} || exit 9; i=$((i+1)); done"
    async with Bundle.busybox(["sh", "-c", script]) as bundle:
        await client.run(container_id(), bundle, io=CapturedIO())
        depth, fd = 0, os.open(bundle.rootfs, os.O_RDONLY)
        with contextlib.suppress(FileNotFoundError):
            while True:
                below = os.open("dddd", os.O_RDONLY, dir_fd=fd)
                os.close(fd)
                depth, fd = depth + 1, below
        os.close(fd)
    assert depth > 800
    assert not bundle.path.exists()


@pytest.mark.parametrize(
    "lacks", ["directory", "config", pytest.param("rootfs", marks=pytest.mark.needs("rootfs errors"))]
)
async def test_what_a_bundle_lacks(lacks: str, client: Runc, container_id: Callable[[], str]) -> None:
    """A bundle without directory, config.json or root filesystem is a BundleNotFound."""
    async with Bundle.busybox(["true"]) as bundle:
        if lacks == "config":
            (bundle.path / "config.json").unlink()
        if lacks == "rootfs":
            bundle.spec.set_root("missing")
            await bundle.save()
        path = bundle.path / "missing" if lacks == "directory" else bundle.path
        with pytest.raises(BundleNotFound):
            await client.run(container_id(), path)
