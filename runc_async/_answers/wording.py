"""The table from error messages to classes, built from the messages of all runtimes."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from .. import errors
from .._runtimes.known import DIALECTS
from ..errors import CommandError

# Errors of execve(2) as written by Go (runc), glibc and musl (crun), in lower case.
_NO_FILE = ("no such file or directory",)
_DENIED = ("permission denied", "operation not permitted")
_FORMAT = ("exec format error",)
_USED_UP = (
    "resource temporarily unavailable",
    "cannot allocate memory",
    "out of memory",
    "too many open files in system",
    "too many open files",
    "no file descriptors available",
)
EXECVE_ERRORS = (
    *_NO_FILE,
    *_DENIED,
    *_FORMAT,
    *_USED_UP,
    "accessing a corrupted shared library",
    "argument list too long",
    "bad address",
    "file ?name too long",
    "function not implemented",  # a seccomp profile's word
    "i/o error",
    "input/output error",
    "invalid argument",
    "is a directory",
    "not a directory",
    "symbolic link loop",
    "text file busy",
    "too many levels of symbolic links",
)
"""Patterns of all errors in execve(2), printed by a runtime if the program of a process can't be executed."""


class _Step(NamedTuple):
    """A step of the lookup.

    Attributes:
        cls: The class.
        patterns: Patterns for all runtimes.
        own: Whether each runtime's own patterns for the class are included.
    """

    cls: type[CommandError]
    patterns: tuple[str, ...] = ()
    own: bool = True


# The order matters in four places:
# - a hook's output stands in the message and may say anything: HookError is first;
# - a program, a console or a resource that is "not found" or "denied" comes before PermissionDenied, which looks at
#   the end of any message;
# - MemoryLimitTooLow is a special case of ResourceError;
# - a missing bundle is a special case of InvalidSpec.
# The last two steps look at the end of any message, whatever it is about.
STEPS = (
    _Step(errors.HookError),
    _Step(errors.ContainerNotFound),
    _Step(errors.ContainerExists),
    _Step(errors.InvalidContainerID),
    _Step(errors.ContainerNotPaused),
    _Step(errors.ContainerPaused),
    _Step(errors.ContainerNotRunning),
    _Step(errors.ContainerRunning),
    _Step(errors.InvalidSignal),
    _Step(errors.CorruptState),
    _Step(errors.CheckpointError),
    _Step(errors.ExecutableNotFound, (rf"exec .*: (?i:{'|'.join(_NO_FILE)})$",)),
    _Step(errors.ExecutableDenied, (rf"exec .*: (?i:{'|'.join(_DENIED)})$",)),
    _Step(errors.ExecFormatError, (rf"(?:exec .*: )?(?i:{'|'.join(_FORMAT)})$",)),
    _Step(errors.ResourceError, (rf"exec .*: (?i:{'|'.join(_USED_UP)})$",), own=False),
    _Step(errors.ExecutableError, (rf"exec .*: (?i:{'|'.join(EXECVE_ERRORS)})$",)),
    _Step(errors.TerminalError),
    _Step(errors.MemoryLimitTooLow),
    _Step(errors.ResourceError),
    _Step(errors.BundleNotFound),
    _Step(errors.InvalidSpec),
    _Step(errors.UnsupportedUsage),
    _Step(errors.InvalidUsage),
    _Step(errors.PermissionDenied, (r".*: (?i:permission denied|operation not permitted)$",)),
    _Step(
        errors.ResourceError,
        (rf".*: (?i:{'|'.join(_USED_UP)}|no space left on device|disk quota exceeded)$",),
        own=False,
    ),
)

NO_TERMINAL_WANTED = (
    "without a terminal, call set_terminal(enabled=False) of the bundle's spec; with one, pass io=PtyIO()"
)


def explained(message: str, cls: type[CommandError]) -> str:
    """Add the missing reason or remedy to a message without one.

    Args:
        message: The runtime's message.
        cls: The class chosen by the message.
    """
    if cls is errors.ResourceError and any(pattern.match(message) for pattern in _without_cgroup()):
        return f"no cgroup of the container's own, or none with the controller: {message}"
    if cls is errors.TerminalError and any(pattern.match(message, _start(message)) for pattern in _without_terminal()):
        return f"{message.rstrip()}; {NO_TERMINAL_WANTED}"
    return message


class Meaning(NamedTuple):
    """The meaning of a message.

    Attributes:
        cls: The class of the error.
        what: The missing feature, for `UnsupportedUsage`.
    """

    cls: type[CommandError]
    what: str | None = None


def meaning(message: str) -> Meaning | None:
    """Look a message up; None if the table has no such message."""
    start = _start(message)
    for cls, patterns in _table():
        for pattern in patterns:
            if match := pattern.match(message, start):
                return Meaning(cls, match.groupdict().get("what"))
    return None


# All three are compiled on the first error: compiling takes longer than importing everything else.


@cache
def _table() -> tuple[tuple[type[CommandError], tuple[re.Pattern[str], ...]], ...]:
    """Compile the table; the runtimes' own patterns come first in each step."""
    return tuple(
        (
            step.cls,
            tuple(
                re.compile(pattern, re.DOTALL)
                for patterns in (
                    *(dialect.wordings.get(step.cls, ()) for dialect in DIALECTS.values() if step.own),
                    step.patterns,
                )
                for pattern in patterns
            ),
        )
        for step in STEPS
    )


@cache
def _prefixes() -> re.Pattern[str]:
    """Compile the prefixes that runtimes put before a cause."""
    return re.compile(f"(?:{'|'.join(prefix for dialect in DIALECTS.values() for prefix in dialect.prefixes)})*")


def _start(message: str) -> int:
    """Return the position of the cause: after the runtime's prefixes."""
    prefixes = _prefixes().match(message)
    return prefixes.end() if prefixes else 0


@cache
def _without_terminal() -> tuple[re.Pattern[str], ...]:
    """Compile the runtimes' messages about a process that needs a terminal and gets none."""
    return tuple(re.compile(pattern) for dialect in DIALECTS.values() for pattern in dialect.without_terminal)


@cache
def _without_cgroup() -> tuple[re.Pattern[str], ...]:
    """Compile the runtimes' messages about a container without a cgroup."""
    return tuple(re.compile(pattern) for dialect in DIALECTS.values() for pattern in dialect.without_cgroup)
