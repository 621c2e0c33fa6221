"""Copies of a running container, and which containers have none."""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import criu
import leaks
import pytest

from runc_async.client import Runc
from runc_async.errors import UnsupportedError
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from containers import MakeBundle
    from runtime import Runtime

    from runc_async.container import Container

pytestmark = pytest.mark.runc

COUNTS = ["sh", "-c", "i=0; while read x; do i=$((i+1)); echo $i $x; done"]
"""A program whose memory tells how many lines it has read."""


async def answer(container: Container, word: str) -> str:
    """Send a line to a container, and return the line that it prints."""
    assert container.stdin
    assert container.stdout
    await container.stdin.send(f"{word}\n".encode())
    return (await container.stdout.receive()).decode().strip()


@pytest.mark.criu
@pytest.mark.needs("fork")
async def test_copies_go_on_from_where_the_container_is(
    runtime: Runtime, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Three copies have its memory and streams of their own; they end with the block, and the container goes on."""
    client = Runc(runtime.command, root=root, env={"PATH": criu.search_path()})
    name = container_id()
    async with client.open_container(name, make_bundle(COUNTS), io=PipedIO(), grace=0) as container:
        assert await answer(container, "a") == "1 a"
        async with container.fork(3, io=PipedIO()) as forks:
            assert [await answer(fork, fork.id[-1]) for fork in forks] == ["2 0", "2 1", "2 2"]
            assert await answer(forks[0], "b") == "3 b"
            assert len(await client.list()) == 4
        assert [state.id for state in await client.list()] == [name]
        assert await answer(container, "c") == "2 c"
    assert leaks.left_on_host(name) == []


@pytest.mark.criu
@pytest.mark.needs("fork by criu")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"root": {"readonly": False}}, "fork of a container with a writable root filesystem"),
        ({"linux": {"cgroupsPath": "/PREFIX"}}, "fork of a container with a cgroupsPath"),
        (
            {"linux": {"namespaces": [{"type": kind} for kind in ("mount", "ipc", "uts")]}},
            "fork of a container without a pid namespace of its own",
        ),
    ],
    ids=["writable", "cgroup", "pids"],
)
async def test_what_criu_cannot_copy(
    *,
    runtime: Runtime,
    root: Path,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    changes: dict[str, Any],
    reason: str,
) -> None:
    """A container whose copies would share with it what they change is refused; no criu is started, and it runs on."""
    client = Runc(runtime.command, root=root, env={"PATH": criu.search_path()})
    name = container_id()
    if path := changes.get("linux", {}).get("cgroupsPath"):
        changes = {"linux": {"cgroupsPath": path.replace("PREFIX", name)}}
    async with client.open_container(name, make_bundle(COUNTS, **changes), io=PipedIO(), grace=0) as container:
        with pytest.raises(UnsupportedError, match=reason):
            async with container.fork(1):
                pass
        assert await answer(container, "a") == "1 a"
    assert leaks.left_on_host(name) == []


@pytest.mark.needs("fork by criu")
async def test_without_criu(
    runtime: Runtime, root: Path, scratch: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Where the runtime would find no criu, the copies are refused before anything starts."""
    with tempfile.TemporaryDirectory(dir=scratch) as empty:
        client = Runc(runtime.command, root=root)
        async with client.open_container(container_id(), make_bundle(COUNTS), io=PipedIO(), grace=0) as container:
            program = shutil.which(runtime.command)
            assert program is not None
            handle = Runc(program, root=root, env={"PATH": empty}).container(container.id)
            with pytest.raises(UnsupportedError, match=r"fork without criu in \$PATH"):
                async with handle.fork(1):
                    pass
            assert await answer(container, "a") == "1 a"


async def test_a_runtime_without(
    client: Runc, runtime: Runtime, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A runtime that can't copy containers is named, and nothing is started."""
    if runtime.has("fork"):
        pytest.skip(f"{runtime} has fork")
    async with client.open_container(container_id(), make_bundle(COUNTS), io=PipedIO(), grace=0) as container:
        with pytest.raises(UnsupportedError, match=rf"^{runtime.name} {runtime.version} has no fork$"):
            async with container.fork(1):
                pass
