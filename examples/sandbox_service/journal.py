"""What clients are told of one run, in a file: another service can tell it again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

import msgspec

from .messages import Ended, Message, Output, Started, Tell


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A line of the file: a message, and when it was written, by the clock."""

    time: float
    message: Message


class Journal:
    """The messages of one run, in their order; the first has the number 1.

    Attributes:
        name: The run's, and its container's.
        messages: All so far.
        readers: How many clients follow it now.
    """

    def __init__(self, path: str, *, new: bool) -> None:
        """Make the file, or read what another service has written. A line that a kill has cut off is dropped."""
        self.name = os.path.basename(path)
        self.readers = 0
        self._path = path
        self._file = open(path, "xb+" if new else "rb+", buffering=0)  # noqa: SIM115 - as long as the run
        whole, feed, _ = self._file.read().rpartition(b"\n")
        self._file.truncate(self._file.seek(len(whole + feed)))
        self._entries = [msgspec.json.decode(line, type=Entry) for line in whole.splitlines()]
        self.messages = [entry.message for entry in self._entries]
        self._news = asyncio.Event()
        self._left = False

    @property
    def seconds(self) -> float | None:
        """The time since the script was started; None if it wasn't."""
        began = [entry.time for entry in self._entries if isinstance(entry.message, Started)]
        return max(0.0, time.time() - began[0]) if began else None

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return bool(self.messages) and isinstance(self.messages[-1], Ended)

    @property
    def printed(self) -> int:
        """How many bytes it has printed."""
        return sum(len(message.text.encode()) for message in self.messages if isinstance(message, Output))

    async def write(self, message: Message) -> None:
        """Add a message: on the disk first, so that what a client was told isn't forgotten."""
        entry = Entry(time.time(), message)
        self._file.write(msgspec.json.encode(entry) + b"\n")
        self._entries.append(entry)
        self.messages.append(message)
        self._wake()

    async def follow(self, after: int, tell: Tell) -> None:
        """Tell all messages after one, to the last of the run, or until `leave`."""
        while not self._left:
            news = self._news
            for message in self.messages[after:]:
                await tell(message)
                after += 1
            if self.ended and after >= len(self.messages):
                return
            if news is self._news:
                await news.wait()

    def leave(self) -> None:
        """Let those that follow go: the run goes on, and another service tells the rest."""
        self._left = True
        self._wake()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def remove(self) -> None:
        """Forget the run."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
