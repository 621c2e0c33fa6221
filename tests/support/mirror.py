"""Compare a JSON document with the struct that was decoded from it, key by key."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any, TypeGuard

import msgspec


def snake_case(key: str) -> str:
    """Return the attribute that a JSON key should have become: `RxBytes`, `kernelTCP`, `systemd-scope`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).replace("-", "_").lower()


def is_map(value: object) -> TypeGuard[dict[Any, Any]]:
    """Say whether it is a JSON object, with types that a checker is content with."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Say whether it is a JSON array, likewise."""
    return isinstance(value, list)


def differences(document: Any, value: Any, path: str = "$") -> list[str]:
    """Say where a decoded value isn't what the document says; nothing if it has all of it and nothing else.

    Args:
        document: What `json.loads` made of the output.
        value: What our decoder made of it.
        path: Where both are.
    """
    return list(_walk(document, value, path))


def _walk(document: Any, value: Any, path: str) -> Iterator[str]:
    """Compare by the kind of the decoded value."""
    if isinstance(value, msgspec.Struct):
        yield from _walk_struct(document, value, path)
    elif is_map(value) and is_map(document):
        yield from _walk_items(document, value, path)
    elif is_list(value) and is_list(document):
        yield from _walk_items(dict(enumerate(document)), dict(enumerate(value)), path)
    elif isinstance(value, dt.datetime):
        if abs(_nanoseconds(document) - _microseconds(value) * 1000) > 500:
            yield f"{path}: {document} became {value}"
    elif document != value or isinstance(document, bool) != isinstance(value, bool):
        yield f"{path}: {document!r} became {value!r}"


def _walk_struct(document: Any, value: msgspec.Struct, path: str) -> Iterator[str]:
    """Look for each key in the attribute of its name, and for defaults in all other attributes."""
    said: dict[str, Any] = {snake_case(key): item for key, item in document.items() if item is not None}
    for name in said.keys() - set(value.__struct_fields__):
        yield f"{path}.{name}: lost"
    for field in msgspec.structs.fields(value):
        here = f"{path}.{field.name}"
        got = getattr(value, field.name)
        if field.name in said:
            yield from _walk(said[field.name], got, here)
        elif got != (field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()):
            yield f"{here}: {got!r} came from nowhere"


def _walk_items(document: dict[Any, Any], value: dict[Any, Any], path: str) -> Iterator[str]:
    """Compare maps, and lists by index."""
    if list(document) != list(value):
        yield f"{path}: keys {list(document)} became {list(value)}"
    for key in document.keys() & value.keys():
        yield from _walk(document[key], value[key], f"{path}[{key!r}]")


def _nanoseconds(text: str) -> int:
    """Read a time of RFC 3339 in UTC exactly, without a datetime."""
    match = re.fullmatch(r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+)(?:\.(\d{1,9}))?Z", text)
    assert match is not None, text
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    days = dt.date(year, month, day).toordinal()
    return (((days * 24 + hour) * 60 + minute) * 60 + second) * 10**9 + int((match[7] or "").ljust(9, "0"))


def _microseconds(time: dt.datetime) -> int:
    """Return the same of a datetime in UTC, in microseconds."""
    assert time.utcoffset() == dt.timedelta(0), time
    seconds = ((time.toordinal() * 24 + time.hour) * 60 + time.minute) * 60 + time.second
    return seconds * 10**6 + time.microsecond
