"""The quick way through a document has the result of the general way, or none."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
import spec_documents
from hypothesis import HealthCheck, given, settings, strategies as st

from runc_async import spec
from runc_async.errors import DecodeError
from runc_async.spec import _platforms, _quick
from runc_async.spec._json import MAX_DOCUMENT, dump, parse
from runc_async.spec._quick import read_quickly, write_quickly
from runc_async.spec._reader import SHAPE, read_document

GENERATED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
WHOLE = spec.Spec.default().set_seccomp(spec.default_seccomp()).encode(indent=2)


def agrees(data: bytes) -> bool:
    """Hold the quick way against the general way; return whether the quick way has had a result."""
    quick = read_quickly(spec.Spec, data, MAX_DOCUMENT)
    if quick is not None:
        found, violations = read_document(spec.Spec, parse(data), strict=True)
        assert (quick, []) == (found, violations)
        assert dump(found.to_builtins()) == dump(quick.to_builtins())
    return quick is not None


def test_a_usual_document_is_read_quickly() -> None:
    """A configuration as runtimes and the library write it takes the quick way, both in and out."""
    assert agrees(WHOLE)
    document = spec.Spec.decode(WHOLE)
    assert write_quickly(document) == dump(document.to_builtins())


@GENERATED
@given(spec_documents.configurations(extra=False))
def test_any_valid_document_agrees(document: dict[str, Any]) -> None:
    """Whatever the structs allow has the same result in both ways."""
    data = json.dumps(document).encode()
    agrees(data)
    decoded = spec.Spec.decode(data)
    quick = write_quickly(decoded)
    assert quick is None or json.loads(quick) == json.loads(dump(decoded.to_builtins())) == document


@GENERATED
@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=3), st.integers(0, 40))
def test_any_damage_agrees(place: int, put: bytes, drop: int) -> None:
    """A document with some bytes replaced is refused by the quick way, or has the same result."""
    agrees(WHOLE[:place] + put + WHOLE[place + drop :])


@pytest.mark.parametrize(
    "data",
    [
        b'{"ociVersion":"1","ociVersion":"1"}',
        b'{"ociVersion":"1","ociVersion" :"1"}',
        b'{"ociVersion":"1:2","hostname":"a","hostname":"b"}',
        b'{"ociVersion":"1","mounts":[{"destination":"/","destination":"/"}]}',
        b'{"ociVersion":"1","OCIVersion":"2"}',
        b'{"ociVersion":"1","later":1}',
        b'{"ociVersion":"1","extra":{"later":1}}',
        b'{"ociVersion":"1","extra":{}}',
        b'{"ociVersion":"1","hostname":null}',
        b'{"ociVersion":"1","hostname":"\\n"}',
        b'{"ociVersion":"1","windows":{"layerFolders":[]}}',
        b'{"ociVersion":"1","linux":{"resources":{"network":{"classID":4294967296}}}}',
        b'{"ociVersion":"1","linux":{"resources":{"memory":{"swappiness":18446744073709551616}}}}',
        b'{"ociVersion":"1","process":{"cwd":"/","rlimits":[{"type":"RLIMIT_CPU","soft":1.0,"hard":1}]}}',
        b'{"ociVersion":"1"} {}',
        b'\xef\xbb\xbf{"ociVersion":"1"}',
        b'{"ociVersion":"\xff"}',
        b"{}",
        b"",
    ],
)
def test_what_is_peculiar_takes_the_general_way(data: bytes) -> None:
    """Repeated and unknown keys, nulls, escapes, and all that is invalid is left to the general way."""
    assert read_quickly(spec.Spec, data, MAX_DOCUMENT) is None


def test_a_long_document_takes_the_general_way() -> None:
    """The limit holds for the quick way, too."""
    assert read_quickly(spec.Spec, WHOLE, len(WHOLE) - 1) is None
    with pytest.raises(DecodeError, match="over the limit"):
        spec.Spec.decode(WHOLE, max_size=len(WHOLE) - 1)


@pytest.mark.parametrize(
    "value",
    [{"a"}, ("a",), b"a", dt.datetime(2026, 1, 1, tzinfo=dt.UTC), float("nan"), "\ud800", object(), [1, {"a"}]],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_takes_the_general_way(value: object) -> None:
    """A value that msgspec would give some form in JSON isn't written so."""
    document = spec.Spec.default()
    assert document.process is not None
    document.process.args = value  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    assert write_quickly(document) is None


def test_extra_fields_take_the_general_way() -> None:
    """Fields unknown to the specification stand beside the others, and not below a key of their own."""
    document = spec.Spec.default()
    assert document.process is not None
    document.process.extra["later"] = 1
    assert write_quickly(document) is None
    assert json.loads(document.encode())["process"]["later"] == 1


def test_all_plain_mappings_with_constraints_are_known() -> None:
    """A mapping whose constraints msgspec doesn't know is one of those that the quick way leaves alone."""
    annotated = {
        name.lower().encode()
        for name, kind in vars(_platforms).items()
        for meta in getattr(kind, "__metadata__", ())
        if SHAPE in (meta.extra or {})
    }
    assert {b'"%b"' % name for name in annotated} < set(_quick._PECULIAR)  # pyright: ignore[reportPrivateUsage]
    assert len(annotated) == 4
