"""Decide whether a runtime failed, and build the error from its messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from .. import errors
from .._linux.prerequisites import INSTEAD_OF_ARGUMENTS
from .._runtimes.known import DIALECTS
from .._text import shorten
from ..errors import CommandError, LogRecord
from .log import parse_log
from .wording import EXECVE_ERRORS, explained, meaning

if TYPE_CHECKING:
    from ..runner import Fate

# Errors of the JSON readers of Go (runc) and crun, which don't name the document. Most commands read the container's
# state, and some another document afterwards.
_SYNTAX = re.compile(
    r"(?:\w+ (?:\w+ )?failed: )?(?:EOF|unexpected EOF|invalid character .*|cannot parse the data: .*)$", re.DOTALL
)
# A value of a wrong type. Go names the innermost of many structs, and the path from the root.
_WRONG_TYPE = re.compile(
    r"(?:\w+ (?:\w+ )?failed: )?json: cannot unmarshal .* into Go struct field \w*\.(?P<root>\w+)", re.DOTALL
)
_STATE_KEYS = {key for dialect in DIALECTS.values() for key in dialect.state_keys}
_READS_CONFIG = {"create", "run", "restore"}
_DOCUMENT_OPTIONS = {"-p", "--process", "-r", "--resources"}
_VALUED_OPTIONS = {"--root", "--log", "--log-format", "--criu", "--rootless", "--cgroup-manager"}

_CRIU_LOG = re.compile(r"(?:--- Quoting \"|--- excerpt from CRIU log `|log file: )([^\"`\n]+)")

# Messages printed after the log was closed (execve(2) failing in the container) or before it was opened (crun: the
# bundle's directory; both: the command line). Then nothing else is on stderr.
_UNLOGGED = re.compile(
    "|".join(
        (
            (
                r"(?P<record>\{\s*\"msg\":\s*\")?(?:standard_init_linux\.go:\d+: )?"
                rf"exec [^\n]+: (?i:{'|'.join(EXECVE_ERRORS)})"
                r"(?(record)\",\s*\"level\":\s*\"error\",\s*\"time\":\s*\"[^\"\n]+\"\s*\})"
            ),
            *(pattern for dialect in DIALECTS.values() for pattern in dialect.unlogged),
        )
    )
)
_TOO_LONG = "argument list too long"
_UNLOGGED_CODES = {code for dialect in DIALECTS.values() for code in dialect.unlogged_codes}

_PANIC = re.compile(r"^(?:panic|fatal error|runtime/cgo): .*", re.MULTILINE)
_PANIC_CODE = 2
# Messages of runc's copy that becomes the process, if it can't create a thread, as at `pids.limit`. runc itself then
# only reports that the copy is gone: "connection reset by peer", "procReady not received".
_NO_THREAD = re.compile(
    r"^runtime/cgo: pthread_create failed: .*|^runtime: failed to create new OS thread .*", re.MULTILINE
)
_NO_PS = re.compile(r'exec: "ps": executable file not found in \$PATH:?')  # `runc ps` without ps(1) on the host
_GO_RUNTIME = re.compile(r"\A(?:runtime: [^\n]*\n)+")  # "failed to create new OS thread", in front of "fatal error"
_TRACE = re.compile(
    f"^(?:{'|'.join(re.escape(dialect.trace) for dialect in DIALECTS.values() if dialect.trace)})", re.MULTILINE
)

_READ_LIMIT = 1 << 16
_MATCH_LIMIT = 2048
_WORDS_LIMIT = 64


def failed(
    log: tuple[LogRecord, ...], exit_code: int | None, stderr: bytes = b"", *, process: Fate | None = None
) -> bool:
    """Return whether the runtime failed, and so the exit code isn't that of the container's process.

    Only for commands that end with the code of a container's process: `run`, `exec` and `restore` in the foreground.
    Other commands have failed if the code isn't 0.
    """
    # In this order: an error in the log, a signal that ended the runtime itself, a lost process, or a process that was
    # never reported. Then the code is the runtime's own, that of a command in front of the runtime, or of the dynamic
    # loader (127) if the runtime can't run at all. An unknown code proves nothing.
    if exit_code == 0:
        return False
    if any(record.is_error for record in log):
        return True
    if exit_code is None or exit_code < 0:
        return exit_code is not None
    if process in {"lost", "none"}:
        return True
    # In three cases the log is empty and only stderr is left: a Go panic (code 2; the trace names functions of runc),
    # execve(2) failing in the container after the checks before (a foreign binary, a script with a missing
    # interpreter), and crun's errors about the bundle's directory and the command line. stderr has to be exactly this
    # text. So a program that prints nothing but `exec X: exec format error` and exits with 1 or 255 counts as a failed
    # start; and if stderr isn't captured, a failed start looks like an exit with 1 or 255.
    text = _text_of(stderr).strip()
    # A Go program that panics, or can't create a thread, exits with 2; a regular failure exits with 1 and a record. So
    # 2 without an error message is a crash whose trace went to the container's stderr; and so is 2 without a process,
    # because then only the runtime itself can have written to stderr.
    if exit_code == _PANIC_CODE:
        panicked = _PANIC.match(_GO_RUNTIME.sub("", text)) and _TRACE.search(text)
        return bool(panicked)
    return exit_code in _UNLOGGED_CODES and len(stderr) < _READ_LIMIT and bool(_UNLOGGED.fullmatch(text))


def failure(  # noqa: PLR0917 - all that is known of an ended runtime, in the order of `CommandError`
    args: tuple[str, ...],
    exit_code: int | None,
    stdout: bytes = b"",
    stderr: bytes = b"",
    log: tuple[LogRecord, ...] = (),
    container_id: str | None = None,
    *,
    process: Fate | None = None,
) -> CommandError:
    """Return the error for a failed runtime, of the class that fits its messages.

    Args:
        args: The argument vector, for the error. Its command decides which document a JSON error is about.
        exit_code: The exit code of the runtime.
        stdout: The output of the runtime: runc prints "Incorrect Usage" there.
        stderr: The error output of the runtime.
        log: The records of the log.
        container_id: The container's id.
        process: The fate of the container's process; None if unknown.
    """
    said = stderr or (stdout if process == "none" else b"")  # a terminal has both, and without a process all is runc's
    # The messages are errors in the log; without any, errors among the lines of stderr; without any, all lines. The
    # last message is the fatal one. Earlier messages (leftovers, why criu failed) choose the class only if the table
    # doesn't have the last one.
    printed = parse_log(said[-_READ_LIMIT:])
    found = _judge(args, _words(stdout, printed, log))
    logged = any(record.is_error for record in log)
    if logged and found.cls is CommandError and (no_thread := _NO_THREAD.search(_text_of(stderr))):
        found = _Finding(errors.ResourceError, f"{found.text}: {no_thread[0]}")
    if found.cls is errors.ExecutableError and found.text.lower().rstrip().endswith(_TOO_LONG):
        found = found._replace(text=f"{found.text.rstrip()} (E2BIG): {INSTEAD_OF_ARGUMENTS}")
    if _NO_PS.fullmatch(found.text.rstrip()):
        found = _Finding(errors.CommandError, "this host has no ps(1) (Debian's package procps); `Runc.ps` needs none")
    if (process == "lost" and not logged) or _crashed(exit_code, found, stderr, process=process):
        found = _Finding(errors.RuncCrashed, _panic(stderr) or found.text)
    text = explained(found.text, found.cls)
    error = found.cls(args, exit_code, stderr, log, stdout=stdout, container_id=container_id, message=text or None)
    if isinstance(error, errors.CheckpointError):
        error.log_path = _criu_log((*log, *printed))
    elif isinstance(error, errors.UnsupportedUsage):
        error.what = found.what or error.what
        error.runtime = args[0].rpartition("/")[2] if args else error.runtime
    return error


def _text_of(stderr: bytes) -> str:
    """Return the start of stderr, where the first error is."""
    return stderr[:_READ_LIMIT].decode(errors="replace")


class _Words(NamedTuple):
    """Messages of a runtime: whole records, or lines that may belong together."""

    texts: list[str]
    are_records: bool


class _Finding(NamedTuple):
    """The decisive message, and its meaning."""

    cls: type[CommandError]
    text: str
    what: str | None = None


def _words(stdout: bytes, printed: tuple[LogRecord, ...], log: tuple[LogRecord, ...]) -> _Words:
    """Select the messages about the failure."""
    for records in (log, printed):
        if texts := [_text(record) for record in records if record.is_error]:
            return _Words(texts, are_records=True)
    for records in (printed, log):
        if texts := [record.msg for record in records if record.level is None]:
            return _Words(texts, are_records=False)
    usage = stdout[:_READ_LIMIT].decode(errors="replace").partition("\n")[0]
    return _Words([usage] if usage.startswith("Incorrect Usage") else [], are_records=True)


def _text(record: LogRecord) -> str:
    """Return message and cause as one text."""
    return f"{record.msg}: {record.error}" if record.error else record.msg


def _judge(args: tuple[str, ...], words: _Words) -> _Finding:
    """Select the text and the class."""
    findings = filter(None, (_find(text, args) for text in reversed(words.texts[-_WORDS_LIMIT:])))
    last = words.texts[-1] if words.texts else ""
    found = next(findings, _Finding(CommandError, last))
    return found._replace(text=last) if words.are_records else found


def _find(text: str, args: tuple[str, ...]) -> _Finding | None:
    """Look a message up in the table."""
    message = shorten(text.strip(), _MATCH_LIMIT)
    if known := meaning(message):
        return _Finding(known.cls, text, known.what)
    if wrong := _WRONG_TYPE.match(message):
        document = _mistyped(wrong["root"], args)
    else:
        document = _document(args) if _SYNTAX.match(message) else None
    return _Finding(document, text) if document else None


def _mistyped(root: str, args: tuple[str, ...]) -> type[CommandError] | None:
    """Return the error for the document with a value of a wrong type; None if the document is unknown."""
    command = _command(args)
    # Most commands read runc's own state, with its own keys. A configuration, a process or resources have other keys.
    if command in _READS_CONFIG:
        return errors.InvalidSpec
    if command is None:
        return None
    return errors.CorruptState if root in _STATE_KEYS else errors.InvalidSpec


def _document(args: tuple[str, ...]) -> type[CommandError] | None:
    """Return the error for a JSON document that isn't named; None if the document is unknown."""
    command = _command(args)
    if command in _READS_CONFIG:
        return errors.InvalidSpec
    # A document of the caller (a path after `--process`) may be as broken as the state read before. A document in
    # memory, shown in angle brackets, was written by an encoder and is valid.
    values = (value for name, value in pairwise(args) if name in _DOCUMENT_OPTIONS)
    if command is None or any(not value.startswith("<") for value in values):
        return None
    return errors.CorruptState


def _command(args: tuple[str, ...]) -> str | None:
    """Return runc's command: the first argument that is neither a global option nor its value."""
    return next(
        (arg for option, arg in pairwise(args) if not arg.startswith("-") and option not in _VALUED_OPTIONS), None
    )


def _crashed(exit_code: int | None, found: _Finding, stderr: bytes, *, process: Fate | None) -> bool:
    """Return whether the runtime crashed before it could report a reason."""
    if exit_code == _PANIC_CODE:
        return _panic(stderr) is not None or (found.cls is CommandError and (not found.text or process == "none"))
    return exit_code is not None and exit_code < 0 and found.cls is CommandError


def _panic(stderr: bytes) -> str | None:
    """Return the first line of a Go panic."""
    panic = _PANIC.search(stderr[-_READ_LIMIT:].decode(errors="replace"))
    return panic and panic[0]


def _criu_log(records: Iterable[LogRecord]) -> str | None:
    """Return the path of criu's log file, if the runtime has named it."""
    names = (name[1] for record in records if (name := _CRIU_LOG.search(record.msg)))
    return next(names, None)
