"""Text that may be hostile, made fit for one line of a terminal or of a log."""

from __future__ import annotations

import shlex
from itertools import pairwise

MESSAGE_LIMIT = 1000
"""Characters of a message, at most."""

_ID_LIMIT = 100
_CANNOT_RUN_CODES = {126, 127}  # of a shell that can't run a program, and of the dynamic loader: no runtime's own


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


def subject(container_id: str | None) -> str:
    """Say what a sentence is about."""
    return "runc" if container_id is None else f"container {one_line(container_id, _ID_LIMIT)!r}"


def last_line(output: bytes) -> str:
    """Return the last line of an output that isn't empty."""
    return ("", *output[-4 * MESSAGE_LIMIT :].decode(errors="replace").strip().splitlines())[-1]


def program(args: tuple[str, ...]) -> str:
    """Name what has run by runc's arguments: those behind the id for `exec`, else the bundle.

    Options, and their values, are left out.
    """
    options, arguments = (args[: args.index("--")], args[args.index("--") + 2 :]) if "--" in args else ((), ())
    if arguments:
        return shlex.join(arguments)
    bundle = next((value for name, value in pairwise(options) if name == "--bundle"), None)
    return "the process" if bundle is None else f"the process of bundle {bundle!r}"


def ending(exit_code: int | None) -> str:
    """Say how runc ended, of which nothing else is known."""
    if exit_code is None:
        return "failed, and printed no error message"
    if exit_code in _CANNOT_RUN_CODES:
        return f"exit code {exit_code}, and no error message: the runtime can't be run, see what its --version prints"
    return f"killed by signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}, and no error message"
