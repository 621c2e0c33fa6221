#!/usr/bin/env python3
"""Draw docs/topics/rooms.svg: the rooms of the package, and which imports which. `make docs` does it.

ROOMS is the order of imports, and the only list of it: a test holds the package to it (tests/project/test_rooms.py).
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

PACKAGE = Path(__file__).resolve().parents[1] / "runc_async"

ROOMS: dict[str, str] = {
    "values": "_error _shield _text _unicode change endreason errors event exitstatus features figures ignored limits"
    " response rootfs state stats stdio swept top usage",
    "spec": "spec",
    "_linux": "_linux",
    "_streams": "_streams",
    "seam": "console runner testing",
    "_runtimes": "_runtimes",
    "_answers": "_answers",
    "_bundles": "_bundles",
    "_commands": "_commands",
    "_containers": "_containers",
    "_process": "_process",
    "_files": "_files",
    "_events": "_events",
    "_host": "_host",
    "handles": "bundle changes containerprocess events merge statsreader",
    "_client": "_client",
    "client": "client container runtimes",
    "pool": "_pool pool",
    "doctor": "__main__ _doctor _survey",
    "keeper": "keeper",
    "extras": "dask opentelemetry prometheus",
}
"""Each room with the folders and the modules at the root of the package that are in it, from the bottom to the top.

A module imports its own room, and rooms of earlier lines of this table.
"""

_ROOM_OF = {part: room for room, parts in ROOMS.items() for part in parts.split()}


def modules() -> dict[str, Path]:
    """Return the modules of the package by their names, such as `_linux.pidfd`; a folder's own is `_linux`."""
    paths = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(parts).removesuffix("__init__").rstrip("."): path for path, parts in paths.items()}


def room_of(module: str) -> str:
    """Return the room that a module is in.

    Raises:
        KeyError: If ROOMS doesn't have it.
    """
    return _ROOM_OF[module.partition(".")[0]]


@cache
def imports() -> dict[str, set[str]]:
    """Return which modules of the package each one imports, in functions and for type checkers too.

    The package itself is left out: it imports nothing before a name is asked for.
    """
    known = modules()
    return {module: set(_imported(module, path, known)) - {"", module} for module, path in known.items() if module}


def _imported(module: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that one imports."""
    place = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = [PACKAGE.name, *place[: len(place) - node.level + 1]] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, inside = name.partition(".")
            if package == PACKAGE.name:
                yield inside if inside in known else inside.rpartition(".")[0]


def arrows() -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    found: dict[str, set[str]] = {room: set() for room in ROOMS}
    for module, used in imports().items():
        found[room_of(module)] |= {room_of(other) for other in used} - {room_of(module)}
    return {room: used for room, used in found.items() if any(part in _parts() for part in ROOMS[room].split())}


def _parts() -> set[str]:
    """Return the folders and the modules at the root that there are."""
    return {module.partition(".")[0] for module in modules()}


# --- the picture

Cell: TypeAlias = str | tuple[str, str, int]
"""A room, or the place where an arrow between two passes the row of that number."""

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 118, 34, 20, 32, 14

STYLE = """\
    text { font: 14px ui-monospace, monospace; text-anchor: middle; dominant-baseline: middle; fill: #1c1c1c }
    .open { fill: #fdeec6; stroke: #b08d3c; stroke-width: 1.5 }
    .private { fill: #dbe9fb; stroke: #5b7fb0; stroke-width: 1.5 }
    .line { fill: none; stroke: #7a7a7a; stroke-width: 1.4; marker-end: url(#arrow) }
"""


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out each arrow that a longer way stands for."""
    reach: dict[str, set[str]] = {}
    for room in ROOMS:
        used = graph.get(room, set())
        reach[room] = used.union(*(reach[other] for other in used))
    return {room: used - set().union(*(reach[other] for other in used)) for room, used in graph.items()}


def picture() -> str:
    """Return the picture as SVG: each room above all that it imports."""
    graph = reduced(arrows())
    level: dict[str, int] = {}
    for room in ROOMS:
        if room in graph:
            level[room] = 1 + max((level[other] for other in graph[room]), default=-1)
    rows = _rows(graph, level)
    width = max(map(len, rows)) * (WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    height = len(rows) * (HEIGHT + GAP_Y) - GAP_Y + 2 * MARGIN
    place: dict[Cell, tuple[int, int]] = {}
    for number, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP_X) + GAP_X) // 2
        for column, cell in enumerate(row):
            place[cell] = left + column * (WIDTH + GAP_X) + WIDTH // 2, MARGIN + number * (HEIGHT + GAP_Y)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img"',
        f'  viewBox="0 0 {width} {height}">',
        "  <title>The rooms of the package; each imports those that its arrows lead to, and what they import</title>",
        "  <!-- Written by tools/rooms.py. -->",
        f"  <style>\n{STYLE}  </style>",
        "  <defs>",
        '    <marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">',
        '      <path d="M0 0 10 5 0 10z" fill="#7a7a7a"/></marker></defs>',
    ]
    for room, used in graph.items():
        for other in sorted(used, key=list(ROOMS).index):
            between: list[Cell] = [(room, other, number) for number in range(level[room] - 1, level[other], -1)]
            lines.append(_line([place[cell] for cell in (room, *between, other)]))
    lines += [_box(room, *place[room]) for room in graph]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _rows(graph: dict[str, set[str]], level: dict[str, int]) -> list[list[Cell]]:
    """Return the rows from the top. An arrow that passes a row has an empty cell there, so it crosses no box.

    A cell stands below the middle of the cells that lead to it.
    """
    rows: list[list[Cell]] = [[] for _ in range(max(level.values()) + 1)]
    above: dict[Cell, list[Cell]] = {}
    for room in reversed(ROOMS):
        if room not in graph:
            continue
        rows[level[room]].append(room)
        for other in sorted(graph[room]):
            last: Cell = room
            for number in range(level[room] - 1, level[other], -1):
                cell = (room, other, number)
                rows[number].append(cell)
                above[cell] = [last]
                last = cell
            above.setdefault(other, []).append(last)
    middle: dict[Cell, float] = {}
    for row in reversed(rows):
        row.sort(key=lambda cell: sum(middle[last] for last in above.get(cell, ())) / len(above.get(cell, (1,))))
        middle |= {cell: number - (len(row) - 1) / 2 for number, cell in enumerate(row)}
    return rows[::-1]


def _line(points: list[tuple[int, int]]) -> str:
    """Return the arrow from one box down to another, by way of cells that it passes."""
    (x, y), *others = points
    y += HEIGHT
    path = f"M{x} {y}"
    for number, (next_x, next_y) in enumerate(others, 1):
        last = number == len(others)
        end = next_y - 2 if last else next_y
        bend = (end - y) // 2
        path += f" C{x} {y + bend} {next_x} {end - bend} {next_x} {end}"
        if not last:
            path += f" V{next_y + HEIGHT}"
        x, y = next_x, next_y + HEIGHT
    return f'  <path class="line" d="{path}"/>'


def _box(room: str, middle: int, y: int) -> str:
    """Return the box of a room; a folder ends with a slash."""
    name = f"{room}/" if (PACKAGE / room).is_dir() else room
    kind = "private" if room.startswith("_") else "open"
    box = f'  <rect class="{kind}" x="{middle - WIDTH // 2}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7"/>'
    return f'{box}\n  <text x="{middle}" y="{y + HEIGHT // 2}">{name}</text>'


if __name__ == "__main__":
    sys.stdout.write(picture())
