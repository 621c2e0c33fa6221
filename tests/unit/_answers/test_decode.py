"""From bytes to structs: all recorded outputs of real runtimes, and bytes that no runtime would print."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from mirror import differences, is_list, is_map
from recorded import RUNTIMES, Case, cases

from runc_async._answers import decode as decode_module
from runc_async._answers.decode import decode_json
from runc_async.errors import DecodeError
from runc_async.stats import Pids

SPEC_TESTS = Path(__file__).parents[2] / "data" / "runtime-spec" / "schema" / "test"

DECODERS: dict[str, Callable[[bytes], Any]] = {
    "version": decode_module.decode_version,
    "features": decode_module.decode_features,
    "state": decode_module.decode_state,
    "list": decode_module.decode_list,
    "ps": decode_module.decode_ps,
    "top": decode_module.decode_top,
    "stats": decode_module.decode_stats,
}
# What the recordings hold: so many answers of each kind, so many lines of event streams among them.
RECORDED = {"version": 24, "features": 10, "state": 177, "list": 222, "ps": 63, "top": 50, "stats": 279}

WITH_VALUE = {"--root", "--log", "--log-format", "--rootless", "--criu"}


@cache
def words(line: str) -> list[str]:
    """Return the command of a recorded command line and what follows it, without the global options."""
    # shlex is slow, and most of the 7,000 lines have nothing that only a shell's rules can split.
    rest = iter((shlex.split(line) if re.search(r"['\"\\]", line) else line.split())[1:])
    for word in rest:
        if word in WITH_VALUE:
            next(rest)
        elif word == "--version" or not word.startswith("-"):
            return [word, *rest]
    return [""]


def kind(case: Case) -> str | None:
    """Say which decoder a recorded answer is for, if any."""
    command, *rest = words(case.cmd)
    as_json = re.search(r"(-f|--format)[ =]json", " ".join(rest)) is not None
    if case.rc != 0 or not case.stdout:
        return None
    match command:
        case "--version":
            return "version"
        case "features" | "state":
            return command
        case "list":
            return "list" if as_json else None
        case "ps":
            return "ps" if as_json else "top"
        case _:
            return None


def answers() -> Iterator[tuple[str, str, bytes]]:
    """Give all recorded answers: kind, where it was recorded, bytes."""
    for case in cases():
        if words(case.cmd)[0] == "events":
            for line in case.stdout.splitlines(keepends=True):
                if line.startswith('{"type":"stats"'):
                    yield "stats", case.id, line.encode()
        elif (name := kind(case)) is not None:
            yield name, case.id, case.stdout.encode()


ANSWERS = tuple(answers())


def recorded(name: str, runtime: str) -> list[tuple[str, bytes]]:
    """Return the recorded answers of one kind by one runtime."""
    return [(where, data) for known, where, data in ANSWERS if known == name and where.startswith(f"{runtime}:")]


def strip_line_ends(features: Any) -> Any:
    """Take off what decode_features takes off."""
    features["annotations"] = {key: value.rstrip("\n") for key, value in features["annotations"].items()}
    return features


def test_all_recorded_answers_are_among_the_cases() -> None:
    """The tests below see as many answers of each kind as were recorded, and none is left out."""
    assert Counter(name for name, _, _ in ANSWERS) == RECORDED
    assert {where.partition(":")[0] for _, where, _ in ANSWERS} == set(RUNTIMES)


def test_the_comparison_sees_what_is_wrong() -> None:
    """A lost key, another value, another type and a value from nowhere are found, each with its place."""
    assert differences({"limit": 1}, Pids(limit=1)) == []
    assert differences({"limit": 1, "newKey": 0}, Pids(limit=1)) == ["$.new_key: lost"]
    assert differences({"limit": 1}, Pids(limit=2)) == ["$.limit: 1 became 2"]
    assert differences({"current": True}, Pids(current=1)) == ["$.current: True became 1"]
    assert differences({}, Pids(limit=1)) == ["$.limit: 1 came from nowhere"]
    assert differences([{"a": [1]}], [{"a": [1, 2]}]) == ["$[0]['a']: keys [0] became [0, 1]"]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["state", "list", "ps", "features", "stats"])
def test_a_recorded_answer_becomes_just_what_it_says(name: str, runtime: str) -> None:
    """Every key of every answer is in the struct under its name, with its value; nothing else is in it."""
    for where, data in recorded(name, runtime):
        document = json.loads(data)
        if name == "stats":
            document = document["data"]
        elif name == "features":
            document = strip_line_ends(document)
        elif document is None:
            document = []
        assert differences(document, DECODERS[name](data)) == [], where


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_recorded_version_becomes_just_what_it_says(runtime: str) -> None:
    """Each line `name: value` is in the attribute of that name, but for crun's folder."""
    for where, data in recorded("version", runtime):
        version = decode_module.decode_version(data)
        first, *lines = data.decode().splitlines()
        said = dict(line.split(": ") for line in lines if ": " in line)
        said.pop("rundir", None)
        assert first == f"{version.runtime} version {version.version}", where
        fields = {name: getattr(version, name) for name in ("commit", "spec", "go", "libseccomp")}
        assert {name: value for name, value in fields.items() if value is not None} == said, where
        assert version.raw.encode() == data


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_recorded_table_becomes_just_what_it_says(runtime: str) -> None:
    """The words of each line are in a row, in order."""
    for where, data in recorded("top", runtime):
        top = decode_module.decode_top(data)
        lines = [tuple(line.split()) for line in data.decode().splitlines()]
        assert [tuple(" ".join(row).split()) for row in (top.header, *top.rows)] == lines, where
        assert {len(row) for row in top.rows} <= {len(top.header)}


def test_what_a_runtime_prints_when_misused_is_an_error() -> None:
    """The help that a failing runc prints on stdout is no answer to any decoder but a table of words."""
    helps = [case.stdout.encode() for case in cases() if case.rc == 1 and case.stdout.startswith("Incorrect")]
    assert len(helps) > 200
    for name, decode in DECODERS.items():
        if name == "top":
            continue
        for data in helps:
            with pytest.raises(DecodeError, match="can't decode the output of"):
                decode(data)


@pytest.mark.parametrize("folder", ["state", "features"])
def test_the_runtime_specs_good_documents_are_understood(folder: str) -> None:
    """The good documents of the runtime-spec's own test data become just what they say."""
    good = sorted((SPEC_TESTS / folder / "good").iterdir())
    assert good
    for path in good:
        data = path.read_bytes()
        assert differences(json.loads(data), DECODERS[folder](data)) == [], path.name


@pytest.mark.parametrize("folder", ["state", "features"])
def test_the_runtime_specs_bad_documents_are_refused(folder: str) -> None:
    """The bad documents of the runtime-spec's own test data are errors."""
    bad = sorted((SPEC_TESTS / folder / "bad").iterdir())
    assert bad
    for path in bad:
        with pytest.raises(DecodeError):
            DECODERS[folder](path.read_bytes())


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("data", [b"", b"\n", b" \t\r\n"])
def test_no_output_is_said_to_be_none(name: str, data: bytes) -> None:
    """Output without a word in it is a DecodeError that says so."""
    with pytest.raises(DecodeError, match="it is empty") as caught:
        DECODERS[name](data)
    assert caught.value.data == data


def test_an_error_names_the_command_the_path_and_the_bytes() -> None:
    """A DecodeError says what was decoded, where in it the fault is, and keeps all bytes."""
    data = b'[{"id":"a","status":"running","bundle":"/b","pid":"12"}]'
    with pytest.raises(DecodeError) as caught:
        decode_module.decode_list(data)
    assert caught.value.message == "can't decode the output of list: expected `int`, got `str` - at `$[0].pid`"
    assert caught.value.data == data


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("state", b"nope", "JSON is malformed"),
        ("state", b"{}", "object missing required field `id`"),
        ("state", b'{"id":"a","status":"","bundle":"/"}', "invalid enum value '' - at `$.status`"),
        ("state", b'{"x":' + b"[" * 100_000, "maximum recursion depth"),
        ("state", b'{"id":null,"status":"running","bundle":"/"}', "object missing required field `id`"),
        ("list", b"[null]", "expected `object`, got `null`"),
        ("ps", b"[1.5]", "expected `int`, got `float`"),
        ("stats", b'{"type":"oom","id":"a"}', "invalid value 'oom' - at `$.type`"),
        ("stats", b'{"type":"stats","id":"a"}', "object missing required field `data`"),
        ("stats", b'{"type":"stats","id":"a","data":{}}\n{}', "trailing characters"),
        ("version", b"Version 1.0\n", "no line 'NAME version NUMBER' at its start"),
    ],
)
def test_what_is_wrong_is_said(name: str, data: bytes, reason: str) -> None:
    """Each kind of fault has a reason that names it."""
    with pytest.raises(DecodeError, match=re.escape(reason)):
        DECODERS[name](data)


def test_bytes_that_are_no_text_are_said_to_be_so() -> None:
    """The reason names UTF-8: in Python's words with msgspec up to 0.22, in msgspec's own from 0.23 on."""
    with pytest.raises(DecodeError, match=r"'utf-8' codec can't decode|invalid UTF-8 encoded string"):
        decode_module.decode_state(b'{"id":"\xff"}')


@pytest.mark.parametrize("data", [b"null", b"null\n", b"[]", b"[\n\n]\n"])
def test_an_empty_list_may_be_null(data: bytes) -> None:
    """Go's null and both of crun's spellings are a list of nothing."""
    assert decode_module.decode_list(data) == []
    assert decode_module.decode_ps(data) == []


def test_null_is_the_same_as_a_missing_key() -> None:
    """A null in any place, however deep, leaves the default there; a null in a list stays a fault."""
    with_nulls = b'{"type":"stats","id":"a","data":{"cpu":{"usage":null,"psi":{"some":null}},"hugetlb":null}}'
    without = b'{"type":"stats","id":"a","data":{"cpu":{"psi":{}}}}'
    assert decode_module.decode_stats(with_nulls) == decode_module.decode_stats(without)
    in_a_list = b'{"type":"stats","id":"a","data":{"network_interfaces":[null]}}'
    with pytest.raises(DecodeError, match="got `null`"):
        decode_module.decode_stats(in_a_list)


def test_keys_of_newer_runtimes_are_passed_over() -> None:
    """A key that no struct has is no fault, whatever is in it."""
    state = b'{"id":"a","status":"running","bundle":"/b","new":{"deep":[1,null,{"x":1e999}]}}'
    assert decode_module.decode_state(state).id == "a"


def test_any_type_can_be_decoded_by_the_same_rules() -> None:
    """Decoders outside the module get the same errors and the same tolerance of null."""
    decoder = msgspec.json.Decoder(dict[str, int])
    assert decode_json("a test", decoder, b'{"a":1,"b":null}') == {"a": 1}
    with pytest.raises(DecodeError, match="the output of a test: expected `int`, got `str`"):
        decode_json("a test", decoder, b'{"a":"1"}')


def survives(name: str, data: bytes) -> None:
    """Decode, and allow for a DecodeError with the bytes in it."""
    try:
        DECODERS[name](data)
    except DecodeError as error:
        said = (error.data, str(error).startswith("can't decode the output of"))
    else:
        said = (data, True)
    assert said == (data, True)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_decode_error(name: str, data: bytes) -> None:
    """No bytes whatever raise anything but a DecodeError."""
    survives(name, data)


@given(st.data())
def test_any_damage_to_an_answer_is_a_decode_error_at_worst(data: st.DataObject) -> None:
    """A recorded answer with any part of it replaced by any bytes raises nothing but a DecodeError."""
    name, _, answer = data.draw(st.sampled_from(ANSWERS))
    start = data.draw(st.integers(0, len(answer)))
    end = data.draw(st.integers(start, min(len(answer), start + 50)))
    survives(name, answer[:start] + data.draw(st.binary(max_size=8)) + answer[end:])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the path of every value in a document."""
    yield path
    if is_map(document) or is_list(document):
        for key in document if is_map(document) else range(len(document)):
            yield from places(document[key], (*path, key))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Put another value in one place of a document."""
    if not path:
        return value
    document[path[0]] = replaced(document[path[0]], path[1:], value)
    return document


@given(st.data())
def test_any_value_in_any_place_is_a_decode_error_at_worst(data: st.DataObject) -> None:
    """A recorded document with any of its values replaced by any other raises nothing but a DecodeError."""
    documents = [answer for answer in ANSWERS if answer[0] not in {"version", "top"}]
    name, _, answer = data.draw(st.sampled_from(documents))
    document = json.loads(answer)
    place = data.draw(st.sampled_from(list(places(document))))
    survives(name, json.dumps(replaced(document, place, data.draw(JSON))).encode())
