"""The page of results: a table, and a plot of time and memory by submission. One file, with nothing to load."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .problem import MIB, Problem
from .verdict import Result, Verdict

COLORS = {
    Verdict.AC: "#1a7f37",
    Verdict.WA: "#cf222e",
    Verdict.TLE: "#bf8700",
    Verdict.MLE: "#8250df",
    Verdict.OLE: "#0969da",
    Verdict.RE: "#57606a",
}
BAR, ROW, LABEL, AXIS = 260, 16, 190, 24
"""Sizes of the plot in pixels: the longest bar, the height of a submission, the width of its name, the axis."""

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
table { border-collapse: collapse; width: 100% }
th, td { padding: .2em .6em; text-align: right; border-bottom: 1px solid #d0d7de }
th:first-child, td:first-child, td.verdict { text-align: left }
td.verdict { font-weight: 600 }
svg { width: 100%; height: auto } svg text { font: 11px system-ui, sans-serif }
"""


def page(problem: Problem, results: Sequence[Result]) -> str:
    """Return the page as HTML."""
    counts = ", ".join(f"{sum(result.verdict is verdict for result in results)} {verdict.name}" for verdict in Verdict)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(problem.name)}</title>'
        f"<style>{STYLE}</style><h1>{escape(problem.name)}</h1><p>{len(results)} submissions: {counts}.</p>"
        f"{_plot(problem, results)}{_table(results)}</html>\n"
    )


def _table(results: Sequence[Result]) -> str:
    """Return the results as a table."""
    names = ("submission", "verdict", "test", "passed", "time", "CPU time", "memory", "exit code")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, results))}</tbody></table>"


def _row(result: Result) -> str:
    """Return one row; what isn't known is a dash."""
    cells = (
        result.case or "-",
        str(result.passed),
        _shown(result.seconds, 1, "s", 2),
        _shown(result.cpu_seconds, 1, "s", 3),
        _shown(result.memory, MIB, "MiB", 1),
        "-" if result.exit_code is None else str(result.exit_code),
    )
    verdict = f'<td class="verdict" style="color:{COLORS[result.verdict]}">{result.verdict.name}: {result.verdict}</td>'
    others = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><td>{escape(result.submission)}</td>{verdict}{others}</tr>"


def _shown(value: float | None, unit: float, name: str, digits: int) -> str:
    """Return a value with its unit."""
    return "-" if value is None else f"{value / unit:.{digits}f} {name}"


def _plot(problem: Problem, results: Sequence[Result]) -> str:
    """Return bars of the time and of the memory of each submission, beside the limits."""
    seconds, mebibytes = problem.allowance.wall, problem.allowance.memory / MIB
    height = AXIS + ROW * len(results)
    parts: list[str] = []
    for column, (title, limit) in enumerate(((f"time, limit {seconds:g} s", seconds), ("", mebibytes))):
        left = LABEL + column * (BAR + 60)
        text = title or f"memory, limit {mebibytes:g} MiB"
        parts.append(f'<text x="{left}" y="12">{text}</text>')
        parts.append(
            f'<line x1="{left + BAR}" y1="{AXIS - 6}" x2="{left + BAR}" y2="{height}" stroke="#57606a"'
            ' stroke-dasharray="3 3"/>'
        )
        for number, result in enumerate(results):
            used = result.seconds if column == 0 else result.memory and result.memory / MIB
            if used is not None:
                width = min(used / limit, 1.15) * BAR
                parts.append(
                    f'<rect x="{left}" y="{AXIS + ROW * number + 2}" width="{width:.1f}" height="{ROW - 4}"'
                    f' fill="{COLORS[result.verdict]}"><title>{escape(result.submission)}: {used:.3g}</title></rect>'
                )
    for number, result in enumerate(results):
        name = escape(result.submission[:28])
        parts.append(f'<text x="{LABEL - 6}" y="{AXIS + ROW * number + 12}" text-anchor="end">{name}</text>')
    label = "time and memory by submission"
    return f'<svg viewBox="0 0 {LABEL + 2 * BAR + 120} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
