"""The base of all objects of the runtime-spec: lossless conversion from JSON and back."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any, Final, Self, cast

import msgspec

from runc_async.errors import DecodeError

from ._folding import FoldedKeys
from ._json import MAX_DOCUMENT, dump, parse
from ._quick import read_quickly, write_quickly
from ._reader import EXTRA, read_document
from ._types import json_name

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})
"""Types of values that are never changed, so that copies may share them."""


class SpecObject(msgspec.Struct, kw_only=True, omit_defaults=True, repr_omit_defaults=True, rename=json_name):
    """An object of the runtime-spec; the base class of all other objects.

    Fields have the specification's names in snake_case. A field that is None is absent from the document; zero, false
    and the empty array are values, and are written. The specification has no null, so None is unambiguous.

    Fields are given by keyword. Objects are mutable because a configuration is a document to edit, several levels deep:
    ``spec.process.args = ["sh"]``. Assignments aren't checked; `runc_async.spec.validate` checks on demand. Objects
    compare by value, and work with `copy.deepcopy` and `msgspec.structs.replace`.

    Attributes:
        extra: Fields unknown to this version of the specification, by JSON name, as plain values, kept from `decode` to
            `encode`. A known field wins over an extra field with the same name, or with a name that a runtime would
            take for the known field's: `Args` for `args`.
    """

    extra: dict[str, Any] = {}  # msgspec makes a new one for each object

    @classmethod
    def decode(cls, data: bytes | str, *, strict: bool = True, max_size: int = MAX_DOCUMENT) -> Self:
        """Decode an object from the text of a JSON document.

        Keys with a different spelling that runtimes accept (``Args``) are dropped, strict or not: a runtime would use
        such a key instead of the field. `validate` reports them.

        Args:
            data: The document; bytes are UTF-8.
            strict: Check ranges, patterns and enumerations of the specification's JSON schema, and refuse null. False
                accepts such values, for documents that runtimes accept (such as a ``rootfsPropagation`` of ``rslave``);
                null is then absent, and written again unless the field is set. JSON types and required fields are
                always checked.
            max_size: Maximum bytes of the document; 16 MiB by default.

        Raises:
            DecodeError: If the bytes are no JSON document (not UTF-8, a repeated key, NaN, too long ...) or not the
                document of such an object. The message names the first place, and the number of further places.
        """
        if strict and (quick := read_quickly(cls, data, max_size)) is not None:
            return quick
        found, violations = read_document(cls, parse(data, max_size), strict=strict)
        if violations:
            more = len(violations) - 1
            message = f"{violations[0]} (and {more} more)" if more else str(violations[0])
            raise DecodeError(message, data.encode() if isinstance(data, str) else bytes(data), private=True)
        return cast("Self", found)

    def encode(self, *, indent: int | None = None) -> bytes:
        """Return the JSON document of this object, in UTF-8.

        Args:
            indent: Spaces per level, for human readers; None gives the shortest document.

        Raises:
            ValueError: If a value has no JSON form: NaN, Infinity, text that is not Unicode.
            TypeError: If a field contains an object without a JSON form.
        """
        quick = write_quickly(self)
        if quick is None:
            return dump(self.to_builtins(), indent)
        return msgspec.json.format(quick, indent=indent) if indent else quick

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A configuration is copied for each bundle, and the general way takes five times as long.
        new = copy.copy(self)
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and type(value) not in _SCALARS:
                setattr(new, name, _copied(value, memo))
        return new

    def to_builtins(self) -> dict[str, Any]:
        """Return this object as plain dictionaries, lists and scalars, with the specification's own names."""
        known: dict[str, Any] = {}
        for name, key in _names(type(self)):
            value = getattr(self, name)
            if value is not None:
                known[key] = value if type(value) in _SCALARS else _plain(value)
        if not self.extra:
            return known
        folded = folded_keys(type(self))
        kept = {key: _plain(value) for key, value in self.extra.items() if not folded.known(key)}
        return known | {key: value for key, value in kept.items() if key not in known}


@functools.cache
def _names(cls: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    """Return the names of a struct's fields, here and in a document."""
    names = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
    return tuple((name, key) for name, key in names if name != EXTRA)


@functools.cache
def folded_keys(cls: type[msgspec.Struct]) -> FoldedKeys:
    """Return the keys of a struct, for finding keys that a runtime takes for them."""
    return FoldedKeys(key for key in cls.__struct_encode_fields__ if key != EXTRA)


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    if type(value) is list:
        items: list[Any] = [*value]
        for place, item in enumerate(items):
            if type(item) not in _SCALARS:
                items[place] = _copied(item, memo)
        return items
    return copy.deepcopy(value, memo)


def _plain(value: Any) -> Any:
    # The question for a mapping is the dearest: all that is usual comes before.
    if isinstance(value, SpecObject):
        return value.to_builtins()
    if isinstance(value, (list, tuple)):
        return [item if type(item) in _SCALARS else _plain(item) for item in cast("list[Any]", value)]
    if type(value) not in _SCALARS and isinstance(value, Mapping):
        return {key: _plain(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return value
