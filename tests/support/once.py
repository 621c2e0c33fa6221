"""Costly directories that one worker of a run makes for all of them: what is built and shipped."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def directory(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], object]) -> Path:
    """Return the directory of this name that the run's first worker to ask for it has filled; the others wait."""
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # the run's own; each worker has one below it
    filled, done = place / name, place / f"{name}.done"
    with (place / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(filled, ignore_errors=True)  # a worker has failed to fill it
            filled.mkdir()
            fill(filled)
            done.touch()
    return filled


def distributions(factory: pytest.TempPathFactory) -> Path:
    """Build the sdist and the wheel with the build backend that is installed, without a network."""

    def build(place: Path) -> None:
        command = [sys.executable, "-m", "hatchling", "build", "-d", str(place)]
        subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)

    return directory(factory, "dist", build)
