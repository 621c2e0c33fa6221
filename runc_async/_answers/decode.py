"""Decode a runtime's stdout to structs: one function for each command.

All functions accept any bytes, and raise nothing but DecodeError.
"""

from __future__ import annotations

import re
from typing import TypeAlias, TypeVar

import msgspec

from .._runtimes.dialect import UNDECODABLE
from ..errors import DecodeError
from ..event import Arrival, Event, OOMEvent, StatsEvent, UnknownEvent
from ..features import Features, Version
from ..state import State
from ..stats import Stats
from ..top import Top

T = TypeVar("T")
Json: TypeAlias = "dict[str, Json] | list[Json] | str | float | None"


class StatsLine(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="stats"):
    """A line with metrics, as printed by runc. Further fields of `StatsEvent` must not come from the line."""

    id: str
    data: Stats


class OOMLine(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="oom"):
    """A line about an OOM event, as printed by runc. The root of an `OOMEvent` must not come from the line."""

    id: str


class _AnyEvent(msgspec.Struct):
    """The fields common to all events."""

    type: str
    id: str = ""


_STATE = msgspec.json.Decoder(State)
# Go prints null for a list without any element.
_LIST: msgspec.json.Decoder[list[State] | None] = msgspec.json.Decoder(list[State] | None)
_PIDS: msgspec.json.Decoder[list[int] | None] = msgspec.json.Decoder(list[int] | None)
_STATS = msgspec.json.Decoder(StatsLine)
EVENT: msgspec.json.Decoder[StatsLine | OOMLine] = msgspec.json.Decoder(StatsLine | OOMLine)
_ANY_EVENT = msgspec.json.Decoder(_AnyEvent)
_FEATURES = msgspec.json.Decoder(Features)

# "runc version 1.1.5+ds1", then "commit: ..." and the like; crun ends with a line of compiled-in features.
_VERSION = re.compile(r"(\S+) version (\S+)")
_VERSION_FIELD = re.compile(r"^(commit|spec|go|libseccomp):(.*)$", re.MULTILINE)

_MOST_COLUMNS = 1000
"""Maximal columns of a table: each row gets a value for each column, so a long header could fill the memory."""


def decode_state(data: bytes) -> State:
    """Decode the output of `state`."""
    return decode_json("state", _STATE, data)


def decode_list(data: bytes) -> list[State]:
    """Decode the output of `list --format json`, in the runtime's order."""
    return decode_json("list", _LIST, data) or []


def decode_ps(data: bytes) -> list[int]:
    """Decode the output of `ps --format json`."""
    return decode_json("ps", _PIDS, data) or []


def decode_stats(data: bytes) -> Stats:
    """Decode the output of `events --stats`."""
    return decode_json("events --stats", _STATS, data).data


def decode_event(line: bytes, arrival: Arrival | None = None) -> Event:
    """Decode one line of `events`, with the current time as arrival if left out."""
    try:
        # `EVENT` alone decodes all events that the known versions of runc print.
        decoded = decode_json("events", EVENT, line)
    except DecodeError:
        event = _any_event(line)
        if event is None or event.type in {"stats", "oom"}:
            raise
        return UnknownEvent(id=event.id, type=event.type, raw=line)
    if isinstance(decoded, StatsLine):
        return StatsEvent(decoded.id, decoded.data, *(arrival or Arrival.stamp()), line)
    return OOMEvent(decoded.id)


def _any_event(line: bytes) -> _AnyEvent | None:
    """Decode the fields common to all events; None if the line has none."""
    try:
        return decode_json("events", _ANY_EVENT, line)
    except DecodeError:
        return None


def decode_features(data: bytes) -> Features:
    """Decode the output of `features`."""
    features = decode_json("features", _FEATURES, data)
    # runc 1.3 and 1.4 embed their VERSION file with the line break at its end.
    annotations = {key: value.rstrip("\n") for key, value in features.annotations.items()}
    return msgspec.structs.replace(features, annotations=annotations)


def decode_version(data: bytes) -> Version:
    """Decode the output of `--version`."""
    text = _text("--version", data)
    first = _VERSION.match(text)
    if first is None:
        raise _error("--version", "no line 'NAME version NUMBER' at its start", data)
    fields = {name: value.strip() for name, value in _VERSION_FIELD.findall(text) if value.strip()}
    return Version(runtime=first[1], version=first[2], raw=text, **fields)


def decode_top(data: bytes) -> Top:
    """Decode the output of `ps --format table`."""
    # Not splitlines(): a command line may hold characters that Python takes for the end of a line, and ps doesn't.
    first, *lines = _text("ps", data).strip("\n").split("\n")
    header = first.split()
    if not 0 < len(header) <= _MOST_COLUMNS:
        raise _error("ps", f"a table of {len(header)} columns", data)
    rows = (_cells(line, len(header)) for line in lines if line.strip())
    return Top(header=tuple(header), rows=tuple(rows))


def decode_json(what: str, decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode a JSON document. A null anywhere in an object counts as a missing key.

    Args:
        what: The command, for the error message.
        decoder: The decoder for the expected type.
        data: The document.

    Raises:
        DecodeError: If the document isn't JSON, or of another type.
    """
    _refuse_nothing(what, data)
    try:
        return _decode(decoder, data)
    except UNDECODABLE as error:
        raise _error(what, str(error), data) from None  # a traceback would show the words of the output as they came


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode, if necessary a second time without nulls."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        if b"null" not in data:
            raise
    converted: T = msgspec.convert(_without_nulls(msgspec.json.decode(data)), decoder.type)
    return converted


def _without_nulls(value: Json) -> Json:
    """Remove keys with the value null, which Go prints for a map, list or pointer that was never set."""
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _text(what: str, data: bytes) -> str:
    r"""Return the output as text; a byte that isn't UTF-8, as in command lines, appears as `\xff`."""
    _refuse_nothing(what, data)
    return data.decode(errors="backslashreplace")


def _cells(line: str, columns: int) -> tuple[str, ...]:
    """Split a line into a fixed number of values; the last one takes the rest of the line."""
    cells = line.split(maxsplit=columns - 1)
    cells += [""] * (columns - len(cells))
    return (*cells[:-1], cells[-1].rstrip())


def _refuse_nothing(what: str, data: bytes) -> None:
    """Refuse blank output, for which a parser's message would be misleading."""
    if not data.strip():
        raise _error(what, "it is empty", data)


def _error(what: str, reason: str, data: bytes) -> DecodeError:
    """Return the error, in lower case unless the reason starts with an abbreviation."""
    if reason[1:2].islower():
        reason = reason[0].lower() + reason[1:]
    return DecodeError(f"can't decode the output of {what}: {reason}", data)
