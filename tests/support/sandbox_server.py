"""The service of examples/sandbox_service, run as a process of its own: for its tests, and for its picture."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import leaks

if TYPE_CHECKING:
    from collections.abc import Generator

PROJECT = Path(__file__).parents[2]


class Server:
    """A service that runs.

    Attributes:
        address: Where, as a URL.
        root: The runtime's root directory.
        process: Its process.
    """

    def __init__(self, root: Path, data: Path, *options: str) -> None:
        """Start it, and wait until it listens."""
        self.root = root
        self._said = ""
        self._told = False
        command = [sys.executable, "-X", "dev", "-m", "sandbox_service", "--port", "0"]
        places = ["--root", str(root), "--data", str(data)]
        self.process = subprocess.Popen(
            [*command, *places, *options],
            cwd=PROJECT / "examples",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        said: list[str] = []
        for line in self.process.stderr:
            said.append(line)
            if "running on " in line:
                self.address = line.partition("running on ")[2].split()[0]
                return
        self.process.communicate()
        raise RuntimeError("the service doesn't start:\n" + "".join(said))

    def containers(self) -> list[str]:
        """Name its containers."""
        return list(leaks.containers(self.root))

    def terminate(self) -> None:
        """Tell it to end."""
        self._told = True
        self.process.terminate()

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """End it, unless it has ended or was told to; return what it has said since it listens."""
        if self.process.returncode is None:
            if not self._told:
                self.process.send_signal(number)
            self._said = self.process.communicate()[1]
        return self._said


@contextmanager
def serve(directory: Path, *options: str) -> Generator[Server]:
    """Run a service for the time of a block; it keeps its files in a directory."""
    server = Server(directory / "root", directory, *options)
    try:
        yield server
    finally:
        server.end()
