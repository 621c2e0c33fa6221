"""`ContainerProcess`: a process that was started in a container that exists."""

from __future__ import annotations

import datetime as dt
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING

from ._answers.outcome import raise_failure
from ._commands.words import signal_number
from .exitstatus import ExitStatus, from_exit_code, from_wait_status

if TYPE_CHECKING:
    from ._streams.pipes import PipeReader, PipeWriter
    from .console import Pty
    from .runner import Invocation, Process as Running


class ContainerProcess:
    """A process that was started in a container that exists: what `Runc.open_exec` gives.

    Attributes:
        container_id: The container's id.
        pid: Its process id, as the host sees it; None if the runner can't tell it.
        stdin: Its stdin as a stream, with `PipedIO`.
        stdout: Its stdout, likewise.
        stderr: Its stderr, likewise.
        pty: Its terminal, with `PtyIO`.
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
        """Wait for its end, and return how and when it ended; others may hold its pipes still.

        On Linux before 6.15 an exit code above 128 may be taken for the end by a signal, as runc reports both alike.
        Cancelling changes nothing.

        Raises:
            CommandError: If runc fails.
        """
        status = await self._process.ended()
        if status is None:
            completed = await self._process.wait()
            status = completed.wait_status
            if status is None:
                raise_failure(self._invocation, completed)
                told = from_exit_code(completed.returncode)
                return ExitStatus(code=told.code, signal=told.signal, exited_at=self._exited_at)
        return from_wait_status(status, exited_at=self._exited_at)

    @property
    def _exited_at(self) -> dt.datetime | None:
        """When its end was seen; None if the runner can't tell it."""
        return None if self._process.workload is None else self._process.workload.exited_at

    def send_signal(self, signal: int | str, *, tree: bool = False) -> None:
        """Send it a signal; nothing happens if it has ended.

        Args:
            signal: The signal.
            tree: Send it to all that the process has started as well, also if the process itself has ended: see
                `Runc.exec`, `kill_tree`. Until the end of the block, at which a process that has ended by itself leaves
                them alone.

        Raises:
            InvalidSignal: If there is no such signal.
        """
        number = signal_number(signal)
        if tree:
            self._process.signal_tree(number)
        elif self._process.workload is None:
            self._process.send_signal(number)  # which runc forwards, but for SIGKILL and SIGSTOP
        else:
            self._process.workload.send_signal(number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(SIGTERM)

    def kill(self, *, tree: bool = False) -> None:
        """Send it SIGKILL; with `tree` to all that it has started as well: see `send_signal`."""
        self.send_signal(SIGKILL, tree=tree)
