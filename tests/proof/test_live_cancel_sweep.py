"""Every command, block and stream that runs a container is cut short at each of its steps, with a real runtime."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import criu
import leaks
import pytest
import sweep
from operations import OPERATIONS, Operation, Stage

from runc_async import Runc, subreaper

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from containers import MakeBundle
    from runtime import Runtime

pytestmark = [pytest.mark.runc, pytest.mark.needs("cgroup removal")]

POINTS = 6
"""How often a long operation of weight 1 is cut short, unless `SWEEP_ALL` asks for all points."""


@pytest.fixture
def stage(  # noqa: PLR0917 - the fixtures
    scratch: Path,
    runtime: Runtime,
    root: Path,
    prefix: str,
    make_bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Stage, sweep.Place]]:
    """Return a stage with the real runtime, and the place to look at."""
    program = shutil.which(runtime.command)
    assert program is not None
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        directory = Path(made)
        own = directory / "own"
        own.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(own))
        monkeypatch.setattr(tempfile, "tempdir", str(own))
        mark = f"{prefix}sweep-"

        def make_client(**options: Any) -> Runc:
            env = {"RUNC_ASYNC_SWEEP": mark, "PATH": criu.search_path()}
            return Runc(program, root=root, env=env, **options)

        bundles = {
            "long": make_bundle(["sleep", "1000"]),
            "short": make_bundle(["cat"]),
            "terminal": make_bundle(["cat"], process={"terminal": True}),
        }
        scene = Stage(make_client, mark, directory, **bundles)
        try:
            yield scene, sweep.Place(mark, scratch, [own, scene.place, root])
        finally:
            for mount in sorted(leaks.mounts(str(directory)), reverse=True):
                subprocess.run(["/bin/umount", mount], check=True)


Sweeper: TypeAlias = "Callable[[Operation, tuple[str, ...]], Awaitable[list[str]]]"


@pytest.fixture
def swept(stage: tuple[Stage, sweep.Place], runtime: Runtime, tried: Callable[[str, int], None]) -> Sweeper:
    """Return a function that cuts an operation short in these ways, and names what is left behind."""

    async def found(operation: Operation, ways: tuple[str, ...]) -> list[str]:
        if reason := operation.missing(runtime):
            pytest.skip(reason)
        scene, place = stage
        sweeping = await scene.sweep(operation, place, round(POINTS * operation.weight), ways)
        tried("cancellation points, live", sweeping.tried)
        return sweeping.found

    return found


@pytest.mark.proof(every=3)
@pytest.mark.timeout(120 if not sweep.ALL else 170)
@pytest.mark.parametrize("ways", sweep.SHARES, ids=sweep.name_of)
@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if not operation.is_local], ids=str)
async def test_cut_short(operation: Operation, ways: tuple[str, ...], swept: Sweeper) -> None:
    """Cut short at any point and in any way, it leaves nothing, and the client works."""
    found = await swept(operation, ways)
    assert not found, "\n".join(found)


LEAVING = (
    "create",
    "run",
    "run detached",
    "run too long",
    "exec",
    "exec detached",
    "exec too long",
    "top",
    "open_container",
    "open_exec",
    "checkpoint",
    "restore detached",
)
"""Operations whose runc has children, which it can leave behind."""


@pytest.mark.proof(every=4)
@pytest.mark.timeout(120 if not sweep.ALL else 170)
@pytest.mark.parametrize("ways", sweep.SHARES, ids=sweep.name_of)
@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if operation.name in LEAVING], ids=str)
async def test_cut_short_as_a_subreaper(operation: Operation, ways: tuple[str, ...], swept: Sweeper) -> None:
    """Where all that it leaves behind becomes our child, it is reaped."""
    with subreaper():
        found = await swept(operation, ways)
    assert not found, "\n".join(found)
