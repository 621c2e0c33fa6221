"""Exceptions: one class for each kind of failure.

    RuncError
    ├── RuncNotFound                    also FileNotFoundError: the runtime's program isn't there
    ├── SpawnError                      also OSError: this process can't start another
    │   └── ArgumentsTooLong            also ValueError
    ├── RuncTimeout                     also TimeoutError: runc was stopped after its time limit
    ├── ExitError                       the container's process ended with a code other than 0
    ├── DecodeError                     also ValueError: output that can't be decoded
    ├── RootfsError                     a bundle's root filesystem can't be made
    │   ├── InitNotFound                no program for the first process
    │   └── ArchiveError                an archive can't be unpacked into a container
    ├── BundleChanged                   config.json and the bundle's spec have both changed
    ├── UnsupportedError                the runtime lacks a command or option
    │   └── UnsupportedUsage            reported by the runtime; also InvalidUsage
    └── CommandError                    runc ran, and failed
        ├── ContainerNotFound
        ├── ContainerExists
        ├── InvalidContainerID          also ValueError
        ├── ContainerStatusError        the container's status doesn't allow the command
        │   ├── ContainerNotRunning
        │   ├── ContainerRunning
        │   ├── ContainerPaused
        │   └── ContainerNotPaused
        ├── CorruptState                runc's record of the container can't be read
        ├── BundleNotFound
        ├── InvalidSpec                 config.json or process.json is refused
        ├── ExecutableError             the program of the process can't be executed
        │   ├── ExecutableNotFound
        │   ├── ExecutableDenied        also PermissionDenied
        │   └── ExecFormatError
        ├── HookError
        ├── TerminalError
        ├── InvalidSignal               also ValueError
        ├── ResourceError               a limit can't be set, or a resource is exhausted
        │   └── MemoryLimitTooLow
        ├── CheckpointError             criu failed, or criu or the images are missing
        ├── PermissionDenied
        ├── InvalidUsage                runc didn't understand its command line
        └── RuncCrashed                 runc panicked, or was killed

A failure without a class of its own is a plain `CommandError`.

Every error holds plain data, survives `pickle` and `copy`, and is one line of bounded length as a `str`. Output of runc
and of the container is quoted with control characters escaped. The environment and the input of a process are never
quoted, and arguments, which may hold secrets, by `ExitError` alone: pass secrets by the environment or by stdin.
"""

# ruff: noqa: N818 - the names read as in "except ContainerNotFound"; the ending "Error" would add nothing

from __future__ import annotations

import errno
from typing import Any

from ._error import CleanupWarning as CleanupWarning, LogRecord as LogRecord, RuncError as RuncError  # noqa: PLC0414 - for callers
from ._text import ending, last_line, one_line, program, subject
from .response import Response

_EXCERPT_LIMIT = 80
_ARGUMENTS_LIMIT = 200
_SOURCE_LIMIT = 300


class RuncNotFound(RuncError, FileNotFoundError):
    """The runtime's program doesn't exist.

    Attributes:
        command: The name or path that was looked up.
        path: The directories that were searched, as in $PATH; None if `command` is a path.
        errno: `errno.ENOENT`.
        filename: The same as `command`.
    """

    def __init__(self, command: str, path: str | None = None) -> None:
        super().__init__(errno.ENOENT, "No such file or directory", command)
        self.command = command
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        """Call the constructor again: an OSError keeps `errno` and `filename` out of reach."""
        return type(self), (self.command, self.path), self.__dict__

    def __str__(self) -> str:
        command = one_line(self.command)
        if self.path is None:
            return f"no runtime at {command!r}"
        return f"no runtime {command!r} in $PATH ({one_line(self.path)!r})"


class SpawnError(RuncError, OSError):
    """This process can't start another process; none was started.

    Attributes:
        errno: The error number of the system call that failed, or would have failed.
        reason: The cause.
        remedy: A way to mend it.
    """

    def __init__(self, errno: int, reason: str, remedy: str) -> None:
        super().__init__(errno, f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Call the constructor again: an OSError keeps `errno` out of reach."""
        return type(self), (self.errno, self.reason, self.remedy), self.__dict__

    def __str__(self) -> str:
        return f"{errno.errorcode.get(self.errno or 0, self.errno)}: {one_line(f'{self.reason}; {self.remedy}')}"


class ArgumentsTooLong(SpawnError, ValueError):
    """An argument, or the arguments and the environment together, are longer than execve(2) takes (E2BIG)."""


class RuncTimeout(RuncError, TimeoutError):
    """The runc process was stopped because its time limit was reached.

    Attributes:
        args: The argument vector, as in `CommandError`.
        timeout: The limit, in seconds.
        stdout: The output until then.
        stderr: The error output until then.
        container_id: The container of the command, if any.
    """

    args: tuple[str, ...]

    def __init__(
        self,
        args: tuple[str, ...],
        timeout: float,
        stdout: bytes = b"",
        stderr: bytes = b"",
        container_id: str | None = None,
    ) -> None:
        super().__init__()
        self.args = args
        self.timeout = timeout
        self.stdout = stdout
        self.stderr = stderr
        self.container_id = container_id

    def __str__(self) -> str:
        return f"{subject(self.container_id)}: stopped after {self.timeout:g} seconds"


class ExitError(RuncError):
    """The container's process ended with a code other than 0, or with an unknown code.

    The message quotes the arguments of the program, shortened, and the last line of its stderr; after `run` it names
    the bundle instead of the arguments.

    Attributes:
        response: The whole result.
        exit_code: The code; None if it is unknown.
        container_id: The container, if known.
    """

    def __init__(self, response: Response, container_id: str | None = None) -> None:
        super().__init__()
        self.response = response
        self.container_id = container_id

    @property
    def exit_code(self) -> int | None:
        """The code; None if it is unknown."""
        return self.response.exit_code

    def __str__(self) -> str:
        code = "an unknown code" if self.exit_code is None else f"code {self.exit_code}"
        what = one_line(program(self.response.args), _ARGUMENTS_LIMIT)
        said = one_line(last_line(self.response.stderr))
        return f"{subject(self.container_id)}: {what} ended with {code}{f': {said}' if said else ''}"


class DecodeError(RuncError, ValueError):
    """Output, or a document, that can't be decoded.

    Attributes:
        message: The first fault.
        data: All bytes.
        private: Whether the bytes may hold secrets, as a document with an environment does: the message quotes none
            then.
    """

    def __init__(self, message: str, data: bytes, *, private: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        self.private = private

    def __str__(self) -> str:
        if self.private:
            return f"{one_line(self.message)} ({len(self.data)} bytes)"
        # repr escapes control characters, which a terminal might interpret.
        excerpt = repr(self.data[:_EXCERPT_LIMIT])
        more = f"... ({len(self.data)} bytes)" if len(self.data) > _EXCERPT_LIMIT else ""
        return f"{one_line(self.message)}: {excerpt}{more}"


class RootfsError(RuncError):
    """A root filesystem can't be made from its source.

    Attributes:
        source: The archive, the program, or the directories.
        reason: The cause, and a way to mend it.
    """

    _what = "no root filesystem from"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self._what} {one_line(self.source, _SOURCE_LIMIT)!r}: {one_line(self.reason)}"


class InitNotFound(RootfsError):
    """No program to be a container's first process was found: `source` is the name or path that was looked up."""

    _what = "no init"


class ArchiveError(RootfsError):
    """An archive can't be unpacked into a container: `source` is the directory in the container."""

    _what = "archive for"


class BundleChanged(RuncError):
    """A bundle's spec has to be saved, but config.json was changed by other means than this `Bundle`.

    Nothing was overwritten. `Bundle.open` reads the file; `Bundle.save` replaces it.

    Attributes:
        path: The bundle's directory.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"bundle {one_line(self.path)!r}: config.json was changed by others, and the spec was changed too"


class UnsupportedError(RuncError):
    """The runtime lacks a command or an option.

    Attributes:
        what: The command or option.
        runtime: The runtime, by name or with its version.
    """

    def __init__(self, what: str, runtime: str = "the runtime") -> None:
        super().__init__(what, runtime)
        self.what = what
        self.runtime = runtime

    def __str__(self) -> str:
        return f"{one_line(self.runtime)} has no {one_line(self.what)}"


class CommandError(RuncError):
    """A runc command failed.

    The exit code of a container's process is no failure of runc: see `ExitError`.

    Attributes:
        args: The argument vector of the runc process, as in `Response`; empty if no process was started.
        exit_code: The exit code of runc, -n if signal n ended it; None if no process was started, or if it is unknown.
        stderr: The captured stderr.
        log: The records of runc's log.
        stdout: The captured stdout.
        container_id: The container of the command, if any.
        message: The message of runc, as one line.
    """

    args: tuple[str, ...]

    def __init__(
        self,
        args: tuple[str, ...],
        exit_code: int | None,
        stderr: bytes = b"",
        log: tuple[LogRecord, ...] = (),
        *,
        stdout: bytes = b"",
        container_id: str | None = None,
        message: str | None = None,
    ) -> None:
        # Not super(): for UnsupportedUsage, the next class in the order is UnsupportedError, with other arguments.
        RuncError.__init__(self)
        self.args = tuple(args)
        self.exit_code = exit_code
        self.stderr = stderr
        self.log = log
        self.stdout = stdout
        self.container_id = container_id
        said = next((record.msg for record in reversed(log) if record.is_error), None)
        self.message: str = one_line(message or said or last_line(stderr)) or ending(exit_code)

    def __str__(self) -> str:
        return f"{subject(self.container_id)}: {self.message}"


class ContainerNotFound(CommandError):
    """No container with this id exists under runc's root directory."""


class ContainerExists(CommandError):
    """A container with this id exists already."""


class InvalidContainerID(CommandError, ValueError):
    """The id is invalid: empty, `.`, `..`, or with a character other than letters, digits and `_+-.`.

    Raised before a process is started (then `args` is empty and `exit_code` None), or after runc has refused the id.
    """


class ContainerStatusError(CommandError):
    """The status of the container doesn't allow the command."""


class ContainerNotRunning(ContainerStatusError):
    """The command needs a running process, and the container is stopped.

    Some commands raise it for a paused or a created container as well.
    """


class ContainerRunning(ContainerStatusError):
    """The command needs a container that isn't running."""


class ContainerPaused(ContainerStatusError):
    """The container is paused; the command needs it resumed first."""


class ContainerNotPaused(ContainerStatusError):
    """The container isn't paused, so it can't be resumed."""


class CorruptState(CommandError):
    """The runtime's record of the container, in its root directory, can't be read."""


class BundleNotFound(CommandError):
    """The bundle's directory, its config.json or its root filesystem doesn't exist."""


class InvalidSpec(CommandError):
    """config.json or process.json is invalid, or can't be satisfied on this host."""


class ExecutableError(CommandError):
    """The program of the process can't be executed: execve(2) in the container failed."""


class ExecutableNotFound(ExecutableError):
    """The program doesn't exist in the container's root filesystem (ENOENT)."""


class ExecFormatError(ExecutableError):
    """The program can't run on this machine (ENOEXEC): built for another architecture, or a script without `#!`."""


class HookError(CommandError):
    """A hook of config.json failed or couldn't be started."""


class TerminalError(CommandError):
    """A terminal can't be set up: a console socket is missing or not wanted, or stdin is no terminal."""


class InvalidSignal(CommandError, ValueError):
    """The runtime doesn't know the signal."""


class ResourceError(CommandError):
    """A limit can't be set, the container lacks the cgroup for the command, or a resource is exhausted.

    The kernel refuses the value, the host lacks the controller, or the runtime could create no cgroup, as without root.
    Or the host or a limit (RLIMIT_NPROC, `pids.limit`) has no processes, memory, descriptors or space left.
    """


class MemoryLimitTooLow(ResourceError):
    """The memory limit is below the memory in use, or below the memory needed to start a container."""


class CheckpointError(CommandError):
    """A checkpoint or restore failed in criu, or criu or the images are missing.

    Attributes:
        log_path: The log file of criu; None if the runtime named none.
        log_tail: The end of that file, with errors from further up in front of it; empty if it couldn't be read.
    """

    log_path: str | None = None
    log_tail: bytes = b""


class PermissionDenied(CommandError):
    """The runtime lacks a permission: a privilege, or access to a file of another user."""


class ExecutableDenied(ExecutableError, PermissionDenied):
    """The program can't be executed (EACCES, EPERM): no execute permission, or a directory."""


class InvalidUsage(CommandError):
    """The runtime didn't understand its command line."""


class UnsupportedUsage(InvalidUsage, UnsupportedError):
    """The runtime itself reports an unknown command or option: it is an older version, or another runtime.

    Attributes:
        what: The command or option.
        runtime: The program's name.
    """

    what = "such command or option"
    runtime = "the runtime"


class RuncCrashed(CommandError):
    """The runc process panicked, got no thread, or was killed. Its work may be partly done.

    A container created by the call is deleted, unless `keep` was given; a process that the call waited for is killed,
    if runc had reported its pid by then.
    """
