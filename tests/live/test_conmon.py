"""The page on conmon is true."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

import pages
import pytest
from containers import ended

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.runc


@pytest.mark.skipif(shutil.which("conmon") is None, reason="needs conmon")
async def test_the_page_on_conmon(tmp_path: Path) -> None:
    """Its block runs, and prints what is below it; conmon ends with its container."""
    (block,) = pages.blocks(pages.PROJECT / "docs" / "howto" / "conmon.md", "py")
    program = tmp_path / "page.py"
    program.write_text(
        f"import asyncio\nasync def main():\n{textwrap.indent(block.code, '    ')}\nasyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(program), cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert (process.returncode, said.decode()) == (0, block.output)
    await ended(int((tmp_path / "conmon" / "conmon-pid").read_text()))
    assert os.listdir(tmp_path / "conmon" / "root") == []
