"""The caller's own terminal: connected to a container for a while, and restored afterwards.

Its descriptors are shared with the shell and all other programs of the terminal, so their flags must not change.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket
import termios
import tty
from collections.abc import Callable, Generator, Iterable
from types import FrameType
from typing import Self

import anyio
import anyio.lowlevel

# O_NONBLOCK belongs to the open file, not to the process, and would stay set. uvloop sets it on every descriptor that
# it watches. So the loop watches an epoll descriptor of our own, which watches the terminal.
_CHUNK = 4096
"""Bytes of one read or write: PIPE_BUF, which a pipe that is ready takes without blocking, pipe(7)."""

_ENDINGS = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM)


class _Borrowed:
    """A descriptor of the caller, and a way to wait for it."""

    def __init__(self, fd: int, event: int) -> None:
        os.fstat(fd)  # else the epoll may get the number of a descriptor that isn't open
        self._fd = fd
        self._epoll = select.epoll()
        self._always_ready = False
        try:
            self._epoll.register(fd, event)
        except PermissionError:
            # epoll_ctl(2), EPERM: a regular file or /dev/null, which are always ready.
            self._always_ready = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close our own epoll descriptor."""
        self._epoll.close()

    async def _ready(self) -> None:
        """Wait until a read or write of a few bytes won't block."""
        if self._always_ready:
            await anyio.lowlevel.checkpoint()
            return
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._epoll.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._epoll.fileno())


class CallersInput(_Borrowed):
    """The caller's stdin: a terminal or any other file."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, select.EPOLLIN)
        self.is_terminal = os.isatty(fd)

    async def read(self) -> bytes:
        """Read available bytes; empty at the end. A cancelled call has read nothing.

        Raises:
            OSError: If the kernel reports an error.
        """
        while True:
            await self._ready()
            try:
                return os.read(self._fd, _CHUNK)
            except BlockingIOError:  # the caller has made it non-blocking, and another reader was faster
                continue
            except OSError as exc:
                if exc.errno == errno.EIO:  # a terminal that isn't, or is no longer, ours to read
                    return b""
                raise


class CallersOutput(_Borrowed):
    """The caller's stdout: a terminal or any other file."""

    # A terminal stopped with Ctrl-S takes fewer bytes than poll(2) reports, so a write could block the loop. So it
    # is opened a second time, as non-blocking. Where that isn't allowed, as after `su`, such a write does block.
    def __init__(self, fd: int) -> None:
        self._ours = reopen(fd) if os.isatty(fd) else -1
        try:
            super().__init__(fd if self._ours < 0 else self._ours, select.EPOLLOUT)
        except BaseException:
            self._close_ours()
            raise

    def __exit__(self, *_: object) -> None:
        """Close our own descriptors."""
        super().__exit__()
        self._close_ours()

    def _close_ours(self) -> None:
        """Close the second descriptor of the terminal, if there is one."""
        if self._ours >= 0:
            os.close(self._ours)

    async def write(self, data: bytes) -> None:
        """Write all of `data`; a cancelled call has written a part.

        Raises:
            anyio.BrokenResourceError: If the file can't be written any more.
        """
        rest = memoryview(data)
        while rest:
            await self._ready()
            try:
                rest = rest[os.write(self._fd, rest[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError as exc:
                raise anyio.BrokenResourceError from exc


def reopen(fd: int) -> int:
    """Open a terminal a second time, as non-blocking; return -1 if it can't be opened."""
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1


@contextlib.contextmanager
def raw_mode(fd: int) -> Generator[None]:
    """Put a terminal into raw mode while the block runs; restore it also if a signal ends this process.

    Files other than terminals are left alone.
    """
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)

    def restore() -> None:
        """Restore the settings."""
        # Not TCSADRAIN: a terminal stopped with Ctrl-S would block here.
        with contextlib.suppress(termios.error):  # it was hung up
            termios.tcsetattr(fd, termios.TCSANOW, before)

    # Only signals that would end this process: handlers of the application can use `finally` and the like.
    deadly = [number for number in _ENDINGS if signal.getsignal(number) is signal.SIG_DFL]
    with on_signals(deadly, restore):
        try:
            tty.setraw(fd, termios.TCSANOW)
            yield
        finally:
            restore()


def window_size(fd: int) -> tuple[int, int] | None:
    """Return the rows and columns of a terminal; None if the file is no terminal, or its size was never set."""
    try:
        rows, cols = termios.tcgetwinsize(fd)
    except termios.error:
        return None
    # A serial line or a fresh pty has the size (0, 0), which would shrink the container's terminal to nothing.
    return (rows, cols) if rows and cols else None


@contextlib.contextmanager
def on_signals(numbers: Iterable[int], act: Callable[[], object]) -> Generator[None]:
    """Call `act` on signals, and then do what would have happened otherwise.

    In another thread than the main one there are no handlers, and nothing is done.
    """
    # By `signal.signal` and not by the loop: a handler added to the loop by the application goes on working, and is
    # there again afterwards.
    before: dict[int, Callable[[int, FrameType | None], object] | int] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        act()
        previous = before[number]
        if callable(previous):
            previous(number, frame)
        elif previous == signal.SIG_DFL and number in _ENDINGS:
            # The process ends by the signal itself, so that its parent sees the true exit status.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    try:
        for number in numbers:
            previous = signal.getsignal(number)
            if previous is not None:  # None: set by C code, and not to be restored by us
                before[number] = previous
                try:
                    signal.signal(number, handle)
                except ValueError:  # not the main thread
                    del before[number]
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def woken_by_signals() -> Generator[None]:
    """Wake the event loop on each signal, unless the loop does that itself."""
    # The kernel may deliver a signal to any thread. The handler runs in the main thread, as soon as that thread wakes.
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        try:
            before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        except ValueError:  # not the main thread
            yield
            return
        if before >= 0:
            signal.set_wakeup_fd(before)
            yield
            return
        loop.add_reader(ours, ours.recv, _CHUNK)
        try:
            yield
        finally:
            if not loop.is_closed():
                loop.remove_reader(ours)
            if (now := signal.set_wakeup_fd(-1)) != theirs.fileno():
                signal.set_wakeup_fd(now)  # the application has added a handler to the loop meanwhile


class DetachKeys:
    """Finds the key sequence for detaching in typed bytes."""

    def __init__(self, keys: str) -> None:
        r"""Parse keys as docker(1) writes them: `ctrl-p,ctrl-q`, or single characters separated by commas.

        Raises:
            ValueError: If a key is neither one ASCII character nor `ctrl-` and a letter or one of `@[\]^_`.
        """
        self._sequence = bytes(_key(key) for key in keys.split(","))
        self._held = b""
        self.found = False

    def feed(self, typed: bytes) -> bytes:
        """Return the bytes to pass on; bytes that may start the sequence are held back until more is typed."""
        if not self._held and self._sequence[0] not in typed:
            return typed
        passed = bytearray()
        for byte in typed:
            self._held += bytes([byte])
            # Typed keys that begin the sequence are held back. If the next key breaks it, they are passed on one by
            # one.
            while not self._sequence.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._sequence:
                self.found = True
                break
        return bytes(passed)


def _key(name: str) -> int:
    """Return the byte that a key types."""
    modifier, _, letter = name.upper().rpartition("-")
    code = ord(letter) if len(letter) == 1 else -1
    if modifier == "CTRL" and ord("@") <= code <= ord("_"):
        return code - ord("@")
    if len(name) == 1 and name.isascii():
        return ord(name)
    raise ValueError(f"no such key to detach with: {name!r}")
