"""`runc_async.spec`: documents go through the structs and come out as they were."""

from __future__ import annotations

import contextlib
import copy
import inspect
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import msgspec
import proof
import pytest
import spec_documents
from hypothesis import HealthCheck, given, settings, strategies as st

from runc_async import spec
from runc_async.errors import DecodeError

DEFAULTS = [
    json.loads(line)["config"] for line in (spec_documents.DATA / "spec-defaults.jsonl").read_text().splitlines()
]
GENERATED = settings(
    max_examples=proof.amount(60, 15), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
STRUCTS = sorted(
    (value for value in vars(spec).values() if isinstance(value, type) and issubclass(value, spec.SpecObject)),
    key=lambda cls: cls.__name__,
)


def round_trip(document: Any) -> Any:
    """Give a document as it comes out of `Spec`."""
    return json.loads(spec.Spec.decode(json.dumps(document)).encode())


@pytest.mark.parametrize("path", spec_documents.GOOD, ids=lambda path: path.stem)
def test_good_document_is_kept(path: Path) -> None:
    """The specification's own good documents come out as the same JSON value."""
    assert json.loads(spec.Spec.decode(path.read_bytes()).encode()) == json.loads(path.read_bytes())


@pytest.mark.parametrize("config", DEFAULTS)
def test_document_of_a_runtime_is_kept(config: Any) -> None:
    """What `runc spec` and `crun spec` write comes out as the same JSON value."""
    assert round_trip(config) == config


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("freebsd-vnet-disable", "$.freebsd.jail.vnet"),
        ("invalid-json", "line 1 column 2"),
        ("linux-hugepage", "$.linux.resources.hugepageLimits[0].pageSize"),
        ("linux-netdevice", "$.linux.netDevices.eth0.name"),
        ("linux-rdma", "$.linux.resources.rdma.mlx5_1.hcaHandles"),
    ],
)
def test_bad_document_is_refused(name: str, place: str) -> None:
    """The specification's own bad documents are refused, and the error says where."""
    data = next(path for path in spec_documents.BAD if path.stem == name).read_bytes()
    with pytest.raises(DecodeError) as caught:
        spec.Spec.decode(data)
    assert place in caught.value.message
    assert caught.value.data == data


def test_every_bad_document_is_known() -> None:
    """No bad document of the specification is left out above."""
    assert len(spec_documents.BAD) == 5
    assert len(spec_documents.GOOD) == 9


@GENERATED
@given(spec_documents.configurations())
def test_any_document_is_kept(document: dict[str, Any]) -> None:
    """Any document that the structs allow, with unknown fields at every level, comes out as it was, and again."""
    once = spec.Spec.decode(json.dumps(document))
    assert json.loads(once.encode()) == document
    again = spec.Spec.decode(once.encode())
    assert again == once
    assert again.encode() == once.encode()


def test_unknown_field_survives_a_change_at_every_level() -> None:
    """A field that the specification does not name is still there after its neighbours were changed."""
    later: dict[str, Any] = {"later": [1, {"x": None}]}
    document: dict[str, Any] = {
        "ociVersion": "9.0.0",
        **later,
        "process": {"cwd": "/", "user": {"uid": 1, **later}, "rlimits": [], **later},
        "mounts": [{"destination": "/a", **later}],
        "linux": {
            "resources": {"memory": {"limit": 1, **later}, "rdma": {"mlx": {"hcaHandles": 1, **later}}},
            "netDevices": {"eth0": later},
            **later,
        },
        "vm": {"kernel": {"path": "/k", **later}},
        "freebsd": {"jail": {"vnet": "new", **later}},
    }
    config = spec.Spec.decode(json.dumps(document))
    assert config.process
    assert config.process.user
    config.process.args = ["sh"]
    config.process.user.uid = 2
    config.set_hostname("x").limit_memory("1M").map_uids(0, 1000)
    assert config.mounts
    config.mounts[0] = msgspec.structs.replace(config.mounts[0], destination="/b")
    config.linux = copy.copy(config.linux)
    written = json.loads(copy.deepcopy(config).encode())
    assert written["process"]["user"] == {"uid": 2, **later}
    assert written["mounts"] == [{"destination": "/b", **later}]
    assert written["linux"]["resources"]["memory"] == {"limit": 2**20, **later}
    assert written["linux"]["resources"]["rdma"] == {"mlx": {"hcaHandles": 1, **later}}
    assert written["linux"]["netDevices"] == {"eth0": later}
    for part in (written, written["process"], written["linux"], written["vm"]["kernel"], written["freebsd"]["jail"]):
        assert part["later"] == later["later"]


def test_known_field_wins_over_extra() -> None:
    """A field that is set is written, whatever `extra` has under its name."""
    user = spec.User(uid=1, extra={"uid": 2, "gid": 3})
    assert json.loads(user.encode()) == {"uid": 1, "gid": 3}


def test_zero_and_absent_are_apart() -> None:
    """Zero, false and empty are written; None is absent."""
    document: dict[str, Any] = {
        "ociVersion": "",
        "process": {"cwd": "", "terminal": False, "args": [], "user": {"uid": 0}},
        "hooks": {},
    }
    assert round_trip(document) == document
    assert round_trip({"ociVersion": "1.0.0"}) == {"ociVersion": "1.0.0"}


@pytest.mark.parametrize(
    ("field", "largest"), [("limit", 2**63 - 1), ("swappiness", 2**64 - 1), ("kernelTCP", -(2**63))]
)
def test_integers_keep_all_their_bits(field: str, largest: int) -> None:
    """The ends of the 64 bit ranges are kept to the last bit; one more is refused."""
    memory = spec.LinuxMemory.decode(json.dumps({field: largest}))
    assert json.loads(memory.encode()) == {field: largest}
    with pytest.raises(DecodeError, match=rf"\$\.{field}"):
        spec.LinuxMemory.decode(json.dumps({field: largest + (1 if largest > 0 else -1)}))


def test_integers_beyond_64_bits_are_kept_where_unknown() -> None:
    """A number in an unknown field is kept, however long."""
    assert json.loads(spec.User.decode(f'{{"x":{2**200}}}').encode()) == {"x": 2**200}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"ociVersion":"1.0.0","ociVersion":"1.0.1"}', "each key once"),
        (b'{"ociVersion":"1","linux":{"x":[{"a":1,"a":1}]}}', r"\$\.linux\.x\[0\]"),
        (b'{"ociVersion":"\xff"}', "not UTF-8 at byte 15"),
        ("\udc80", "not UTF-8"),
        ('"\\ud800"', "surrogates not allowed"),
        (b'{"ociVersion":"1","x":NaN}', "NaN is no JSON number"),
        (b'{"ociVersion":"1","x":-Infinity}', "-Infinity is no JSON number"),
        (b'{"ociVersion":"1","x":1e400}', "out of range"),
        (b'{"ociVersion":"1","x":' + b"9" * 5000 + b"}", "not a JSON document"),
        (b"", "not a JSON document"),
        (b"{} {}", "Extra data"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"[" * 200 + b"]" * 200, "nested too deeply"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", r"expected an object, got an array at \$"),
        (b"null", r"expected an object, got null at \$"),
        (b"{}", r"the required field ociVersion, got an object without it at \$"),
        (b'{"ociVersion":null}', r"expected a string, got null at \$\.ociVersion"),
        (b'{"ociVersion":"1","process":null}', r"expected an object, got null at \$\.process"),
        (b'{"ociVersion":"1","hostname":1,"root":{}}', r"got 1 at \$\.hostname \(and 1 more\)"),
        (b'{"ociVersion":"1","hostname":["' + b"x" * 99 + b'"]}', r"a string, got an array at \$\.hostname"),
        (b'{"ociVersion":"1","annotations":{"a.b":1}}', r'got 1 at \$\.annotations\["a\.b"\]'),
        (b'{"ociVersion":"1","linux":"' + b"x" * 99 + b'"}', r'got "x{59}\.\.\. at \$\.linux'),
        (b'{"ociVersion":"1","process":{"cwd":"/","terminal":1}}', "a boolean, got 1"),
        (b'{"ociVersion":"1","process":{"cwd":"/","oomScoreAdj":true}}', "an integer, got true"),
        (b'{"ociVersion":"1","process":{"cwd":"/","oomScoreAdj":1.0}}', r"an integer, got 1\.0"),
        (b'{"ociVersion":"1","hooks":{"poststop":[{"path":"/x","timeout":0}]}}', "an integer of 1 or more, got 0"),
        (b'{"ociVersion":"1","mounts":{}}', r"an array, got an object at \$\.mounts"),
        (b'{"ociVersion":"1","annotations":[]}', r"an object, got an array at \$\.annotations"),
        (b'{"ociVersion":"1","windows":{"layerFolders":[]}}', "an array of 1 or more, got one of 0"),
    ],
)
def test_what_is_no_such_document_is_refused(data: bytes | str, said: str) -> None:
    """What is not JSON, ambiguous, or of another shape is a DecodeError that says what and where."""
    with pytest.raises(DecodeError, match=said):
        spec.Spec.decode(data)


def test_size_is_limited() -> None:
    """A document over the limit is refused before it is read; the limit can be set."""
    data = json.dumps({"ociVersion": "1", "x": "y" * 100})
    with pytest.raises(DecodeError, match=rf"{len(data)} bytes is over the limit of {len(data) - 1}"):
        spec.Spec.decode(data, max_size=len(data) - 1)
    assert spec.Spec.decode(data, max_size=len(data)).oci_version == "1"
    with pytest.raises(DecodeError, match="over the limit of 16777216") as caught:
        spec.Spec.decode(b" " * (16 * 1024 * 1024 + 1))
    assert len(caught.value.data) < 10_000


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_raise_decode_error(data: bytes) -> None:
    """No input whatever raises anything but DecodeError."""
    with contextlib.suppress(DecodeError):
        assert spec.Process.decode(data).cwd is not None


def test_lenient_decoding_takes_what_runtimes_take() -> None:
    """With strict=False ranges, patterns, enumerations and nulls pass, and are written again."""
    document: dict[str, Any] = {
        "ociVersion": "1.0.0",
        "process": {"cwd": "/", "user": None, "rlimits": [{"type": "x", "soft": -1, "hard": 1}]},
        "linux": {"rootfsPropagation": "rslave", "devices": [{"type": "c", "path": "/dev/x", "fileMode": 8630}]},
        "windows": {"layerFolders": []},
    }
    config = spec.Spec.decode(json.dumps(document), strict=False)
    assert json.loads(config.encode()) == document
    assert config.linux
    assert str(config.linux.rootfs_propagation) == "rslave"
    assert config.process
    assert config.process.user is None
    config.set_user(1, 2)
    assert json.loads(config.encode())["process"]["user"] == {"uid": 1, "gid": 2}


@pytest.mark.parametrize("data", [b'{"ociVersion":1}', b'{"ociVersion":null}', b'{"ociVersion":"1","linux":[]}', b"{}"])
def test_lenient_decoding_refuses_other_shapes(data: bytes) -> None:
    """With strict=False the types of JSON and required fields are still checked."""
    with pytest.raises(DecodeError):
        spec.Spec.decode(data, strict=False)


def test_encode_refuses_what_json_has_no_form_for() -> None:
    """NaN, broken text and foreign objects are errors when they are written."""
    for value in (float("nan"), "\udc80"):
        with pytest.raises(ValueError, match=r"JSON compliant|surrogates not allowed"):
            spec.User(extra={"x": value}).encode()
    with pytest.raises(TypeError, match="not JSON serializable"):
        spec.User(extra={"x": object()}).encode()


def test_encode_for_people() -> None:
    """An indented document is the same value, with one field on each line."""
    user = spec.User(uid=1, gid=2)
    assert user.encode(indent=2) == b'{\n  "uid": 1,\n  "gid": 2\n}'
    assert user.encode() == b'{"uid":1,"gid":2}'


def test_repr_shows_what_is_set() -> None:
    """The repr of a struct leaves out what is absent."""
    assert repr(spec.Process(cwd="/", user=spec.User(uid=0))) == "Process(cwd='/', user=User(uid=0))"


def test_msgspec_writes_the_same() -> None:
    """Msgspec's own encoder writes a struct without unknown fields as `encode` does."""
    config = spec.Spec.default()
    assert json.loads(msgspec.json.encode(config)) == json.loads(config.encode())


def test_tuples_are_arrays() -> None:
    """A tuple in a field is written as an array."""
    mount = spec.Mount(destination="/a", extra={"x": (1, (2,))})
    assert json.loads(mount.encode()) == {"destination": "/a", "x": [1, [2]]}


def test_copies_are_equal_and_apart() -> None:
    """A deep copy or a pickled one is equal, and changing it leaves the first as it was."""
    first = spec.Spec.default()
    for second in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):  # noqa: S301  # our own bytes
        assert second == first
        second.set_args("other")
        assert second != first


@pytest.mark.parametrize("cls", STRUCTS)
def test_every_field_is_documented(cls: type[spec.SpecObject]) -> None:
    """The docstring of every struct tells of each of its fields, and of no others."""
    text = inspect.cleandoc(cls.__doc__ or "")
    section = text.partition("Attributes:\n")[2]
    told = {
        line.partition(":")[0].strip()
        for line in section.splitlines()
        if line.startswith(" " * 4) and not line.startswith(" " * 5) and ":" in line
    }
    own = set(cls.__struct_fields__) - ({"extra"} if cls is not spec.SpecObject else set())
    assert told == own


def test_public_names_are_in_one_place() -> None:
    """Every struct of the package's modules can be imported from the package."""
    modules = [module for name, module in sys.modules.items() if name.startswith("runc_async.spec.")]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, spec.SpecObject)
        and not value.__module__.startswith("runc_async.spec._")
    }
    assert found <= set(STRUCTS)
    assert len(found) > 40
