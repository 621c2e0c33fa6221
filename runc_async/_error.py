"""The base class of all errors, and their parts."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec


def _rebuild(cls: type[RuncError], args: tuple[Any, ...]) -> RuncError:
    """Create an error without calling its constructor; the attributes follow."""
    error = cls.__new__(cls)
    error.args = args
    return error


class LogRecord(msgspec.Struct, frozen=True):
    """A record of runc's log.

    Attributes:
        level: `error`, `warning`, `info`, `debug` ..., or None for a line that isn't a record.
        msg: The message, unchanged: possibly with several lines and any characters.
        time: The time, with its zone; None if missing or invalid.
        error: The cause, if separate from the message.
    """

    level: str | None
    msg: str
    time: dt.datetime | None = None
    error: str | None = None

    @property
    def is_error(self) -> bool:
        """Whether the record reports a failure: warnings also come from successful calls."""
        return self.level in {"error", "fatal", "panic"}


class CleanupWarning(RuntimeWarning):
    """A cleanup couldn't be finished in time; the text names the leftovers."""


class RuncError(Exception):
    """The base class of all errors of this library."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the attributes: the constructors differ, and don't take `args`."""
        # `copy` and `pickle` would call the constructor with `args`.
        return _rebuild, (type(self), self.args), self.__dict__

    def __repr__(self) -> str:
        """Show the class and the message, not the arguments, which may have secrets."""
        return f"{type(self).__name__}({str(self)!r})"
