"""`Response`: the result of a finished call."""

from __future__ import annotations

import msgspec

from .endreason import EndReason
from .usage import Usage


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """The result of `create`, `run`, `exec` and `restore`, with the captured output.

    Attributes:
        args: The argument vector of runc. A document in memory appears as its name in angle brackets, the value of a
            variable as `***`.
        pid: The process id of runc.
        exit_code: For a foreground `run` or `exec` the exit code of the container's process (128 + n after signal n); 0
            for all other commands. None if the process ended with an unknown status.
        stdout: The captured stdout; the last bytes if the output was longer than the limit. Empty if not captured.
        stderr: The captured stderr, likewise.
        truncated: Whether bytes of stdout or stderr are missing: the output was longer than the limit, or other
            processes still wrote after the drain timeout. After `create`, and with `detach`, also if the container
            holds the pipe.
        reason: The reason for the end of a foreground `run` or `exec`; None for other commands, whose process runs on.
        usage: The resources used by a `run` with `usage=True`; None otherwise.
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
