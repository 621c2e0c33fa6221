"""All violations in a document, at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runc_async.errors import DecodeError

from .._text import one_line
from ._base import SpecObject
from ._json import MAX_DOCUMENT, NOT_JSON, dump, parse
from ._reader import read_document
from ._violation import Violation
from .config import Spec


def validate(
    document: bytes | str | Mapping[str, Any] | SpecObject, *, unknown: bool = False, max_size: int = MAX_DOCUMENT
) -> list[Violation]:
    """Check a document against the runtime-spec's JSON schema.

    Types, required fields, ranges, patterns and enumerations are checked, also in the parts for other platforms than
    Linux. Keys in another spelling than the specification's (``Args`` for ``args``) are violations, because runtimes
    accept them. Other unknown keys are accepted: runtimes ignore them, and a newer specification may define them::

        found = spec.validate({"ociVersion": "1.0.2", "hostnme": "web"}, unknown=True)
        print(found[0].expected)  # the key hostname

    Args:
        document: A configuration as JSON text, as plain values or as a `Spec`; or any other object of this package,
            such as a `Process`.
        unknown: Whether unknown keys are violations too, each with the nearest known key.
        max_size: Maximum bytes of the text; 16 MiB by default.

    Returns:
        The violations, in the order of the document; empty for a valid document. With more than a thousand violations
        the last item says so. Values in the environment or the arguments of a process are left out, except for their
        type.
    """
    cls = type(document) if isinstance(document, SpecObject) else Spec
    try:
        value = parse(_text(document), max_size)
    except DecodeError as error:
        return [Violation(path="$", expected="a JSON document", actual=error.message.removeprefix(NOT_JSON))]
    except (TypeError, ValueError, RecursionError) as error:
        return [Violation(path="$", expected="values that JSON has a form for", actual=one_line(str(error)))]
    return read_document(cls, value, strict=True, spelling=True, unknown=unknown)[1]


def _text(document: bytes | str | Mapping[str, Any] | SpecObject) -> bytes | str:
    if isinstance(document, (bytes, str)):
        return document
    return dump(document.to_builtins() if isinstance(document, SpecObject) else dict(document))
