"""Whether a runtime failed, and the error for it, from what it wrote."""

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

# What Go's (runc) and crun's JSON readers complain of, without a word on the document. All but the first commands read
# the container's state, and some another document after it.
_SYNTAX = re.compile(
    r"(?:\w+ (?:\w+ )?failed: )?(?:EOF|unexpected EOF|invalid character .*|cannot parse the data: .*)$", re.DOTALL
)
# A value of a wrong type. Go names the innermost struct, of which there are many, and the path from the root.
_WRONG_TYPE = re.compile(
    r"(?:\w+ (?:\w+ )?failed: )?json: cannot unmarshal .* into Go struct field \w*\.(?P<root>\w+)", re.DOTALL
)
_STATE_KEYS = {key for dialect in DIALECTS.values() for key in dialect.state_keys}
_READS_CONFIG = {"create", "run", "restore"}
_DOCUMENT_OPTIONS = {"-p", "--process", "-r", "--resources"}
_VALUED_OPTIONS = {"--root", "--log", "--log-format", "--criu", "--rootless", "--cgroup-manager"}

_CRIU_LOG = re.compile(r"(?:--- Quoting \"|--- excerpt from CRIU log `|log file: )([^\"`\n]+)")

# What a runtime prints after it has closed its log (execve(2) failing in the container) or before it has opened it
# (crun: the bundle's directory; both: the command line). It is all there is on stderr then.
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
# What the copy of runc that becomes the process prints if it gets no thread, as where `pids.limit` is reached. runc
# itself says then that the copy is gone: "connection reset by peer", "procReady not received".
_NO_THREAD = re.compile(
    r"^runtime/cgo: pthread_create failed: .*|^runtime: failed to create new OS thread .*", re.MULTILINE
)
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
    """Return whether the runtime failed, or the container's process ended with this exit code.

    For the commands that end with the code of a container's process: `run`, `exec` and `restore` in the foreground. Any
    other has failed if its code isn't 0.

    An error in the log decides, as does a signal that ended the runtime itself, a process that is lost, and a process
    that was never reported: then no code is a program's, but the runtime's own or that of a command in front of it, or
    of the dynamic loader (127) where the runtime can't run at all. An unknown code says nothing.
    In three cases a runtime says nothing there and all that is left is stderr: a Go panic (code 2; the trace names
    functions of runc), execve(2) failing in the container after the checks before it (a foreign binary, a script whose
    interpreter is missing), and what crun says of the bundle's directory and of its command line. Then stderr has to be
    that text and nothing else. So a program that prints no more than `exec X: exec format error` and exits with 1 or
    255 is taken for one that never ran; and where stderr isn't captured, one that never ran looks as if it had exited
    with 1 or 255.
    """
    if exit_code == 0:
        return False
    if any(record.is_error for record in log):
        return True
    if exit_code is None or exit_code < 0:
        return exit_code is not None
    if process in {"lost", "none"}:
        return True
    text = _text_of(stderr).strip()
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
    """Make the error for a runtime that has failed, of the class that its words call for.

    Its words are the errors in the log; without any, the errors among the lines of stderr; without any, those lines.
    The last one counts, for runtimes end with the fatal one. Those before it (what was left behind, why criu failed)
    choose the class only if the table doesn't know the last.

    Args:
        args: The argument vector, for the error. The command in it tells which document a JSON error is about.
        exit_code: What the runtime ended with.
        stdout: What it printed: runc's "Incorrect Usage" goes there.
        stderr: Likewise.
        log: The records of its log.
        container_id: The container that it acted on.
        process: What had become of the container's process; None if that isn't known.
    """
    said = stderr or (stdout if process == "none" else b"")  # a terminal has both, and without a process all is runc's
    printed = parse_log(said[-_READ_LIMIT:])
    found = _judge(args, _words(stdout, printed, log))
    logged = any(record.is_error for record in log)
    if logged and found.cls is CommandError and (no_thread := _NO_THREAD.search(_text_of(stderr))):
        found = _Finding(errors.ResourceError, f"{found.text}: {no_thread[0]}")
    if found.cls is errors.ExecutableError and found.text.lower().rstrip().endswith(_TOO_LONG):
        found = found._replace(text=f"{found.text.rstrip()} (E2BIG): {INSTEAD_OF_ARGUMENTS}")
    if (process == "lost" and not logged) or _crashed(exit_code, found, stderr, process=process):
        found = _Finding(errors.RuncCrashed, _panic(stderr) or found.text)
    text = explained(found.text) if found.cls is errors.ResourceError else found.text
    error = found.cls(args, exit_code, stderr, log, stdout=stdout, container_id=container_id, message=text or None)
    if isinstance(error, errors.CheckpointError):
        error.log_path = _criu_log((*log, *printed))
    elif isinstance(error, errors.UnsupportedUsage):
        error.what = found.what or error.what
        error.runtime = args[0].rpartition("/")[2] if args else error.runtime
    return error


def _text_of(stderr: bytes) -> str:
    """Return the beginning of stderr, where the first thing that went wrong stands."""
    return stderr[:_READ_LIMIT].decode(errors="replace")


class _Words(NamedTuple):
    """What a runtime said: whole messages, or lines of which several may make one message."""

    texts: list[str]
    are_records: bool


class _Finding(NamedTuple):
    """The text that counts, and what it means."""

    cls: type[CommandError]
    text: str
    what: str | None = None


def _words(stdout: bytes, printed: tuple[LogRecord, ...], log: tuple[LogRecord, ...]) -> _Words:
    """Pick what a runtime said about its failure from all that it said."""
    for records in (log, printed):
        if texts := [_text(record) for record in records if record.is_error]:
            return _Words(texts, are_records=True)
    for records in (printed, log):
        if texts := [record.msg for record in records if record.level is None]:
            return _Words(texts, are_records=False)
    usage = stdout[:_READ_LIMIT].decode(errors="replace").partition("\n")[0]
    return _Words([usage] if usage.startswith("Incorrect Usage") else [], are_records=True)


def _text(record: LogRecord) -> str:
    """Put the cause behind the message, where they are apart."""
    return f"{record.msg}: {record.error}" if record.error else record.msg


def _judge(args: tuple[str, ...], words: _Words) -> _Finding:
    """Choose the text and the class."""
    findings = filter(None, (_find(text, args) for text in reversed(words.texts[-_WORDS_LIMIT:])))
    last = words.texts[-1] if words.texts else ""
    found = next(findings, _Finding(CommandError, last))
    return found._replace(text=last) if words.are_records else found


def _find(text: str, args: tuple[str, ...]) -> _Finding | None:
    """Look a text up in the table."""
    message = shorten(text.strip(), _MATCH_LIMIT)
    if known := meaning(message):
        return _Finding(known.cls, text, known.what)
    if wrong := _WRONG_TYPE.match(message):
        document = _mistyped(wrong["root"], args)
    else:
        document = _document(args) if _SYNTAX.match(message) else None
    return _Finding(document, text) if document else None


def _mistyped(root: str, args: tuple[str, ...]) -> type[CommandError] | None:
    """Return which document has a value of a wrong type below a key of its root; None if that can't be known.

    The state that most commands read is runc's own, and so are its keys. Those of a configuration, a process or
    resources are others.
    """
    command = _command(args)
    if command in _READS_CONFIG:
        return errors.InvalidSpec
    if command is None:
        return None
    return errors.CorruptState if root in _STATE_KEYS else errors.InvalidSpec


def _document(args: tuple[str, ...]) -> type[CommandError] | None:
    """Tell which document a JSON error without a name is about; None if that can't be known.

    A document of the caller's own (a path after `--process`) may be as broken as the state that is read before it. One
    that was handed over in memory, shown in angle brackets, was written by an encoder.
    """
    command = _command(args)
    if command in _READS_CONFIG:
        return errors.InvalidSpec
    values = (value for name, value in pairwise(args) if name in _DOCUMENT_OPTIONS)
    if command is None or any(not value.startswith("<") for value in values):
        return None
    return errors.CorruptState


def _command(args: tuple[str, ...]) -> str | None:
    """Return runc's command: the first argument that is neither a global option nor the value of one."""
    return next(
        (arg for option, arg in pairwise(args) if not arg.startswith("-") and option not in _VALUED_OPTIONS), None
    )


def _crashed(exit_code: int | None, found: _Finding, stderr: bytes, *, process: Fate | None) -> bool:
    """Return whether the runtime broke down before it could say why.

    A Go program that panics, or gets no thread, ends with 2; a runtime that fails in order ends with 1 and a record. So
    a 2 and no error message is the same, where the container has stderr and the trace isn't captured; and so is one
    before there is a process, when only the runtime itself can have written to stderr.
    """
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
