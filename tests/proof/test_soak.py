"""The short form of the soak finds nothing; and it finds what is planted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import leaks
import pytest
from soak import PLANTS

if TYPE_CHECKING:
    from runtime import Runtime

pytestmark = [pytest.mark.runc, pytest.mark.needs("cgroup removal")]

# The soak's model is runc's: it asks for statistics and events, which crun doesn't have.
model = pytest.mark.needs("events")

SOAK = Path(__file__).with_name("soak.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "support")}


def command(runtime: Runtime, *options: str) -> list[str]:
    """Return the words that start the soak."""
    return [sys.executable, str(SOAK), "--runc", runtime.command, *options]


def soaked(runtime: Runtime, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, and see that nothing of it is left on the host."""
    words = command(runtime, *options)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    ) as running:
        said, _ = running.communicate()
    assert leaks.left_on_host(f"soak-{running.pid}-") == []
    return subprocess.CompletedProcess(words, running.returncode, said)


@pytest.mark.proof
@model
@pytest.mark.timeout(90)
@pytest.mark.parametrize("options", [[], ["--subreaper"]], ids=["alone", "as a subreaper"])
def test_short_form(runtime: Runtime, options: list[str], tmp_path: Path, tried: Callable[[str, int], None]) -> None:
    """In fifteen seconds the model holds, nothing is left, and no curve grows."""
    figures = tmp_path / "soak.json"
    ended = soaked(runtime, "--seconds", "15", "--json", str(figures), *options)
    assert ended.returncode == 0, ended.stdout
    told = json.loads(figures.read_bytes())
    tried("soak: operations", told["operations"])
    tried("soak: operations cut short", told["cut_short"])
    assert told["operations"] > 50
    assert told["cut_short"] > 5


@pytest.mark.proof
@model
@pytest.mark.parametrize(
    ("plant", "found"),
    [
        *((plant, f"the curve of {curve} grows") for plant, curve in PLANTS.items()),
        ("container", "is created, and may be ['None']"),
    ],
)
def test_planted(runtime: Runtime, plant: str, found: str) -> None:
    """Whatever is left behind in each period, or a container that nobody knows of, makes it fail."""
    ended = soaked(runtime, "--seconds", "5", "--tasks", "2", "--plant", plant)
    assert ended.returncode == 1, ended.stdout
    assert found in ended.stdout
    assert "left behind" not in ended.stdout


def test_interrupted(runtime: Runtime) -> None:
    """Interrupted, it deletes what it has made, and says so by its exit status."""
    with subprocess.Popen(
        command(runtime, "--seconds", "60"), stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("seed ")
        assert running.stdout.readline() == "begun\n"
        running.send_signal(signal.SIGINT)
        said = running.stdout.read()
    assert (running.returncode, said) == (130, "interrupted\n")
    assert leaks.left_on_host(f"soak-{running.pid}-") == []
