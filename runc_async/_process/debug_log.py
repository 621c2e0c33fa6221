"""The two DEBUG lines of each command in `logging.getLogger("runc_async")`: one on start, one on exit.

The runtime's own messages go to the same logger: see `_answers/log`.
"""

from __future__ import annotations

import logging
import time

from .._text import one_line, subject
from ..runner import Invocation

LOGGER = logging.getLogger("runc_async")


def log_start(invocation: Invocation, pid: int) -> None:
    """Log the start of a command with the arguments; the same values are hidden as in `Invocation.args`."""
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
    """Log the exit of a command.

    Args:
        invocation: The invocation.
        pid: The process id.
        returncode: As in `Completed`.
        since: The time of the start, by CLOCK_BOOTTIME.
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
