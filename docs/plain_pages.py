"""The pages as Markdown beside the HTML, and llms.txt, which lists them: for language models and other programs.

A page of the reference gets the signatures and docstrings in the place of Sphinx's directives.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import signatures

SECTIONS = ("tutorial", "howto", "topics", "reference")

_DIRECTIVES = re.compile(r"^```\{eval-rst\}\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"^\.\. auto(\w+):: (\S+)\n((?:   .*\n)*)", re.MULTILINE)
_TOCTREE = re.compile(r"^```\{toctree\}\n.*?^```$\n*", re.DOTALL | re.MULTILINE)
_INCLUDE = re.compile(r"^```\{include\} (\S+)\n(?::.*\n)*```$\n?", re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"(.+?\.)(?:\s|$)", re.DOTALL)
_CONCURRENCY = re.compile(r"(max_concurrency: int \| None) = \d+")
_QUOTED = re.compile(r"((?:\w: |-> ))(['\"])(.*?)\2(?=[,) ]|$)")


def write(source: Path, target: Path) -> None:
    """Write all pages, and llms.txt, into the directory of a built site."""
    pages = sorted(source.rglob("*.md"))
    texts = {page.relative_to(source): plain(page) for page in pages}
    for page, text in texts.items():
        (target / page).parent.mkdir(parents=True, exist_ok=True)
        (target / page).write_text(text)
    (target / "llms.txt").write_text("\n".join(overview(texts)) + "\n")


def plain(page: Path) -> str:
    """Return a page without directives."""
    text = _INCLUDE.sub(lambda match: (page.parent / match[1]).read_text(), page.read_text())
    return _TOCTREE.sub("", _DIRECTIVES.sub(lambda match: "\n\n".join(entries(match[1])) + "\n", text))


def entries(directives: str) -> Iterator[str]:
    """Yield the entries that Sphinx's directives stand for."""
    for kind, name, options in _ENTRY.findall(directives + "\n"):
        value = find(name)
        yield entry(name, value)
        if kind in {"class", "exception"} and ":members:" in options and isinstance(value, type):
            for member, found in vars(value).items():
                if not member.startswith("_") and (callable(found) or isinstance(found, property)):
                    yield entry(f"{name}.{member}", getattr(value, member))


def find(name: str) -> object:
    """Return what has a dotted name."""
    words = name.split(".")
    for end in range(len(words), 0, -1):
        try:
            value: object = importlib.import_module(".".join(words[:end]))
        except ImportError:
            continue
        for word in words[end:]:
            value = getattr(value, word)
        return value
    raise LookupError(name)


def entry(name: str, value: object) -> str:
    """Return the name, the signature and the docstring of one entry."""
    shown = ""
    if callable(value):
        try:
            shown = _QUOTED.sub(r"\1\3", str(inspect.signature(value)))
        except (TypeError, ValueError):
            shown = ""
        shown = _CONCURRENCY.sub(r"\1 = 8 * cpus", signatures.with_numbers(shown, value))
    return f"### `{name}{shown}`\n\n{inspect.getdoc(value) or ''}".rstrip()


def overview(texts: dict[Path, str]) -> Iterator[str]:
    """Yield the lines of llms.txt: https://llmstxt.org."""
    index = texts[Path("index.md")]
    yield f"# {title(index)}"
    yield ""
    yield f"> {first_sentence(index)}"
    for section in SECTIONS:
        yield ""
        yield f"## {title(texts[Path(section, 'index.md')])}"
        yield ""
        for page, text in texts.items():
            if page.parts[0] == section and page.name != "index.md":
                yield f"- [{title(text)}]({page}): {first_sentence(text)}"


def title(text: str) -> str:
    """Return the first heading of a page."""
    return text.partition("# ")[2].partition("\n")[0]


def first_sentence(text: str) -> str:
    """Return the first sentence behind the heading, in one line."""
    prose = _FENCED.sub("", text.partition("# ")[2].partition("\n")[2])
    paragraphs = prose.strip().split("\n\n")
    first = next((each for each in paragraphs if not each.startswith(("#", "`", "|", "-", "![", "<", ":"))), "")
    match = _SENTENCE.match(first)
    return _LINK.sub(r"\1", " ".join((match[1] if match else first).split()))
