"""Files passed to runc as paths: documents, the log, the pid file, and sockets."""

from __future__ import annotations

import contextlib
import fcntl
import os
import warnings
from typing import TypeAlias

from .._containers.alone import alone
from .._containers.workload import Workload
from .._linux.fdsocket import FDSocket
from .._linux.leaf_cgroup import LeafCgroup
from .._linux.memfd import lifted, memory_file
from ..errors import CleanupWarning
from ..runner import (
    Argument,
    Document,
    InsidePidFile,
    OwnCgroup,
    PidfdSocket,
    PidFile,
    PrivateLog,
    PrivateRoot,
    Setting,
)
from .inside_pid import InsidePid

LOG_LIMIT = 1 << 20
"""Number of bytes read from the end of runc's private log; the reason of a failure is at the end."""

FIRST_INHERITED = 3
"""The first descriptor after stdin, stdout and stderr."""

FileArgument: TypeAlias = Document | PrivateLog | PidFile | InsidePidFile | PidfdSocket | PrivateRoot | Setting


class ArgumentFiles:
    """The files of an invocation, all in memory except the pid file and a private root directory."""

    def __init__(self, *, above: int, log_to_stderr: bool = False) -> None:
        """Start without files.

        Args:
            above: Lowest number for the descriptors.
            log_to_stderr: Whether runc writes the private log to stderr, which is read while runc runs.
        """
        self._above = above
        self._log_to_stderr = log_to_stderr
        self._log = -1
        self._files: list[int] = []
        self._directories = contextlib.ExitStack()
        self.workload: Workload | None = None
        self.leaf: LeafCgroup | None = None
        self.inside_pid: InsidePid | None = None
        self.console: FDSocket | None = None
        self.inherited: list[int] = []

    def argv(
        self, arguments: tuple[Argument, ...], detach_at: int | None = None, *, terminal: bool = False
    ) -> list[str]:
        """Create the files, and put the paths into the argument vector.

        Args:
            arguments: The argument vector.
            detach_at: The place for the words to make runc hand the streams over; None for none.
            terminal: Whether the streams are a terminal.
        """
        words: list[str] = []
        for argument in arguments:
            if isinstance(argument, str):
                words.append(argument)
            elif isinstance(argument, OwnCgroup):
                words += self._own_cgroup(argument)
            else:
                words.append(self._word(argument))
        if detach_at is not None:
            handing_over = ["--detach"]
            if terminal:
                self.console = FDSocket()
                # Open before the spawn: runc connects as soon as it has the terminal.
                self.console.open()
                handing_over += ["--console-socket", self._socket_path(self.console.path)]
            words[detach_at:detach_at] = handing_over
        return words

    def _own_cgroup(self, wanted: OwnCgroup) -> list[str]:
        """Create a cgroup and return the options; no options after a failure, as when the container has ended."""
        with contextlib.suppress(OSError):
            self.leaf = LeafCgroup([directory for _, directory in wanted.parents], wanted.name)
        return [] if self.leaf is None else wanted.words()

    def _word(self, argument: FileArgument) -> str:
        """Return the word for an argument, with a file behind the word if necessary."""
        match argument:
            case Setting():
                return f"{argument.name}={argument.value}"
            case Document():
                return self._path(memory_file(argument.name, argument.data, above=self._above))
            case PrivateLog():
                return self._log_path()
            case PrivateRoot():
                return self._directories.enter_context(alone(argument))
            case PidFile() | InsidePidFile():
                return self._pid_path(argument)
            case PidfdSocket():
                if self.workload is None:
                    raise ValueError("a PidfdSocket has to stand behind a PidFile")
                return self._socket_path(self.workload.listen())

    def _pid_path(self, argument: PidFile | InsidePidFile) -> str:
        """Return the path for runc's pid file."""
        made: Workload | InsidePid
        if isinstance(argument, PidFile):
            made = self.workload = Workload(argument.path, above=self._above)
        else:
            made = self.inside_pid = InsidePid(above=self._above)
        # runc writes the pid file through the inherited directory, whatever mount namespace it is in.
        if made.directory_fd >= 0:
            self.inherited.append(made.directory_fd)
        return made.path

    def _log_path(self) -> str:
        """Return the path for runc's log."""
        if self._log_to_stderr:
            return "/proc/self/fd/2"
        self._log = memory_file("log", above=self._above)
        return self._path(self._log)

    def lent(self, fds: tuple[int, ...]) -> list[int]:
        """Copy the caller's standard streams to higher numbers: in the child, 0, 1 and 2 are other files."""
        return [self._copy(fd) if fd < FIRST_INHERITED else fd for fd in fds]

    def _copy(self, fd: int) -> int:
        """Copy a descriptor."""
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, self._above)
        self._files.append(copy)
        return copy

    def _socket_path(self, path: str) -> str:
        """Return the path of a socket, valid in any mount namespace."""
        # A path behind /proc/self/fd is resolved from the descriptor, so that runc finds the socket in other mount
        # namespaces too (and the path fits into the 108 bytes of an AF_UNIX address).
        directory = lifted(os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY), self._above)
        return f"{self._path(directory)}/{os.path.basename(path)}"

    def _path(self, fd: int) -> str:
        """Let the child inherit `fd`, and return the path of `fd` in the child."""
        self._files.append(fd)
        self.inherited.append(fd)
        return f"/proc/self/fd/{fd}"

    @property
    def log(self) -> bytes:
        """The end of runc's log."""
        if self._log < 0:
            return b""
        # pread: the file offset is shared with runc, which may still write.
        size = os.fstat(self._log).st_size
        return os.pread(self._log, LOG_LIMIT, max(0, size - LOG_LIMIT))

    def close(self) -> None:
        """Close and remove all files. Idempotent."""
        self._log = -1
        self.close_console()
        self._directories.close()
        while self._files:
            os.close(self._files.pop())

    def close_console(self) -> None:
        """Close the socket for the terminal. Idempotent."""
        if self.console is not None:
            self.console.close()
            self.console = None

    def close_workload(self) -> None:
        """Release the container's process, and remove the cgroup made for the process. Idempotent."""
        if self.workload is not None:
            self.workload.close()
        if self.leaf is not None:
            self.leaf.remove_soon(_warn_of_leaf)
            self.leaf = None
        if self.inside_pid is not None:
            self.inside_pid.close()


def _warn_of_leaf(path: str) -> None:
    """Warn about the cgroup of a process that couldn't be removed."""
    warnings.warn(f"a cgroup is left behind until its container is deleted: {path}", CleanupWarning, stacklevel=2)
