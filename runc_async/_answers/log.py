"""Parse a runtime's log to records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import msgspec

from .._runtimes.dialect import log_time
from .._runtimes.known import DIALECTS
from .._text import one_line, subject
from ..errors import LogRecord

__all__ = ["LogRecord", "forward_log", "parse_log"]

LOGGER = logging.getLogger("runc_async")

_LOGGING_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}


class _Fields(msgspec.Struct):
    """The used fields of a JSON record. `file` and `func`, added by runc with `--debug`, are left out."""

    level: str | None = None
    msg: str = ""
    time: str | None = None
    error: Any = None


def parse_log(data: bytes) -> tuple[LogRecord, ...]:
    """Parse the log or the stderr of a runtime.

    All formats may be mixed: JSON objects on one line (runc) or several lines (crun), the runtimes' text records, and
    any other line. The latter become records without a level, since such a line may be the only message. Never raises:
    broken records count as plain lines, and bytes that aren't UTF-8 are replaced. Takes linear time.
    """
    lines = data.decode(errors="replace").split("\n")
    return tuple(map(_record, _chunks(lines)))


def forward_log(data: bytes, container_id: str | None, *, errors: bool) -> None:
    """Log the records of runc's private log with `logging.getLogger("runc_async")`, each at its own level.

    Each record is one line that names the container; the id is also in the attribute `container_id` of the record.
    Lines without a level are left out: crun writes output of the container to its log.

    Args:
        data: The log.
        container_id: The container's id, if any.
        errors: Whether to log errors too, because no exception has them.
    """
    for record in parse_log(data):
        level = _LOGGING_LEVELS.get(record.level or "")
        if level is None or (record.is_error and not errors):
            continue
        text = f"{record.msg}: {record.error}" if record.error else record.msg
        LOGGER.log(level, "%s: %s", subject(container_id), one_line(text), extra={"container_id": container_id})


def _chunks(lines: list[str]) -> Iterator[str]:
    """Join the lines of each JSON object, and drop empty lines."""
    # The braces of crun's records are alone on their lines. Any line that can't be part of a record ends the search, so
    # that no line is looked at twice.
    block: list[str] = []
    for raw in lines:
        line = raw.strip("\0\r\t ")
        if block and (line == "{" or not raw.startswith((" ", "\t", "}"))):
            yield from block
            block = []
        if block or line == "{":
            block.append(line)
            if line == "}":
                yield "\n".join(block)
                block = []
        elif line.startswith("{") and "}{" in line:
            yield from _apart(line)
        elif line:
            yield line
    yield from filter(None, block)


def _apart(line: str) -> Iterator[str]:
    """Split JSON objects on one line, as written by runsc; the rest counts as a line too."""
    import json  # noqa: PLC0415 - msgspec refuses what follows an object

    decoder, place = json.JSONDecoder(), 0
    try:
        while line.startswith("{", place):
            _, end = decoder.raw_decode(line, place)
            yield line[place:end]
            place = end
    except (ValueError, RecursionError):
        pass
    yield from filter(None, [line[place:]])


def _record(chunk: str) -> LogRecord:
    """Parse one record in any format."""
    if chunk.startswith("{"):
        found = _json_record(chunk)
    else:
        found = next(filter(None, (read(chunk) for read in _line_readers())), None)
    return found or LogRecord(None, chunk)


@cache
def _line_readers() -> tuple[Callable[[str], LogRecord | None], ...]:
    """Return the runtimes' parsers for text lines."""
    return tuple(dialect.read_line for dialect in DIALECTS.values() if dialect.read_line is not None)


def _json_record(chunk: str) -> LogRecord | None:
    """Parse a JSON object; None if the object isn't a record."""
    try:
        fields = msgspec.json.decode(chunk, type=_Fields)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if fields.level is None:
        return None
    error = None if fields.error is None else str(fields.error)
    return LogRecord(fields.level, fields.msg, log_time(fields.time), error)
