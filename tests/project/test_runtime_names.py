"""The names of runtimes in the package: where its code asks for one."""

from __future__ import annotations

import re
import tokenize
from pathlib import Path
from typing import TYPE_CHECKING

from runc_async._runtimes.known import DIALECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[2] / "runc_async"
PUBLIC = PACKAGE / "runtimes.py"
"""The module of the public classes, one for each runtime with options of its own."""

NAMES = re.compile("|".join(sorted(DIALECTS.keys() - {"runc"})))
BETWEEN = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENCODING}


def naming(path: Path) -> Iterator[int]:
    """Yield the lines of a module whose code names a runtime: not its comments, and no text that stands for itself."""
    begins = True
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            docstring = begins and token.type == tokenize.STRING
            if token.type != tokenize.COMMENT and not docstring and NAMES.search(token.string):
                yield token.start[0]
            begins = token.type in BETWEEN


def test_no_code_asks_for_a_runtime_by_name() -> None:
    """What differs between runtimes stands in `_runtimes/`; elsewhere only the two public classes name one."""
    modules = [path for path in PACKAGE.rglob("*.py") if path != PUBLIC and path.parent.name != "_runtimes"]
    assert len(modules) > 100
    assert [f"{path}:{line}" for path in modules for line in naming(path)] == []


def test_a_name_in_code_is_found(tmp_path: Path) -> None:
    """In a string, an import and an expression, and not in a comment or a docstring."""
    module = tmp_path / "module.py"
    lines = (
        '"""Of runsc."""',
        "from x.crun import y  # as crun",
        'z = y == "runsc"',
        "def f():",
        '    """Crun, crun."""',
    )
    module.write_text("\n".join(lines))
    assert list(naming(module)) == [2, 3]
