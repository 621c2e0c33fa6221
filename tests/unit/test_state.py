"""A container's state: words for its status, and what runtimes leave out."""

from __future__ import annotations

import copy
import datetime as dt
import pickle
from typing import Any

import msgspec
import pytest

from runc_async._answers.decode import decode_list, decode_state
from runc_async.errors import DecodeError
from runc_async.state import State, Status

RUNC = b"""{
  "ociVersion": "1.2.1",
  "id": "web",
  "pid": 22024,
  "status": "running",
  "bundle": "/bundles/web",
  "rootfs": "/bundles/web/rootfs",
  "created": "2026-11-23T12:32:56.595462724Z",
  "annotations": {
    "com.example.key": "value"
  },
  "owner": ""
}"""
CRUN_LIST = b'[\n  {\n "id": "web", "pid": 0, "status": "stopped", "bundle": "\\/b", "owner": "root"}\n]\n'


def created(text: str) -> dt.datetime | None:
    """Decode a state that was created at a time."""
    return decode_state(RUNC.replace(b"2026-11-23T12:32:56.595462724Z", text.encode())).created


def test_a_state_is_what_runc_says() -> None:
    """Each field has runc's value, under runc's name in snake_case."""
    assert decode_state(RUNC) == State(
        id="web",
        status=Status.RUNNING,
        bundle="/bundles/web",
        pid=22024,
        oci_version="1.2.1",
        rootfs="/bundles/web/rootfs",
        created=dt.datetime(2026, 11, 23, 12, 32, 56, 595463, dt.UTC),
        annotations={"com.example.key": "value"},
    )


def test_what_crun_leaves_out_of_its_list_is_empty() -> None:
    """A container of crun's list has no version, root filesystem, time or annotations."""
    (state,) = decode_list(CRUN_LIST)
    assert (state.bundle, state.owner, state.pid) == ("/b", "root", 0)
    assert (state.oci_version, state.rootfs, state.created, state.annotations) == ("", "", None, {})


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2026-01-02T03:04:05Z", 0),
        ("2026-01-02T03:04:05.1Z", 100_000),
        ("2026-01-02T03:04:05.15678328Z", 156_783),
        ("2026-01-02T03:04:05.000000499Z", 0),
        ("2026-01-02T03:04:05.0000005Z", 1),
    ],
)
def test_nine_digits_of_a_second_are_rounded_to_six(text: str, microsecond: int) -> None:
    """Zero to nine digits are read; what a datetime can't hold is rounded to the nearest microsecond."""
    assert created(text) == dt.datetime(2026, 1, 2, 3, 4, 5, microsecond, dt.UTC)


def test_rounding_can_carry_into_the_next_second() -> None:
    """Nine nines make the next second, not a wrong one."""
    assert created("2026-12-31T23:59:59.999999999Z") == dt.datetime(2027, 1, 1, tzinfo=dt.UTC)


def test_a_time_keeps_its_zone() -> None:
    """A time with an offset is the same moment and is aware."""
    time = created("2026-01-02T05:04:05+02:00")
    assert time == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    assert time is not None
    assert time.utcoffset() == dt.timedelta(hours=2)


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05", "yesterday", ""])
def test_a_time_without_a_zone_is_no_time(text: str) -> None:
    """A naive time would be compared wrongly later: it is a DecodeError now."""
    with pytest.raises(DecodeError, match=r"\$\.created"):
        created(text)


def test_a_state_cannot_be_changed() -> None:
    """A state is a value: its attributes can't be set."""
    with pytest.raises(AttributeError):
        decode_state(RUNC).pid = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue] - the point of it


@pytest.mark.parametrize("word", ["creating", "created", "running", "paused", "stopped"])
def test_each_word_of_the_spec_and_of_runc_is_a_member(word: str) -> None:
    """The known words are members, equal to the plain string."""
    status = decode_state(RUNC.replace(b"running", word.encode())).status
    assert status is Status[word.upper()]
    assert status == word
    assert status.known


def test_a_word_of_a_newer_runtime_is_kept() -> None:
    """An unknown word is a Status that says so, prints as the word and is no member."""
    status = decode_state(RUNC.replace(b"running", b"frozen")).status
    assert isinstance(status, Status)
    assert not status.known
    assert str(status) == f"{status}" == status.value == "frozen"
    assert repr(status) == "<Status.FROZEN: 'frozen'>"
    assert status not in list(Status)
    assert status != Status.PAUSED


def test_two_statuses_of_one_unknown_word_are_equal() -> None:
    """Unknown words compare and hash as strings, and survive copies, pickles and JSON."""
    status = Status("frozen")
    assert {status, Status("frozen"), copy.deepcopy(status), pickle.loads(pickle.dumps(status))} == {"frozen"}  # noqa: S301 - its own pickle
    assert msgspec.json.encode(status) == b'"frozen"'
    assert not Status("frozen").known


@pytest.mark.parametrize("value", ["", 5, None])
def test_what_is_no_word_is_no_status(value: Any) -> None:
    """Neither an empty string nor another type is a status."""
    with pytest.raises(ValueError, match="is not a valid Status"):
        Status(value)
