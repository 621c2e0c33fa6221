"""`runc_async.spec.validate` gives the verdict of the specification's own schema, everywhere at once."""

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false, reportUnknownParameterType=false

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any, cast

import msgspec
import proof
import pytest
import spec_documents
from hypothesis import HealthCheck, given, settings, strategies as st
from msgspec import inspect

from runc_async import spec

GENERATED = settings(
    max_examples=proof.amount(60, 15), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

TIME_OFFSETS = ("linux", "timeOffsets")
CLOCKS = ("boottime", "monotonic")
"""The keys of it that the schema knows. It lets the others be anything."""

ODD_VALUES: list[Any] = [
    None,
    True,
    *(-(2**31) - 1, -1, 0, 1, 100, 512, 2**16, 2**31, 2**32, 2**63, 2**64),
    1.5,
    *("", "x", "a", "c", "pid", "slave", "new", "raw", "64kB", "2MB", "RLIMIT_NOFILE", "MB:1", "SCMP_ACT_LOG"),
    [],
    [None],
    ["x"],
    [{}],
    {},
    {"x": 1},
    {"x": {}},
]


def paths(document: Any) -> set[str]:
    """Give the places that `validate` finds wrong."""
    return {violation.path for violation in spec.validate(document)}


@pytest.mark.parametrize("path", spec_documents.GOOD, ids=lambda path: path.stem)
def test_good_document_has_no_violation(path: Path) -> None:
    """The specification's own good documents are good, as bytes, text, mapping and struct."""
    data = path.read_bytes()
    assert spec.validate(data) == []
    assert spec.validate(data.decode()) == []
    assert spec.validate(json.loads(data)) == []
    assert spec.validate(spec.Spec.decode(data)) == []


@pytest.mark.parametrize("path", spec_documents.BAD, ids=lambda path: path.stem)
def test_bad_document_has_violations_where_the_schema_says(path: Path) -> None:
    """The specification's own bad documents are bad, at the places that its schema points out."""
    data = path.read_bytes()
    try:
        document = json.loads(data)
    except ValueError:
        assert [v.path for v in spec.validate(data)] == ["$"]
    else:
        assert paths(data) == spec_documents.schema_violations(document) != set()


@GENERATED
@given(spec_documents.configurations())
def test_whatever_the_structs_allow_the_schema_allows(document: dict[str, Any]) -> None:
    """No struct is wider than the schema: what they can hold, it finds good."""
    assert spec.validate(document) == []
    assert spec_documents.schema_violations(document) == set()


def is_beyond_the_schema(place: tuple[Any, ...]) -> bool:
    """Tell whether a place is, or is in, an offset of a clock that the schema does not know, or may hold such a one."""
    return place == TIME_OFFSETS or (place[:2] == TIME_OFFSETS and place[2] not in CLOCKS)


@settings(max_examples=proof.amount(150, 30), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(spec_documents.configurations(extra=False), st.data())
def test_broken_document_breaks_where_the_schema_says(document: dict[str, Any], data: st.DataObject) -> None:
    """Documents with any two places replaced or deleted are wrong exactly where the schema finds them wrong."""
    for _ in range(2):
        *parents, last = data.draw(st.sampled_from([p for p in spec_documents.places(document) if p] or [("x",)]))
        if is_beyond_the_schema((*parents, last)):
            continue
        target: Any = document
        for key in parents:
            target = target[key]
        if data.draw(st.booleans()) or target == {}:
            target[last] = copy.deepcopy(data.draw(st.sampled_from(ODD_VALUES)))
        else:
            del target[last]
    assert paths(document) == spec_documents.schema_violations(document)


def _rich(kind: inspect.Type) -> Any:
    """Make a good value with every field of every struct in it."""
    match kind:
        case inspect.StructType():
            return {f.encode_name: _rich(f.type) for f in kind.fields if f.name != "extra"}
        case inspect.UnionType(types=(inner, inspect.NoneType())):
            return _rich(inner)
        case inspect.Metadata():
            shape: Any = cast("Any", kind).extra.get("shape")
            return _rich(spec_documents.struct_type(shape) if shape else kind.type)
        case inspect.ListType():
            return [_rich(kind.item_type)]
        case inspect.DictType():
            return {"boottime": _rich(kind.value_type)}
        case _:
            return _rich_scalar(kind)


def _rich_scalar(kind: inspect.Type) -> Any:
    match kind:
        case inspect.LiteralType():
            return kind.values[0]
        case inspect.StrType():
            candidates = ("c", "0-1", "MB:0=1", "RLIMIT_CORE", "2MB")
            return next(text for text in candidates if re.search(kind.pattern or "", text))
        case inspect.BoolType():
            return True
        case _:
            return 1


RICH = _rich(spec_documents.struct_type(spec.Spec))


def test_every_property_of_the_schema_has_a_field() -> None:
    """There is a field for everything that the schema names: in a document with all of them no more can be named."""
    assert spec.validate(RICH) == []
    properties: set[str] = set()
    for path in spec_documents.SCHEMAS.glob("*.json"):
        if not path.name.startswith(("state", "features")):
            properties |= _properties(json.loads(path.read_bytes()))
    named = {str(key) for place in spec_documents.places(RICH) for key in place}
    # "monotonic" stands beside "boottime" as a key of time_offsets, a dictionary.
    assert properties - named == {"monotonic"}


def _properties(part: Any) -> set[str]:
    return {
        str(place[i + 1])
        for place in spec_documents.places(part)
        for i, key in enumerate(place[:-1])
        if key == "properties"
    }


def _branch(place: tuple[str | int, ...]) -> dict[str, Any]:
    """Give what the full document has at a place, without the parts of it that lead elsewhere."""
    kept = {key: value for key, value in RICH.items() if key in ("ociVersion", *place[:1])}
    if place[:1] == ("linux",) and len(place) > 1:
        kept["linux"] = {place[1]: RICH["linux"][place[1]]}
        if place[1] == "resources" and len(place) > len(("linux", "resources")):
            kept["linux"]["resources"] = {place[2]: RICH["linux"]["resources"][place[2]]}
    return copy.deepcopy(kept)


@pytest.mark.proof(every=8)
@pytest.mark.parametrize("place", spec_documents.places(RICH)[1:], ids=spec_documents.json_path)
def test_each_place_is_held_against_the_schema(place: tuple[str | int, ...]) -> None:
    """Each single place of a full document, with every odd value in it, gets the schema's own verdict."""
    for value in ODD_VALUES:
        document = _branch(place)
        target: Any = document
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
        if place != TIME_OFFSETS or not value:
            assert paths(document) == spec_documents.schema_violations(document), value


def test_every_time_offset_is_one() -> None:
    """An offset of a clock that the schema does not know has to look like the others, as Go's structs demand."""
    assert paths({"ociVersion": "1", "linux": {"timeOffsets": {"x": 1}}}) == {"$.linux.timeOffsets.x"}


def test_all_violations_are_found_at_once() -> None:
    """A document with several mistakes has them all in the list, in its own order, each with what was expected."""
    document = {
        "ociVersion": 1,
        "process": {"user": {"uid": -1}, "rlimits": [{"type": "NOFILE", "soft": 1}]},
        "linux": {"resources": {"memory": {"limit": "64M"}}, "namespaces": [{"type": "net"}]},
    }
    kinds = "cgroup, ipc, mount, network, pid, time, user, uts"
    assert [str(violation) for violation in spec.validate(document)] == [
        "expected a string, got 1 at $.ociVersion",
        "expected an integer from 0 to 4294967295, got -1 at $.process.user.uid",
        'expected a string like ^RLIMIT_[A-Z]+$, got "NOFILE" at $.process.rlimits[0].type',
        "expected the required field hard, got an object without it at $.process.rlimits[0]",
        "expected the required field cwd, got an object without it at $.process",
        f'expected an integer from {-(2**63)} to {2**63 - 1}, got "64M" at $.linux.resources.memory.limit',
        f'expected one of {kinds}, got "net" at $.linux.namespaces[0].type',
    ]


def test_a_changed_struct_is_validated() -> None:
    """What was set on a struct is checked on demand, at its place in the document."""
    config = spec.Spec.default()
    assert spec.validate(config) == []
    assert config.process
    assert config.process.user
    config.process.user.uid = 2**32
    config.process.args = "sh"  # type: ignore[assignment]  # the mistake under test
    assert paths(config) == {"$.process.user.uid", "$.process.args"}


def test_a_part_is_validated_by_itself() -> None:
    """A `Process` or `LinuxResources` is a document of its own, with paths from its own root."""
    assert spec.validate(spec.Process(cwd="/")) == []
    assert paths(spec.LinuxResources(pids=spec.LinuxPids(limit=2**63))) == {"$.pids.limit"}


def test_repeated_keys_are_violations() -> None:
    """A key that stands twice is a violation beside the others."""
    found = spec.validate('{"ociVersion":"1","root":{"path":1,"path":2}}')
    assert [str(violation) for violation in found] == [
        'expected each key once, got "path" again at $.root',
        "expected a string, got 2 at $.root.path",
    ]


@pytest.mark.parametrize(
    "document",
    [b"\xff", "{", '{"ociVersion":"1","x":NaN}', {"ociVersion": "1", "x": float("nan")}, {"ociVersion": object()}],
)
def test_what_is_no_document_is_one_violation(document: Any) -> None:
    """What is no JSON at all, or can't be, is one violation at the root."""
    assert paths(document) == {"$"}


def test_values_that_contain_themselves_are_one_violation() -> None:
    """A mapping or a struct with itself inside is told of, not followed."""
    endless: dict[str, Any] = {"ociVersion": "1"}
    endless["x"] = endless
    user = spec.User()
    user.extra["x"] = user
    assert paths(endless) == {"$"}
    assert paths(user) == {"$"}


def test_size_is_limited() -> None:
    """Text over the limit is one violation that tells both sizes."""
    found = spec.validate('{"ociVersion":"1"}', max_size=5)
    assert [violation.actual for violation in found] == ["a document of 18 bytes is over the limit of 5"]


def test_violation_is_a_value() -> None:
    """Violations are frozen and compare by value."""
    one, two = spec.validate({}), spec.validate({})
    assert one == two
    with pytest.raises(AttributeError):
        one[0].path = "$.x"  # type: ignore[misc]  # the mistake under test
    assert msgspec.structs.asdict(one[0]) == {
        "path": "$",
        "expected": "the required field ociVersion",
        "actual": "an object without it",
    }


def test_unknown_keys_are_violations_if_asked_for() -> None:
    """With unknown=True a key that the specification doesn't name is a violation, with the nearest that it does."""
    document = {
        "ociVersion": "1.0.2",
        "hostnme": "web",
        "process": {"cwd": "/", "noNewPriviliges": True, "x": {"cwd": 1}, "user": {"uid": 0, "Gid": 0}},
        "linux": {
            "sysctl": {"anything": "1"},
            "resources": {"memory": {"limits": 1}},
            "netDevices": {"eth0": {"nam": ""}},
        },
        "annotations": {"hostnme": ""},
        "windows": {"layerFolders": ["a"], "hyperV": {}, "zzz": 1},
    }
    found = spec.validate(document, unknown=True)
    assert [(violation.path, violation.expected) for violation in found] == [
        ("$.hostnme", "the key hostname"),
        ("$.process.noNewPriviliges", "the key noNewPrivileges"),
        ("$.process.x", "a key of the specification"),
        ("$.process.user.Gid", "the key gid in no other spelling"),
        ("$.linux.resources.memory.limits", "the key limit"),
        ("$.linux.netDevices.eth0.nam", "the key name"),
        ("$.windows.hyperV", "the key hyperv in no other spelling"),
        ("$.windows.zzz", "a key of the specification"),
    ]
    assert len(spec.validate(document)) == 2
    assert spec.validate(spec.Process(cwd="/", extra={"argss": []}), unknown=True)[0].path == "$.argss"


def test_a_long_unknown_key_takes_no_time() -> None:
    """The nearest key of one with a million letters is looked for in its beginning."""
    found = spec.validate({"ociVersion": "1", "a" * 1_000_000: 1}, unknown=True)
    assert len(str(found[0])) < 1000
