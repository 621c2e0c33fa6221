"""The prose of pages and docstrings: nouns rather than pronouns, whose meaning a reader would have to look for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from markdown_it import MarkdownIt

PROJECT: Final = Path(__file__).parents[2]
PAGES: Final = [
    *PROJECT.glob("*.md"),
    *(page for page in PROJECT.glob("docs/**/*.md") if page.parent.name != "reference" or page.name != "index.md"),
]
ROOMS: Final = sorted({path.parent for path in PROJECT.glob("runc_async/**/*.py")})

WORD: Final = re.compile(r"[a-z]+(?:'[a-z]+)?")
PRONOUNS: Final = frozenset(
    WORD.findall("""
        it its itself this that these those they them their theirs themselves he him his himself she her hers herself
        we us our ours ourselves who whom whose which what whatever whoever one ones oneself others nobody somebody
        anybody everybody someone anyone everyone something anything nothing everything
    """)
)
LIMIT: Final = 5
"""Pronouns in 100 words, "that" as a conjunction and "one" as a number among them."""

SHORT: Final = 50
"""Words below which a share says nothing."""


def markdown(text: str) -> Iterator[str]:
    """Yield the prose of a page: no code, no targets of links."""
    for token in MarkdownIt().enable("table").parse(text):
        for part in token.children or ():
            if part.type == "text":
                yield re.sub(r"https?://\S+|\{[a-z:]+\}", "", part.content)


def docstrings(room: Path) -> Iterator[str]:
    """Yield the docstrings of the modules in a folder."""
    for path in room.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield re.sub(r"`[^`]*`", "", ast.get_docstring(node) or "")


def share(texts: Iterator[str]) -> float:
    """Return the number of pronouns in 100 words; 0 for a short text."""
    words = WORD.findall(" ".join(texts).lower())
    pronouns = sum(word.partition("'")[0] in PRONOUNS for word in words)
    return 100 * pronouns / len(words) if len(words) >= SHORT else 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_pages_name_things(page: Path) -> None:
    """A page has at most 5 pronouns in 100 words."""
    assert share(markdown(page.read_text())) <= LIMIT


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: str(room.relative_to(PROJECT)))
def test_docstrings_name_things(room: Path) -> None:
    """The docstrings of a folder have at most 5 pronouns in 100 words."""
    assert share(docstrings(room)) <= LIMIT


def test_prose_is_counted() -> None:
    """Code, links and addresses don't count, and contractions do."""
    words = " ".join(["word"] * SHORT)
    assert share(iter([words])) == 0
    assert share(markdown(f"{words}\n\n`it` [word](it.md) <https://it.that>\n\n```\nit\n```\n")) == 0
    assert share(iter([f"{words} It's that."])) == pytest.approx(100 * 2 / (SHORT + 2))
