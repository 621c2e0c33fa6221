"""The root of all errors, and what stands in them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec


def _rebuild(cls: type[RuncError], args: tuple[Any, ...]) -> RuncError:
    """Make an error without calling its constructor; the attributes come after."""
    error = cls.__new__(cls)
    error.args = args
    return error


class LogRecord(msgspec.Struct, frozen=True):
    """One record of the log that runc writes.

    Attributes:
        level: `error`, `warning`, `info`, `debug` ..., or None for a line that isn't a record.
        msg: What it says, as it came: a message can have several lines and hold any character.
        time: When, with its time zone; None if that isn't told or can't be understood.
        error: The cause, where the runtime keeps it apart from the message.
    """

    level: str | None
    msg: str
    time: dt.datetime | None = None
    error: str | None = None

    @property
    def is_error(self) -> bool:
        """Whether the runtime failed with it: a warning also comes from calls that succeed."""
        return self.level in {"error", "fatal", "panic"}


class CleanupWarning(RuntimeWarning):
    """Something couldn't be cleaned up in the time for it; the text names what is left behind."""


class RuncError(Exception):
    """The root of all errors of this library."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the attributes; constructors differ, and `args` isn't what they take."""
        return _rebuild, (type(self), self.args), self.__dict__

    def __repr__(self) -> str:
        """Show the class and the sentence, not the arguments, which may hold secrets."""
        return f"{type(self).__name__}({str(self)!r})"
