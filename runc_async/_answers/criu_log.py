"""The log of criu, which has the reason of a failure; the runtime reports only a number."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator
from typing import Final

from .._linux.files import open_itself
from .._runtimes.known import DIALECTS
from .._text import one_line
from ..errors import CheckpointError

TAIL: Final = 4096
"""Bytes of the log that an error keeps."""

NAMES: Final = frozenset(name for dialect in DIALECTS.values() for name in dialect.criu_logs)
"""Names that runtimes give to criu's log."""

_READ = 1 << 18
_ERROR = b"Error ("

# criu logs this whenever it can't raise its limits, and continues.
_HARMLESS = b"Can't setup RLIMIT_NOFILE"


@contextlib.contextmanager
def with_criu_log(directory: str) -> Generator[None]:
    """Add criu's log to a `CheckpointError` of the block.

    Args:
        directory: The directory of criu's log, absolute.
    """
    try:
        yield
    except CheckpointError as exc:
        if exc.log_path is not None:
            exc.log_path = os.path.join(directory, exc.log_path)
            with contextlib.suppress(OSError, ValueError):  # it may be in another mount namespace, or be no path
                _explain(exc, _end(exc.log_path))
        raise


def _explain(error: CheckpointError, content: bytes) -> None:
    """Add the tail to the error, and the most useful line as a note, which tracebacks show."""
    error.log_tail = tail(content)
    if reasons := _errors(content):
        error.add_note("criu: " + one_line(reasons[0].decode(errors="replace")))


def tail(content: bytes, limit: int = TAIL) -> bytes:
    """Return the end of a log in whole lines, preceded by the errors of the part before.

    Args:
        content: The log, or its last part.
        limit: Maximal bytes to return.
    """
    end = _cut(content, limit // 2)
    before = b"".join(_errors(content[: len(content) - len(end)]))
    return _cut(before, limit - len(end)) + end if before else _cut(content, limit)


def _errors(content: bytes) -> list[bytes]:
    """Return the lines with errors."""
    return [line for line in content.splitlines(keepends=True) if _ERROR in line and _HARMLESS not in line]


def _cut(content: bytes, limit: int) -> bytes:
    """Return the last lines that fit; a part of the last line if that doesn't fit."""
    if len(content) <= limit:
        return content
    end = content[-limit:]
    if content[-limit - 1 : -limit] == b"\n":
        return end
    return end.partition(b"\n")[2] or end


def _end(path: str) -> bytes:
    """Read the end of a log file.

    Raises:
        OSError: If the file can't be read.
        ValueError: If the path is invalid.
    """
    # The path may come from output of a container, so no other files are read.
    if os.path.basename(path) not in NAMES:
        return b""
    with open(path, "rb", opener=open_itself) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return b""
        file.seek(max(0, status.st_size - _READ))
        return file.read(_READ)
