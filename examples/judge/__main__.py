"""Judge the submissions in a directory: python -m judge, as root, in the directory that holds it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator
from pathlib import Path

from runc_async import Runc

from .machine import Run, run
from .page import page
from .problem import load_problem, load_submissions
from .verdict import Result, judge_all

HERE = Path(__file__).parent


def say(result: Result) -> None:
    """Print a result as it comes."""
    seconds = "?" if result.cpu_seconds is None else f"{result.cpu_seconds:.3f} s"
    print(f"{result.verdict.name:4}{result.submission:28}{seconds:>10}", flush=True)


@contextlib.asynccontextmanager
async def machine(options: argparse.Namespace) -> AsyncGenerator[Run]:
    """Yield what runs the submissions: this machine, or a fleet."""
    if not options.fleet:
        yield functools.partial(run, Runc(options.runtime, root=options.root))
        return
    from .fleet import two_workers  # noqa: PLC0415 - only this needs Dask

    async with two_workers(options.runtime, options.root, at_once=options.at_once) as run_there:
        yield run_there


async def main(options: argparse.Namespace) -> None:
    """Judge all, and write the page."""
    problem, submissions = load_problem(options.problem), load_submissions(options.submissions)
    async with machine(options) as run_one:
        results = await judge_all(run_one, problem, submissions * options.repeat, at_once=options.at_once, report=say)
    options.page.write_text(page(problem, results), encoding="utf-8")
    print(options.page)


parser = argparse.ArgumentParser(prog="python -m judge", description=__doc__)
parser.add_argument("--problem", type=Path, default=HERE / "problems" / "sum", help="directory of the problem")
parser.add_argument("--submissions", type=Path, default=HERE / "submissions", help="directory of the submissions")
parser.add_argument("--page", type=Path, default=Path("results.html"), help="where the results are written")
parser.add_argument("--at-once", type=int, default=4, help="how many are judged at a time")
parser.add_argument("--repeat", type=int, default=1, help="how often each is judged")
parser.add_argument("--runtime", default="runc", help="the runtime")
parser.add_argument("--root", help="the runtime's root directory")
parser.add_argument("--fleet", action="store_true", help="run them on two workers of a Dask cluster")
if __name__ == "__main__":
    asyncio.run(main(parser.parse_args()))
