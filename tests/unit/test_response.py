"""The result of a finished call."""

from __future__ import annotations

import copy
import pickle

import pytest

from runc_async.response import Response


def test_output_is_stdout_then_stderr() -> None:
    """`output` is the text of both streams, stdout first."""
    assert Response(args=("runc",), pid=5, exit_code=0, stdout=b"out\n", stderr=b"err\n").output == "out\nerr\n"


def test_output_is_always_text() -> None:
    """Bytes that are no UTF-8 don't raise."""
    assert Response(args=("runc",), pid=5, exit_code=0, stdout=b"\xff\xfea").output == "\ufffd\ufffda"


def test_a_response_is_a_value() -> None:
    """It is frozen, equal to its like, hashable, and survives copy and pickle."""
    response = Response(args=("runc", "state"), pid=5, exit_code=None, stdout=b"x")
    assert response == copy.copy(response) == pickle.loads(pickle.dumps(response))  # noqa: S301 - our own bytes
    assert len({response, copy.copy(response)}) == 1
    with pytest.raises(AttributeError):
        response.pid = 6  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - what is tested


def test_nothing_captured_is_empty() -> None:
    """Streams that weren't captured are empty, and nothing is missing of them."""
    response = Response(args=(), pid=5, exit_code=0)
    assert (response.stdout, response.stderr, response.output, response.truncated) == (b"", b"", "", False)
