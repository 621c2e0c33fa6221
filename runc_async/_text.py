"""Convert untrusted text to one line for a terminal or a log."""

from __future__ import annotations

import shlex
from itertools import pairwise

MESSAGE_LIMIT = 1000
"""Maximal characters of a message."""

_ID_LIMIT = 100
_CANNOT_RUN_CODES = {126, 127}  # of a shell that can't run a program, and of the dynamic loader: no runtime's own


def one_line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Convert untrusted text to one line for a terminal or a log.

    Line ends become "; ". Characters that aren't printable (control characters, escape sequences, marks that reverse
    the direction of writing, lone surrogates) become Python escapes. A text longer than `limit` characters is cut in
    the middle, since runc's messages start with the place and end with the reason.
    """
    # Shortened before escaping too, so that a message of megabytes costs nothing.
    text = shorten(text, 4 * limit)
    lines = filter(None, map(str.strip, text.splitlines()))
    return shorten("".join(map(_printable, "; ".join(lines))), limit)


def capability_name(name: str) -> str:
    """Return a capability in the runtimes' spelling: `net_raw` is `CAP_NET_RAW`; runc ignores other spellings."""
    name = name.upper()
    return name if name.startswith("CAP_") else f"CAP_{name}"


def shorten(text: str, limit: int) -> str:
    """Cut a text with more than `limit` characters in the middle."""
    if len(text) <= limit:
        return text
    half = (limit - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def _printable(character: str) -> str:
    """Escape a character that a terminal might act on."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def subject(container_id: str | None) -> str:
    """Return the subject of a message."""
    return "runc" if container_id is None else f"container {one_line(container_id, _ID_LIMIT)!r}"


def last_line(output: bytes) -> str:
    """Return the last nonempty line of an output."""
    return ("", *output[-4 * MESSAGE_LIMIT :].decode(errors="replace").strip().splitlines())[-1]


def program(args: tuple[str, ...]) -> str:
    """Return the program run by runc's arguments: the words after the id for `exec`, otherwise the bundle.

    Options and their values are left out.
    """
    options, arguments = (args[: args.index("--")], args[args.index("--") + 2 :]) if "--" in args else ((), ())
    if arguments:
        return shlex.join(arguments)
    bundle = next((value for name, value in pairwise(options) if name == "--bundle"), None)
    return "the process" if bundle is None else f"the process of bundle {bundle!r}"


def ending(exit_code: int | None) -> str:
    """Describe the end of a runc without an error message."""
    if exit_code is None:
        return "failed, and printed no error message"
    if exit_code in _CANNOT_RUN_CODES:
        return f"exit code {exit_code}, and no error message: the runtime can't be run, see what its --version prints"
    return f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}, and no error message"
