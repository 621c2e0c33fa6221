"""From a runc process that has ended to a `Completed`: the one place where output, log and statuses are read."""

from __future__ import annotations

import signal

from ..endreason import EndReason
from ..exitstatus import from_wait_status
from ..runner import Completed, Fate, Invocation
from .argument_files import ArgumentFiles
from .child import Child
from .plumbing import Plumbing

_KILLED = 128 + signal.SIGKILL
"""The code with which runc reports a process that was killed; one that fails has others."""


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
    """Read what is in memory, in files and pipes.

    Args:
        invocation: What was started.
        child: The runc process.
        plumbing: Its streams.
        files: Its log, and the container's process.
        fate: What has become of that process.
        abandoned: Whether runc was ended because only others kept it.
        lost: Whether output is missing for that, or for want of time.
        timed_out: Whether it was stopped because its time was up.
        exceeded: The limit for which its process was ended.
        oom_kills: Processes that were killed meanwhile because the memory was used up.
    """
    held = plumbing.drained()
    # What still holds the pipes may write later, which is not the process's output; unless it is the process itself.
    incomplete = lost or (held and not invocation.stop.waits_for_process)
    # The end of a process that had lost its runc is our own doing, and no result.
    wait_status = None if files.workload is None or fate == "lost" else files.workload.wait_status
    returncode = child.returncode
    if abandoned:  # runc was ended before it could report the process's code
        returncode = None if wait_status is None else from_wait_status(wait_status).exit_code
    if exceeded is not None:  # runc was ended too, and may have ended first
        if wait_status is not None:
            returncode = from_wait_status(wait_status).exit_code
        elif returncode != _KILLED:  # output can come, and the kill with it, before there is a pidfd to ask
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


def _agree(exit_code: int, wait_status: int | None) -> bool:
    """Return whether an exit code of runc's can be that of a process that ended so; True if that isn't known."""
    return wait_status is None or from_wait_status(wait_status).exit_code == exit_code
