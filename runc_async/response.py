"""What a finished call says: the public `Response`."""

from __future__ import annotations

import msgspec

from .endreason import EndReason
from .usage import Usage


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A runc that has ended, with what it printed.

    `create`, `run`, `exec` and `restore` return one.

    Attributes:
        args: The argument vector that runc was started with. A document that was handed over in memory stands there
            by its name in angle brackets, a value of the environment as `***`.
        pid: The process id that runc had.
        exit_code: For a foreground `run` or `exec` the exit code of the container's process (128 + n if signal n ended
            it); 0 for all else. None if the process ended and nobody can tell how.
        stdout: What came on stdout, the last bytes of it if there was more than was to be kept. Empty if it wasn't
            captured.
        stderr: What came on stderr, likewise.
        truncated: Bytes of stdout or stderr are missing: there were more than the limit, or other processes went on
            writing when the drain timeout was over. After `create`, and with `detach`, also if the container holds the
            pipe.
        reason: Why the process of a foreground `run` or `exec` ended; None for all else, whose process goes on.
        usage: The resources that a `run` with `usage=True` has used; None for all else.
    """

    args: tuple[str, ...]
    pid: int
    exit_code: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False
    reason: EndReason | None = None
    usage: Usage | None = None

    @property
    def output(self) -> str:
        """Stdout, then stderr, as text; bytes that aren't UTF-8 are replaced."""
        return (self.stdout + self.stderr).decode(errors="replace")
