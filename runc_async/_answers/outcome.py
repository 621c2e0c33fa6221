"""Convert an ended runtime process to a result or an exception."""

from __future__ import annotations

from ..endreason import EndReason
from ..errors import CommandError, ContainerExists, RuncTimeout
from ..exitstatus import from_exit_code, from_wait_status
from ..response import Response
from ..runner import Completed, Invocation
from ..stdio import JOINED, CapturedIO, PipedIO


def check_time(invocation: Invocation, completed: Completed) -> None:
    """Raise `RuncTimeout` if the timeout has stopped runc."""
    if completed.timed_out and invocation.timeout is not None:
        raise RuncTimeout(
            invocation.args, invocation.timeout, completed.stdout, completed.stderr, invocation.container_id
        )


def check_finished(invocation: Invocation, completed: Completed) -> None:
    """Raise if a request/response command of runc failed or timed out."""
    check_time(invocation, completed)
    if completed.returncode != 0:
        raise command_error(invocation, completed)


def raise_failure(invocation: Invocation, completed: Completed) -> None:
    """Raise runc's error, if runc failed and the exit code isn't the process's own."""
    if completed.returncode == 0 or (completed.exceeded is not None and completed.process == "ended"):
        return
    from .._answers.failures import failed  # noqa: PLC0415  (its tables take milliseconds to load)
    from .._answers.log import parse_log  # noqa: PLC0415  (as above)

    stderr = _stderr(invocation, completed)
    if failed(parse_log(completed.log), completed.returncode, stderr, process=completed.process):
        raise command_error(invocation, completed)


def command_error(invocation: Invocation, completed: Completed) -> CommandError:
    """Return the exception for a failed runc."""
    from .._answers.failures import failure  # noqa: PLC0415  (as above)
    from .._answers.log import parse_log  # noqa: PLC0415  (as above)

    return failure(
        invocation.args,
        completed.returncode,
        completed.stdout,
        _stderr(invocation, completed),
        parse_log(completed.log),
        invocation.container_id,
        process=completed.process,
    )


def _stderr(invocation: Invocation, completed: Completed) -> bytes:
    """Return the stderr of runc and the process, which may be the same stream as stdout."""
    streams = invocation.streams
    joined = isinstance(streams, CapturedIO | PipedIO) and streams.stderr == JOINED
    return completed.stdout if joined else completed.stderr


def refused_as_existing(invocation: Invocation, completed: Completed) -> bool:
    """Return whether runc has created no container because the id is in use."""
    # Of two concurrent creations, the later one may find files instead of a container. A runc that has reported a
    # process has created a container, whatever the process prints.
    if not completed.returncode or completed.process in {"ended", "lost"}:
        return False
    error = command_error(invocation, completed)
    return isinstance(error, ContainerExists) or error.message.endswith((" already exists", "file exists"))


def respond(invocation: Invocation, completed: Completed, *, sandboxed: bool = False) -> Response:
    """Return the result of a successful runc.

    Args:
        invocation: The command.
        completed: Its end.
        sandboxed: Whether the process on the host is that of a sandbox, which ends with 128 + n if signal n has ended
            the program in it.
    """
    return Response(
        args=invocation.args,
        pid=completed.pid,
        exit_code=completed.returncode,
        stdout=completed.stdout,
        stderr=completed.stderr,
        truncated=completed.truncated,
        reason=end_reason(completed, sandboxed=sandboxed) if invocation.stop.waits_for_process else None,
    )


def end_reason(completed: Completed, *, sandboxed: bool = False) -> EndReason:
    """Return the reason for the end of an attached runc's process."""
    if completed.exceeded is not None:
        return completed.exceeded
    # A program that exits with 0 has survived the kill of one of its children.
    if completed.oom_kills and completed.returncode != 0:
        return EndReason.OOM
    if completed.wait_status is not None and not sandboxed:
        status = from_wait_status(completed.wait_status)
    elif completed.returncode is not None:
        status = from_exit_code(completed.returncode)
    else:
        return EndReason.UNKNOWN
    return EndReason.EXITED if status.signal is None else EndReason.SIGNALED
