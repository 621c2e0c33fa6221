"""A runner whose runc's output is in memory: what is left is what runc_async does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import anyio

from runc_async import Completed, Invocation

if TYPE_CHECKING:
    from runc_async import Process

CHUNK = 1 << 16


class Chunks:
    """A `Runner` that gives the bytes of a file to each invocation, a pipe's capacity at a time."""

    def __init__(self, path: str) -> None:
        """Read the file."""
        with open(path, "rb") as file:
            self._chunks = [*iter(lambda: file.read(CHUNK), b"")]

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Start nothing."""
        raise NotImplementedError

    async def open(self, invocation: Invocation) -> Process:
        """Give all chunks."""
        del invocation
        return cast("Process", _Output(self._chunks))


class _Output:
    """Both a process and its stdout, as far as an event stream needs them."""

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self.stdout = self
        self.stderr = None

    async def receive(self, _limit: int) -> bytes:
        """Return the next chunk."""
        for chunk in self._chunks:
            return chunk
        raise anyio.EndOfStream

    async def wait(self) -> Completed:
        """Have ended."""
        return Completed(pid=1, returncode=0)

    async def aclose(self) -> None:
        """Have nothing to close."""
