"""gVisor's runsc for tests, where `make runtimes` has brought it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from runc_async import Runsc
from runc_async._runtimes.runsc import decode_processes

FOUND = sorted((Path(__file__).parents[2] / "runtimes").glob("runsc-*/runsc"))
OPTIONS = ("--network=none", "--ignore-cgroups")
"""Global options with which a sandbox starts on any host; those of `client`."""


def program() -> str:
    """Return the path of runsc; skip the test if there is none."""
    if not FOUND:
        pytest.skip("no runsc here: make runtimes")
    return str(FOUND[-1])


def client(root: Path) -> Runsc:
    """Return a client with a root directory of its own."""
    return Runsc(program(), root=root, network="none", ignore_cgroups=True)


def processes(container_id: str, root: Path) -> set[int]:
    """Return the processes in a sandbox, without zombies."""
    words = [program(), "--root", str(root), *OPTIONS, "trace", "procfs", container_id]
    printed = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
    return {process.pid for process in decode_processes(printed)}
