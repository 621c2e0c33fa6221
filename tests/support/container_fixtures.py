"""The runtime, a private root, a root filesystem and bundles for the tests that run real containers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import containers
import leaks
import pytest
import runtime as runtimes

from runc_async._linux import owner
from runc_async.client import Runc
from runc_async.errors import UnsupportedError
from runc_async.state import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.stdio import StdIO

NUMBERS = itertools.count(1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what needs a runtime once with each that `--runtime` names."""
    given = {name for mark in metafunc.definition.iter_markers("parametrize") for name in names_of(mark)}
    if "runtime" in set(metafunc.fixturenames) - given:
        commands: list[str] = metafunc.config.getoption("--runtime") or ["runc"]
        found = [runtimes.describe(command) for command in commands]
        metafunc.parametrize("runtime", found, ids=str, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Skip a test that uses what the runtime lacks, as the library's table has it and docs/topics/runtimes.md tells.

    The library has refused that before it started anything. An `UnsupportedError` for anything else fails the test, and
    so does one that is the runtime's own answer.
    """
    try:
        return (yield)
    except (UnsupportedError, BaseExceptionGroup) as exc:
        runtime = pyfuncitem.funcargs.get("runtime")
        refused = {error.what for error in leaves(exc) if type(error) is UnsupportedError}
        only = all(type(error) is UnsupportedError for error in leaves(exc))
        if isinstance(runtime, runtimes.Runtime) and only and not any(map(runtime.has, refused)):
            pytest.skip(f"{runtime} has no {', '.join(sorted(refused))}")
        raise


def leaves(exc: BaseException) -> Iterator[BaseException]:
    """Yield an exception, or those of a group at any depth."""
    if isinstance(exc, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", exc).exceptions:
            yield from leaves(each)
    else:
        yield exc


def names_of(mark: pytest.Mark) -> list[str]:
    """Return the names of the arguments that a mark `parametrize` gives."""
    names: str | Sequence[str] = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


@pytest.fixture(scope="session")
def runtime(request: pytest.FixtureRequest, scratch: Path) -> Iterator[Runtime]:
    """Return the runtime that this test drives."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        yield runtimes.suited(request.param, Path(directory))


@pytest.fixture(autouse=True)
def has_what_it_needs(request: pytest.FixtureRequest) -> None:
    """Skip a test whose mark `needs` names what the runtime, or for cgroups this host, doesn't have."""
    for mark in request.node.iter_markers("needs"):
        feature: str = mark.args[0]
        provided = runtimes.provides(feature)
        if provided is None:
            runtime: Runtime = request.getfixturevalue("runtime")
            if not runtime.has(feature):
                pytest.skip(f"{runtime} has no {feature}")
        elif not provided:
            pytest.skip(f"there is no {feature} here")


@pytest.fixture
def root(scratch: Path, runtime: Runtime, prefix: str) -> Iterator[Path]:
    """Return a directory for `--root` of the runtime; whatever container is in it at the end is deleted by force."""
    with containers.private_root(scratch, runtime.command) as directory:
        yield directory
    if not runtime.removes_cgroups:
        for cgroup in leaks.cgroups(prefix):
            with contextlib.suppress(OSError):  # its processes are ending still: it is the next test's turn
                os.rmdir(cgroup)


@pytest.fixture
def client(runtime: Runtime, root: Path) -> Runc:
    """Return a client of the runtime, with a root directory of its own."""
    return Runc(runtime.command, root=root)


@pytest.fixture(scope="session")
def rootfs(scratch: Path) -> Iterator[Path]:
    """Return a root filesystem with all of busybox's commands in /bin, made once."""
    directory = scratch / "rootfs"
    containers.make_rootfs(directory)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def base_config(scratch: Path, runtime: Runtime) -> dict[str, Any]:
    """Return the configuration that the runtime proposes."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        containers.runc("spec", "--bundle", directory, command=runtime.command).check_returncode()
        config: dict[str, Any] = json.loads((Path(directory) / "config.json").read_bytes())
    return config


@pytest.fixture
def make_bundle(scratch: Path, rootfs: Path, base_config: dict[str, Any]) -> Iterator[MakeBundle]:
    """Return a function that writes bundles, which are removed at the end; see `MakeBundle`."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        numbers = itertools.count()

        def make(args: Sequence[str], **changes: Any) -> Path:
            bundle = Path(directory) / str(next(numbers))
            bundle.mkdir()
            ours = {"root": {"path": str(rootfs)}, "process": {"args": list(args), "terminal": False}}
            config = containers.merged(containers.merged(base_config, ours), changes)
            (bundle / "config.json").write_text(json.dumps(config))
            return bundle

        yield make


@pytest.fixture
def container_id(prefix: str) -> Callable[[], str]:
    """Return a function that gives an id that no other container on this machine has."""
    return lambda: f"{prefix}{next(NUMBERS)}"


@pytest.fixture
def make_container(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> MakeContainer:
    """Return a function that brings containers to a status; see `MakeContainer`."""

    async def make(
        status: Status = Status.RUNNING,
        args: Sequence[str] = ("sleep", "60"),
        io: StdIO | None = None,
        **changes: Any,
    ) -> str:
        name = container_id()
        await client.create(name, make_bundle(args, **changes), io=io)
        if status != Status.CREATED:
            await client.start(name)
        if status == Status.PAUSED:
            await client.pause(name)
        if status == Status.STOPPED:
            pid = (await client.state(name)).pid
            await client.kill(name, "KILL")
            await containers.ended(pid)
        return name

    return make


@pytest.fixture
def owners(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory on a tmpfs for the files of owners, so that no sweep of this test sees those of others."""
    with tempfile.TemporaryDirectory(prefix="owners-", dir="/dev/shm") as directory:
        monkeypatch.setattr(owner, "MEMORY", directory)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield Path(directory)
