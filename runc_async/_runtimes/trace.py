"""Reports of forks and exits in a trace session of gVisor: pkg/sentry/seccheck/sinks/remote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec


def follow_document(socket: str) -> bytes:
    """Request each clone(2) and each exit, with the process."""
    # The context of a clone is the parent, that of an exit the process itself.
    points = [{"name": name, "context_fields": ["group_id", "thread_id"]} for name in ("sentry/clone", _EXIT_POINT)]
    sink = {"name": "remote", "config": {"endpoint": socket}}
    return msgspec.json.encode({"trace_session": {"name": "Default", "points": points, "sinks": [sink]}})


_EXIT_POINT: Final = "sentry/exit_notify_parent"
_CLONE, _EXIT = 2, 4
"""MessageType of gVisor's pkg/sentry/seccheck/points/common.proto."""


def decode_fork(message: bytes) -> tuple[int, int] | None:
    """Decode a message of the trace: a header of 8 bytes, with its own length and the type, and a protobuf."""
    if len(message) < 8:  # noqa: PLR2004 - as above
        return None
    # The header may grow in later versions, so its own length tells where the protobuf begins.
    length, kind = (int.from_bytes(message[place : place + 2], "little") for place in (0, 2))
    if kind not in {_CLONE, _EXIT}:
        return None
    try:
        fields = dict(_fields(message[length:]))
        context = dict(_fields(fields.get(1, b"")))  # type: ignore[arg-type]
    except (IndexError, TypeError):
        return None
    parent, thread = _number(context.get(4)), _number(context.get(2))
    if kind == _EXIT:
        return (parent, 0) if thread in {0, parent} else None  # a thread's end is no process's
    child = _number(fields.get(4))
    # For a new thread, the number is that of the process itself.
    return (parent, child) if child and child != parent else None


def _number(value: int | bytes | None) -> int:
    """Return a number; a protobuf leaves out 0."""
    return value if isinstance(value, int) else 0


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the numbers and byte strings of a protobuf, each with its field number."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _varint(data, place)
            yield number, value
        elif wire == 2:  # noqa: PLR2004 - the wire type of bytes
            length, place = _varint(data, place)
            yield number, data[place : place + length]
            place += length
        else:
            return


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Read a number of variable length, and return the place behind the number."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        # Seven bits in each byte, the lowest first.
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 - the highest bit says that there is more
            return value, place
