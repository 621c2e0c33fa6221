"""The Python of the README and of the docs runs, and prints what is written below it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import containers
import pytest

import runc_async

PROJECT = Path(__file__).parent.parent
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]

# Their blocks go together with commands of a shell, and are run by tests of their own.
RUN_ELSEWHERE = {"image-to-bundle.md"}

BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\n+^```text\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


class Block(NamedTuple):
    """A block of Python on a page, and the block of text below it: what it prints."""

    page: Path
    line: int
    code: str
    output: str | None

    def __str__(self) -> str:
        """Show as in the ids of the tests."""
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    text = page.read_text()
    for match in BLOCK.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match["code"], match["output"])


BLOCKS = [block for page in PAGES if page.name not in RUN_ELSEWHERE for block in blocks(page)]


def run(block: Block) -> None:
    """Run a block as a program; one with an `await` outside of functions in an event loop of its own."""
    code = compile("\n" * block.line + block.code, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, {"__name__": "__main__"})  # noqa: S307 - our own pages
    if inspect.iscoroutine(result):
        asyncio.run(result)


@pytest.fixture
def own_root(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give clients without a root directory a private one, so that the ids on the pages are free."""
    original = runc_async.Runc.__init__
    with containers.private_root(scratch) as root:

        def init(client: runc_async.Runc, *args: Any, **options: Any) -> None:
            original(client, *args, **{"root": root, **options})

        monkeypatch.setattr(runc_async.Runc, "__init__", init)
        yield


@pytest.mark.runc
@pytest.mark.usefixtures("own_root")
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_runs(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    """A block runs as it stands; what it prints is the text below it, where there is one."""
    run(block)
    printed = capsys.readouterr().out
    if block.output is not None:
        assert printed.strip() == block.output.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the project leads to one that is there."""
    broken = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert broken == []


def test_the_readme_has_blocks() -> None:
    """The pattern finds them, and what is below them."""
    found = list(blocks(PROJECT / "README.md"))
    assert len(found) >= 4
    assert all(block.output for block in found)


@pytest.mark.runc
@pytest.mark.parametrize("example", sorted((PROJECT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_runs(example: Path) -> None:
    """An example ends with status 0 and prints something; also if nobody types anything."""
    command = [sys.executable, str(example)]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=50)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


@pytest.mark.runc
def test_the_quickstart_tells_the_whole_story() -> None:
    """From the runtime's version to the deletion, in this order, and with the exit code that its program chose."""
    command = [sys.executable, str(PROJECT / "examples" / "quickstart.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    first = [line.split()[0] for line in said]
    assert first == [
        "runtime",
        "bundle",
        "it",
        "state",
        "exec",
        "processes",
        "stats",
        "it",
        "ended",
        "deleted",
    ]
    assert "it says   I was told to end" in said
    assert said[-1] == "deleted   containers left: 0"


def test_the_reference_is_up_to_date() -> None:
    """What `make docs` writes is what is there."""
    command = [sys.executable, str(PROJECT / "tools" / "reference.py")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == (PROJECT / "docs" / "reference.md").read_text(), "run make docs"


def test_the_design_names_every_module() -> None:
    """Each module of the package stands in one room of the page on design, and no other does."""
    page = (PROJECT / "docs" / "topics" / "design.md").read_text()
    rooms = [row.split("|")[2] for row in page.splitlines() if row.startswith("| ") and row.count("|") == 4]
    named = sorted(name for room in rooms[1:] for name in re.findall(r"`(\w+)/?`", room))
    modules = [path.stem for path in (PROJECT / "runc_async").glob("*") if path.suffix in {"", ".py"}]
    assert named == sorted(set(modules) - {"__init__", "__pycache__"})
