"""What a document does wrong, and where."""

from __future__ import annotations

import json
import re
from typing import Any, Final, TypeGuard

import msgspec

_PLAIN_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN: Final = 60


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a document breaks the runtime-spec.

    Attributes:
        path: Where, from the document's root, as in ``$.process.rlimits[0].type``.
        expected: What the specification asks for there.
        actual: What stands there instead.
    """

    path: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return f"expected {self.expected}, got {self.actual} at {self.path}"


def join_path(path: str, key: str) -> str:
    """Give the path of a key in the object at a path."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{json.dumps(key)}]"


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Tell whether a plain value is a JSON object."""
    return isinstance(value, dict)


def is_array(value: Any) -> TypeGuard[list[Any]]:
    """Tell whether a plain value is a JSON array."""
    return isinstance(value, list)


def describe(value: Any) -> str:
    """Say in a few words what a plain value is."""
    if is_object(value):
        return "an object"
    if is_array(value):
        return "an array"
    shown = json.dumps(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
