"""Show rows: as a table, as JSON, as a plot."""

from __future__ import annotations

import importlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.harness import Kind, Row

UNITS: dict[Kind, str] = {"wall": "time", "cpu": "own CPU", "memory": "memory"}
HEADER = ("what", "figure", "runc_async", "peer", "its figure", "ratio", "bar", "")


def table(rows: Sequence[Row]) -> str:
    """Show rows as a table in Markdown, with columns that are aligned."""
    cells = [HEADER, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADER))]
    shown = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    ruler = " | ".join("-" * max(width, 3) for width in widths)
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(f"{row.name} ({UNITS[row.kind]}) / {row.peer}")
    lines = [f"| {line} |" for line in (shown[0], ruler, *shown[1:])]
    return "\n".join(lines + [f"\n{'; '.join(names)}: {note}." for note, names in notes.items()])


def _cells(row: Row) -> tuple[str, ...]:
    theirs = "not here" if row.theirs is None else figure(row.theirs, row.kind)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    bar = "" if row.bar is None else f"{'≥' if row.bar.speed else '≤'} {row.bar.limit:.2f}"
    verdict = {True: "ok", False: "missed", None: ""}[row.reached]
    return row.name, UNITS[row.kind], figure(row.ours, row.kind), row.peer, theirs, ratio, bar, verdict


def figure(value: float, kind: Kind) -> str:
    """Show a figure with its unit."""
    if kind == "memory":
        return f"{value / 1024:.1f} KiB"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.2f} {unit}"
    return f"{value * 1e9:.0f} ns"


def machine() -> str:
    """Say what it was measured on."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, Linux {platform.release()}, Python {platform.python_version()}"


def write_json(rows: Sequence[Row], path: Path) -> None:
    """Write rows, and the machine, as JSON."""
    document = {"machine": machine(), "rows": rows}
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def plots() -> Any:
    """Load matplotlib, for files alone: a second that those who want no plot needn't wait."""
    importlib.import_module("matplotlib").use("agg")
    return importlib.import_module("matplotlib.pyplot")


def write_plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the costs of all rows as multiples of the peers'."""
    plt = plots()
    shown = [(row, row.ours / row.theirs) for row in rows if row.theirs]
    labels = [f"{row.name} ({UNITS[row.kind]}) / {row.peer}" for row, _ in shown]
    colours = ["tab:red" if row.reached is False else "tab:blue" for row, _ in shown]
    picture, axes = plt.subplots(figsize=(10, 0.28 * len(shown) + 1.2), layout="constrained")
    axes.barh(labels, [cost for _, cost in shown], color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel=f"cost of runc_async as a multiple of the peer's ({machine()})")
    axes.invert_yaxis()
    picture.savefig(path, dpi=80)
    plt.close(picture)
