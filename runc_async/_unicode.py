"""Text that a runtime passes on as JSON, where bytes that aren't UTF-8 become U+FFFD."""

from __future__ import annotations


def require_unicode(what: str, value: str) -> str:
    """Return an argument that becomes part of a JSON document, where bytes that aren't UTF-8 become U+FFFD.

    Raises:
        ValueError: If the text has a surrogate: Python's stand-in for a byte that isn't UTF-8.
    """
    if not is_unicode(value):
        raise ValueError(f"{what} must be UTF-8: the runtime passes it on as JSON, and other bytes would be changed")
    return value


def is_unicode(value: str) -> bool:
    """Return whether a text has no surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
