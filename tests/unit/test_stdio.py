"""The values for `io=`: what they hold and what they refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from runc_async.stdio import CapturedIO, InheritedIO, NullIO, PipedIO, PtyIO, RedirectIO


@pytest.mark.parametrize("value", [NullIO(), InheritedIO(), CapturedIO(), PipedIO(), RedirectIO(), PtyIO()])
def test_they_are_values(value: object) -> None:
    """Each is equal to its like, hashable and frozen, so that one can be used for any number of calls."""
    assert value == type(value)()
    assert hash(value) == hash(type(value)())
    with pytest.raises(AttributeError):
        value.limit = 5  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue] - what is tested


def test_the_stdin_of_the_caller_is_not_given_away() -> None:
    """A child gets the caller's stdin, and with it the terminal, only if that is asked for."""
    assert not InheritedIO().stdin


def test_limits() -> None:
    """A limit may be zero, and not negative."""
    assert CapturedIO(limit=0).limit == 0
    with pytest.raises(ValueError, match="limit must not be negative: -1"):
        CapturedIO(limit=-1)


@pytest.mark.parametrize("size", [{"rows": -1}, {"cols": 65536}])
def test_sizes_of_terminals(size: dict[str, int]) -> None:
    """A terminal has no more rows and columns than the kernel can count."""
    with pytest.raises(ValueError, match="must be from 0 to 65535"):
        PtyIO(**size)


@pytest.mark.parametrize("target", [None, "/dev/null", Path("/dev/null"), 0, sys.__stdout__])
def test_targets(target: Any) -> None:
    """A target is nothing, a path, a descriptor, or something open."""
    assert RedirectIO(stdin=target, stdout=target, stderr=target).stderr == target


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize(
    ("target", "error", "sentence"),
    [
        (-1, ValueError, "must be an open descriptor: -1"),
        (-2, ValueError, "must be an open descriptor: -2"),
        (True, TypeError, "must be a path, a descriptor or an open file: True"),
        (b"/dev/null", TypeError, "must be a path, a descriptor or an open file: b'/dev/null'"),
        (1.5, TypeError, "must be a path, a descriptor or an open file: 1.5"),
    ],
)
def test_targets_that_are_none(name: str, target: Any, error: type[Exception], sentence: str) -> None:
    """What can't be a target is refused at once; subprocess would take -1 for a pipe and -2 for stdout."""
    with pytest.raises(error, match=f"{name} {sentence}"):
        RedirectIO(**{name: target})


@pytest.mark.parametrize("target", [True, False, "file", Path("file"), 0, sys.__stdout__])
def test_streams_of_piped_io(target: Any) -> None:
    """Each stream is a pipe, nothing, a path, a descriptor, or something open."""
    assert PipedIO(stdin=target, stdout=target, stderr=target).stderr == target


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize(
    ("target", "error"), [(-1, ValueError), (None, TypeError), (b"/dev/null", TypeError), (1.5, TypeError)]
)
def test_streams_of_piped_io_that_are_none(name: str, target: Any, error: type[Exception]) -> None:
    """None is refused, since `subprocess` means the caller's own stream by it; and so is what can't be open."""
    with pytest.raises(error, match=f"{name} must be"):
        PipedIO(**{name: target})


@pytest.mark.parametrize("settings", [{"keep": "middle"}, {"stderr": "stdin"}, {"stderr": "file"}])
def test_captures_that_mean_nothing(settings: dict[str, Any]) -> None:
    """A word that isn't one of the two is refused."""
    with pytest.raises(ValueError, match=f"{next(iter(settings))} must be"):
        CapturedIO(**settings)
