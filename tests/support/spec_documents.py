"""Documents of the runtime-spec for tests: the specification's own, and any that its structs and schema allow."""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any, cast

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from runc_async import spec

DATA = Path(__file__).parents[1] / "data"
SCHEMAS = DATA / "runtime-spec" / "schema"
GOOD = sorted((SCHEMAS / "test" / "config" / "good").glob("*.json"))
BAD = sorted((SCHEMAS / "test" / "config" / "bad").glob("*.json"))

# Never fetched: a base that the schema's relative references can be resolved against.
BASE = "http://localhost/"

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@cache
def _schema() -> Any:
    # Imported by name because neither of them has types that both checkers can read.
    jsonschema: Any = importlib.import_module("jsonschema")
    referencing: Any = importlib.import_module("referencing")
    draft4: Any = importlib.import_module("referencing.jsonschema").DRAFT4
    resources = [
        (BASE + path.name, referencing.Resource(json.loads(path.read_bytes()), draft4))
        for path in SCHEMAS.glob("*.json")
    ]
    registry = referencing.Registry().with_resources(resources)
    return jsonschema.Draft4Validator({"$ref": f"{BASE}config-schema.json"}, registry=registry)


def schema_violations(document: Any) -> set[str]:
    """Give the paths at which a document breaks the specification's own schema of config.json."""
    return {path for error in _schema().iter_errors(document) for path in _paths(error)}


def _paths(error: Any) -> set[str]:
    if error.context:
        return {path for part in error.context for path in _paths(part)}
    return {json_path(error.absolute_path)}


def json_path(keys: Any) -> str:
    """Give the path through a document that is made of these keys, the way violations show it."""
    path = "$"
    for key in keys:
        if isinstance(key, int):
            path += f"[{key}]"
        else:
            path += f".{key}" if key.isidentifier() and key.isascii() else f"[{json.dumps(key)}]"
    return path


def struct_type(cls: type[msgspec.Struct]) -> inspect.StructType:
    """Give what msgspec knows of a struct."""
    return cast("inspect.StructType", inspect.type_info(cls))


def documents(kind: inspect.Type, *, extra: bool = True) -> st.SearchStrategy[Any]:
    """Make any plain value that a field of this type can hold.

    Args:
        kind: The type.
        extra: Whether objects may have fields that the specification does not name.
    """
    match kind:
        case inspect.StructType():
            return _objects(kind, extra=extra)
        case inspect.Metadata():
            return _annotated(kind, extra=extra)
        case inspect.UnionType(types=(inner, inspect.NoneType())):
            return documents(inner, extra=extra)
        case inspect.ListType():
            return st.lists(documents(kind.item_type, extra=extra), min_size=kind.min_length or 0, max_size=2)
        case inspect.DictType():
            keys = st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1, max_size=4)
            return st.dictionaries(keys, documents(kind.value_type, extra=extra), max_size=2)
        case _:
            return _scalars(kind)


def _scalars(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.IntType():
            return st.integers(-(2**70) if kind.ge is None else kind.ge, 2**70 if kind.le is None else kind.le)
        case inspect.StrType(pattern=None):
            return st.text(st.characters(codec="utf-8"), max_size=4)
        case inspect.StrType():
            return st.from_regex(str(kind.pattern)).filter(lambda text: not text.endswith("\n"))
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.BoolType():
            return st.booleans()
        case _:
            return JSON_VALUES


def _annotated(kind: inspect.Metadata, *, extra: bool) -> st.SearchStrategy[Any]:
    noted = cast("dict[str, Any]", cast("Any", kind).extra)
    if "shape" in noted:
        return documents(struct_type(noted["shape"]), extra=extra)
    return st.integers(0, noted["le"])


def _objects(kind: inspect.StructType, *, extra: bool) -> st.SearchStrategy[dict[str, Any]]:
    fields = [field for field in kind.fields if field.name != "extra"]
    required = {f.encode_name: documents(f.type, extra=extra) for f in fields if f.required}
    optional = {f.encode_name: documents(f.type, extra=extra) for f in fields if not f.required}
    known: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(required, optional=optional)
    if not extra:
        return known
    names = st.text(st.characters(codec="utf-8"), max_size=5).filter(lambda name: name not in required | optional)
    unknown: st.SearchStrategy[dict[str, Any]] = st.dictionaries(names, JSON_VALUES, max_size=2)
    return st.tuples(unknown, known).map(lambda parts: parts[0] | parts[1])


def configurations(*, extra: bool = True) -> st.SearchStrategy[dict[str, Any]]:
    """Make any config.json, as plain values."""
    return cast("st.SearchStrategy[dict[str, Any]]", documents(struct_type(spec.Spec), extra=extra))


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """List the places in a document, the root first."""
    found = [path]
    kind = type(cast("object", value))
    inner: Any = value.items() if kind is dict else enumerate(value) if kind is list else ()
    for key, item in inner:
        found += places(item, (*path, key))
    return found
