"""Find parts of a document that the current runtime doesn't know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from .._runtimes.dialect import Numbers, Part
from .._runtimes.known import DIALECTS, numbers
from ..features import Version
from ..ignored import Ignored


def ignored_parts(document: Mapping[str, Any], version: Version) -> list[Ignored]:
    """Return the parts of a document that a version of a runtime doesn't know, in the order of the runtime's table.

    Empty for an unknown runtime or version.

    Args:
        document: A configuration as plain values.
        version: The version of the runtime.
    """
    found: list[Ignored] = []
    dialect = DIALECTS.get(version.runtime)
    for path, part in () if dialect is None else dialect.parts.items():
        if not _knows(part, numbers(version)):
            since = ".".join(map(str, part.since)) if part.since else None
            # `a[].b=c` matches each item of `a` whose key `b` has the value `c`.
            keys, _, value = path.partition("=")
            found += (
                Ignored(path=place, since=since, refused=part.refused)
                for place in _places(document, "$", keys.replace("[]", ".[]").split("."), value)
            )
    return found


def _knows(part: Part, number: Numbers) -> bool:
    """Return whether a version knows a part; a version without numbers counts as complete."""
    if not number:
        return True
    if part.until is not None and number >= part.until:
        return False
    return part.since is not None and number >= part.since


def _is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a plain value is a JSON object. `spec` has the same function, but takes milliseconds to load."""
    return isinstance(value, dict)


def _is_array(value: Any) -> TypeGuard[list[Any]]:
    """Return whether a plain value is a JSON array."""
    return isinstance(value, list)


def _places(value: Any, path: str, keys: list[str], wanted: str) -> Iterator[str]:
    """Yield the paths in a document to which keys lead, optionally only with a certain value."""
    if not keys:
        if value is not None and (not wanted or value == wanted):
            yield path
    elif keys[0] == "[]":
        for index, item in enumerate(value if _is_array(value) else ()):
            yield from _places(item, f"{path}[{index}]", keys[1:], wanted)
    elif _is_object(value) and keys[0] in value:
        yield from _places(value[keys[0]], f"{path}.{keys[0]}", keys[1:], wanted)
