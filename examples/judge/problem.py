"""What is judged: a problem with its tests and limits, and submissions to it."""

from __future__ import annotations

from pathlib import Path

import msgspec

MIB = 1 << 20

LANGUAGES = {".py": ("python3", "-IS"), ".sh": ("sh",)}
"""The programs that run a submission, by the ending of its name."""


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What a submission may use for one test.

    Attributes:
        wall: Seconds.
        cpu: Seconds of CPU time.
        memory: Bytes of memory; files that it writes are in it. There is no swap.
        output: Bytes of stdout, and of stderr.
        processes: Processes and threads at a time, the container's init among them.
        scratch: Bytes of files in /tmp, the only place where it can write.
    """

    wall: float = 2.0
    cpu: float = 1.0
    memory: int = 64 * MIB
    output: int = 64 << 10
    processes: int = 16
    scratch: int = 16 * MIB


class Case(msgspec.Struct, frozen=True):
    """One test: what goes in, and what has to come out."""

    name: str
    input: bytes
    expected: bytes


class Problem(msgspec.Struct, frozen=True):
    """A problem: its tests, in order, and what may be used for each."""

    name: str
    cases: tuple[Case, ...]
    allowance: Allowance = Allowance()


class Submission(msgspec.Struct, frozen=True):
    """A program that somebody has handed in: the file's name tells the language."""

    name: str
    source: bytes

    @property
    def command(self) -> tuple[str, ...]:
        """The command that runs it in its container."""
        return (*LANGUAGES[Path(self.name).suffix], f"/box/{self.name}")


def load_problem(directory: Path) -> Problem:
    """Load a problem: `problem.json` with its allowance, and `tests/NAME.in` with `tests/NAME.out`.

    Raises:
        OSError: If a file is missing.
        msgspec.DecodeError: If `problem.json` isn't valid.
    """
    allowance = msgspec.json.decode((directory / "problem.json").read_bytes(), type=Allowance)
    cases = tuple(
        Case(path.stem, path.read_bytes(), path.with_suffix(".out").read_bytes())
        for path in sorted((directory / "tests").glob("*.in"))
    )
    return Problem(directory.name, cases, allowance)


def load_submissions(directory: Path) -> list[Submission]:
    """Load the submissions in a directory, in the order of their names."""
    files = sorted(path for path in directory.iterdir() if path.suffix in LANGUAGES)
    return [Submission(path.name, path.read_bytes()) for path in files]
