"""What a node confirms to a client that has lost another one."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from dask import config as dask_config

from runc_async._linux.procfs import ProcessIdentity
from runc_async.dask.node import Node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE, OTHER = "tcp://127.0.0.1:2", "tcp://127.0.0.1:1"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Return a node with a runtime that lists no container."""
    runtime = tmp_path / "runtime"
    runtime.write_text("#!/bin/sh\necho null\n")
    runtime.chmod(0o755)
    settings = {"command": str(runtime), "root": str(tmp_path / "root"), "directory": str(tmp_path / "cache")}
    with dask_config.set({f"runc-async.{name}": value for name, value in settings.items()}):
        yield Node("one", HERE)


async def call(node: Node, method: str, **arguments: Any) -> Any:
    """Call a node as a client does."""
    return pickle.loads(await node.handle(method, "fleet", pickle.dumps(arguments)))  # noqa: S301 - our own


async def test_nothing_is_confirmed_for_a_worker_that_still_runs(node: Node) -> None:
    """A worker that is only silent may begin its order later; once it is dead, its sandboxes have ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as silent:  # noqa: ASYNC220 - it stays
        worker = (OTHER, *ProcessIdentity.of(silent.pid))
        assert not await call(node, "confirm", name="fleet-1", worker=worker)
        silent.communicate(b"\n")
    assert await call(node, "confirm", name="fleet-1", worker=worker)


async def test_a_worker_of_the_same_process_is_another_one(node: Node) -> None:
    """Two workers can share a process; each confirms for itself alone."""
    hello = await call(node, "hello", capacity=1, lease=10.0)
    assert hello["worker"] == (HERE, *ProcessIdentity.of(os.getpid()))
    assert await call(node, "confirm", name="fleet-1", worker=hello["worker"])
    assert not await call(node, "confirm", name="fleet-1", worker=(OTHER, *hello["worker"][1:]))


async def test_a_place_is_that_of_the_runtimes_root(node: Node, tmp_path: Path) -> None:
    """A worker with another root directory lists other containers, so it can confirm nothing for this one."""
    here = await call(node, "hello", capacity=1, lease=10.0)
    with dask_config.set({"runc-async.root": str(tmp_path / "elsewhere")}):
        elsewhere = await call(Node("two", OTHER), "hello", capacity=1, lease=10.0)
    assert (here["host"], here["place"] != elsewhere["place"]) == (elsewhere["host"], True)
