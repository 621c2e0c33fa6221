"""Build a `Completed` from an ended runc process: the one place that reads output, log and statuses."""

from __future__ import annotations

from .._answers.log import parse_log
from ..endreason import EndReason
from ..exitstatus import from_wait_status
from ..runner import Completed, Fate, Invocation
from .argument_files import ArgumentFiles
from .child import Child
from .plumbing import Plumbing


def read_outcome(
    invocation: Invocation,
    child: Child,
    plumbing: Plumbing,
    files: ArgumentFiles,
    *,
    fate: Fate | None,
    abandoned: bool,
    lost: bool,
    timed_out: bool,
    exceeded: EndReason | None = None,
    oom_kills: int | None = None,
) -> Completed:
    """Read the output from memory, files and pipes.

    Args:
        invocation: The invocation.
        child: The runc process.
        plumbing: The streams of runc.
        files: The log, and the container's process.
        fate: The fate of the container's process.
        abandoned: Whether runc was ended because only an inherited pipe kept it alive.
        lost: Whether output is missing for this reason, or for lack of time.
        timed_out: Whether the timeout has ended the call.
        exceeded: The limit that has ended the process.
        oom_kills: Number of OOM kills during the call.
    """
    held = plumbing.drained()
    # A process that still holds the pipes may write later. Unless it is the container's process, this isn't its output.
    incomplete = lost or (held and not invocation.stop.waits_for_process)
    # A process that had lost its runc was killed by us, and its status is no result.
    wait_status = None if files.workload is None or fate == "lost" else files.workload.wait_status
    returncode = child.returncode
    if abandoned:  # runc was ended before it could report the process's code
        returncode = None if wait_status is None else from_wait_status(wait_status).exit_code
    if exceeded is not None:  # runc was ended too, and may have ended first
        if wait_status is not None:
            returncode = from_wait_status(wait_status).exit_code
        elif not _reported(returncode, files.log):
            returncode = None
    elif plumbing.dropped and invocation.limits is not None and invocation.limits.output is not None:
        exceeded = EndReason.OUTPUT  # it has ended by itself before that was seen
    if fate == "ended" and returncode and not _agree(returncode, wait_status):
        fate = "lost"
    return Completed(
        pid=child.pid,
        returncode=returncode,
        stdout=plumbing.captured(0),
        stderr=plumbing.captured(1),
        log=files.log,
        truncated=incomplete or plumbing.dropped,
        timed_out=timed_out,
        wait_status=wait_status,
        exceeded=exceeded,
        oom_kills=oom_kills,
        process=fate,
    )


def _reported(returncode: int | None, log: bytes) -> bool:
    """Return whether runc has ended with the exit code of a process without a wait status.

    A limit of output can be reached before there is a pidfd. A killed runc has a negative code, and a failed runc
    logs an error.
    """
    return returncode is not None and returncode >= 0 and not any(record.is_error for record in parse_log(log))


def _agree(exit_code: int, wait_status: int | None) -> bool:
    """Return whether runc's exit code fits the wait status of the process; True if the status is unknown."""
    return wait_status is None or from_wait_status(wait_status).exit_code == exit_code
