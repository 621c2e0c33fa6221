"""The tree of errors: see runc_async/errors.py."""

from __future__ import annotations

import copy
import errno
import pickle
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given, strategies as st

from runc_async import errors
from runc_async._text import one_line
from runc_async.errors import (
    ArgumentsTooLong,
    BundleChanged,
    CheckpointError,
    CleanupWarning,
    CommandError,
    ContainerNotFound,
    DecodeError,
    ExitError,
    InvalidContainerID,
    LogRecord,
    RuncError,
    RuncNotFound,
    RuncTimeout,
    SpawnError,
    UnsupportedError,
    UnsupportedUsage,
)
from runc_async.response import Response

ARGS = ("runc", "exec", "--env", "TOKEN=hush", "web")
EXEC_ARGS = ("runc", "exec", "--env", "TOKEN=hush", "--", "web", "sh", "-c", "exit 3")
LOG = (LogRecord("warning", "first"), LogRecord("error", "container does not exist"))


def checkpoint_error() -> CheckpointError:
    """Make an error with attributes that were set later."""
    error = CheckpointError(ARGS, 1, b"criu failed: type DUMP errno 0\nlog file: dump.log\n", container_id="web")
    error.log_path, error.log_tail = "/img/dump.log", b"Error"
    return error


EACH: dict[str, RuncError] = {
    "no runtime 'runc' in $PATH ('/usr/bin:/bin')": RuncNotFound("runc", "/usr/bin:/bin"),
    "no runtime at '/opt/runc'": RuncNotFound("/opt/runc"),
    "container 'web': stopped after 2.5 seconds": RuncTimeout(ARGS, 2.5, b"out", b"err", "web"),
    "runc: stopped after 30 seconds": RuncTimeout(("runc", "list"), 30),
    "runc: the process ended with code 3": ExitError(Response(args=ARGS, pid=7, exit_code=3)),
    "container 'web': the process ended with an unknown code": ExitError(
        Response(args=ARGS, pid=7, exit_code=None), "web"
    ),
    "container 'web': sh -c 'exit 3' ended with code 3: no such thing": ExitError(
        Response(args=EXEC_ARGS, pid=7, exit_code=3, stderr=b"one\nno such thing\n\n"), "web"
    ),
    "container 'web': the process of bundle '/b' ended with code 3": ExitError(
        Response(args=("runc", "run", "--bundle", "/b", "--env", "hush", "--", "web"), pid=7, exit_code=3), "web"
    ),
    "ECHILD: SIGCHLD is ignored; restore it": SpawnError(errno.ECHILD, "SIGCHLD is ignored", "restore it"),
    "E2BIG: argument 3 is too long; use input=": ArgumentsTooLong(errno.E2BIG, "argument 3 is too long", "use input="),
    "no JSON: b'nope'": DecodeError("no JSON", b"nope"),
    "no JSON: b'" + "x" * 80 + "'... (100 bytes)": DecodeError("no JSON", b"x" * 100),
    "bundle '/b': config.json was changed by others, and the spec was changed too": BundleChanged("/b"),
    "crun 1.28 has no events": UnsupportedError("events", "crun 1.28"),
    "the runtime has no --pidfd-socket": UnsupportedError("--pidfd-socket"),
    "runc: flag provided but not defined: -x": UnsupportedUsage(ARGS, 1, b"flag provided but not defined: -x\n"),
    "container 'web': container does not exist": ContainerNotFound(ARGS, 1, b"else", LOG, container_id="web"),
    "runc: permission denied": CommandError(ARGS, 1, b"well\npermission denied\n", stdout=b"out"),
    "runc: given": CommandError(ARGS, 1, b"else", LOG, message="given"),
    "runc: exit code 5, and no error message": CommandError(ARGS, 5),
    "runc: killed by signal 9": CommandError(ARGS, -9),
    "runc: failed, and printed no error message": CommandError((), None),
    "container 'a b': no such character": InvalidContainerID((), None, container_id="a b", message="no such character"),
    r"container '\\x1b[2J': \x1b]0;title\x07": CommandError((), 1, container_id="\x1b[2J", message="\x1b]0;title\x07"),
    "container 'web': log file: dump.log": checkpoint_error(),
}


def pickled(error: RuncError) -> RuncError:
    """Send an error through pickle, as a process pool does."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert isinstance(again, RuncError)
    return again


def subclasses(cls: type[RuncError]) -> set[type[RuncError]]:
    """Return a class and all below it."""
    return {cls}.union(*(subclasses(each) for each in cls.__subclasses__()))


@pytest.mark.parametrize(("sentence", "error"), EACH.items(), ids=str)
def test_the_sentence_says_what_happened_to_which_container(sentence: str, error: RuncError) -> None:
    """Each error is one line, in lower case but for what is quoted."""
    assert str(error) == sentence
    assert repr(error) == f"{type(error).__name__}({sentence!r})"


@pytest.mark.parametrize("error", EACH.values(), ids=str)
@pytest.mark.parametrize("through", [pickled, copy.copy, copy.deepcopy])
def test_an_error_survives_pickling_and_copying(error: RuncError, through: Callable[[RuncError], RuncError]) -> None:
    """Class, sentence, arguments and every attribute are the same afterwards, notes included."""
    error.add_note("while testing")
    again = through(error)
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("error", EACH.values(), ids=str)
def test_arguments_are_not_shown(error: RuncError) -> None:
    """Options may hold a variable's value, so neither the sentence nor the repr has them."""
    assert "hush" not in str(error) + repr(error)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (RuncNotFound("runc"), FileNotFoundError),
        (RuncTimeout(ARGS, 1), TimeoutError),
        (SpawnError(errno.ECHILD, "", ""), OSError),
        (ArgumentsTooLong(errno.E2BIG, "", ""), ValueError),
        (DecodeError("no", b""), ValueError),
        (InvalidContainerID((), None), ValueError),
        (errors.InvalidSignal((), None), ValueError),
        (errors.ExecutableDenied((), 1), errors.PermissionDenied),
        (errors.MemoryLimitTooLow((), 1), errors.ResourceError),
        (UnsupportedUsage((), 1), UnsupportedError),
        (UnsupportedUsage((), 1), CommandError),
    ],
)
def test_an_error_is_caught_by_its_other_name(error: RuncError, builtin: type[Exception]) -> None:
    """Code that knows only the builtin class, or the other branch, catches it too."""
    assert isinstance(error, builtin)


def test_a_missing_program_has_errno_and_filename() -> None:
    """It can be handled as the FileNotFoundError that it is."""
    error = RuncNotFound("runc", "/bin")
    for each in (error, pickled(error)):
        assert isinstance(each, RuncNotFound)
        assert (each.errno, each.filename, each.command, each.path) == (errno.ENOENT, "runc", "runc", "/bin")


def test_a_command_error_holds_all_that_is_known() -> None:
    """The arguments are runc's, not those of the constructor."""
    error = CommandError(ARGS, 1, b"err", LOG, stdout=b"out", container_id="web")
    assert (error.args, error.exit_code, error.stdout, error.stderr) == (ARGS, 1, b"out", b"err")
    assert (error.log, error.container_id, error.message) == (LOG, "web", "container does not exist")


def test_an_exit_error_has_the_code_of_its_response() -> None:
    """The whole result is there, and the code at hand."""
    response = Response(args=ARGS, pid=7, exit_code=3, stdout=b"partial")
    assert (ExitError(response).exit_code, ExitError(response).response) == (3, response)


def test_a_timeout_keeps_the_output_so_far() -> None:
    """Nothing that was read is lost."""
    error = RuncTimeout(ARGS, 1.5, b"out", b"err", "web")
    assert (error.args, error.timeout, error.stdout, error.stderr) == (ARGS, 1.5, b"out", b"err")


def test_a_decode_error_keeps_all_bytes() -> None:
    """Only the sentence is short."""
    assert DecodeError("no", b"x" * 5000).data == b"x" * 5000


def test_what_was_not_cleaned_up_is_shown_by_default() -> None:
    """The category isn't one of those that Python hides."""
    assert issubclass(CleanupWarning, RuntimeWarning)


def test_the_tree_in_the_documentation_is_the_tree() -> None:
    """The drawing has every class, below its first base."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r" {4}([ │├└─]*)(\w+)(?: {2,}|$)", line):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            if depth:
                drawn[match[2]] = path[depth - 1]
    drawn["UnsupportedUsage"], also = "InvalidUsage", drawn["UnsupportedUsage"]
    assert also == UnsupportedUsage.__bases__[1].__name__
    ours = [cls for cls in subclasses(RuncError) if cls is not RuncError and cls.__module__ == errors.__name__]
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in ours}


@given(st.text(max_size=400), st.integers(20, 100))
@example("a" * 30 + "\n\r\n\x85\u2028" + "b" * 30, 40)
@example("\x1b[31m\u202e\ud800\x00", 20)
def test_one_line_is_short_and_harmless(text: str, limit: int) -> None:
    """Any text becomes one printable line within the limit."""
    line = one_line(text, limit)
    assert line.isprintable()
    assert len(line) <= limit


def test_the_middle_of_a_long_message_is_left_out() -> None:
    """Where and why, at both ends of what runc says, are kept."""
    line = one_line("runc create failed: " + "x" * 5000 + ": permission denied")
    assert line.startswith("runc create failed: ")
    assert " ... " in line
    assert line.endswith(": permission denied")


@pytest.mark.parametrize(
    ("level", "is_error"),
    [("error", True), ("fatal", True), ("panic", True), ("warning", False), ("debug", False), (None, False)],
)
def test_only_the_levels_from_error_up_are_errors(level: str | None, *, is_error: bool) -> None:
    """A warning is no failure, and neither is a line that isn't a record."""
    assert LogRecord(level, "x").is_error is is_error
