"""runc's log: lines in, records out."""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Iterator
from typing import Any

import msgspec

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

# logrus writes these to a file or a pipe: `time="..." level=error msg="..."`; a plain word stands there unquoted
_TEXT_START = re.compile(r"(?:time|level)=")
_TEXT_FIELD = re.compile(r'(?<!\S)(time|level|msg|error)=("(?:[^"\\]|\\.)*"|\S*)')

# ... and these to a terminal, perhaps in colour: `ERRO[0000] ...`, filled up to 44 characters
_TERMINAL = re.compile(r"(?:\x1b\[\d+m)?(TRAC|DEBU|INFO|WARN|ERRO|FATA|PANI)(?:\x1b\[0m)?\[\d+\] ?(.*)", re.DOTALL)
_LEVELS = {
    "TRAC": "trace",
    "DEBU": "debug",
    "INFO": "info",
    "WARN": "warning",
    "ERRO": "error",
    "FATA": "fatal",
    "PANI": "panic",
}

_GO_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_GO_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_UNICODE_END = 0x110000


class _Fields(msgspec.Struct):
    """The members of a JSON record that are of use; what runc adds with `--debug` (file, func) is left out."""

    level: str | None = None
    msg: str = ""
    time: str | None = None
    error: Any = None


def parse_log(data: bytes) -> tuple[LogRecord, ...]:
    """Read what runc or crun logged, or what it printed on stderr.

    All shapes may come mixed: JSON objects, one on a line (runc) or over several lines (crun), logrus' text records,
    and any other line. Such a line becomes a record without a level, for it may be the only thing that the runtime
    said. Nothing raises: broken records are plain lines, bytes that aren't UTF-8 are replaced. Time is linear.
    """
    lines = data.decode(errors="replace").split("\n")
    return tuple(map(_record, _chunks(lines)))


def forward_log(data: bytes, container_id: str | None, *, errors: bool) -> None:
    """Pass the records of runc's private log on to `logging.getLogger("runc_async")`, each at its own level.

    Each is one line that names the container, whose id is in the attribute `container_id` of the record too. Lines that
    are no records are left out: crun writes output of the container there.

    Args:
        data: The log.
        container_id: The container that the call acted on, if any.
        errors: Whether to pass the errors on too, because no exception has them.
    """
    for record in parse_log(data):
        level = _LOGGING_LEVELS.get(record.level or "")
        if level is None or (record.is_error and not errors):
            continue
        text = f"{record.msg}: {record.error}" if record.error else record.msg
        LOGGER.log(level, "%s: %s", subject(container_id), one_line(text), extra={"container_id": container_id})


def _chunks(lines: list[str]) -> Iterator[str]:
    """Put the lines of each JSON object together and drop the empty ones.

    The braces of crun's records are alone on their lines. Any line that can't be part of a record ends the search, so
    that no line is looked at twice.
    """
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
        elif line:
            yield line
    yield from filter(None, block)


def _record(chunk: str) -> LogRecord:
    """Read one record in whichever shape it is."""
    found = None
    if chunk.startswith("{"):
        found = _json_record(chunk)
    elif _TEXT_START.match(chunk):
        found = _text_record(chunk)
    elif terminal := _TERMINAL.match(chunk):
        found = LogRecord(_LEVELS[terminal[1]], terminal[2])
    return found or LogRecord(None, chunk)


def _json_record(chunk: str) -> LogRecord | None:
    """Read a JSON object; None if it isn't a record."""
    try:
        fields = msgspec.json.decode(chunk, type=_Fields)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if fields.level is None:
        return None
    error = None if fields.error is None else str(fields.error)
    return LogRecord(fields.level, fields.msg, _time(fields.time), error)


def _text_record(chunk: str) -> LogRecord | None:
    """Read the fields of a text record; None if there is no level among them."""
    fields = {name: _unquote(value) for name, value in reversed(_TEXT_FIELD.findall(chunk))}
    if "level" not in fields:
        return None
    return LogRecord(fields["level"], fields.get("msg", ""), _time(fields.get("time")), fields.get("error"))


def _unquote(value: str) -> str:
    """Undo Go's quoting of a string."""
    return _GO_ESCAPE.sub(_unescape, value[1:-1]) if value.startswith('"') else value


def _unescape(escape: re.Match[str]) -> str:
    """Return what an escape stands for."""
    code = escape[1]
    if len(code) == 1:
        return _GO_LETTERS.get(code, code)
    number = int(code[1:], 16)
    return chr(number) if number < _UNICODE_END else escape[0]


def _time(text: str | None) -> dt.datetime | None:
    """Read a time in RFC 3339, with or without fractions of a second; None if it isn't one with a zone."""
    try:
        time = dt.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo else None
