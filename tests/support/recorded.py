"""The answers of real runtimes that were recorded: see data/recorded/README.md."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

FOLDER = Path(__file__).parents[1] / "data" / "recorded"
RUNTIMES: tuple[str, ...] = tuple(sorted(path.stem for path in FOLDER.glob("*.jsonl")))
NO_LOG = "(no log file)"

Form: TypeAlias = Literal["text", "json", "logtext", "logjson"]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a runtime.

    Attributes:
        runtime: The file's name, such as `runc-1.3.6-v1`.
        case: The name of the run, with its form if it has one.
        cmd: The command line.
        rc: The exit code, -n for signal n, or "timeout" for a runtime that had to be stopped.
        stdout: What it printed.
        stderr: Likewise.
        log: What it wrote to the file given to `--log`; None if it wasn't given one, `NO_LOG` if it made none.
        note: When the lines of an event stream came.
        stdin: What it was given to read.
        ms: How long it took, in milliseconds.
    """

    runtime: str
    case: str
    cmd: str
    rc: int | Literal["timeout"]
    stdout: str
    stderr: str
    log: str | None
    note: str | None
    stdin: str | None
    ms: int

    @property
    def name(self) -> str:
        """The name without the form: all forms of one failure share it."""
        return self.case.rpartition(".")[0] if self.form else self.case

    @property
    def form(self) -> Form | None:
        """How the runtime was told to log, if the run is one of four."""
        ending = self.case.rpartition(".")[2]
        return next((form for form in ("text", "json", "logtext", "logjson") if form == ending), None)

    @property
    def logged(self) -> bytes:
        """The contents of the log file; empty if there was none, or if the runtime wrote none."""
        return b"" if self.log == NO_LOG else raw(self.log)

    @property
    def id(self) -> str:
        """A name for a test's parameter."""
        return f"{self.runtime}:{self.case}"


def raw(text: str | None) -> bytes:
    """Return the bytes that were recorded as this text: what wasn't UTF-8 stands there as lone surrogates."""
    return (text or "").encode(errors="surrogateescape")


@cache
def _read(runtime: str) -> tuple[Case, ...]:
    """Read one file."""
    lines = (FOLDER / f"{runtime}.jsonl").read_bytes().splitlines()
    return tuple(msgspec.convert(json.loads(line) | {"runtime": runtime}, Case) for line in lines)


def cases(runtime: str = "*", case: str = "*", *, form: Form | None = None) -> tuple[Case, ...]:
    """Return the runs whose runtime and case match the patterns (fnmatch), in the order of the recording.

    Args:
        runtime: A pattern for the file's name, such as `runc-*-v1`.
        case: A pattern for the name of the run without its form, such as `fail/exec-*`.
        form: Only runs of this form, if given.
    """
    return tuple(
        run
        for name in RUNTIMES
        if fnmatchcase(name, runtime)
        for run in _read(name)
        if fnmatchcase(run.name, case) and form in {None, run.form}
    )
