"""examples/judge: each verdict is right, whatever the submissions do, and nothing is left."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import leaks
import msgspec
import proof
import pytest

from examples.judge import fleet
from examples.judge.machine import run
from examples.judge.page import page
from examples.judge.problem import MIB, Case, load_problem, load_submissions
from examples.judge.verdict import Result, Verdict, judge_all, judge_response
from runc_async import Bundle, EndReason, Response, Usage
from runc_async.rootfs import Host

if TYPE_CHECKING:
    from runtime import Runtime

    from runc_async.client import Runc
    from runc_async.dask import Fleet, Recipe

PROJECT = Path(__file__).parents[2]

PROBLEM = load_problem(PROJECT / "examples" / "judge" / "problems" / "sum")
SUBMISSIONS = load_submissions(PROJECT / "examples" / "judge" / "submissions")

EITHER = {"re_fork_bomb.py": {Verdict.RE, Verdict.TLE}}
"""A bomb whose first process may get its time used up by the others before it fails itself."""

SHORT = {"ac_writes_files.py", "mle_child.sh", "ole_stdout.sh", "re_killed.sh", "wa_modulo.py"}
"""Submissions that end soon, with different verdicts."""

SAMPLE = {
    "ac_leaves_a_child.sh",
    "mle_child.sh",
    "ole_stderr.py",
    "re_fork_bomb.py",
    "re_full_disk.py",
    "tle_ignores_sigterm.sh",
    "wa_closes_its_streams.py",
}
"""Submissions of each verdict, those that misbehave most."""


def expected(name: str) -> set[Verdict]:
    """Return the verdicts that are right for a submission: its name begins with it."""
    return EITHER.get(name, {Verdict[name.partition("_")[0].upper()]})


def ended(
    code: int = 0, stdout: bytes = b"6\n", reason: EndReason = EndReason.EXITED, kills: int | None = 0
) -> Response:
    """Return the end of a run."""
    return Response(args=(), pid=1, exit_code=code, stdout=stdout, reason=reason, usage=Usage(oom_kills=kills))


@pytest.mark.parametrize(
    ("response", "verdict"),
    [
        (ended(), Verdict.AC),
        (ended(stdout=b"6  \n\n"), Verdict.AC),
        (ended(stdout=b"7\n"), Verdict.WA),
        (ended(stdout=b""), Verdict.WA),
        (ended(code=1), Verdict.RE),
        (ended(code=137, reason=EndReason.WALL), Verdict.TLE),
        (ended(code=137, reason=EndReason.CPU), Verdict.TLE),
        (ended(code=137, reason=EndReason.OUTPUT), Verdict.OLE),
        (ended(code=137, kills=1), Verdict.MLE),
        (ended(kills=1), Verdict.MLE),
    ],
)
def test_verdicts(response: Response, verdict: Verdict) -> None:
    """A limit comes before the exit code, and that before the answer."""
    assert judge_response(response, Case("one", b"1 2 3\n", b"6\n")) is verdict


def test_the_page() -> None:
    """It has a row and two bars for each submission, names are escaped, and what isn't known is a dash."""
    results = [
        Result("<b>.py", Verdict.AC, seconds=0.5, cpu_seconds=0.1, memory=10 * MIB, exit_code=0, passed=2),
        Result("unknown.sh", Verdict.RE, case="one", exit_code=1),
    ]
    text = page(PROBLEM, results)
    assert text.count("<tr>") == 3
    assert text.count("<rect") == 2
    assert "<b>" not in text
    assert "0.100 s" in text
    assert text.count("<td>-</td>") == 4
    assert "AC: accepted" in text


@pytest.mark.runc
@pytest.mark.root
@pytest.mark.needs("run --keep")
@pytest.mark.needs("memory controller")
@pytest.mark.needs("pids controller")
@pytest.mark.timeout(3600 if proof.WHOLE else 120)
async def test_all_verdicts_are_right(client: Runc, prefix: str, tried: proof.Tried) -> None:
    """Each submission, hostile ones among them, gets its verdict with figures, four at a time; nothing is left.

    The proof has 204 submissions, ten times in a row. The sample has one of each verdict and the fork bomb.
    """
    submissions = SUBMISSIONS * 12 if proof.WHOLE else [each for each in SUBMISSIONS if each.name in SAMPLE]
    for _ in range(proof.amount(10, 1)):
        results = await judge_all(functools.partial(run, client), PROBLEM, submissions, at_once=4)
        tried("submissions judged", len(results))
        assert [result.submission for result in results] == [submission.name for submission in submissions]
        assert [result for result in results if result.verdict not in expected(result.submission)] == []
        assert all(result.cpu_seconds is not None and result.memory is not None for result in results)
        assert await client.list() == []
        assert leaks.left_on_host(prefix) == []
        assert page(PROBLEM, results).count("<rect") == 2 * len(submissions)


@pytest.mark.runc
@pytest.mark.root
@pytest.mark.needs("run --keep")
@pytest.mark.needs("memory controller")
@pytest.mark.needs("pids controller")
async def test_what_a_fleet_runs(client: Runc) -> None:
    """The recipe is the same for each source of a name, and its container takes the source from the input."""

    class OneNode:
        async def run(self, recipe: Recipe, **options: Any) -> Response:
            recipes.add(recipe.digest)
            async with Bundle.temporary(rootfs=Host(), spec=recipe.document(), init=recipe.init) as bundle:
                return await client.run("judge-of-a-fleet", bundle, **options)

    recipes: set[str] = set()
    run_there = functools.partial(fleet.run, cast("Fleet", OneNode()))
    (good,) = [each for each in SUBMISSIONS if each.name == "ac_writes_files.py"]
    bad = msgspec.structs.replace(good, source=b"print(sum(map(int, input().split())) % 1000)")
    results = await judge_all(run_there, PROBLEM, [good, bad], at_once=1)
    assert [result.verdict for result in results] == [Verdict.AC, Verdict.WA]
    assert len(recipes) == 1


@pytest.mark.proof
@pytest.mark.runc
@pytest.mark.root
@pytest.mark.needs("run --keep")
@pytest.mark.needs("memory controller")
@pytest.mark.needs("pids controller")
@pytest.mark.timeout(120)
async def test_the_same_on_a_fleet(runtime: Runtime, root: Path, prefix: str, tmp_path: Path) -> None:
    """With one flag the submissions run on two workers, and get the same verdicts, in the same order on the page."""
    path = tmp_path / "page.html"
    submissions = SUBMISSIONS if proof.WHOLE else [each for each in SUBMISSIONS if each.name in SHORT]
    directory = tmp_path / "submissions"
    directory.mkdir()
    for submission in submissions:
        (directory / submission.name).write_bytes(submission.source)
    words = ["--fleet", "--page", str(path), "--runtime", runtime.command, "--root", str(root)]
    ended = await anyio.run_process(
        [sys.executable, "-m", "examples.judge", *words, "--submissions", str(directory)], cwd=PROJECT
    )
    assert ended.stdout.splitlines()[-1] == bytes(path)
    rows = re.findall(r"<td>([\w.]+)</td><td[^>]*>([A-Z]+)", path.read_text())
    assert [name for name, _ in rows] == [submission.name for submission in submissions]
    assert [row for row in rows if Verdict[row[1]] not in expected(row[0])] == []
    assert list(root.iterdir()) == []
    assert leaks.left_on_host(prefix) == []
