"""Plain values to structs: every violation is reported, and no field is lost.

A reader is compiled once for each struct from the annotations. msgspec's own decoder drops unknown fields, stops at the
first violation, and has no bounds beyond an int64.

The one exception to "no field is lost" is a key that folds to a known key (`_folding`): a runtime would use its value
instead of the known key's, so the reader drops the key. `validate` reports it.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import inspect

from .._text import shorten
from ._folding import FoldedKeys
from ._json import repeated_keys
from ._violation import KEY, Violation, describe, is_array, is_object, join_path, quoted

EXTRA: Final = "extra"
"""The field of a struct that holds what the specification does not name."""

SHAPE: Final = "shape"
"""Metadata of a plain mapping: the struct whose constraints it has to meet."""


MOST: Final = 1000
"""Violations that are noted: a document of a few megabytes can hold so many that they would fill the memory."""


PATH: Final = 2000
"""Characters of a path that are shown."""


class Report:
    """Collects the violations of one reading.

    Attributes:
        strict: Whether ranges, patterns, enumerations and nulls are checked.
        spelling: Whether a key that folds to a known key is a violation, besides being dropped.
        unknown: Whether keys unknown to the specification are violations too.
        violations: The violations, in the order of the document.
        count: The number of violations, including violations beyond the limit of the list.
    """

    def __init__(self, *, strict: bool, spelling: bool = False, unknown: bool = False) -> None:
        self.strict = strict
        self.spelling = spelling
        self.unknown = unknown
        self.violations: list[Violation] = []
        self.count = 0

    def add(self, path: str, expected: str, actual: str) -> None:
        """Add a violation; beyond the limit only the fact that there are more."""
        self.count += 1
        if self.count <= MOST:
            self.violations.append(Violation(path=shorten(path, PATH), expected=expected, actual=actual))
        elif self.count == MOST + 1:
            self.violations.append(Violation(path="$", expected=f"at most {MOST} violations", actual="more"))


_Reader = Callable[[Any, str, Report], Any]
_NOTHING: Final[Mapping[str, Any]] = {}


def _scalar(expected: str, is_kind: Callable[[Any], bool], fits: Callable[[Any], bool] | None = None) -> _Reader:
    def read(value: Any, path: str, report: Report) -> Any:
        if not is_kind(value) or (report.strict and fits is not None and not fits(value)):
            report.add(path, expected, describe(value, path))
        return value

    return read


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


_BOOLEAN = _scalar("a boolean", lambda value: isinstance(value, bool))
_ANYTHING = _scalar("anything", lambda _: True)


def _integer(kind: inspect.IntType, extra: Mapping[str, Any]) -> _Reader:
    lower, upper = kind.ge, extra.get("le", kind.le)
    if lower is None:
        return _scalar("an integer", _is_integer)
    if upper is None:
        return _scalar(f"an integer of {lower} or more", _is_integer, lambda value: value >= lower)
    return _scalar(f"an integer from {lower} to {upper}", _is_integer, lambda value: lower <= value <= upper)


def _string(kind: inspect.StrType, _extra: Mapping[str, Any]) -> _Reader:
    if kind.pattern is None:
        return _scalar("a string", _is_string)
    # `$` of an ECMA 262 pattern is the end and nothing else; Python's would let a final newline pass.
    pattern = re.compile(kind.pattern.removeprefix("^").removesuffix("$"))
    return _scalar(f"a string like {kind.pattern}", _is_string, lambda value: pattern.fullmatch(value) is not None)


def _literal(kind: inspect.LiteralType, _extra: Mapping[str, Any]) -> _Reader:
    names = ", ".join(str(value) for value in kind.values)
    return _scalar(f"one of {names}", _is_string, lambda value: value in kind.values)


def _array(kind: inspect.ListType, _extra: Mapping[str, Any]) -> _Reader:
    read_item, least = _compile(kind.item_type), kind.min_length or 0

    def read(value: Any, path: str, report: Report) -> Any:
        if not is_array(value):
            report.add(path, "an array", describe(value, path))
            return value
        if report.strict and len(value) < least:
            report.add(path, f"an array of {least} or more", f"one of {len(value)}")
        return [read_item(item, f"{path}[{index}]", report) for index, item in enumerate(value)]

    return read


def _dictionary(kind: inspect.DictType, extra: Mapping[str, Any]) -> _Reader:
    read_item = _compile(kind.value_type)
    shape: type[msgspec.Struct] | None = extra.get(SHAPE)

    def read(value: Any, path: str, report: Report) -> Any:
        if not is_object(value):
            report.add(path, "an object", describe(value, path))
            return value
        if shape is not None:
            found = struct_reader(shape)(value, path, report)
            return value if found is None else found.to_builtins()  # without what a lax reading has dropped
        return {key: read_item(item, join_path(path, key), report) for key, item in value.items()}

    return read


def _boolean(_kind: inspect.BoolType, _extra: Mapping[str, Any]) -> _Reader:
    return _BOOLEAN


def _anything(_kind: inspect.Type, _extra: Mapping[str, Any]) -> _Reader:
    return _ANYTHING


_COMPILERS: Final[Mapping[type[inspect.Type], Callable[[Any, Mapping[str, Any]], _Reader]]] = {
    inspect.AnyType: _anything,
    inspect.BoolType: _boolean,
    inspect.DictType: _dictionary,
    inspect.IntType: _integer,
    inspect.ListType: _array,
    inspect.LiteralType: _literal,
    inspect.StrType: _string,
}


def _compile(kind: inspect.Type, extra: Mapping[str, Any] = _NOTHING) -> _Reader:
    if isinstance(kind, inspect.Metadata):
        return _compile(kind.type, cast("Any", kind).extra)
    if isinstance(kind, inspect.UnionType):
        # The only unions are those with None, which stands for an absent field and never for a value.
        return _compile(next(part for part in kind.types if not isinstance(part, inspect.NoneType)))
    if isinstance(kind, inspect.StructType):
        return struct_reader(kind.cls)
    return _COMPILERS[type(kind)](cast("Any", kind), extra)


def read_document(
    cls: type[msgspec.Struct], value: Any, *, strict: bool, spelling: bool = False, unknown: bool = False
) -> tuple[Any, list[Violation]]:
    """Return the struct of a parsed document (None if impossible), and all violations."""
    report = Report(strict=strict, spelling=spelling, unknown=unknown)
    for violation in itertools.islice(repeated_keys(value), MOST + 1):
        report.add(violation.path, violation.expected, violation.actual)
    return struct_reader(cls)(value, "$", report), report.violations


def _nearest(key: str, known: Iterable[str]) -> str:
    """Return the known key nearest to a key, as a hint."""
    from difflib import get_close_matches  # noqa: PLC0415 - it takes milliseconds, and few callers need it

    # The cost grows with the square of the length, and no key of the specification has a quarter of this.
    near = get_close_matches(key[:KEY], known, n=1)
    return f"the key {near[0]}" if near else "a key of the specification"


@functools.cache
def struct_reader(cls: type[msgspec.Struct]) -> _Reader:
    """Return the reader of a struct: builds the struct, or reports the violations and returns None."""
    described = cast("inspect.StructType", inspect.type_info(cls))
    fields = [field for field in described.fields if field.name != EXTRA]
    readers = {field.encode_name: (field, _compile(field.type)) for field in fields}
    folded = FoldedKeys(readers)

    def read(value: Any, path: str, report: Report) -> Any:
        if not is_object(value):
            report.add(path, "an object", describe(value, path))
            return None
        found: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        before = report.count
        for key, item in value.items():
            if meant := folded.known(key):
                if report.spelling:
                    report.add(join_path(path, key), f"the key {meant} in no other spelling", quoted(key, KEY))
            elif key not in readers and report.unknown:
                report.add(join_path(path, key), _nearest(key, readers), quoted(key, KEY))
            elif key not in readers or (item is None and not report.strict and not readers[key][0].required):
                extra[key] = item
            else:
                field, read_item = readers[key]
                found[field.name] = read_item(item, join_path(path, key), report)
        for key, (field, _) in readers.items():
            if field.required and field.name not in found:
                report.add(path, f"the required field {key}", "an object without it")
        return cls(**found, extra=extra) if report.count == before else None

    return read
