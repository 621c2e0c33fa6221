"""JSON text to plain values and back: nothing is ambiguous, and nothing is dropped."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, NoReturn, TypeAlias

import msgspec

from runc_async.errors import DecodeError

from .._text import shorten
from ._violation import Violation, is_array, is_object, join_path, quoted

MAX_DOCUMENT: Final = 16 * 1024 * 1024
"""How large a document may be by default, in bytes."""

NOT_JSON: Final = "not a JSON document: "
"""How the message of such an error begins."""

# Far beyond any configuration, and far from Python's own limit on recursion.
_MAX_DEPTH: Final = 100

_NUMBER: Final = 60

# What an error keeps of a document that is over the limit: enough to recognise it by.
_KEPT: Final = 4096


class _Repeating(dict[str, Any]):
    """A JSON object with a repeated key."""

    key: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeating = _Repeating(found)
    repeating.key = Counter(key for key, _ in pairs).most_common(1)[0][0]
    return repeating


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"number out of range: {shorten(text, _NUMBER)}")
    return number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


_Way: TypeAlias = "tuple[_Way, str | int] | None"
"""The way to a value: a path is only made of it where something is wrong."""


def repeated_keys(value: Any, way: _Way = None) -> Iterator[Violation]:
    """Find the objects with a repeated key in a parsed document."""
    if is_object(value):
        if isinstance(value, _Repeating):
            yield Violation(path=_path(way), expected="each key once", actual=f"{quoted(value.key)} again")
        for key, item in value.items():
            yield from repeated_keys(item, (way, key))
    elif is_array(value):
        for index, item in enumerate(value):
            yield from repeated_keys(item, (way, index))


def _path(way: _Way) -> str:
    if way is None:
        return "$"
    above, key = way
    return f"{_path(above)}[{key}]" if isinstance(key, int) else join_path(_path(above), key)


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
    if level:
        raise RecursionError


def _children(value: Any) -> Iterable[Any]:
    if is_object(value):
        return value.values()
    return value if is_array(value) else ()


def _text(data: bytes | str, limit: int) -> tuple[str, bytes]:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    if len(raw) > limit:
        raise DecodeError(f"a document of {len(raw)} bytes is over the limit of {limit}", raw[:_KEPT], private=True)
    try:
        return raw.decode("utf-8"), raw
    except UnicodeDecodeError as error:
        raise DecodeError(f"not UTF-8 at byte {error.start}", raw, private=True) from None


def parse(data: bytes | str, limit: int = MAX_DOCUMENT) -> Any:
    """Parse the text of a JSON document into plain values.

    Args:
        data: The document; bytes are UTF-8.
        limit: Maximum number of bytes.

    Raises:
        DecodeError: If the document is too long, not UTF-8, not JSON (NaN and Infinity aren't), or contains half of a
            surrogate pair or a number beyond a double's range. `repeated_keys` finds repeated keys.
    """
    text, raw = _text(data, limit)
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=_number, parse_constant=_refuse_constant)
        _require_shallow(value)
        # An escaped half of a surrogate pair is JSON by its grammar, but no text: it could not be written again.
        if "\\u" in text:
            dump(value)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DecodeError(f"{NOT_JSON}{reason}", raw, private=True) from None
    return value


def dump(value: Any, indent: int | None = None) -> bytes:
    """Return the UTF-8 text of a plain value.

    Raises:
        ValueError: If the value contains NaN, Infinity or half of a surrogate pair.
        TypeError: If the value contains an object without a JSON form.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:  # which holds the whole text, and shows it in its repr
        raise ValueError(f"text that is not Unicode: {error.reason}") from None
    # The indentation of `json.dumps` is made in Python, and takes ten times as long as all the rest.
    return msgspec.json.format(data, indent=indent) if indent else data
