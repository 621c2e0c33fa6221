"""The table of runtime version against feature in docs/topics/runtimes.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "topics" / "runtimes.md"

_ROW = re.compile(r"^\| (?P<features>[^|]*`[^|]*) \| (?P<runc>[^|]+) \| (?P<crun>[^|]+) \|$", re.MULTILINE)
_SINCE = re.compile(r"[\d.]+(?= |$)")


def read(page: Path = PAGE) -> dict[str, dict[str, str]]:
    """Return what the page says of each feature, for each runtime; features are named as in `Runc.supports`."""
    table = page.read_text().partition("\n## Version against feature\n")[2].partition("\n## ")[0]
    return {
        feature: {"runc": row["runc"].strip(), "crun": row["crun"].strip()}
        for row in _ROW.finditer(table)
        for feature in _features(row["features"])
    }


def since(cell: str) -> tuple[int, ...] | None:
    """Tell from which version on a runtime has a feature: () for all, None for none.

    Raises:
        ValueError: If the page says it in more than a word.
    """
    if cell == "all":
        return ()
    if cell == "none":
        return None
    if match := _SINCE.match(cell):
        return tuple(map(int, match[0].split(".")))
    raise ValueError(cell)


def _features(cell: str) -> Iterator[str]:
    """Name the features of a row: `run --keep`, or `create`, `run` with `--pidfd-socket`."""
    before, joined, options = cell.partition(" with ")
    command = ""
    for words in re.findall(r"`([^`]+)`", before):
        if not words.startswith("--"):
            command = words.partition(" ")[0]
        feature = f"{command} {words}" if words.startswith("--") else words
        yield from (f"{feature} {option}" for option in re.findall(r"`([^`]+)`", options)) if joined else (feature,)
