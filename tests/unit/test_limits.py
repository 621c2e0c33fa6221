"""Limits as a value, and why a program ended."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runc_async import CapturedIO, EndReason, Limits, NullIO, PipedIO, PtyIO, Runc
from runc_async._answers.outcome import end_reason
from runc_async.runner import Completed
from runc_async.testing import FakeRunner


@pytest.mark.parametrize("name", ["wall", "cpu", "output"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, -0.0])
def test_what_can_not_be_a_limit(name: str, value: float) -> None:
    """A limit that is zero, negative or not finite is an error that names it."""
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_a_limit_of_output_is_a_number_of_bytes() -> None:
    """Half a byte is no limit."""
    with pytest.raises(ValueError, match="whole number"):
        Limits(output=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - what is tested


def test_a_value() -> None:
    """Limits are frozen and equal to their like; none is the default."""
    assert Limits(1, 2.5, 3) == Limits(wall=1, cpu=2.5, output=3)
    assert Limits() == Limits(wall=None, cpu=None, output=None)
    with pytest.raises(AttributeError):
        Limits().wall = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - what is tested


@pytest.mark.parametrize("io", [NullIO(), PipedIO(), PtyIO()])
async def test_output_needs_capture(io: Any) -> None:
    """A limit of output goes with streams that are captured alone; the first bytes are kept then."""
    runner = FakeRunner()
    runc = Runc(runner=runner)
    with pytest.raises(ValueError, match="CapturedIO"):
        await runc.exec("web", ["true"], io=io, limits=Limits(output=10))
    assert not runner.invocations
    await runc.exec("web", ["true"], limits=Limits(output=10))
    await runc.exec("web", ["true"], io=CapturedIO(stderr="stdout"), limits=Limits(output=10))
    kept = [invocation.streams for invocation in runner.invocations]
    assert kept == [CapturedIO(10, keep="first"), CapturedIO(10, stderr="stdout", keep="first")]


async def test_not_with_detach() -> None:
    """A call that doesn't wait for its process has no limits."""
    runner = FakeRunner()
    with pytest.raises(ValueError, match="detach"):
        await Runc(runner=runner).exec("web", ["true"], detach=True, limits=Limits(wall=1))
    assert not runner.invocations


SIGKILLED = 9


@pytest.mark.parametrize(
    ("completed", "reason"),
    [
        ({"returncode": 0}, EndReason.EXITED),
        ({"returncode": 3}, EndReason.EXITED),
        ({"returncode": 137}, EndReason.SIGNALED),
        ({"returncode": 137, "wait_status": 137 << 8}, EndReason.EXITED),
        ({"returncode": 137, "wait_status": SIGKILLED}, EndReason.SIGNALED),
        ({"returncode": None}, EndReason.UNKNOWN),
        ({"returncode": 137, "wait_status": SIGKILLED, "oom_kills": 1}, EndReason.OOM),
        ({"returncode": 1, "oom_kills": 2}, EndReason.OOM),
        ({"returncode": 0, "oom_kills": 1}, EndReason.EXITED),
        ({"returncode": 1, "oom_kills": 0}, EndReason.EXITED),
        ({"returncode": 137, "oom_kills": 1, "exceeded": EndReason.CPU}, EndReason.CPU),
        ({"returncode": 0, "exceeded": EndReason.OUTPUT}, EndReason.OUTPUT),
    ],
)
def test_reasons(completed: dict[str, Any], reason: EndReason) -> None:
    """A limit comes before a want of memory, that before a signal, that before an exit; what isn't known is unknown."""
    assert end_reason(Completed(pid=5, **completed)) is reason


async def test_reasons_of_calls() -> None:
    """A call that waits for its process has a reason, and one that is detached has none."""
    runc = Runc(runner=FakeRunner())
    assert (await runc.exec("web", ["true"])).reason is EndReason.EXITED
    assert (await runc.exec("web", ["true"], detach=True)).reason is None
