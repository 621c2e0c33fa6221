"""What a killed process has left is removed, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import doomed
import keepers
import leaks
import pytest
from waiting import until

from runc_async import Bundle, CleanupWarning, CommandError, Keeper, Runc, Swept
from runc_async._linux.owner import Claim, HeldContainer, HeldScratch
from runc_async._runtimes.known import read_record
from runc_async.rootfs import Overlay
from runc_async.spec import Spec
from runc_async.state import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async._linux.owner import Held

    Killed = Callable[[str, int, str], Awaitable[str]]

pytestmark = pytest.mark.runc


@pytest.fixture
def directory(scratch: Path) -> Iterator[Path]:
    """Return a directory for the temporary files of a service; it is empty at the end."""
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        yield Path(made)
        assert os.listdir(made) == []


@pytest.fixture
def killed(owners: Path, runtime: Runtime, root: Path, rootfs: Path, directory: Path) -> Killed:
    """Return a function that kills a service of `doomed`, once its containers run; it returns the first line."""

    async def kill(prefix: str, number: int, kind: str) -> str:
        words = [str(owners), runtime.command, str(root), str(rootfs), prefix, str(number), kind]
        process = await doomed.started(words, str(directory))
        said = "" if kind == "run" else await doomed.line(process)
        names = {f"{prefix}{n}" for n in range(number)}
        if kind == "run":
            await until(lambda: all(read_record(str(root), name) is not None for name in names))
        process.kill()
        await process.communicate(b"")
        return said

    return kill


def leave(*held: Held) -> None:
    """Hold things in a process that ends without a release."""
    child = os.fork()
    if not child:
        for one in held:
            Claim(one)
        os._exit(0)
    os.waitpid(child, 0)


async def test_containers_mounts_and_bundles(
    client: Runc, root: Path, killed: Killed, owners: Path, container_id: Callable[[], str]
) -> None:
    """All that the blocks of a killed service held is removed, and reported; a second sweep finds nothing."""
    name = f"{container_id()}-"
    assert await killed(name, 3, "steady") == "ready"
    swept = await client.sweep()
    assert sorted(swept.containers) == [f"{name}{number}" for number in range(3)]
    assert len(swept.bundles) == 3
    assert sorted(swept.mounts) == sorted(f"{bundle}/rootfs" for bundle in swept.bundles)
    assert list(leaks.containers(root)) == []
    assert leaks.left_on_host(name) == []
    assert list(owners.iterdir()) == []
    assert await client.sweep() == Swept()


async def test_foreground_runs(client: Runc, root: Path, killed: Killed, container_id: Callable[[], str]) -> None:
    """A foreground run goes on when its service is killed; the sweep ends it, and its runtime process."""
    name = f"{container_id()}-"
    await killed(name, 2, "run")
    swept = await client.sweep()
    assert sorted(swept.containers) == [f"{name}0", f"{name}1"]
    assert len(swept.bundles) == 2
    assert list(leaks.containers(root)) == []
    assert leaks.left_on_host(name) == []


@pytest.mark.usefixtures("owners")
async def test_what_is_open_here_stays(client: Runc, rootfs: Path, container_id: Callable[[], str]) -> None:
    """A sweep of the same process, or of another one, removes nothing of a live owner."""
    name = container_id()
    async with doomed.opened(client, str(rootfs), name) as (bundle, container):
        assert await client.sweep() == Swept()
        assert (await container.state()).status == Status.RUNNING
        assert bundle.rootfs.exists()


async def test_a_detached_container_keeps_its_bundle(
    client: Runc, killed: Killed, root: Path, container_id: Callable[[], str]
) -> None:
    """A container that was made to stay does, with the temporary bundle of a dead service; the bundle goes after it."""
    name = container_id()
    bundle = await killed(name, 1, "bundle")
    await client.create(name, bundle)
    await client.start(name)
    assert await client.sweep() == Swept()
    assert await client.sweep() == Swept()
    assert (await client.exec(name, ["cat", "/bin/cat"], io=None)).exit_code == 0
    await client.delete(name, force=True)
    assert await client.sweep() == Swept((), (bundle,), (f"{bundle}/rootfs",))
    assert list(leaks.containers(root)) == []


async def test_only_of_this_root(
    client: Runc, killed: Killed, runtime: Runtime, container_id: Callable[[], str]
) -> None:
    """A sweep below another root directory removes neither containers nor their bundles."""
    name = f"{container_id()}-"
    await killed(name, 1, "steady")
    with tempfile.TemporaryDirectory() as other:
        assert await Runc(runtime.command, root=other).sweep() == Swept()
    assert (await client.state(f"{name}0")).status == Status.RUNNING
    assert len((await client.sweep()).containers) == 1


@pytest.mark.usefixtures("owners")
@pytest.mark.parametrize("known", ["process", "bundle"])
async def test_never_by_id_alone(
    known: str, client: Runc, root: Path, make_container: MakeContainer, tmp_path: Path
) -> None:
    """A container of the recorded id with another first process, or another bundle, is another one, and stays."""
    name = await make_container()
    state = await client.state(name)
    bundle = os.fsencode(state.bundle if known == "process" else tmp_path)
    pid = 1 if known == "process" else 0
    leave(HeldContainer(os.fsencode(root), name, bundle, pid=pid, start_time=pid))
    assert await client.sweep() == Swept()
    assert (await client.state(name)).status == Status.RUNNING


@pytest.mark.usefixtures("owners")
async def test_by_the_bundle(client: Runc, root: Path, make_container: MakeContainer) -> None:
    """A container whose owner was killed before it knew the first process is known by its bundle."""
    name = await make_container()
    leave(HeldContainer(os.fsencode(root), name, os.fsencode((await client.state(name)).bundle)))
    assert await client.sweep() == Swept((name,))
    assert list(leaks.containers(root)) == []


@pytest.mark.usefixtures("owners")
@pytest.mark.needs("record directory")
async def test_what_is_not_finished(client: Runc, root: Path, container_id: Callable[[], str]) -> None:
    """What a runtime that was killed in the middle has left is removed too: a directory without a record."""
    name = container_id()
    (root / name).mkdir()
    leave(HeldContainer(os.fsencode(root), name, b"/nowhere"))
    await client.sweep()
    assert not (root / name).exists()


async def test_what_can_not_be_deleted_stays_recorded(
    client: Runc, root: Path, owners: Path, make_container: MakeContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion that fails is a warning, and the next sweep tries again."""
    name = await make_container()
    leave(HeldContainer(os.fsencode(root), name, os.fsencode((await client.state(name)).bundle)))

    async def fail(*_args: object, **_options: object) -> None:
        raise CommandError(("runc",), 1, container_id=name, message="not today")

    with monkeypatch.context() as patch:
        patch.setattr(client, "delete", fail)
        with pytest.warns(CleanupWarning, match=f"'{name}' is left behind: .*not today"):
            assert await client.sweep() == Swept()
    assert len(list(owners.iterdir())) == 1
    assert await client.sweep() == Swept((name,))


async def test_a_block_that_fails_to_delete_stays_recorded(
    client: Runc,
    owners: Path,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
) -> None:
    """A container that a live process couldn't delete stays in its file, and its next owner's end doesn't lose it."""
    name = container_id()

    async def fail(*_args: object, **_options: object) -> None:
        raise CommandError(("runc",), 1, container_id=name, message="not today")

    child = os.fork()
    if not child:  # its own process: this one's file would stay
        with contextlib.suppress(BaseException), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            patch = pytest.MonkeyPatch()

            async def block() -> None:
                async with client.open_container(name, make_bundle(["sleep", "600"]), grace=0):
                    patch.setattr(client, "delete", fail)

            asyncio.new_event_loop().run_until_complete(block())
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    assert len(list(owners.iterdir())) == 1
    assert await client.sweep() == Swept((name,))


@pytest.mark.usefixtures("owners")
async def test_private_directories(client: Runc, directory: Path) -> None:
    """The directory of a call goes, unless a runtime process still has it open."""
    path = directory / "runc_async-1"
    path.mkdir()
    (path / "pid").touch()
    leave(HeldScratch(os.fsencode(path.resolve())))
    fd = os.open(path, os.O_PATH)
    await client.sweep()
    assert path.exists()
    os.close(fd)
    assert await client.sweep() == Swept()
    assert not path.exists()


async def test_several_sweepers(client: Runc, killed: Killed, owners: Path, container_id: Callable[[], str]) -> None:
    """Sweeps at the same time remove everything once, and don't disturb each other."""
    name = f"{container_id()}-"
    for part in range(2):
        await killed(f"{name}{part}-", 2, "steady")
    swept = await asyncio.gather(*(client.sweep() for _ in range(4)))
    assert sorted(found for one in swept for found in one.containers) == [
        f"{name}{part}-{number}" for part in range(2) for number in range(2)
    ]
    assert list(owners.iterdir()) == []


async def test_a_cancelled_sweep_goes_on_later(
    client: Runc, killed: Killed, root: Path, owners: Path, container_id: Callable[[], str]
) -> None:
    """Cut short at any moment, a sweep leaves the rest for the next one."""
    name = f"{container_id()}-"
    await killed(name, 3, "steady")
    for seconds in (0.01, 0.05, 0.15):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.sweep(), seconds)
    await client.sweep()
    assert list(leaks.containers(root)) == []
    assert list(owners.iterdir()) == []
    assert leaks.left_on_host(name) == []


async def test_a_keepers_containers_stay(
    client: Runc, owners: Path, scratch: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Neither a live keeper's containers are touched, nor those of a keeper that was killed."""
    del owners
    place = scratch / f"k{os.urandom(3).hex()}"
    name = container_id()
    async with Keeper.connect(place, start=True, timeout=60) as keeper:
        await keeper.start(client, name, make_bundle(["sleep", "600"]))
        assert name not in (await client.sweep()).containers
    await keepers.end(place, signal.SIGKILL)
    assert name not in (await client.sweep()).containers
    assert (await client.state(name)).status == Status.RUNNING
    async with Keeper.connect(place, start=True, timeout=60) as keeper:
        await keeper.delete(name, force=True)
    await keepers.end(place)
    keepers.remove(place)


async def test_a_keepers_container_keeps_its_overlay(
    *, client: Runc, owners: Path, scratch: Path, rootfs: Path, directory: Path, container_id: Callable[[], str]
) -> None:
    """An overlay that a dead service has mounted stays for as long as a keeper's container is on it."""
    place = scratch / f"k{os.urandom(3).hex()}"
    name = container_id()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            asyncio.new_event_loop().run_until_complete(_give(client, place, name, rootfs, directory / "bundle"))
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    assert len(list(owners.iterdir())) >= 1
    swept = await client.sweep()
    assert swept.mounts == ()
    async with Keeper.connect(place) as keeper, keeper.attach(name) as container:
        assert (await container.exec(["cat", "/mine"])).output == "mine\n"
    async with Keeper.connect(place) as keeper:
        await keeper.delete(name, force=True)
    assert (await client.sweep()).mounts == (str(directory / "bundle" / "rootfs"),)
    await keepers.end(place)
    keepers.remove(place)
    await (await asyncio.create_subprocess_exec("rm", "-r", str(directory / "bundle"))).wait()


async def _give(client: Runc, place: Path, name: str, rootfs: Path, path: Path) -> None:
    """Start a container in a keeper, on an overlay of this process's, and end without a release."""
    spec = Spec.default().set_args("sh", "-c", "echo mine > /mine; exec sleep 600").set_terminal(enabled=False)
    bundle = await Bundle.create(path, rootfs=Overlay([rootfs]), spec=spec.set_root("rootfs", readonly=False))
    async with Keeper.connect(place, start=True, timeout=60) as keeper:
        await keeper.start(client, name, bundle)
    os._exit(0)
