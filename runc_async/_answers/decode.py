"""From what a runtime printed on stdout to our structs, or to a DecodeError: one function for each command.

All of them take any bytes whatever and raise nothing but DecodeError.
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
    """A line of stats, as runc prints it; `StatsEvent` has more, which must not come from the line."""

    id: str
    data: Stats


class OOMLine(msgspec.Struct, frozen=True, gc=False, tag_field="type", tag="oom"):
    """A line about lack of memory, as runc prints it; the root of an `OOMEvent` must not come from the line."""

    id: str


class _AnyEvent(msgspec.Struct):
    """What an event of any type has."""

    type: str
    id: str = ""


_STATE = msgspec.json.Decoder(State)
# Go prints null for a list that it never put anything into.
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
"""Of a table: each row gets a value for each column, so that a header of a mebibyte could fill the memory."""


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
    """Decode one line of `events`, which was read just now if nothing else is said.

    `EVENT` decodes all that every runc prints by itself.
    """
    try:
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
    """Decode what events of all types have, or return None if it isn't there."""
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
    """Decode a JSON document, with a null anywhere in an object taken as if its key was left out.

    Args:
        what: The command whose output it is, for the message of the error.
        decoder: What it should be.
        data: The document.

    Raises:
        DecodeError: If it is no JSON, or not of that type.
    """
    _refuse_nothing(what, data)
    try:
        return _decode(decoder, data)
    except UNDECODABLE as error:
        raise _error(what, str(error), data) from None  # a traceback would show the words of the output as they came


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """Decode, and a second time without its nulls if there are any that the type has no place for."""
    try:
        return decoder.decode(data)
    except msgspec.ValidationError:
        if b"null" not in data:
            raise
    return msgspec.convert(_without_nulls(msgspec.json.decode(data)), decoder.type)


def _without_nulls(value: Json) -> Json:
    """Leave the keys out whose value is null: Go's word for a map, list or pointer that was never set."""
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _text(what: str, data: bytes) -> str:
    r"""Return the output as text; a byte that is no UTF-8 (command lines hold anything) shows as `\xff`."""
    _refuse_nothing(what, data)
    return data.decode(errors="backslashreplace")


def _cells(line: str, columns: int) -> tuple[str, ...]:
    """Cut a line into so many values; the last takes the rest of the line."""
    cells = line.split(maxsplit=columns - 1)
    cells += [""] * (columns - len(cells))
    return (*cells[:-1], cells[-1].rstrip())


def _refuse_nothing(what: str, data: bytes) -> None:
    """Refuse output without a word in it, of which a parser would only say that it is too short."""
    if not data.strip():
        raise _error(what, "it is empty", data)


def _error(what: str, reason: str, data: bytes) -> DecodeError:
    """Say what couldn't be decoded and why, in lower case unless the reason begins with an abbreviation."""
    if reason[1:2].islower():
        reason = reason[0].lower() + reason[1:]
    return DecodeError(f"can't decode the output of {what}: {reason}", data)
