"""Small children for the tests of the process core: scripts, and a way to hear from them without sleeping."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from runc_async._streams.pipes import PipeReader
from runc_async.runner import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from pathlib import Path

uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, for good: before any test counts descriptors

each_loop = pytest.mark.parametrize(
    "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
"""For tests that run an event loop of their own, because they end it."""


def shell(script: str, *arguments: str, **settings: Any) -> Invocation:
    """Return the start of a shell script, as a runner takes it."""
    return Invocation(command="test", argv=("/bin/sh", "-c", script, "sh", *arguments), **settings)


def write_program(path: Path, text: str) -> str:
    """Write an executable script and return its path."""
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


class Post:
    """A FIFO by which a child says where it is, and is told to go on."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._reader = PipeReader(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))

    async def word(self) -> str:
        """Wait for the next line of a child's."""
        async for line in self._reader.lines():
            return line
        raise AssertionError("the post is closed")

    def tell(self, word: str) -> None:
        """Send a line to whoever reads the FIFO next: a child, unless we read ourselves."""
        os.write(self._reader.fileno(), word.encode() + b"\n")

    def close(self) -> None:
        """Close it."""
        self._reader.close()


@contextlib.contextmanager
def post(directory: Path, name: str = "post") -> Generator[Post]:
    """Set up a post."""
    made = Post(directory / name)
    try:
        yield made
    finally:
        made.close()


def run_in(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, Any]) -> Any:
    """Do as `asyncio.run` does, with the given kind of loop."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def python(script: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in a Python of its own, and return what it prints."""
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", textwrap.dedent(script)]
    return subprocess.run(command, check=True, capture_output=True)


def is_open(fd: int) -> bool:
    """Tell whether a descriptor is open."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def alive(pid: int) -> bool:
    """Tell whether there is a process of that id that isn't a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it is reaped between the opening and the reading
        return False


async def gone(pid: int) -> None:
    """Wait until a process that isn't a child of ours has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
