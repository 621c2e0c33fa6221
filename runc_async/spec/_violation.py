"""A violation of the runtime-spec, with its place in the document."""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeGuard

import msgspec

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN: Final = 60
KEY: Final = 200
"""Characters of a key that are shown."""

# Where secrets are: what stands there is not shown.
_PRIVATE: Final = re.compile(r".*\.(?:env|args|commandLine)(?:\[\d+\])?", re.DOTALL)


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a document breaks the runtime-spec.

    Attributes:
        path: The place, from the document's root, as in ``$.process.rlimits[0].type``.
        expected: The value demanded by the specification.
        actual: The value found.
    """

    path: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self.actual} at {self.path}"


def join_path(path: str, key: str) -> str:
    """Return the path of a key in the object at a path; a very long key is cut."""
    return f"{path}.{key}" if len(key) <= KEY and _PLAIN_KEY.fullmatch(key) else f"{path}[{quoted(key, KEY)}]"


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a plain value is a JSON object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Return whether a plain value is a JSON array."""
    return isinstance(value, list)


def describe(value: Any, path: str) -> str:
    """Return a few words on the plain value at a path."""
    if is_object(value):
        return "an object"
    if is_array(value):
        return "an array"
    if isinstance(value, str | int | float) and _PRIVATE.fullmatch(path):
        return "a string" if isinstance(value, str) else "a number or boolean"
    return quoted(value)


def quoted(value: str | float | None, limit: int = _SHOWN) -> str:
    """Write a scalar as JSON that fits into a sentence."""
    shown = json.dumps(value[:limit] if isinstance(value, str) else value)
    shown = shown.replace("\x7f", "\\u007f")  # the one control character that JSON lets stand
    return shown if len(shown) <= limit else f"{shown[:limit]}..."
