"""Processes whose parent has gone: nobody's children, or ours under `subreaper()`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Generator


class Process:
    """A process that ends when it is told to, with a pidfd; not our child unless we are a subreaper."""

    def __init__(self, pid: int, leash: int) -> None:
        """Keep the pid and the descriptor whose close ends the process."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.leash = leash

    def release(self) -> None:
        """Let the process end by itself."""
        os.close(self.leash)
        self.leash = -1

    def kill(self) -> None:
        """Kill the process."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """End it, reap it if it is ours, and close everything."""
        if self.leash >= 0:
            self.release()
        os.close(self.pidfd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def end(self) -> None:
        """Let our child end, and return when it has; it is a zombie then."""
        self.release()
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reaped(self) -> int:
        """Reap our child and return its wait status."""
        return os.waitpid(self.pid, 0)[1]


Maker = Callable[..., Process]


@contextlib.contextmanager
def orphans() -> Generator[Maker]:
    """Give a function that starts a process with a given exit code whose parent has gone, or goes when told to."""
    made: list[Process] = []

    def make(code: int = 7, *, parent: str = "exit 0") -> Process:
        hand, leash = os.pipe2(os.O_CLOEXEC)
        script = f"exec 3<&0; (read _ <&3; exit {code}) >&- & echo $!; exec >&-; {parent}"
        with subprocess.Popen(["/bin/sh", "-c", script], stdin=hand, stdout=subprocess.PIPE) as shell:
            os.close(hand)
            assert shell.stdout is not None
            made.append(Process(int(shell.stdout.readline()), leash))
        return made[-1]

    try:
        yield make
    finally:
        for process in made:
            process.close()
