"""examples/agent, as a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import pytest

pytestmark = [pytest.mark.runc, pytest.mark.root]

EXAMPLES = Path(__file__).parents[2] / "examples"

PLAYED = """\
test: testing
test: passed
test ended with 0
cell: no output
cell: 168
hangs: working
out of time: True - processes left: 0
file: True
terminal: 30 rows, 100 columns
"""


async def test_the_agent(root: Path) -> None:
    """The program that plays the agent does all of it, and nothing that it has started goes on."""
    ended = await anyio.run_process([sys.executable, "-m", "agent", str(root)], cwd=EXAMPLES, env=dict(os.environ))
    assert ended.stdout.decode() == PLAYED
