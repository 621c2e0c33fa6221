"""Why a program has ended."""

from __future__ import annotations

import json

from runc_async import EndReason, Response


def test_a_reason_is_its_word() -> None:
    """A reason is found by its word, and prints, formats and encodes as such."""
    assert EndReason("oom") is EndReason.OOM
    assert f"{EndReason.WALL} {EndReason('cpu')}" == "wall cpu"
    assert json.dumps({"reason": EndReason.OUTPUT}) == '{"reason": "output"}'


def test_all_reasons() -> None:
    """The reasons are these seven."""
    assert set(EndReason) == {"exited", "signaled", "oom", "wall", "cpu", "output", "unknown"}


def test_a_response_has_none_by_itself() -> None:
    """A response has no reason unless one was found out."""
    assert Response(args=(), pid=5, exit_code=0).reason is None
