"""`ContainerProcess`: an additional process in a container."""

from __future__ import annotations

import datetime as dt
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from ._answers.outcome import raise_failure
from ._commands.words import signal_number
from .exitstatus import ExitStatus, from_exit_code, from_sandbox, from_wait_status

if TYPE_CHECKING:
    from ._streams.pipes import PipeReader, PipeWriter
    from .console import Pty
    from .runner import Invocation, Process as Running

_FAILURE_IN_SANDBOX = 128
"""The exit code of an `exec` in a sandbox that has failed itself; a program may end with it, too."""


class ContainerProcess:
    """An additional process in a container, from `Runc.open_exec`.

    Attributes:
        container_id: The container's id.
        pid: The process id in the host's namespace; None if the runner doesn't report it.
        stdin: The stdin of the process as a stream, with `PipedIO`.
        stdout: The stdout of the process, likewise.
        stderr: The stderr of the process, likewise.
        pty: The terminal, with `PtyIO`.
    """

    def __init__(self, container_id: str, process: Running, invocation: Invocation) -> None:
        workload = process.workload
        self.container_id = container_id
        self.pid: int | None = None if workload is None else workload.pid
        self.stdin: PipeWriter | None = process.stdin
        self.stdout: PipeReader | None = process.stdout
        self.stderr: PipeReader | None = process.stderr
        self.pty: Pty | None = process.pty
        self._process = process
        self._invocation = invocation

    def __repr__(self) -> str:
        """Show the container and the pid."""
        return f"<ContainerProcess {self.pid} in {self.container_id!r}>"

    async def wait(self) -> ExitStatus:
        """Wait for the end, and return the exit status with its time. Other processes may still hold the pipes.

        On Linux before 6.15, an exit code above 128 may be reported as a signal, because runc doesn't distinguish them.
        Cancelling changes nothing.

        Raises:
            CommandError: If runc fails.
        """
        status = await self._process.ended()
        if status is None:
            # Linux before 6.15 keeps no wait status for other processes than the parent, which is runc.
            completed = await self._process.wait()
            status = completed.wait_status
            if status is None:
                raise_failure(self._invocation, completed)
                told = from_exit_code(completed.returncode)
                return ExitStatus(code=told.code, signal=told.signal, exited_at=self._exited_at)
        found = from_wait_status(status, exited_at=self._exited_at)
        if self._invocation.sandbox is None:
            return found
        if found.code == _FAILURE_IN_SANDBOX:
            raise_failure(self._invocation, await self._process.wait())
        return from_sandbox(found)

    @property
    def _exited_at(self) -> dt.datetime | None:
        """The time when the end was noticed; None if the runner doesn't report it."""
        return None if self._process.workload is None else self._process.workload.exited_at

    def send_signal(self, signal: int | str, *, tree: bool = False) -> None:
        """Send a signal. Does nothing if the process has ended.

        Args:
            signal: The signal.
            tree: Send the signal to all descendants too, even if the process itself has ended: see `kill_tree` of
                `Runc.exec`. Works until the end of the block, where the descendants of a process that has ended by
                itself are left alone.

        Raises:
            InvalidSignal: If there is no such signal.
        """
        number = signal_number(signal)
        if tree:
            self._process.signal_tree(number)
        elif self._process.workload is None or self._invocation.sandbox is not None:
            # runc forwards it, but for SIGKILL and SIGSTOP; a process in a sandbox has no pid on the host.
            self._process.send_signal(number)
        else:
            self._process.workload.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(SIGTERM)

    def kill(self, *, tree: bool = False) -> None:
        """Send SIGKILL; with `tree` to all descendants too: see `send_signal`."""
        self.send_signal(SIGKILL, tree=tree)
