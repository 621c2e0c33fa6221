"""examples/judge: each verdict is right, whatever the submissions do, and nothing is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import leaks
import proof
import pytest

from examples.judge.page import page
from examples.judge.problem import MIB, Case, load_problem, load_submissions
from examples.judge.verdict import Result, Verdict, judge_all, judge_response
from runc_async import EndReason, Response, Usage

if TYPE_CHECKING:
    from runc_async.client import Runc

PROJECT = Path(__file__).parents[2]

PROBLEM = load_problem(PROJECT / "examples" / "judge" / "problems" / "sum")
SUBMISSIONS = load_submissions(PROJECT / "examples" / "judge" / "submissions")

EITHER = {"re_fork_bomb.py": {Verdict.RE, Verdict.TLE}}
"""A bomb whose first process may get its time used up by the others before it fails itself."""


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

    The proof has 204 submissions, ten times in a row.
    """
    submissions = SUBMISSIONS * proof.amount(12, 1)
    for _ in range(proof.amount(10, 1)):
        results = await judge_all(client, PROBLEM, submissions, at_once=4)
        tried("submissions judged", len(results))
        assert [result.submission for result in results] == [submission.name for submission in submissions]
        assert [result for result in results if result.verdict not in expected(result.submission)] == []
        assert all(result.cpu_seconds is not None and result.memory is not None for result in results)
        assert await client.list() == []
        assert leaks.left_on_host(prefix) == []
        assert page(PROBLEM, results).count("<rect") == 2 * len(submissions)
