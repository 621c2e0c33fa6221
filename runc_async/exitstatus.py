"""The exit status of a container's process."""

from __future__ import annotations

import datetime as dt
import os
import signal as signals

import msgspec

_FIRST_SIGNAL_CODE = 129
_LAST_SIGNAL_CODE = 128 + 64


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The exit status of a process: a code, a signal, or unknown.

    An unknown status has neither code nor signal. It is no success: test `code == 0` for success.

    Attributes:
        code: The argument of exit(2), 0 to 255; None if a signal killed the process or the status is unknown.
        signal: The number of the signal that killed the process; None if none did or the status is unknown.
        oom_killed: Whether the kernel killed a process of the container because the memory of its cgroup was used up.
            It may have been another process; if it was this one, `signal` is 9. After a SIGKILL by the `Container` only
            later kills count. None if the cgroup couldn't be read.
        exited_at: The time when the end was noticed, aware, in UTC. None if the process had ended before the first
            wait.
    """

    code: int | None = None
    signal: int | None = None
    oom_killed: bool | None = None
    exited_at: dt.datetime | None = None

    @property
    def known(self) -> bool:
        """Whether the status is known."""
        return self.code is not None or self.signal is not None

    @property
    def exit_code(self) -> int | None:
        """The exit code of a foreground `runc run`: the code, or 128 plus the signal's number; None if unknown."""
        # The convention of shells and of runc.
        return self.code if self.signal is None else 128 + self.signal

    def __str__(self) -> str:
        reason = " (out of memory)" if self.oom_killed else ""
        if self.signal is not None:
            return f"killed by {_signal_name(self.signal)}{reason}"
        return f"exited with {'an unknown status' if self.code is None else self.code}{reason}"


def from_wait_status(
    status: int, *, oom_killed: bool | None = None, exited_at: dt.datetime | None = None
) -> ExitStatus:
    """Convert a status of wait(2), or of a pidfd."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return ExitStatus(signal=-code, oom_killed=oom_killed, exited_at=exited_at)
    return ExitStatus(code=code, oom_killed=oom_killed, exited_at=exited_at)


def from_exit_code(code: int | None) -> ExitStatus:
    """Convert the exit code of a foreground runc, which is 128 + n after signal n."""
    # A process that exits with such a code itself can't be distinguished.
    if code is not None and _FIRST_SIGNAL_CODE <= code <= _LAST_SIGNAL_CODE:
        return ExitStatus(signal=code - 128)
    return ExitStatus(code=code)


def from_sandbox(status: ExitStatus) -> ExitStatus:
    """Return the status of a program, from that of a process that ends with its code, or 128 + n after signal n."""
    found = from_exit_code(status.code) if status.code is not None else status
    return msgspec.structs.replace(status, code=found.code, signal=found.signal)


def _signal_name(number: int) -> str:
    """Return the name of a signal; in Python, only the first and last real-time signals have names."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
