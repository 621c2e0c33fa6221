"""Text that may be hostile, made fit for one line of a terminal or of a log."""

from __future__ import annotations

MESSAGE_LIMIT = 1000
"""Characters of a message, at most."""


def one_line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Make a text that may be hostile fit for one line of a terminal or of a log.

    Line ends become "; ". What isn't printable (control characters, escape sequences, marks that reverse the direction
    of writing, lone surrogates) is written as a Python escape. Of a text longer than `limit` characters the middle is
    left out, since runc says where in front and why at the end.
    """
    text = shorten(text, 4 * limit)
    lines = filter(None, map(str.strip, text.splitlines()))
    return shorten("".join(map(_printable, "; ".join(lines))), limit)


def capability_name(name: str) -> str:
    """Write a capability as runtimes know it: `net_raw` as `CAP_NET_RAW`; runc ignores other spellings."""
    name = name.upper()
    return name if name.startswith("CAP_") else f"CAP_{name}"


def shorten(text: str, limit: int) -> str:
    """Leave out the middle of a text that has more than `limit` characters."""
    if len(text) <= limit:
        return text
    half = (limit - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def _printable(character: str) -> str:
    """Escape a character that a terminal might act on."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()
