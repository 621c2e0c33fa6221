"""Faults of the host: the client says what is wrong, in a documented way, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import descriptors
import faults
import leaks
import pytest
from operations import OPERATIONS, Operation, Stage
from sweep import Place

from runc_async import CleanupWarning, CommandError, Runc, RuncError, RuncNotFound
from runc_async._containers.leftovers import remove_cgroups
from runc_async.errors import ContainerNotFound, ContainerNotPaused

if TYPE_CHECKING:
    from containers import MakeBundle
    from runtime import Runtime

pytestmark = [pytest.mark.runc, pytest.mark.needs("cgroup removal"), pytest.mark.needs("clean failures")]

ELSEWHERE = ("open_container", "open_exec", "merged events", "fake runner", "keeper", "supports")
"""What has sweeps in a file of its own, hands out errors instead of raising them, or opens nothing, begins so."""


async def frozen_anew(stage: Stage) -> None:
    """Have the container paused, whatever became of the last attempt to resume it."""
    with contextlib.suppress(ContainerNotPaused):
        await stage.client.resume(stage.name)
    await stage.client.pause(stage.name)


NAMED = {str(operation): operation for operation in OPERATIONS}
NAMED["resume"] = NAMED["resume"]._replace(before=frozen_anew)
LIMITED = [
    operation for operation in NAMED.values() if operation.needs != "criu" and not operation.name.startswith(ELSEWHERE)
]
ON_THE_DISK = ("create", "start", "run", "run detached", "delete", "update", "pause", "exec", "open_container")
WITH_FILES = ("create a bundle", "save a bundle", "temporary bundle", "exec", "open_container on a terminal")
WITH_CHILDREN = (
    "version",
    "state",
    "create",
    "start",
    "delete",
    "events",
    "open_container",
    "run",
    "run too long",
    "run detached",
    "exec",
    "exec a document",
    "exec detached",
)

SILENT = "a failure"
FOREGROUND = ("run", "exec", "open_exec")
"""What can't tell a runc that fails without a word from a container's process that does."""


class Host:
    """A stage whose host can be at fault.

    Attributes:
        trials: What is run on it.
        stage: Where that is run.
        root: The runtime's root directory, on a small disk of its own.
        temporary: The directory for temporary files, on another.
        program: A copy of the runtime.
    """

    def __init__(self, stage: Stage, place: Place, root: Path, temporary: Path, program: Path) -> None:
        self.trials = faults.Trials(stage, place, root)
        self.stage = stage
        self.place = place
        self.root = root
        self.temporary = temporary
        self.program = program


@pytest.fixture
def host(
    scratch: Path, runtime: Runtime, prefix: str, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    """Return a host of our own: two small disks, a program, a client."""
    program = shutil.which(runtime.command)
    assert program is not None
    mark = f"{prefix}fault-"
    with (
        tempfile.TemporaryDirectory(dir=scratch) as made,
        faults.small_disk(Path(made), 512 * faults.PAGE) as root,
        faults.small_disk(Path(made)) as temporary,
    ):
        directory = Path(made)
        copy = directory / "runc"
        shutil.copy2(program, copy)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(temporary))
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))

        def make_client(**options: Any) -> Runc:
            return Runc(copy, root=root, env={"RUNC_ASYNC_FAULT": mark}, **options)

        bundles = {
            "long": make_bundle(["sleep", "1000"]),
            "short": make_bundle(["cat"]),
            "terminal": make_bundle(["cat"], process={"terminal": True}),
        }
        (directory / "stage").mkdir()
        stage = Stage(make_client, mark, directory / "stage", **bundles)
        try:
            yield Host(stage, Place(mark, directory, [root, temporary, stage.place]), root, temporary, copy)
        finally:
            for name in leaks.containers(root):
                faults.force_deleted(program, root, name)


Said = Callable[[str, int], None]


# no descriptor


@pytest.mark.proof(every=16)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("operation", LIMITED, ids=str)
async def test_no_descriptor(host: Host, operation: Operation, runtime: Runtime, tried: Said) -> None:
    """Wherever descriptors run out, an operation says so; what it has opened is closed, what it has made removed."""
    if reason := operation.missing(runtime):
        pytest.skip(reason)
    trials = host.trials
    assert await trials.under(operation, nullcontext())
    for count in range(descriptors.ATTEMPTS):
        if await trials.under(operation, descriptors.spare(count), f"with {count} descriptors"):
            break
    else:
        pytest.fail(f"{descriptors.ATTEMPTS} descriptors aren't enough: {trials.failures[-1]!r}")
    tried("descriptor limits", trials.tried)
    assert trials.found == []
    # One descriptor is all that the host's figures need. `sweep` needs one to raise nothing, and warns of what is left.
    assert len(trials.failures) > (operation.name not in {"reading the host", "sweep"})


# no room


@pytest.mark.proof(every=8)
@pytest.mark.parametrize("name", ON_THE_DISK)
async def test_root_directory_full(host: Host, name: str, tried: Said) -> None:
    """With so many pages free, or none, runc fails or doesn't; nothing is left half-made."""
    for spare in (0, 1, 2, 4, 8, 16, 32):
        await host.trials.under(NAMED[name], faults.full(host.root, spare), f"{spare} pages free")
    tried("host faults survived", host.trials.tried)
    assert host.trials.found == []


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("name", ON_THE_DISK)
async def test_root_directory_read_only(host: Host, name: str, tried: Said) -> None:
    """A runc that can't write fails as a command does, or has nothing to write."""
    await host.trials.under(NAMED[name], faults.read_only(host.root))
    tried("host faults survived", host.trials.tried)
    assert host.trials.found == []
    assert all(isinstance(error, RuncError) for error in host.trials.failures)


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("fault", [faults.full, faults.read_only])
@pytest.mark.parametrize("name", WITH_FILES)
async def test_no_temporary_files(
    host: Host, name: str, fault: Callable[[Path], AbstractContextManager[None]], tried: Said
) -> None:
    """Where no temporary file can be made, it is an OSError, an error of runc's, or a success that needs none."""
    await host.trials.under(NAMED[name], fault(host.temporary))
    tried("host faults survived", host.trials.tried)
    assert host.trials.found == []
    for error in host.trials.failures:
        assert isinstance(error, CommandError) or getattr(error, "errno", None) in {errno.ENOSPC, errno.EROFS}


# no process


@pytest.mark.proof(every=8)
@pytest.mark.needs("pids controller")
@pytest.mark.parametrize("name", WITH_CHILDREN)
async def test_no_process(host: Host, prefix: str, name: str, tried: Said) -> None:
    """Where no process or thread can be made, or only a few, it is an error, and no child is lost."""
    pids = faults.Pids(prefix)
    with pids.entered():
        for count in (0, 1, 2, 3, 4, 6, 8, 12, 16):
            await host.trials.under(NAMED[name], pids.spare(count), f"with {count} processes")
        await host.stage.discard()
    tried("host faults survived", host.trials.tried)
    assert host.trials.found == []
    assert host.trials.failures


# no program


@pytest.mark.proof(every=2)
@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("removed", RuncNotFound),
        ("not executable", PermissionError),
        ("garbage", OSError),
        ("a directory", PermissionError),
        (SILENT, CommandError),
    ],
)
async def test_program_replaced(host: Host, how: str, error: type[Exception], tried: Said) -> None:
    """A runc that is replaced between two calls is an error of each call, until it is back."""
    for name in ("version", "state", "create", "run", "exec", "events", "open_container", "open_exec"):
        if how != SILENT or name not in FOREGROUND:
            assert not await host.trials.under(NAMED[name], faults.replaced(host.program, how), how)
    tried("host faults survived", host.trials.tried)
    assert host.trials.found == []
    for failure in host.trials.failures:
        assert isinstance(failure, error)


async def test_program_removed_within_a_block(host: Host, tried: Said) -> None:
    """A container that can't be deleted for want of runc is stopped and named; it can be deleted later."""
    before, name = host.place.stock(), host.stage.another()
    with contextlib.ExitStack() as away, pytest.warns(CleanupWarning, match=name):
        async with host.stage.client.open_container(name, host.stage.long, grace=0):
            away.enter_context(faults.replaced(host.program, "removed"))
    await host.stage.client.delete(name, force=True)
    leaks.release_kept_records()
    assert await host.place.left_since(before) == []
    tried("host faults survived", 1)


# the root directory is gone


async def test_root_directory_deleted(host: Host, tried: Said) -> None:
    """A container whose record is deleted is unknown to every command; at the end of its block its process is gone.

    Its cgroups stay, empty: nobody knows any more which they are.
    """
    before, name = host.place.stock(), host.stage.another()
    client = host.stage.client
    async with (
        client.open_container(name, host.stage.long, grace=0) as container,
        client.events(name, interval=0.02) as events,
    ):
        await anext(events)
        async with client.open_exec(name, ["sleep", "1000"], grace=0) as process:
            shutil.rmtree(host.root / name)
            with pytest.raises(ContainerNotFound):
                await client.state(name)
            with pytest.raises(ContainerNotFound):
                await client.exec(name, ["true"])
            with pytest.raises(ContainerNotFound):
                await client.stats(name)
            await anext(events)
        assert (await process.wait()).signal in {signal.SIGTERM, signal.SIGKILL}
    assert (await container.wait()).exit_code != 0
    assert {left.split()[0] for left in await host.place.left_since(before)} <= {"cgroup"}
    assert await remove_cgroups(name) == []
    assert await host.place.left_since(before) == []
    tried("host faults survived", 1)


# the checks


@pytest.mark.proof
async def test_what_is_planted_is_found(host: Host) -> None:
    """An undocumented exception, a descriptor, a file, and a container that nobody names are found."""

    async def raises(_: Stage) -> None:
        raise ZeroDivisionError

    held: list[int] = []

    async def holds(_: Stage) -> None:
        held.append(os.open(os.devnull, os.O_RDONLY))

    async def writes(_: Stage) -> None:
        (host.temporary / "file").touch()

    async def makes(stage: Stage) -> None:
        await stage.client.create(stage.another(), stage.long)
        raise OSError(errno.EMFILE, "no descriptor")

    async def says(stage: Stage) -> None:
        name = stage.another()
        await stage.client.create(name, stage.long)
        warnings.warn(f"container {name!r} may be left behind", CleanupWarning, stacklevel=1)
        raise OSError(errno.EMFILE, "no descriptor")

    async def expects(stage: Stage) -> None:
        with contextlib.suppress(OSError):
            await says(stage)

    async def groups(stage: Stage) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(raises, stage)

    for plant, found in (
        (raises, ["raised ZeroDivisionError()"]),
        (groups, ["raised ZeroDivisionError()"]),
        (holds, ["left descriptor"]),
        (writes, ["left file"]),
        (makes, ["left container"]),
        (says, []),
        (expects, []),
    ):
        host.trials.found.clear()
        await host.trials.under(Operation("plant", plant, status="none"), nullcontext())
        assert len(host.trials.found) == len(found), host.trials.found
        assert all(words in problem for words, problem in zip(found, host.trials.found, strict=True))
        for fd in held:
            os.close(fd)
        held.clear()
