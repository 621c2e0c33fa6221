"""The standard streams of a child: values for the argument `io=`.

| value | stdin | stdout and stderr | ends with |
|---|---|---|---|
| `NullIO` | empty | discarded | |
| `InheritedIO` | empty, or the caller's | the caller's | |
| `CapturedIO` | `input=` | bytes in the `Response` | the call |
| `PipedIO` | a stream of ours, a file or descriptor | streams of ours, files or descriptors | the block |
| `RedirectIO` | a file, FIFO or descriptor | files, FIFOs or descriptors | |
| `PtyIO` | one terminal for all three | | the block |

The values hold no resource, and can be used for any number of calls.
"""

from __future__ import annotations

import os
from typing import Literal, Protocol, TypeAlias

import msgspec

CAPTURE_LIMIT = 1 << 20
"""Default number of bytes that `CapturedIO` keeps of each stream: 1 MiB."""


MAX_WINDOW = 0xFFFF
"""Maximal number of rows or columns of a terminal: ioctl_tty(2) has 16 bits for each."""


JOINED = "stdout"
"""As `stderr`: the same stream as stdout."""


class SupportsFileno(Protocol):
    """An open file, a socket, or another object with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


Redirection: TypeAlias = str | os.PathLike[str] | int | SupportsFileno | None
"""The type of a stream of `RedirectIO`."""

Target: TypeAlias = bool | str | os.PathLike[str] | int | SupportsFileno
"""The type of a stream of `PipedIO`: a pipe (True), `/dev/null` (False), a file, or an open descriptor."""


class NullIO(msgspec.Struct, frozen=True):
    """All three streams are `/dev/null`."""


class InheritedIO(msgspec.Struct, frozen=True):
    """The caller's own stdout and stderr, and optionally stdin.

    Attributes:
        stdin: Whether the child reads the caller's stdin, including a terminal; otherwise `/dev/null`.
    """

    stdin: bool = False


class CapturedIO(msgspec.Struct, frozen=True):
    """Stdout and stderr are kept in memory separately, and returned in the `Response`.

    A child that writes more than `limit` is neither blocked nor ended: `limit` bytes of each stream are kept, and
    `Response.truncated` is set.

    Attributes:
        limit: Maximal bytes to keep of each stream: 1 MiB (1048576) if left out.
        stderr: "stdout" joins both streams in one pipe: `Response.stdout` then has both, in the order of writing, and
            `Response.stderr` is empty. With runc, a small program waits for the process in place of runc; its start
            takes about 0.015 seconds. In a `run` with runc 1.0, in a user namespace, with `pid_file` or with
            `no_subreaper`, runc copies each stream separately: output written to both within milliseconds may be
            reordered.
        keep: The bytes to keep of a longer stream: its "last", or its "first".
    """

    limit: int = CAPTURE_LIMIT
    stderr: Literal["stdout"] | None = None
    keep: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        """Refuse an invalid limit, and unknown words."""
        if self.limit < 0:
            raise ValueError(f"limit must not be negative: {self.limit}")
        if self.stderr not in {None, JOINED}:
            raise ValueError(f"stderr must be None or 'stdout': {self.stderr!r}")
        if self.keep not in {"last", "first"}:
            raise ValueError(f"keep must be 'last' or 'first': {self.keep!r}")


class PipedIO(msgspec.Struct, frozen=True):
    """Each stream is a pipe whose other end is a stream of ours (True), `/dev/null` (False), a file or a descriptor.

    Files and descriptors work as in `RedirectIO`: a path is opened for reading (stdin), or created and opened for
    appending (stdout, stderr); a descriptor or an open file still belongs to the caller. A file that can't be opened is
    an `OSError` before the runtime is started.

    Attributes:
        stdin: True, False, a path, an open file, or a descriptor.
        stdout: True, False, a path, an open file, or a descriptor.
        stderr: Likewise; or "stdout" for the same stream as stdout: output to both arrives in the order of writing. A
            file with this name is `Path("stdout")`.
        uid: Owner of the pipes, so that a process in a user namespace can open `/dev/stdout` again: the host's uid of
            the container's user. None: the caller's.
        gid: The group of the pipes, likewise.
    """

    stdin: Target = True
    stdout: Target = True
    stderr: Target = True
    uid: int | None = None
    gid: int | None = None

    def __post_init__(self) -> None:
        """Refuse invalid streams."""
        for name in ("stdin", "stdout", "stderr"):
            target = getattr(self, name)
            if not isinstance(target, bool):
                _check_target(name, target, "True, False, a path, a descriptor or an open file")


class RedirectIO(msgspec.Struct, frozen=True):
    """Each stream is a file, a FIFO, or an open descriptor; None is `/dev/null`.

    A path is opened for reading (stdin), or created and opened for appending (stdout, stderr). A FIFO is opened for
    both reading and writing, so that a missing peer doesn't block. Descriptors are lent to the child and not closed.

    Attributes:
        stdin: A path, a descriptor, or an open file.
        stdout: A path, a descriptor, or an open file.
        stderr: A path, a descriptor, or an open file; the same path as `stdout` joins both streams.
    """

    stdin: Redirection = None
    stdout: Redirection = None
    stderr: Redirection = None

    def __post_init__(self) -> None:
        """Refuse invalid targets."""
        for name in ("stdin", "stdout", "stderr"):
            if getattr(self, name) is not None:
                _check_target(name, getattr(self, name), "a path, a descriptor or an open file")


class PtyIO(msgspec.Struct, frozen=True):
    """The three streams are one pseudo-terminal.

    Attributes:
        rows: The height in characters.
        cols: The width in characters.
    """

    rows: int = 24
    cols: int = 80

    def __post_init__(self) -> None:
        """Refuse a size that doesn't fit into the kernel's `struct winsize`."""
        for name in ("rows", "cols"):
            if not 0 <= getattr(self, name) <= MAX_WINDOW:
                raise ValueError(f"{name} must be from 0 to {MAX_WINDOW}: {getattr(self, name)}")


def _check_target(name: str, target: object, expected: str) -> None:
    """Refuse a target that is neither a path nor open.

    Raises:
        TypeError: If the target has a wrong type.
        ValueError: If the target is a negative number.
    """
    if isinstance(target, bool | bytes) or not (
        isinstance(target, int | str | os.PathLike) or hasattr(target, "fileno")
    ):
        raise TypeError(f"{name} must be {expected}: {target!r}")
    # `subprocess` uses negative numbers for pipes and the like.
    if isinstance(target, int) and target < 0:
        raise ValueError(f"{name} must be an open descriptor: {target}")


StdIO: TypeAlias = NullIO | InheritedIO | CapturedIO | PipedIO | RedirectIO | PtyIO
"""Everything that `io=` takes."""
