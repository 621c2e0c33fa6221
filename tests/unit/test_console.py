"""The terminal's stream and attach(), with real terminals on both sides and small children in them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import signal
import sys
import termios
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvloop
from hypothesis import given, strategies

import runc_async._streams.terminal as terminals
from runc_async._streams.terminal import (
    CallersInput,
    CallersOutput,
    DetachKeys,
    on_signals,
    raw_mode,
    reopen,
    window_size,
)
from runc_async.console import AttachEnd, Pty, open_pty

uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, for good: before any test counts descriptors

any_loop = pytest.mark.any_loop

RAW_CAT = "stty raw -echo; printf ready; exec cat"
DETACH = b"\x10\x11"


@contextlib.asynccontextmanager
async def running(script: str, *, rows: int = 24, cols: int = 80) -> AsyncGenerator[Pty]:
    """Run a shell script in a terminal of its own, and give our end of that; both are gone afterwards."""
    ours, childs = open_pty(rows, cols)
    child = await asyncio.create_subprocess_exec("sh", "-c", script, stdin=childs, stdout=childs, stderr=childs)
    os.close(childs)
    try:
        async with Pty(ours) as pty:
            yield pty
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


class User:
    """Somebody in front of a terminal: what is sent is typed, and what is received is seen."""

    def __init__(self) -> None:
        """Switch the terminal on."""
        ours, self.fd = open_pty(30, 90)
        self.pty = Pty(ours)
        self.seen = b""
        self.modes = termios.tcgetattr(self.fd)

    async def until(self, text: bytes) -> None:
        """Look at the screen until `text` has been shown."""
        while text not in self.seen:
            self.seen += await self.pty.receive()

    @property
    def is_raw(self) -> bool:
        """Whether keys go through unchanged."""
        return not termios.tcgetattr(self.fd)[3] & termios.ICANON

    def finds_everything_as_before(self) -> bool:
        """Say whether the modes and flags of the terminal are the ones it was switched on with."""
        return termios.tcgetattr(self.fd) == self.modes and not fcntl.fcntl(self.fd, fcntl.F_GETFL) & os.O_NONBLOCK

    def close(self) -> None:
        """Switch the terminal off."""
        self.pty.close()
        with contextlib.suppress(OSError):
            os.close(self.fd)


@pytest.fixture
def user() -> Iterator[User]:
    """Give a user with a terminal."""
    somebody = User()
    yield somebody
    somebody.close()


async def read_until(pty: Pty, text: bytes) -> bytes:
    """Receive until `text` has come."""
    received = b""
    while text not in received:
        received += await pty.receive()
    return received


async def attaching(pty: Pty, user: User, **options: Any) -> asyncio.Task[AttachEnd]:
    """Attach the user's terminal, and return when it is."""
    attached = asyncio.create_task(pty.attach(stdin=user.fd, stdout=user.fd, **options))
    while not user.is_raw and not attached.done():  # noqa: ASYNC110  (seen from outside, as by the user)
        await asyncio.sleep(0)
    return attached


@any_loop
async def test_what_is_typed_is_echoed_and_answered() -> None:
    """A terminal echoes, turns line feeds into two characters, and gives lines to the program."""
    async with running("read line; echo got $line") as pty:
        await pty.send(b"hello\n")
        lines = [line async for line in pty.lines()]
    assert lines == ["hello", "got hello"]


@any_loop
async def test_the_end_of_the_program_is_the_end_of_the_stream() -> None:
    """When the last holder of the terminal is gone the stream ends, as often as one asks, and can't be sent to."""
    async with running("printf bye") as pty:
        assert await pty.receive() == b"bye"
        for _ in range(2):
            with pytest.raises(anyio.EndOfStream):
                await pty.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await pty.send(b"x")


@any_loop
async def test_a_send_that_waits_notices_the_end_of_the_program() -> None:
    """When nobody is left to read what is typed, a send that is held up ends: the kernel itself reports no error."""
    async with running("stty raw -echo; printf ready; exec sleep 1000") as pty:
        await read_until(pty, b"ready")
        sending = asyncio.create_task(pty.send(bytes(1 << 20)))
        while not pty.waiting:  # noqa: ASYNC110  (nothing tells of it, and nothing but this test wants to know)
            await asyncio.sleep(0)
        (pid,) = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        os.kill(int(pid), signal.SIGKILL)
        with pytest.raises(anyio.BrokenResourceError):
            await sending


@any_loop
async def test_a_mebibyte_goes_through_without_loss() -> None:
    """1 MiB is typed and shown again, whole and unchanged, by a program in raw mode."""
    data = os.urandom(1 << 20)
    async with running(RAW_CAT) as pty:
        assert await read_until(pty, b"ready") == b"ready"
        sending = asyncio.create_task(pty.send(data))
        received = bytearray()
        while len(received) < len(data):
            received += await pty.receive()
        await sending
    assert received == data


@any_loop
async def test_the_program_sees_the_size() -> None:
    """A terminal has the size it was made with, and another one after resize()."""
    async with running("stty -echo; stty size; while read _; do stty size; done", rows=33, cols=99) as pty:
        lines = pty.lines()
        assert pty.size == (33, 99)
        assert await anext(lines) == "33 99"
        pty.resize(50, 132)
        assert pty.size == (50, 132)
        await pty.send(b"\n")
        assert await anext(lines) == "50 132"


@pytest.mark.parametrize(("rows", "cols", "wrong"), [(-1, 80, -1), (24, 65536, 65536)])
async def test_a_size_that_cannot_be_is_refused(user: User, rows: int, cols: int, wrong: int) -> None:
    """A number that doesn't fit the kernel's field is named."""
    with pytest.raises(ValueError, match=f"0 to 65535 rows and columns, not {wrong}"):
        user.pty.resize(rows, cols)
    assert user.pty.size == (30, 90)


async def test_a_closed_terminal_refuses(user: User) -> None:
    """Everything that needs the terminal says that it is closed."""
    user.pty.close()
    with pytest.raises(anyio.ClosedResourceError):
        user.pty.resize(1, 1)
    with pytest.raises(anyio.ClosedResourceError):
        _ = user.pty.size
    for operation in (user.pty.receive, user.pty.send_eof):
        with pytest.raises(anyio.ClosedResourceError):
            await operation()
    assert repr(user.pty) == "<Pty closed>"


@any_loop
@pytest.mark.parametrize(
    ("items", "shown"),
    [([], b""), ([b"line\n"], b"line\r\nline\r\n"), ([b"line\r", b""], b"line\r\nline\r\n"), ([b"part"], b"part" * 2)],
    ids=["nothing", "line", "return", "part of a line"],
)
async def test_the_end_of_file_can_be_typed(items: list[bytes], shown: bytes) -> None:
    """A program that reads lines finds the end, also when it is typed in the middle of a line."""
    async with running("printf ready; cat; printf end") as pty:
        await read_until(pty, b"ready")
        for item in items:
            await pty.send(item)
        await pty.send_eof()
        assert (await read_until(pty, b"end")).replace(b"^D\b\b", b"") == shown + b"end"


@any_loop
async def test_the_end_of_file_is_the_terminals_own_character() -> None:
    """The character is what the terminal has, and a program in raw mode gets it as it is."""
    async with running("stty raw -echo eof X; printf ready; dd bs=1 count=1 2>/dev/null | od -An -c") as pty:
        await read_until(pty, b"ready")
        await pty.send_eof()
        assert (await read_until(pty, b"\n")).split() == [b"X"]


async def test_what_is_no_terminal_is_refused() -> None:
    """A pipe is no terminal, is refused and stays the caller's."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with pytest.raises(ValueError, match=f"descriptor {reader} is no terminal"):
        Pty(reader)
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Pty(reader)


async def test_the_end_of_file_of_a_broken_terminal(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that no longer answers is broken."""

    def fail(fd: int) -> list[Any]:
        raise termios.error(errno.EIO, f"descriptor {fd}")

    with monkeypatch.context() as patch:
        patch.setattr(termios, "tcgetattr", fail)
        with pytest.raises(anyio.BrokenResourceError):
            await user.pty.send_eof()


def test_a_new_terminal_is_ours_alone() -> None:
    """Our end is non-blocking, no end is inherited, and a size that can't be leaves nothing open."""
    ours, childs = open_pty(10, 20)
    assert not os.get_blocking(ours)
    assert os.get_blocking(childs)
    assert not os.get_inheritable(ours)
    assert not os.get_inheritable(childs)
    assert window_size(childs) == (10, 20)
    os.close(ours)
    os.close(childs)
    with pytest.raises(OverflowError):
        open_pty(70000, 20)


@any_loop
async def test_attach_connects_two_terminals(user: User) -> None:
    """What the user types goes to the program, what that shows goes to the user, and its end ends it all."""
    async with running("read line; stty size; echo got $line") as pty:
        attached = await attaching(pty, user)
        await user.pty.send(b"hello\r")
        await user.until(b"30 90")  # the size of the user's window
        await user.until(b"got hello")
        assert await attached is AttachEnd.ENDED
    assert user.finds_everything_as_before()


@any_loop
async def test_the_user_can_detach_and_attach_again(user: User) -> None:
    """After the keys the program runs on with its terminal open, and the user's is as it was."""
    async with running(RAW_CAT) as pty:
        for text in (b"one", b"two"):
            attached = await attaching(pty, user)
            await user.pty.send(text)
            await user.until(text)
            await user.pty.send(DETACH)
            assert await attached is AttachEnd.DETACHED
            assert user.finds_everything_as_before()
        await pty.send(b"three")
        await read_until(pty, b"three")


@any_loop
async def test_half_of_the_detach_keys_is_typed(user: User) -> None:
    """The first key alone reaches the program, as soon as the next key shows that it was meant for it."""
    async with running(RAW_CAT) as pty:
        attached = await attaching(pty, user)
        await user.until(b"ready")
        for typed in (b"\x10", b"x\x10", b"\x10", b"y"):
            await user.pty.send(typed)
        await user.until(b"\x10x\x10\x10y")
        await user.pty.send(DETACH)
        await attached
        assert user.seen == b"ready\x10x\x10\x10y"


@any_loop
async def test_other_keys_can_detach(user: User) -> None:
    """With other keys the usual ones are typed."""
    async with running(RAW_CAT) as pty:
        attached = await attaching(pty, user, detach_keys="ctrl-a,d")
        await user.until(b"ready")
        await user.pty.send(DETACH + b"\x01d")
        assert await attached is AttachEnd.DETACHED
        await read_until(pty, DETACH)


@any_loop
async def test_no_keys_can_detach(user: User) -> None:
    """Without any keys everything is typed."""
    async with running(RAW_CAT) as pty:
        attached = await attaching(pty, user, detach_keys=None)
        await user.until(b"ready")
        await user.pty.send(DETACH)
        await user.until(DETACH)
        attached.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attached


@any_loop
async def test_a_cancel_restores_the_terminal(user: User) -> None:
    """A cancelled attach leaves the user's terminal as it was, and the program's open."""
    async with running(RAW_CAT) as pty:
        attached = await attaching(pty, user)
        await user.until(b"ready")
        attached.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attached
        assert user.finds_everything_as_before()
        await pty.send(b"alive")
        await read_until(pty, b"alive")


@any_loop
async def test_an_exception_restores_the_terminal(user: User) -> None:
    """When the output can't be shown any more the user's terminal is restored, and the reason is told, ungrouped."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(reader)
    async with running(RAW_CAT) as pty:
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await pty.attach(stdin=user.fd, stdout=writer)
        assert isinstance(caught.value.__cause__, BrokenPipeError)
    os.close(writer)
    assert user.finds_everything_as_before()


@any_loop
async def test_a_close_ends_attach(user: User) -> None:
    """Closing the stream in another task ends the attach with ClosedResourceError."""
    async with running(RAW_CAT) as pty:
        attached = await attaching(pty, user)
        await user.until(b"ready")
        await pty.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await attached
    assert user.finds_everything_as_before()


@any_loop
async def test_an_input_that_fails_ends_attach(user: User) -> None:
    """An error of the input, here that it may only be written to, is told as it is."""
    with open("/dev/null", "wb") as write_only:
        async with running(RAW_CAT) as pty:
            with pytest.raises(OSError, match="Bad file descriptor"):
                await pty.attach(stdin=write_only.fileno(), stdout=user.fd)


PROGRAM = """if 1:
    import asyncio, sys
    import uvloop
    from runc_async.console import Pty, open_pty
    async def main():
        ours, childs = open_pty(24, 80)
        child = await asyncio.create_subprocess_exec("sh", "-c", "printf ready; exec cat", stdin=childs, stdout=childs)
        async with Pty(ours) as pty:
            await pty.attach()
    {"asyncio": asyncio, "uvloop": uvloop}[sys.argv[1]].run(main())
"""


@any_loop
@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_deadly_signal_restores_the_terminal(user: User, kind: str, number: signal.Signals) -> None:
    """A process that is ended by a signal restores the terminal first, and still dies of that signal."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, kind, stdin=user.fd, stdout=user.fd)
    await user.until(b"ready")
    assert user.is_raw
    process.send_signal(number)
    assert await process.wait() == -number
    assert user.finds_everything_as_before()


@any_loop
async def test_the_window_is_followed(user: User) -> None:
    """SIGWINCH carries the new size over; the application's own handler is called too, and is there afterwards."""
    heard: list[int] = []
    before = signal.signal(signal.SIGWINCH, lambda number, _: heard.append(number))
    own = signal.getsignal(signal.SIGWINCH)
    async with running(RAW_CAT) as pty:
        attached = await attaching(pty, user)
        await user.until(b"ready")
        user.pty.resize(44, 111)
        signal.raise_signal(signal.SIGWINCH)
        assert pty.size == (44, 111)
        await user.pty.send(DETACH)
        await attached
    assert heard == [signal.SIGWINCH]
    assert signal.getsignal(signal.SIGWINCH) is own
    signal.signal(signal.SIGWINCH, before)


@any_loop
async def test_a_signal_of_another_thread_is_handled_at_once(user: User) -> None:
    """The kernel may choose any thread for a signal: the loop is woken, though nothing else happens in it."""
    loop = asyncio.get_running_loop()
    heard: list[tuple[int, float]] = []
    before = signal.signal(signal.SIGWINCH, lambda number, _: heard.append((number, loop.time())))

    def send() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGWINCH)

    async with running(RAW_CAT) as pty:
        attached = await attaching(pty, user)
        await user.until(b"ready")
        sender = threading.Timer(0.2, send)
        begun = loop.time()
        sender.start()
        await asyncio.sleep(3)  # the next time that the loop would wake by itself
        sender.join()
        await user.pty.send(DETACH)
        await attached
    signal.signal(signal.SIGWINCH, before)
    ((number, moment),) = heard
    assert number == signal.SIGWINCH
    assert moment - begun < 2


@any_loop
async def test_a_handler_of_the_loop_goes_on_working(user: User) -> None:
    """A handler that the application has added to its loop hears of the window during and after the attach."""
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()
    loop.add_signal_handler(signal.SIGWINCH, heard.set)
    async with running(RAW_CAT) as pty:
        attached = await attaching(pty, user)
        await user.until(b"ready")
        for _ in range(2):
            signal.raise_signal(signal.SIGWINCH)
            await heard.wait()
            heard.clear()
            await user.pty.send(DETACH)
            await attached
    loop.remove_signal_handler(signal.SIGWINCH)


def test_attach_works_outside_of_the_main_thread(user: User) -> None:
    """In another thread everything works but what needs signal handlers."""
    ends: list[AttachEnd] = []

    async def attach() -> None:
        async with running(RAW_CAT) as pty:
            attached = await attaching(pty, user)
            await user.until(b"ready")
            await user.pty.send(DETACH)
            ends.append(await attached)

    thread = threading.Thread(target=lambda: asyncio.run(attach()))
    thread.start()
    thread.join()
    assert ends == [AttachEnd.DETACHED]
    assert user.finds_everything_as_before()


@any_loop
@pytest.mark.parametrize("content", [b"one\ntwo\n", b"part", b"", b"x\n" * 10000, DETACH + b"\n"])
async def test_a_file_can_be_typed_and_shown_in_a_file(tmp_path: Path, content: bytes) -> None:
    """Files have no end to wait for: all is typed, then the end of file, and all is shown."""
    (tmp_path / "in").write_bytes(content)
    with open(tmp_path / "in", "rb") as source, open(tmp_path / "out", "wb") as target:
        async with running("stty -echo -opost -icrnl -ixon; printf ready; cat") as pty:
            await read_until(pty, b"ready")
            assert await pty.attach(stdin=source.fileno(), stdout=target.fileno()) is AttachEnd.ENDED
    assert (tmp_path / "out").read_bytes() == content


@any_loop
async def test_pipes_can_be_attached() -> None:
    """A pipe's end is typed as the end of file, and its flags stay as they are."""
    from_us, writer = os.pipe2(os.O_CLOEXEC)
    reader, to_us = os.pipe2(os.O_CLOEXEC)
    async with running("stty -echo; printf ready; cat; echo end") as pty:
        await read_until(pty, b"ready")
        attached = asyncio.create_task(pty.attach(stdin=from_us, stdout=to_us))
        os.write(writer, b"hello\n")
        os.close(writer)
        assert await attached is AttachEnd.ENDED
    assert os.read(reader, 100) == b"hello\r\nend\r\n"
    for fd in (from_us, to_us):
        assert os.get_blocking(fd)
        os.close(fd)
    os.close(reader)


@any_loop
async def test_the_end_of_the_program_is_not_hidden_by_input(user: User) -> None:
    """Input for a program that has gone is no error; the end of its output is what is told."""
    async with running("printf bye") as pty:
        hangup = select.poll()
        hangup.register(pty.fileno(), 0)
        while not hangup.poll(0):  # noqa: ASYNC110  (seen from outside)
            await asyncio.sleep(0)
        with open("/dev/zero", "rb") as zero:
            assert await pty.attach(stdin=zero.fileno(), stdout=user.fd) is AttachEnd.ENDED
    await user.until(b"bye")


@any_loop
async def test_a_terminal_that_is_hung_up_types_nothing_more(user: User) -> None:
    """When the user's terminal goes away the program isn't told the end of its input, and its output goes on."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    async with running("stty -echo; printf ready; read _ && printf bye") as pty:
        await read_until(pty, b"ready")
        attached = asyncio.create_task(pty.attach(stdin=user.fd, stdout=writer))
        while not user.is_raw:  # noqa: ASYNC110  (the test looks from outside)
            await asyncio.sleep(0)
        user.pty.close()
        for _ in range(10):  # turns in which it could go wrong
            await asyncio.sleep(0)
        await pty.send(b"\n")
        assert await attached is AttachEnd.ENDED
    assert os.read(reader, 10) == b"bye"
    os.close(reader)
    os.close(writer)


def not_allowed(fd: int) -> int:
    """Be unable to open a terminal a second time."""
    del fd
    return -1


@any_loop
@pytest.mark.parametrize("allowed", [True, False], ids=["second", "only"])
async def test_a_stopped_terminal_does_not_stop_the_loop(
    user: User,
    allowed: bool,  # noqa: FBT001  (a parameter of the test)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the user has stopped the output the loop goes on, and so does the output afterwards."""
    if not allowed:
        monkeypatch.setattr(terminals, "reopen", not_allowed)
    termios.tcflow(user.fd, termios.TCOOFF)
    async with running("stty -opost; yes | head -c 200000") as pty:
        attached = await attaching(pty, user)
        with anyio.move_on_after(0.05):
            await user.pty.receive()
            pytest.fail("the terminal isn't stopped")
        assert not attached.done()
        termios.tcflow(user.fd, termios.TCOON)
        while len(user.seen) < 200000:
            user.seen += await user.pty.receive()
        assert await attached is AttachEnd.ENDED
    assert user.finds_everything_as_before()


@any_loop
async def test_a_faster_reader_leaves_the_other_one_waiting() -> None:
    """Of two that read one non-blocking input, the one that comes too late goes on waiting."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    with CallersInput(reader) as one, CallersInput(reader) as two:
        reads = [asyncio.create_task(typed.read()) for typed in (one, two)]
        await asyncio.sleep(0)
        os.write(writer, b"x")
        done, pending = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [b"x"]
        os.write(writer, b"y")
        assert await pending.pop() == b"y"
    os.close(reader)
    os.close(writer)


@any_loop
async def test_a_faster_writer_leaves_the_other_one_waiting() -> None:
    """Of two that write to one non-blocking output, the one that finds no room goes on waiting; nothing is lost."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with CallersOutput(writer) as one, CallersOutput(writer) as two:
        writes = [asyncio.create_task(shown.write(bytes(4096))) for shown in (one, two)]
        done, pending = await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(os.read(reader, 10000)) == 4096
        await pending.pop()
        assert len(os.read(reader, 10000)) == 4096
    os.close(reader)
    os.close(writer)


async def test_a_terminal_that_gives_no_more_input_is_at_its_end() -> None:
    """EIO, as for a process in the background, is the end of the input and no error."""
    ours, childs = open_pty(1, 1)
    os.close(childs)
    with CallersInput(ours) as typed:
        assert await typed.read() == b""
    os.close(ours)


async def test_an_output_that_is_gone_is_broken() -> None:
    """A pipe that nobody reads is a broken resource."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(reader)
    with CallersOutput(writer) as shown, pytest.raises(anyio.BrokenResourceError):
        await shown.write(b"x")
    os.close(writer)


def test_nothing_is_left_open_when_no_descriptor_is_left(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the loop's view of the terminal can't be made, the second descriptor of it is closed again."""

    def fail() -> None:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(select, "epoll", fail)
    with pytest.raises(OSError, match="too many"):
        CallersOutput(user.fd)


async def test_a_descriptor_that_is_not_open_is_an_error(user: User) -> None:
    """An input that is closed is told, and the terminal isn't touched."""
    closed = os.dup(user.fd)
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        await user.pty.attach(stdin=closed, stdout=user.fd)
    assert reopen(closed) == -1


def test_raw_mode_survives_a_terminal_that_is_hung_up(user: User) -> None:
    """When there is nothing to restore any more, nothing fails."""
    with raw_mode(user.fd):
        assert user.is_raw
        os.close(user.fd)


def test_raw_mode_leaves_signals_of_the_application_alone(user: User) -> None:
    """A deadly signal for which the application has a handler is its own affair."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    own = signal.getsignal(signal.SIGTERM)
    with raw_mode(user.fd):
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, before)


def test_a_deadly_signal_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the act the signal gets its default action back, and is sent once more."""
    did: list[object] = []

    def raise_signal(number: int) -> None:
        did.append((number, signal.getsignal(number)))

    kill = signal.raise_signal
    with on_signals([signal.SIGHUP], lambda: did.append("act")):
        monkeypatch.setattr(signal, "raise_signal", raise_signal)
        kill(signal.SIGHUP)
    assert did == ["act", (signal.SIGHUP, signal.SIG_DFL)]


def test_what_was_ignored_stays_ignored() -> None:
    """A signal that was ignored is acted on, and does nothing else."""
    acted: list[bool] = []
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with on_signals([signal.SIGUSR1], lambda: acted.append(True)):
        signal.raise_signal(signal.SIGUSR1)
    assert acted == [True]
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    signal.signal(signal.SIGUSR1, before)


def test_a_handler_of_another_language_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that Python doesn't know could not be restored, and is not replaced."""

    def unknown(number: int) -> None:
        del number

    monkeypatch.setattr(signal, "getsignal", unknown)
    with on_signals([signal.SIGUSR1], lambda: None):
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_a_window_without_a_size_has_none(user: User) -> None:
    """A terminal that nobody has told its size has none, and neither has what is no terminal."""
    user.pty.resize(0, 0)
    assert window_size(user.fd) is None
    with open("/dev/null", "rb") as nothing:
        assert window_size(nothing.fileno()) is None


@given(typed=strategies.lists(strategies.binary(max_size=5)))
def test_nothing_is_lost_on_the_way_to_the_keys(typed: list[bytes]) -> None:
    """Whatever is typed in whatever pieces: all before the sequence is passed on, unless it may be its start."""
    keys = DetachKeys("ctrl-p,ctrl-p,q")
    sequence = b"\x10\x10q"
    everything = b"".join(typed)
    passed = b""
    for piece in typed:
        passed += keys.feed(piece)
        if keys.found:
            break
    assert keys.found == (sequence in everything)
    if keys.found:
        assert passed == everything.partition(sequence)[0]
    else:
        held = everything.removeprefix(passed)
        assert passed + held == everything
        assert sequence.startswith(held)
        assert len(held) < len(sequence)


@given(
    typed=strategies.lists(strategies.lists(strategies.sampled_from(b"\x10q"), max_size=4).map(bytes), max_size=6),
)
def test_the_keys_are_found_among_their_like(typed: list[bytes]) -> None:
    """A sequence that begins with a repetition is found wherever it is."""
    keys = DetachKeys("ctrl-p,ctrl-p,q")
    everything = b"".join(typed)
    for piece in typed:
        keys.feed(piece)
        if keys.found:
            break
    assert keys.found == (b"\x10\x10q" in everything)


@pytest.mark.parametrize(
    ("names", "sequence"),
    [("ctrl-p,ctrl-q", DETACH), ("CTRL-a", b"\x01"), ("ctrl-@,ctrl-_,ctrl-[", b"\0\x1f\x1b"), ("-,x,~", b"-x~")],
)
def test_keys_have_names(names: str, sequence: bytes) -> None:
    """Control keys and characters are understood as docker understands them."""
    keys = DetachKeys(names)
    assert keys.feed(sequence) == b""
    assert keys.found


@pytest.mark.parametrize("names", ["", "ctrl-", "ctrl-1", "ctrl-pq", "alt-x", "xy", "ctrl-p,", "é", "ctrl-ß", "ß"])
async def test_keys_that_do_not_exist_are_refused(user: User, names: str) -> None:
    """A key that can't be typed is named before anything is touched."""
    with pytest.raises(ValueError, match="no such key to detach with: "):
        await user.pty.attach(stdin=user.fd, stdout=user.fd, detach_keys=names)
    assert user.finds_everything_as_before()
