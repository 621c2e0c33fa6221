"""Convert exceptions to messages and back: class and plain data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from runc_async import errors

from .errors import KeeperError, KeeperLost, StreamsInUse
from .protocol import Failed

EXCERPT = 1 << 12
"""Maximal characters of a text, and bytes of a failed runtime's output, in a message."""


def failure_of(exc: BaseException) -> Failed:
    """Convert an exception to a message; an unexpected class becomes a `KeeperError`."""
    name = type(exc).__name__
    data: dict[str, Any] = {"text": _text(str(exc) or name)}
    match exc:
        case errors.CommandError():
            data = {**_output(exc), "text": _text(exc.message), "exit_code": exc.exit_code}
        case errors.RuncTimeout():
            data = {**_output(exc), "timeout": exc.timeout}
        case errors.RuncNotFound():
            data = {"text": _text(exc.command), "filename": exc.path and _text(exc.path)}
        case errors.UnsupportedError():
            data = {"text": _text(exc.what), "args": (_text(exc.runtime),)}
        case StreamsInUse():
            data = {"container_id": exc.container_id}
        case KeeperError():
            data = {"text": _text(exc.reason)}
        # One class for all: `OSError(errno, ...)` makes the subclass of the number by itself, such as
        # FileNotFoundError.
        case OSError():
            name = "OSError"
            data = {"text": _text(exc.strerror or str(exc)), "errno": exc.errno}
            if exc.filename is not None:
                data["filename"] = _text(os.fsdecode(exc.filename))
        # Subclasses such as UnicodeError need other arguments than a text.
        case ValueError() | TypeError():
            name = "ValueError" if isinstance(exc, ValueError) else "TypeError"
        case _:
            name = "KeeperError"
    return Failed(error=name, **data)


def _output(exc: errors.CommandError | errors.RuncTimeout) -> dict[str, Any]:
    """Return the data of a failed runtime, as far as there is room."""
    return {
        "container_id": exc.container_id and _text(exc.container_id),
        "args": _arguments(exc.args),
        # The end: the reason of a failure is in the last lines.
        "stdout": exc.stdout[-EXCERPT:],
        "stderr": exc.stderr[-EXCERPT:],
    }


def _os_error(failed: Failed) -> OSError:
    """Return the error of a failed system call."""
    if failed.errno is None:
        return OSError(failed.text)
    return OSError(failed.errno, failed.text, failed.filename)


def _timeout(failed: Failed) -> errors.RuncTimeout:
    """Return the error of a runtime that was stopped."""
    return errors.RuncTimeout(failed.args, failed.timeout, failed.stdout, failed.stderr, failed.container_id)


_MAKERS: dict[str, Callable[[Failed], Exception]] = {
    "KeeperError": lambda failed: KeeperError(failed.text),
    "KeeperLost": lambda failed: KeeperLost(failed.text),
    "OSError": _os_error,
    "RuncNotFound": lambda failed: errors.RuncNotFound(failed.text, failed.filename),
    "RuncTimeout": _timeout,
    "StreamsInUse": lambda failed: StreamsInUse(failed.container_id or ""),
    "TypeError": lambda failed: TypeError(failed.text),
    "UnsupportedError": lambda failed: errors.UnsupportedError(failed.text, *failed.args[:1]),
    "ValueError": lambda failed: ValueError(failed.text),
}


def to_error(failed: Failed) -> Exception:
    """Return the exception in a message; for an unknown class of a newer keeper, the nearest known one."""
    make = _MAKERS.get(failed.error)
    if make is not None:
        return make(failed)
    # A newer keeper may have classes unknown here.
    kind: Any = getattr(errors, failed.error, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.CommandError)):
        return KeeperError(f"{failed.error}: {failed.text}")
    return kind(
        failed.args,
        failed.exit_code,
        failed.stderr,
        stdout=failed.stdout,
        container_id=failed.container_id,
        message=failed.text,
    )


def _text(text: str) -> str:
    """Return a sendable excerpt of any text."""
    # Half of a surrogate pair, as in a path that isn't UTF-8, has no form in MessagePack.
    return text[:EXCERPT].encode(errors="backslashreplace").decode()


def _arguments(args: Iterable[object]) -> tuple[str, ...]:
    """Return a sendable excerpt of an argument vector; usually all of it."""
    sent: list[str] = []
    room = EXCERPT
    for argument in args:
        if room <= 0:
            break
        sent.append(_text(str(argument))[:room])
        room -= len(sent[-1]) + 1
    return tuple(sent)
