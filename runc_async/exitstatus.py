"""How a process of a container has ended."""

from __future__ import annotations

import datetime as dt
import os
import signal as signals

import msgspec

_FIRST_SIGNAL_CODE = 129
_LAST_SIGNAL_CODE = 128 + 64


class ExitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a process ended: with a code, by a signal, or nobody can tell.

    A status that can't be known has neither code nor signal. It is not a success: test `code == 0` for that.

    Attributes:
        code: What the process passed to exit(2), 0 to 255; None if it was killed by a signal or the status is unknown.
        signal: The number of the signal that killed it; None if none did or the status is unknown.
        oom_killed: Whether the kernel killed a process of the container because the memory of its cgroup was used up.
            It need not have been this process: one that was killed so has `signal` 9 as well. After a SIGKILL of the
            `Container`'s own only what was killed later counts. None if the cgroup couldn't be read.
        exited_at: When the end was seen, an aware time in UTC. None if the process had ended before anybody waited.
    """

    code: int | None = None
    signal: int | None = None
    oom_killed: bool | None = None
    exited_at: dt.datetime | None = None

    @property
    def known(self) -> bool:
        """Whether it is known how the process ended."""
        return self.code is not None or self.signal is not None

    @property
    def exit_code(self) -> int | None:
        """What a foreground `runc run` would end with: the code, or 128 and the signal's number; None if unknown."""
        return self.code if self.signal is None else 128 + self.signal

    def __str__(self) -> str:
        reason = " (out of memory)" if self.oom_killed else ""
        if self.signal is not None:
            return f"killed by {_signal_name(self.signal)}{reason}"
        return f"exited with {'an unknown status' if self.code is None else self.code}{reason}"


def from_wait_status(
    status: int, *, oom_killed: bool | None = None, exited_at: dt.datetime | None = None
) -> ExitStatus:
    """Make an exit status of what wait(2) and the kernel's pidfd memory call a status."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return ExitStatus(signal=-code, oom_killed=oom_killed, exited_at=exited_at)
    return ExitStatus(code=code, oom_killed=oom_killed, exited_at=exited_at)


def from_exit_code(code: int | None) -> ExitStatus:
    """Make an exit status of what a foreground runc ends with, which is 128 + n for the end by signal n.

    A process that exits with such a code itself can't be told from that.
    """
    if code is not None and _FIRST_SIGNAL_CODE <= code <= _LAST_SIGNAL_CODE:
        return ExitStatus(signal=code - 128)
    return ExitStatus(code=code)


def _signal_name(number: int) -> str:
    """Name a signal; real-time signals have no names in Python, but for the first and last."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
