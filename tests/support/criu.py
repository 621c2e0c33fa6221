"""The criu of the tests: the one that `make runtimes` has brought into the checkout, else that of the host."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

MADE = sorted((Path(__file__).parents[2] / "runtimes").glob("criu-*"))
"""Directories with a criu that suits the kernel better than the host's own."""


def search_path() -> str:
    """Return a $PATH in which that criu is the first."""
    return os.pathsep.join([*map(str, MADE), os.environ["PATH"]])


@functools.cache
def missing() -> str | None:
    """Say what is missing for a test of checkpoints; criu itself knows whether it suits the kernel."""
    program = shutil.which("criu", path=search_path())
    if program is None:
        return "needs criu in $PATH or in runtimes/"
    check = subprocess.run([program, "check"], capture_output=True, text=True, check=False)
    return f"criu check fails: {check.stderr.strip()}" if check.returncode else None
