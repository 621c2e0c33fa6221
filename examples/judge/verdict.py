"""From the end of a run to a verdict; and all tests of a submission to one."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import TypeVar

import anyio
import msgspec

from runc_async import EndReason, Response

from .machine import Run
from .problem import Case, Problem, Submission

_Number = TypeVar("_Number", int, float)


class Verdict(enum.StrEnum):
    """What is said of a submission, in the words that contests use."""

    AC = "accepted"
    WA = "wrong answer"
    TLE = "time limit exceeded"
    MLE = "memory limit exceeded"
    OLE = "output limit exceeded"
    RE = "runtime error"


_LIMITS: dict[EndReason | None, Verdict] = {
    EndReason.WALL: Verdict.TLE,
    EndReason.CPU: Verdict.TLE,
    EndReason.OUTPUT: Verdict.OLE,
}


class Result(msgspec.Struct, frozen=True):
    """The verdict on a submission, with the largest values of its tests; None where the host can't tell.

    Attributes:
        submission: The submission's name.
        verdict: The verdict on the first test that wasn't passed, or on all.
        case: The name of that test; empty if all were passed.
        seconds: Time by the clock.
        cpu_seconds: CPU time.
        memory: Bytes of memory.
        exit_code: The exit code on the last test that was run.
        passed: Number of tests passed.
    """

    submission: str
    verdict: Verdict
    case: str = ""
    seconds: float | None = None
    cpu_seconds: float | None = None
    memory: int | None = None
    exit_code: int | None = None
    passed: int = 0


def judge_response(response: Response, case: Case) -> Verdict:
    """Return the verdict on one run.

    A submission that goes on when the kernel has killed one of its processes for its memory has exceeded its limit too.
    """
    if response.reason in _LIMITS:
        return _LIMITS[response.reason]
    if response.usage is not None and response.usage.oom_kills:
        return Verdict.MLE
    if response.exit_code != 0:
        return Verdict.RE
    return Verdict.AC if _lines(response.stdout) == _lines(case.expected) else Verdict.WA


def _lines(text: bytes) -> list[bytes]:
    """Return the lines of an answer: blanks at their ends, and empty lines at the end, don't count."""
    return [line.rstrip() for line in text.rstrip().split(b"\n")]


async def judge(run: Run, problem: Problem, submission: Submission) -> Result:
    """Run a submission on each test up to the first that it doesn't pass.

    Raises:
        RuncError: If the runtime fails.
        OSError: If there is no place for a container.
    """
    result = Result(submission.name, Verdict.AC)
    for case in problem.cases:
        response = await run(submission, case, problem.allowance)
        verdict, usage = judge_response(response, case), response.usage
        assert usage is not None
        result = msgspec.structs.replace(
            result,
            verdict=verdict,
            exit_code=response.exit_code,
            seconds=_larger(result.seconds, usage.wall_seconds),
            cpu_seconds=_larger(result.cpu_seconds, usage.cpu_seconds),
            memory=_larger(result.memory, usage.peak_memory),
            passed=result.passed + (verdict is Verdict.AC),
            case="" if verdict is Verdict.AC else case.name,
        )
        if verdict is not Verdict.AC:
            break
    return result


def _larger(before: _Number | None, now: _Number | None) -> _Number | None:
    """Return the larger one of two values that may be unknown."""
    known = [value for value in (before, now) if value is not None]
    return max(known, default=None)


async def judge_all(
    run: Run,
    problem: Problem,
    submissions: Iterable[Submission],
    *,
    at_once: int = 4,
    report: Callable[[Result], object] = lambda _: None,
) -> list[Result]:
    """Judge submissions, so many at a time, and return the results in the order of the submissions.

    Cancelled, or if the runtime fails, it ends all that run, and leaves nothing.

    Args:
        run: What runs a submission on a test.
        problem: The problem.
        submissions: The submissions.
        at_once: How many are judged at a time.
        report: Called with each result as it comes.

    Raises:
        ExceptionGroup: If the runtime fails.
    """
    waiting = enumerate(submissions)
    results: dict[int, Result] = {}

    async def work() -> None:
        for number, submission in waiting:
            results[number] = await judge(run, problem, submission)
            report(results[number])

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(work)
    return [results[number] for number in sorted(results)]
