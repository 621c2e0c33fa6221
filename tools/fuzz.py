#!/usr/bin/env python3
"""Fuzz what reads foreign bytes, guided by coverage: atheris, on the targets of tests/proof/fuzz_targets.py.

    tools/fuzz.py                     all targets, five minutes in all
    tools/fuzz.py --seconds 60        one minute in all
    tools/fuzz.py --target state      that one only; can be given several times
    tools/fuzz.py --replay FILE       once more what was found, without atheris

First a bug is planted, which has to be found. What makes a target raise, take more than ten seconds or a gigabyte is
kept in build/fuzz/found, in a file whose name begins with the target's. Inputs that reach new code are kept in
build/fuzz/corpus, and the next run begins with them.

Exit status: 0 if nothing was found, 1 if something was, 2 for a bad command line, 3 if the planted bug wasn't found.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "build" / "fuzz"
MEMORY = "/dev/shm"  # noqa: S108 - shm_overview(7); what is made there is private
PLANTED = "planted"

SECONDS = 300
PLANTED_SECONDS = 60
LONGEST_INPUT = 8192
TIME_LIMIT = 10
MEMORY_LIMIT = 1024

sys.path[:0] = [str(TOP / "tests" / "support"), str(TOP / "tests" / "proof")]
sys.path.insert(0, str(TOP))


class Run(NamedTuple):
    """What the fuzzing of one target has come to.

    Attributes:
        executed: How many inputs were tried.
        features: How many features of the code they have reached.
        found: The files with what it has found.
    """

    executed: int
    features: int
    found: list[Path]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, or replay; return the exit status."""
    options = parser().parse_args(arguments)
    if options.child:
        fuzz(options.child, options.place, options.arguments)
    if options.replay:
        return replay(options.replay)
    chosen = options.target or sorted(names())
    if unknown := set(chosen) - set(names()):
        parser().error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(sorted(names()))}")
    if importlib.util.find_spec("atheris") is None:
        parser().error("atheris is missing: python -m pip install --group fuzz")
    with tempfile.TemporaryDirectory() as scratch:
        if not child(PLANTED, PLANTED_SECONDS, Path(scratch)).found:
            print("the planted bug was not found: this says nothing")
            return 3
    return fuzz_all(chosen, max(1, options.seconds // len(chosen)))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description="Fuzz what reads foreign bytes, guided by coverage.")
    made.add_argument("--seconds", type=int, default=SECONDS, help=f"for all targets together ({SECONDS})")
    made.add_argument("--target", action="append", metavar="NAME", help="one of tests/proof/fuzz_targets.py (all)")
    made.add_argument("--replay", type=Path, metavar="FILE", help="something that was found")
    made.add_argument("--child", help=argparse.SUPPRESS)
    made.add_argument("--place", help=argparse.SUPPRESS)
    made.add_argument("arguments", nargs="*", help=argparse.SUPPRESS)
    return made


def names() -> Mapping[str, Any]:
    """Return the targets, by name."""
    from fuzz_targets import TARGETS  # noqa: PLC0415 - a child has to instrument the code before it is imported

    return TARGETS


def fuzz_all(chosen: Sequence[str], seconds: int) -> int:
    """Fuzz targets one by one, print a table, and return the exit status."""
    executed = 0
    found: list[Path] = []
    print(f"{'target':14} {'executed':>10} {'features':>9}  found")
    for name in chosen:
        run = child(name, seconds, BUILD)
        executed += run.executed
        found += run.found
        print(f"{name:14} {run.executed:>10,} {run.features:>9,}  {len(run.found) or 'nothing'}", flush=True)
    print(f"{'all':14} {executed:>10,} {'':>9}  {len(found) or 'nothing'}")
    for path in found:
        print(f"tools/fuzz.py --replay {path}")
    return 1 if found else 0


def child(name: str, seconds: int, build: Path) -> Run:
    """Fuzz one target in a process of its own, which ends with the first thing that it finds."""
    corpus, found = build / "corpus" / name, build / "found"
    seeds(name, corpus)
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as place:
        command = [
            *(sys.executable, __file__, "--child", name, "--place", place, "--"),
            *(f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT}", "-print_final_stats=1"),
            *(f"-timeout={TIME_LIMIT}", f"-rss_limit_mb={MEMORY_LIMIT}", f"-artifact_prefix={found}/{name}-"),
            str(corpus),
        ]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    new = sorted(set(found.iterdir()) - before)
    if ended.returncode and not new:
        raise RuntimeError(f"{name}: the fuzzer itself failed\n{ended.stdout}{ended.stderr}")
    if new and name != PLANTED:
        print(ended.stdout, ended.stderr[-4000:], sep="\n")
    return Run(last(r"number_of_executed_units: +(\d+)", ended.stderr), last(r"\bft: (\d+)", ended.stderr), new)


def seeds(name: str, corpus: Path) -> None:
    """Put a target's seeds into its corpus."""
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target(name).seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def last(pattern: str, text: str) -> int:
    """Return the last number in a text that a pattern finds; 0 without one."""
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def target(name: str) -> Any:
    """Return a target, the planted one among them."""
    from fuzz_targets import PLANTED as THE_PLANTED, TARGETS  # noqa: PLC0415 - as above

    return {**TARGETS, **THE_PLANTED}[name]


def fuzz(name: str, place: str, arguments: Sequence[str]) -> None:
    """Be the child, with a directory for files; never returns, and cleans nothing up."""
    atheris: Any = importlib.import_module("atheris")  # not installed where nobody fuzzes
    with atheris.instrument_imports(include=["runc_async"]):
        import fuzz_targets  # noqa: PLC0415 - as above
    check = target(name).check
    if name == PLANTED:
        check = atheris.instrument_func(check)
    fuzz_targets.PLACES.append(place)
    atheris.Setup([sys.argv[0], *arguments], check)
    atheris.Fuzz()


def replay(path: Path) -> int:
    """Give a target what was found, and show what it raises."""
    from fuzz_targets import PLANTED as THE_PLANTED, TARGETS, workplace  # noqa: PLC0415 - as above

    name = max((each for each in (*TARGETS, *THE_PLANTED) if path.name.startswith(f"{each}-")), key=len, default=None)
    if name is None:
        parser().error(f"the name of {path} doesn't begin with that of a target")
    with workplace():
        try:
            target(name).check(path.read_bytes())
        except Exception:  # noqa: BLE001 - whatever it is
            traceback.print_exc()
            return 1
    print(f"{name} takes it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
