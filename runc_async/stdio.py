"""What a child's three standard streams are: values that are given to a call as `io=`.

| value | stdin | stdout and stderr | ends with |
|---|---|---|---|
| `NullIO` | nothing to read | thrown away | |
| `InheritedIO` | nothing, or the caller's | the caller's | |
| `CapturedIO` | `input=` | bytes in the `Response` | the call |
| `PipedIO` | a stream of ours, a file or descriptor | streams of ours, files or descriptors | whoever opened it |
| `RedirectIO` | a file, FIFO or descriptor | files, FIFOs or descriptors | |
| `PtyIO` | one terminal for all three | | whoever opened it |

The values hold no resource: they can be made once and used for any number of calls.
"""

from __future__ import annotations

import os
from typing import Literal, Protocol, TypeAlias

import msgspec

CAPTURE_LIMIT = 1 << 20
"""Bytes that `CapturedIO` keeps of each stream when nothing else is asked for: 1 MiB."""


MAX_WINDOW = 0xFFFF
"""Largest number of rows or columns of a terminal: ioctl_tty(2) has 16 bits for each."""


JOINED = "stdout"
"""As `stderr`: the same stream as stdout."""


class SupportsFileno(Protocol):
    """An open file, socket or anything else that tells its descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


Redirection: TypeAlias = str | os.PathLike[str] | int | SupportsFileno | None
"""What one stream of a `RedirectIO` may be."""

Target: TypeAlias = bool | str | os.PathLike[str] | int | SupportsFileno
"""What one stream of a `PipedIO` may be: a pipe (True), `/dev/null` (False), a file, or an open descriptor."""


class NullIO(msgspec.Struct, frozen=True):
    """All three streams are `/dev/null`."""


class InheritedIO(msgspec.Struct, frozen=True):
    """The caller's own stdout and stderr, and its stdin if asked for.

    Attributes:
        stdin: The child reads the caller's stdin (then also its terminal), and not nothing.
    """

    stdin: bool = False


class CapturedIO(msgspec.Struct, frozen=True):
    """Stdout and stderr are kept in memory, apart from each other, and come with the `Response`.

    A child that writes more than `limit` isn't held up and isn't ended: `limit` bytes of each stream are kept, and
    `Response.truncated` is set.

    Attributes:
        limit: How many bytes of each stream are kept.
        stderr: "stdout" puts both streams into one pipe: `Response.stdout` then has both, and `Response.stderr` is
            empty. A runc in the foreground copies each stream by itself, so what is written to both within
            milliseconds can change places; with `Runc.open_container` and `PipedIO` the order is kept.
        keep: Which bytes are kept of a stream that is longer: its "last", or its "first".
    """

    limit: int = CAPTURE_LIMIT
    stderr: Literal["stdout"] | None = None
    keep: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        """Refuse a limit that isn't a number of bytes, and words that mean nothing."""
        if self.limit < 0:
            raise ValueError(f"limit must not be negative: {self.limit}")
        if self.stderr not in {None, JOINED}:
            raise ValueError(f"stderr must be None or 'stdout': {self.stderr!r}")
        if self.keep not in {"last", "first"}:
            raise ValueError(f"keep must be 'last' or 'first': {self.keep!r}")


class PipedIO(msgspec.Struct, frozen=True):
    """Each stream is a pipe whose other end is a stream of ours (True), `/dev/null` (False), a file or a descriptor.

    Files and descriptors are those of `RedirectIO`: a path is opened for reading (stdin), or made and opened for
    appending (stdout, stderr); a descriptor, and an open file, stays the caller's. One that can't be opened is an
    `OSError` before the runtime is started.

    Attributes:
        stdin: True, False, a path, an open file, or a descriptor.
        stdout: True, False, a path, an open file, or a descriptor.
        stderr: Likewise; or "stdout", which makes it the same stream as stdout: what a container writes to both comes
            in the order in which it was written. With an exec, runc copies each by itself, and what is written to both
            within milliseconds can change places. A file of that name is `Path("stdout")`.
        uid: Owner given to the pipes, so that a process in a user namespace can open `/dev/stdout` anew:
            the host's uid of the container's user. None: the caller's.
        gid: The group, likewise.
    """

    stdin: Target = True
    stdout: Target = True
    stderr: Target = True
    uid: int | None = None
    gid: int | None = None

    def __post_init__(self) -> None:
        """Refuse what can't be a stream."""
        for name in ("stdin", "stdout", "stderr"):
            target = getattr(self, name)
            if not isinstance(target, bool):
                _check_target(name, target, "True, False, a path, a descriptor or an open file")


class RedirectIO(msgspec.Struct, frozen=True):
    """Each stream is a file, a FIFO, or a descriptor that is open already; None is `/dev/null`.

    A path is opened for reading (stdin), or made and opened for appending (stdout, stderr). A FIFO is opened for both
    reading and writing, so that a peer which isn't there yet holds up nobody. Descriptors stay the caller's: they are
    lent to the child and not closed.

    Attributes:
        stdin: A path, a descriptor, or an open file.
        stdout: A path, a descriptor, or an open file.
        stderr: A path, a descriptor, or an open file; the same path as `stdout` makes both one stream.
    """

    stdin: Redirection = None
    stdout: Redirection = None
    stderr: Redirection = None

    def __post_init__(self) -> None:
        """Refuse what can't be a target; negative numbers mean pipes and the like to `subprocess`."""
        for name in ("stdin", "stdout", "stderr"):
            if getattr(self, name) is not None:
                _check_target(name, getattr(self, name), "a path, a descriptor or an open file")


class PtyIO(msgspec.Struct, frozen=True):
    """The three streams are one pseudo-terminal.

    Attributes:
        rows: Its height in characters.
        cols: Its width in characters.
    """

    rows: int = 24
    cols: int = 80

    def __post_init__(self) -> None:
        """Refuse a size that the kernel's `struct winsize` can't hold."""
        for name in ("rows", "cols"):
            if not 0 <= getattr(self, name) <= MAX_WINDOW:
                raise ValueError(f"{name} must be from 0 to {MAX_WINDOW}: {getattr(self, name)}")


def _check_target(name: str, target: object, expected: str) -> None:
    """Refuse what is neither a path nor open; negative numbers mean pipes and the like to `subprocess`.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is a negative number.
    """
    if isinstance(target, bool | bytes) or not (
        isinstance(target, int | str | os.PathLike) or hasattr(target, "fileno")
    ):
        raise TypeError(f"{name} must be {expected}: {target!r}")
    if isinstance(target, int) and target < 0:
        raise ValueError(f"{name} must be an open descriptor: {target}")


StdIO: TypeAlias = NullIO | InheritedIO | CapturedIO | PipedIO | RedirectIO | PtyIO
"""Everything that `io=` takes."""
