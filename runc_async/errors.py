"""What can go wrong, one class for each thing that a caller may want to tell apart.

    RuncError
    ├── RuncNotFound                    also FileNotFoundError: no such program
    ├── SpawnError                      also OSError: no process can be started from here
    │   └── ArgumentsTooLong            also ValueError
    ├── RuncTimeout                     also TimeoutError: runc was stopped because its time was up
    ├── ExitError                       the container's process ended with a code other than 0
    ├── DecodeError                     also ValueError: output that can't be understood
    ├── RootfsError                     a bundle's root filesystem can't be made
    │   ├── InitNotFound                there is no program to be the first process
    │   └── ArchiveError                an archive isn't unpacked into a container
    ├── BundleChanged                   config.json and the bundle's spec have both changed
    ├── UnsupportedError                the runtime has no such command or option
    │   └── UnsupportedUsage            ... and has said so itself; also InvalidUsage
    └── CommandError                    runc ran, and failed
        ├── ContainerNotFound
        ├── ContainerExists
        ├── InvalidContainerID          also ValueError
        ├── ContainerStatusError        the container's status doesn't allow it
        │   ├── ContainerNotRunning
        │   ├── ContainerRunning
        │   ├── ContainerPaused
        │   └── ContainerNotPaused
        ├── CorruptState                runc's own record of the container can't be read
        ├── BundleNotFound
        ├── InvalidSpec                 config.json or process.json asks for what can't be
        ├── ExecutableError             the program of the process can't be executed
        │   ├── ExecutableNotFound
        │   ├── ExecutableDenied        also PermissionDenied
        │   └── ExecFormatError
        ├── HookError
        ├── TerminalError
        ├── InvalidSignal               also ValueError
        ├── ResourceError               a limit can't be set, or something is used up
        │   └── MemoryLimitTooLow
        ├── CheckpointError             criu failed, or isn't there, or the images aren't
        ├── PermissionDenied
        ├── InvalidUsage                runc didn't understand its command line
        └── RuncCrashed                 runc broke down, or was killed

A `CommandError` that is none of the classes below it says something that this library has no name for.

Every error holds plain data, survives `pickle` and `copy`, and is one line of bounded length as a `str`. What runc and
the container wrote is quoted there with its control characters escaped. Nothing is taken from the environment or the
input of a process. Nor from the arguments, which may hold secrets and are in `args`: only `ExitError` quotes them, so
secrets belong in the environment or on stdin.
"""

# ruff: noqa: N818 - the names are what happened, as in "except ContainerNotFound"; an ending would say nothing more

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
    """There is no such program.

    Attributes:
        command: What was looked for: a name or a path.
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
    """No process can be started from here: nothing was started.

    Attributes:
        errno: What the system call failed with, or would have failed with.
        reason: What is the matter.
        remedy: What helps.
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
    """An argument, or all arguments and the environment together, are longer than execve(2) takes (E2BIG)."""


class RuncTimeout(RuncError, TimeoutError):
    """Runc didn't end in time and was stopped.

    Attributes:
        args: The argument vector, as in `CommandError`.
        timeout: The limit, in seconds.
        stdout: What had been printed until then.
        stderr: Likewise.
        container_id: The container that it acted on, if any.
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
    """The container's process ended with a code other than 0, or with one that is unknown.

    The sentence quotes the arguments of the program, shortened, and the last line of its stderr; after `run` it names
    the bundle instead of the arguments.

    Attributes:
        response: The whole result.
        exit_code: The code; None if it is unknown.
        container_id: The container, if it is known.
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
    """Output, or a document, that isn't what it should be.

    Attributes:
        message: What is wrong with it.
        data: The bytes, all of them.
        private: They may hold secrets, as a document with an environment does: the sentence shows none of them.
    """

    def __init__(self, message: str, data: bytes, *, private: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        self.private = private

    def __str__(self) -> str:
        if self.private:
            return f"{one_line(self.message)} ({len(self.data)} bytes)"
        excerpt = repr(self.data[:_EXCERPT_LIMIT])
        more = f"... ({len(self.data)} bytes)" if len(self.data) > _EXCERPT_LIMIT else ""
        return f"{one_line(self.message)}: {excerpt}{more}"


class RootfsError(RuncError):
    """A root filesystem can't be made from its source.

    Attributes:
        source: The archive, the program, or the directories.
        reason: Why not, and what helps.
    """

    _what = "no root filesystem from"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self._what} {one_line(self.source, _SOURCE_LIMIT)!r}: {one_line(self.reason)}"


class InitNotFound(RootfsError):
    """There is no program to be a container's first process: `source` is what was looked for."""

    _what = "no init"


class ArchiveError(RootfsError):
    """An archive is refused that was to be unpacked into a container: `source` is the directory in the container."""

    _what = "archive for"


class BundleChanged(RuncError):
    """A bundle's spec has to be saved, and its config.json was changed by other means than this `Bundle`.

    Nothing was overwritten. `Bundle.open` reads what is there; `Bundle.save` replaces it.

    Attributes:
        path: The bundle's directory.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"bundle {one_line(self.path)!r}: config.json was changed by others, and the spec was changed too"


class UnsupportedError(RuncError):
    """The runtime has no such command or option.

    Attributes:
        what: What it doesn't have.
        runtime: The runtime, by name or with its version.
    """

    def __init__(self, what: str, runtime: str = "the runtime") -> None:
        super().__init__(what, runtime)
        self.what = what
        self.runtime = runtime

    def __str__(self) -> str:
        return f"{one_line(self.runtime)} has no {one_line(self.what)}"


class CommandError(RuncError):
    """Runc failed.

    What a container's process ends with is no failure of runc's: see `ExitError`.

    Attributes:
        args: The argument vector that runc was started with, as in `Response`; empty if nothing was started.
        exit_code: The exit code of runc, -n if signal n ended it; None if nothing was started, or if it is unknown.
        stderr: What came on stderr, as far as it was captured.
        log: The records of runc's log.
        stdout: What came on stdout, as far as it was captured.
        container_id: The container that it acted on, if any.
        message: What runc said, made fit for one line.
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
        RuncError.__init__(self)  # not the next in line, which is UnsupportedError for one class below
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
    """There is no container of that id under runc's root directory."""


class ContainerExists(CommandError):
    """There is a container of that id already."""


class InvalidContainerID(CommandError, ValueError):
    """The id can't be one: empty, `.`, `..`, or with a character other than letters, digits and `_+-.`.

    Raised before anything is started (then `args` is empty and `exit_code` None), or after runc refused it.
    """


class ContainerStatusError(CommandError):
    """The status of the container doesn't allow the command."""


class ContainerNotRunning(ContainerStatusError):
    """The command needs a running process, and the container is stopped.

    Some commands say so of a paused or a created container as well.
    """


class ContainerRunning(ContainerStatusError):
    """The command needs a container that doesn't run yet, or no longer."""


class ContainerPaused(ContainerStatusError):
    """The container is paused, and the command can't be done before it is resumed."""


class ContainerNotPaused(ContainerStatusError):
    """There is nothing to resume."""


class CorruptState(CommandError):
    """The runtime's own record of the container, in its root directory, can't be read."""


class BundleNotFound(CommandError):
    """The bundle's directory, its config.json or its root file system isn't there."""


class InvalidSpec(CommandError):
    """config.json or process.json is no valid document, or asks for what can't be had on this host."""


class ExecutableError(CommandError):
    """The program that the process should run can't be executed: execve(2) in the container failed."""


class ExecutableNotFound(ExecutableError):
    """There is no such program in the container's root file system (ENOENT)."""


class ExecFormatError(ExecutableError):
    """The program is no executable file for this machine (ENOEXEC): another architecture, or a script without `#!`."""


class HookError(CommandError):
    """A hook of config.json failed or couldn't be started."""


class TerminalError(CommandError):
    """A terminal can't be set up: no console socket where one is needed (or the reverse), or stdin is no terminal."""


class InvalidSignal(CommandError, ValueError):
    """The runtime knows no such signal."""


class ResourceError(CommandError):
    """A limit can't be set, the container has no cgroup for what was asked of it, or something is used up.

    The kernel refuses the value, the host lacks the controller, or the runtime could make no cgroup, as without root.
    Or the call needs more processes (RLIMIT_NPROC, `pids.limit`), memory, descriptors or space than there are.
    """


class MemoryLimitTooLow(ResourceError):
    """The memory limit is below what is in use already, or what the runtime needs to start a container."""


class CheckpointError(CommandError):
    """A checkpoint or restore failed in criu, or there is no criu, or there are no images.

    Attributes:
        log_path: criu's log file; None if the runtime named none.
        log_tail: The end of that file, with errors from further up in front of it; empty if it couldn't be read.
    """

    log_path: str | None = None
    log_tail: bytes = b""


class PermissionDenied(CommandError):
    """The runtime may not do this: it runs without the privileges for it, or a file belongs to somebody else."""


class ExecutableDenied(ExecutableError, PermissionDenied):
    """The program may not be executed (EACCES, EPERM): no execute permission, or a directory."""


class InvalidUsage(CommandError):
    """The runtime didn't understand its command line."""


class UnsupportedUsage(InvalidUsage, UnsupportedError):
    """The runtime says itself that it has no such command or option: it is older than the call, or another one.

    Attributes:
        what: What it doesn't have.
        runtime: The program's name.
    """

    what = "such command or option"
    runtime = "the runtime"


class RuncCrashed(CommandError):
    """Runc broke down: it panicked, got no thread, or a signal ended it. What it was doing may be half done.

    A container that it was making is deleted, unless it was to be kept; a process that it waited for is killed, if runc
    had told its pid by then.
    """
