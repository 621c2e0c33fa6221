"""The code of the README, of docs/ and of docstrings: where it is, how it is run, and what it should print."""

from __future__ import annotations

import ast
import asyncio
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

import runc_async

PROJECT = Path(__file__).parents[2]
PAGES = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    PROJECT / "CHANGELOG.md",
    PROJECT / "SECURITY.md",
    *sorted((PROJECT / "docs").rglob("*.md")),
    *sorted((PROJECT / "examples").rglob("*.md")),
]

BLOCK = re.compile(
    r"^```(?P<kind>python|py)\n(?P<code>.*?)^```$(?:\n+^```text\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE
)
SHELL = re.compile(r"^```sh\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
SAVED = re.compile(r"^Save it as `(?P<name>\w+)\.py`\..*?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
LITERAL = re.compile(r"::\n\n(?P<code>(?:(?: {4,}.*)?\n)+)")


class Block(NamedTuple):
    """A block of Python, and what it should print: on a page the block of text below it; None if that isn't said."""

    path: Path
    line: int
    code: str
    output: str | None
    kind: str = "python"

    def __str__(self) -> str:
        """Show as in the ids of the tests."""
        return f"{self.path.relative_to(PROJECT)}:{self.line}"


def blocks(page: Path, kind: str = "python") -> list[Block]:
    """Return the blocks of a page; those of the kind "py" are run by a test of their own."""
    text = page.read_text()
    found = (
        Block(page, text.count("\n", 0, match.start()) + 1, match["code"], match["output"], match["kind"])
        for match in BLOCK.finditer(text)
    )
    return [block for block in found if block.kind == kind]


def kinds(page: Path) -> list[str]:
    """Return the first word behind the fence of each block on a page, as Markdown sees it; "" where it has none.

    A block that is only indented has no fence, and so no such word.
    """
    tokens = MarkdownIt().parse(page.read_text())
    return [token.info.partition(" ")[0] for token in tokens if token.type in {"fence", "code_block"}]


def commands(page: Path) -> list[str]:
    """Return the commands for a shell on a page, each in one line and without its comment."""
    text = "".join(match["code"] for match in SHELL.finditer(page.read_text()))
    return [line.partition("  #")[0].strip() for line in text.replace("\\\n", "").splitlines()]


@cache
def saved() -> dict[str, str]:
    """Return the programs that pages tell to save, by the name of their module."""
    return {match["name"]: match["code"] for page in PAGES for match in SAVED.finditer(page.read_text())}


def docstring_blocks() -> Iterator[Block]:
    """Yield the examples in docstrings: literal blocks, whose output is written behind each `print` as a comment."""
    for info in pkgutil.walk_packages(runc_async.__path__, "runc_async."):
        module = import_module(info.name) if not info.name.endswith("__main__") else runc_async
        path = Path(inspect.getsourcefile(module) or "")
        text = path.read_text()
        if not re.search(r"::\n\s*\n", text):
            continue  # a module without a literal block: to parse all of them takes a second
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for match in LITERAL.finditer((ast.get_docstring(node) or "") + "\n"):
                code = textwrap.dedent(match["code"])
                said = re.findall(r"print\(.*\)  # (.*)", code)
                yield Block(path, getattr(node, "lineno", 1), code, "\n".join(said) if said else None)


def run(block: Block) -> None:
    """Run a block as a program; one with an `await` outside of functions in an event loop of its own."""
    code = compile("\n" * block.line + block.code, block.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names: dict[str, object] = {"__name__": "__main__"}
    if block.path.suffix == ".py":
        for place in ("runc_async", "runc_async.testing", *(["runc_async.spec"] * ("spec" in block.path.parts))):
            exec(f"from {place} import *", names)  # noqa: S102 - what a reader of a docstring has in mind
    result = eval(code, names)  # noqa: S307 - our own pages
    if inspect.iscoroutine(result):
        asyncio.run(result)
