"""Split chunks of bytes into lines, with a limit.

asyncio's StreamReader refuses lines over 64 KiB, and runc's metrics on a large host come near. Here the caller sets the
limit, which also bounds the memory for an endless line.
"""

from __future__ import annotations

import io


class LineFramer:
    r"""Joins chunks, and cuts each chunk after the last `\n`: many lines in one piece, with one copy.

    Args:
        limit: Maximal bytes of a line, without the line's end. Of a longer line the first `limit + 1` bytes are passed
            on as soon as possible, and the rest is dropped.

    Raises:
        ValueError: If `limit` isn't positive.
    """

    __slots__ = ("_limit", "_rest", "_skipping")

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"the limit of a line must be at least 1 byte, not {limit}")
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False

    def feed(self, chunk: bytes) -> bytes:
        """Add a chunk, and return the completed lines with their ends."""
        if self._skipping:
            chunk = self._skip(chunk)
        block = b""
        if end := chunk.rfind(b"\n") + 1:
            block = b"".join((self._rest, memoryview(chunk)[:end])) if self._rest else chunk[:end]
            self._rest = bytearray(memoryview(chunk)[end:])
        else:
            self._rest += chunk
        # The block may have one long line, or many short ones: only then is it split.
        if len(block) > self._limit:
            block = b"".join(self._cut(line) for line in io.BytesIO(block))
        if len(self._rest) > self._limit:
            block += self._cut(self._rest)
            self._rest.clear()
            self._skipping = True
        return block

    def end(self) -> bytes:
        """Return the incomplete last line, at the end of all chunks."""
        return bytes(self._rest)

    def _skip(self, chunk: bytes) -> bytes:
        """Drop the rest of a line that is too long, or the whole chunk if the line doesn't end there."""
        end = chunk.find(b"\n") + 1
        self._skipping = not end
        return chunk[end:] if end else b""

    def _cut(self, line: bytes | bytearray) -> bytes | bytearray:
        """Shorten a line that is too long."""
        length = len(line) - line.endswith(b"\n")
        return line if length <= self._limit else line[: self._limit + 1] + b"\n"
