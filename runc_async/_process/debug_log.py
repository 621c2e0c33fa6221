"""The two DEBUG lines of each command in `logging.getLogger("runc_async")`: when it starts, and when it has ended.

The runtime's own messages go to the same logger: see `_answers/log`.
"""

from __future__ import annotations

import logging
import time

from .._text import one_line, subject
from ..runner import Invocation

LOGGER = logging.getLogger("runc_async")


def log_start(invocation: Invocation, pid: int) -> None:
    """Log that a command runs: its arguments, with the same values hidden as in `Invocation.args`."""
    if LOGGER.isEnabledFor(logging.DEBUG):  # the arguments are put together only for this line
        LOGGER.debug(
            "%s: %s (pid %d) started: %s",
            subject(invocation.container_id),
            invocation.command,
            pid,
            one_line(" ".join(invocation.args)),
            extra={"container_id": invocation.container_id, "pid": pid},
        )


def log_end(invocation: Invocation, pid: int, returncode: int | None, since: float) -> None:
    """Log that a command has ended.

    Args:
        invocation: What was started.
        pid: The process id that it had.
        returncode: As in `Completed`.
        since: When it was started, by CLOCK_BOOTTIME.
    """
    if LOGGER.isEnabledFor(logging.DEBUG):
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - since
        LOGGER.debug(
            "%s: %s (pid %d) ended after %.3f s: %s",
            subject(invocation.container_id),
            invocation.command,
            pid,
            seconds,
            _ending(returncode),
            extra={
                "container_id": invocation.container_id,
                "pid": pid,
                "returncode": returncode,
                "seconds": seconds,
            },
        )


def _ending(returncode: int | None) -> str:
    """Describe a return code in words."""
    if returncode is None:
        return "exit code unknown"
    return f"killed by signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
