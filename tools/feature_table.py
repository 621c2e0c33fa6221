#!/usr/bin/env python3
"""Write the README's table of runtime against feature, between its two comments. `make docs` does it.

The versions come from the tables that the client itself asks (`runc_async/_runtimes`). The tests hold the longer table
of docs/topics/runtimes.md to the same tables.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from runc_async._runtimes.crun import AFTER_DEBIAN_12
from runc_async._runtimes.known import DIALECTS
from runc_async._runtimes.runsc import AFTER_DEBIAN_13

README = Path(__file__).resolve().parents[1] / "README.md"

BEGIN = "<!-- Written by `make docs`: the table of features. -->\n"
END = "<!-- The end of the table of features. -->\n"

RUNTIMES = ("runc", "crun", "runsc")

ROWS: dict[str, tuple[str, ...]] = {
    "`create`, `start`, `run`, `exec`, `kill`, `delete`": ("create", "start", "run", "exec", "kill", "delete"),
    "`pause`, `resume`, `state`, `list`, `ps`": ("pause", "resume", "state", "list", "ps"),
    "`update`": ("update",),
    "`events`, `stats`": ("events",),
    "`features`": ("features",),
    "upload, download and archives": ("files",),
    "`exec` with a terminal": ("exec --tty",),
    "`create` with more descriptors": ("create --preserve-fds",),
    "`create`, `run`, `exec` with a pidfd": ("create --pidfd-socket", "run --pidfd-socket", "exec --pidfd-socket"),
    "`run --keep`": ("run --keep",),
    "`exec --cgroup`": ("exec --cgroup",),
    "`exec --ignore-paused`": ("exec --ignore-paused",),
    "`checkpoint`, `restore`": ("checkpoint", "restore"),
    "`checkpoint` with lazy pages or a page server": ("checkpoint --lazy-pages", "checkpoint --page-server"),
}
"""The rows: a title, and the features, as named in `Dialect.features`. All features of a row came in one version."""

WORDS: dict[tuple[int, ...] | None, str] = {
    None: "none",
    (): "all",
    AFTER_DEBIAN_12: "1.21",
    AFTER_DEBIAN_13: "after 2024-07-29",
}
"""Cells that aren't a version's numbers. crun was tried in 1.8.1 and then in 1.21."""


def cell(runtime: str, features: Iterable[str]) -> str:
    """Return from which version on a runtime has all of these features: as docs/topics/runtimes.md writes it.

    Raises:
        ValueError: If the features of the row differ.
    """
    (since,) = {DIALECTS[runtime].features.get(feature, ()) for feature in features}
    return WORDS[since] if since in WORDS else ".".join(map(str, since or ()))


def table() -> str:
    """Return the lines of the table."""
    rows = [["feature", *RUNTIMES], ["---"] * (len(RUNTIMES) + 1)]
    rows += [[title, *(cell(runtime, features) for runtime in RUNTIMES)] for title, features in ROWS.items()]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page(readme: str) -> str:
    """Return the README's text with the table of today in its place."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    sys.stdout.write(page(README.read_text()))
