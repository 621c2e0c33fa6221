"""Streams over our ends of pipes, against real pipes and small children."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
import uvloop
from hypothesis import given, strategies

from runc_async._streams.pipes import CHUNK, LARGE_CHUNK, Descriptor, PipeReader, PipeWriter

uvloop.new_event_loop().close()  # libuv opens a pipe with the first loop, for good: before any test counts descriptors

pytestmark = pytest.mark.any_loop

FULL = 1 << 22
"""More bytes than a pipe holds."""


class Pipe(NamedTuple):
    """Two streams that are the ends of one pipe."""

    reader: PipeReader
    writer: PipeWriter


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Make a pipe, and close both ends after the test."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    ends = Pipe(PipeReader(read_end), PipeWriter(write_end))
    yield ends
    ends.reader.close()
    ends.writer.close()


async def until_waiting(stream: Descriptor) -> None:
    """Return as soon as some task waits for the stream."""
    while not stream.waiting:  # noqa: ASYNC110  (nothing tells of it, and nothing but this test wants to know)
        await asyncio.sleep(0)


def fill(writer: PipeWriter) -> None:
    """Write until the pipe is full."""
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer.fileno(), bytes(1 << 12))


async def received(reader: PipeReader) -> bytes:
    """Read to the end."""
    return b"".join([chunk async for chunk in reader])


async def listed(reader: PipeReader, *, keepends: bool = False, max_length: int = 100) -> list[str]:
    """Read all lines."""
    return [line async for line in reader.lines(keepends=keepends, max_length=max_length)]


async def first_line(reader: PipeReader) -> str:
    """Read one line."""
    return await anext(reader.lines())


async def test_what_is_sent_is_received(pipe: Pipe) -> None:
    """Bytes that are in the pipe are received at once."""
    await pipe.writer.send(b"hello")
    assert await pipe.reader.receive() == b"hello"


async def test_sending_nothing_sends_nothing(pipe: Pipe) -> None:
    """An empty item is no end of file and no byte."""
    await pipe.writer.send(b"")
    await pipe.writer.send(b"x")
    assert await pipe.reader.receive() == b"x"


async def test_receive_takes_no_more_than_asked_for(pipe: Pipe) -> None:
    """`max_bytes` is a limit, and what is beyond it comes with the next call."""
    await pipe.writer.send(b"abcde")
    assert [await pipe.reader.receive(2) for _ in range(3)] == [b"ab", b"cd", b"e"]


@pytest.mark.parametrize("max_bytes", [0, -1])
async def test_receive_refuses_a_size_that_is_not_positive(pipe: Pipe, max_bytes: int) -> None:
    """To receive no bytes is a mistake, and is said to be one."""
    with pytest.raises(ValueError, match=f"max_bytes must be positive, not {max_bytes}"):
        await pipe.reader.receive(max_bytes)


async def test_receive_waits_for_the_writer(pipe: Pipe) -> None:
    """A receive from an empty pipe ends with the first bytes that are written."""
    receiving = asyncio.create_task(pipe.reader.receive())
    await until_waiting(pipe.reader)
    await pipe.writer.send(b"late")
    assert await receiving == b"late"


async def test_more_than_the_pipe_holds_arrives_whole(pipe: Pipe) -> None:
    """A send that is larger than the pipe waits for the reader, and nothing is lost or changed."""
    data = os.urandom(1 << 16) * (FULL >> 16)
    receiving = asyncio.create_task(received(pipe.reader))
    await pipe.writer.send(data)
    await pipe.writer.aclose()
    assert await receiving == data


async def test_nothing_is_read_that_nobody_asked_for(pipe: Pipe) -> None:
    """A reader that isn't reading holds the writer up: that is the back-pressure."""
    sending = asyncio.create_task(pipe.writer.send(bytes(FULL)))
    await until_waiting(pipe.writer)
    assert not sending.done()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert not pipe.writer.waiting


async def test_a_pipe_that_is_always_full_grows(pipe: Pipe) -> None:
    """A pipe that was full when it was read gets larger, and the next read takes all that it holds."""
    fill(pipe.writer)
    assert len(await pipe.reader.receive()) == CHUNK
    fill(pipe.writer)
    assert len(await pipe.reader.receive()) == LARGE_CHUNK


async def test_a_pipe_that_is_not_full_stays_small(pipe: Pipe) -> None:
    """Few bytes at a time, or a reader who wants no more, leave a pipe as it is."""
    await pipe.writer.send(bytes(100))
    await pipe.reader.receive()
    fill(pipe.writer)
    await pipe.reader.receive(CHUNK - 1)
    assert fcntl.fcntl(pipe.reader.fileno(), fcntl.F_GETPIPE_SZ) == CHUNK


async def test_end_of_file_is_end_of_stream(pipe: Pipe) -> None:
    """When the last writer is gone, what it wrote is received, then the end, as often as one asks."""
    await pipe.writer.send(b"last")
    await pipe.writer.aclose()
    assert await pipe.reader.receive() == b"last"
    for _ in range(2):
        with pytest.raises(anyio.EndOfStream):
            await pipe.reader.receive()


async def test_end_of_file_ends_a_wait(pipe: Pipe) -> None:
    """A receive that waits ends when the last writer goes."""
    receiving = asyncio.create_task(pipe.reader.receive())
    await until_waiting(pipe.reader)
    pipe.writer.close()
    with pytest.raises(anyio.EndOfStream):
        await receiving


async def test_send_without_a_reader_is_broken(pipe: Pipe) -> None:
    """EPIPE is a broken resource, with the error of the system as its cause."""
    pipe.reader.close()
    with pytest.raises(anyio.BrokenResourceError) as caught:
        await pipe.writer.send(b"x")
    assert isinstance(caught.value.__cause__, BrokenPipeError)


async def test_send_that_waits_notices_that_the_reader_goes(pipe: Pipe) -> None:
    """A send held up by a full pipe ends when the reader closes."""
    sending = asyncio.create_task(pipe.writer.send(bytes(FULL)))
    await until_waiting(pipe.writer)
    pipe.reader.close()
    with pytest.raises(anyio.BrokenResourceError):
        await sending


async def test_an_error_of_the_kernel_is_broken() -> None:
    """Any other error of a read is a broken resource: here a connection that the peer has reset."""
    ours, theirs = socket.socketpair()
    ours.send(b"never read")
    async with PipeReader(ours.detach()) as reader:
        theirs.close()
        with pytest.raises(anyio.BrokenResourceError) as caught:
            await reader.receive()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_closing_wakes_a_receive(pipe: Pipe) -> None:
    """A task that waits for bytes gets ClosedResourceError when another one closes the stream."""
    receiving = asyncio.create_task(pipe.reader.receive())
    await until_waiting(pipe.reader)
    await pipe.reader.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await receiving


async def test_closing_wakes_a_send(pipe: Pipe) -> None:
    """A task that waits for room gets ClosedResourceError when another one closes the stream."""
    sending = asyncio.create_task(pipe.writer.send(bytes(FULL)))
    await until_waiting(pipe.writer)
    await pipe.writer.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await sending


async def test_closing_twice_leaves_other_files_alone(pipe: Pipe) -> None:
    """The second close does nothing, even when the number belongs to another file by then."""
    number = pipe.reader.fileno()
    await pipe.reader.aclose()
    other = os.open("/dev/null", os.O_RDONLY)
    assert other == number
    await pipe.reader.aclose()
    os.close(other)


async def test_a_woken_wait_leaves_the_next_owner_of_the_number_alone(pipe: Pipe) -> None:
    """The wait of a closed stream doesn't end the watch over a new stream with the same number."""
    receiving = asyncio.create_task(pipe.reader.receive())
    await until_waiting(pipe.reader)
    number = pipe.reader.fileno()
    pipe.reader.close()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    assert read_end == number
    async with PipeReader(read_end) as reader, PipeWriter(write_end) as writer:
        again = asyncio.create_task(reader.receive())
        with pytest.raises(anyio.ClosedResourceError):
            await receiving
        await until_waiting(reader)
        await writer.send(b"seen")
        assert await again == b"seen"


async def test_closed_streams_refuse(pipe: Pipe) -> None:
    """Every operation on a stream that we have closed raises ClosedResourceError."""
    pipe.reader.close()
    pipe.writer.close()
    assert pipe.reader.closed
    assert pipe.reader.fileno() == -1
    with pytest.raises(anyio.ClosedResourceError):
        await pipe.reader.receive()
    for item in (b"", b"x"):
        with pytest.raises(anyio.ClosedResourceError):
            await pipe.writer.send(item)


async def test_closed_streams_refuse_what_was_read_ahead(pipe: Pipe) -> None:
    """Bytes that lines() has left in the stream are gone with its close."""
    await pipe.writer.send(b"a\nb\n")
    assert await anext(pipe.reader.lines()) == "a"
    pipe.reader.close()
    with pytest.raises(anyio.ClosedResourceError):
        await pipe.reader.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await anext(pipe.reader.lines())


async def test_one_task_at_a_time(pipe: Pipe) -> None:
    """A second receive or send at the same time raises BusyResourceError and doesn't disturb the first."""
    receiving = asyncio.create_task(pipe.reader.receive())
    await until_waiting(pipe.reader)
    with pytest.raises(anyio.BusyResourceError, match="reading from"):
        await pipe.reader.receive()
    await pipe.writer.send(b"x")
    assert await receiving == b"x"
    sending = asyncio.create_task(pipe.writer.send(bytes(FULL)))
    await until_waiting(pipe.writer)
    with pytest.raises(anyio.BusyResourceError, match="writing to"):
        await pipe.writer.send(b"x")
    pipe.reader.close()
    with pytest.raises(anyio.BrokenResourceError):
        await sending


async def test_a_cancelled_receive_loses_nothing(pipe: Pipe) -> None:
    """What arrives in the very turn of the loop in which the receive is cancelled is there for the next one."""
    receiving = asyncio.create_task(pipe.reader.receive())
    await until_waiting(pipe.reader)
    await pipe.writer.send(b"kept")
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert not pipe.reader.waiting
    assert await pipe.reader.receive() == b"kept"


async def test_cancelled_after_the_wait_still_loses_nothing(pipe: Pipe) -> None:
    """A receive that is cancelled when the loop has already reported bytes has not read them."""
    receiving = asyncio.create_task(pipe.reader.receive())
    await until_waiting(pipe.reader)
    os.write(pipe.writer.fileno(), b"kept")
    twin = os.dup(pipe.reader.fileno())  # ready in the same turn of the loop
    asyncio.get_running_loop().add_reader(twin, receiving.cancel)
    with pytest.raises(asyncio.CancelledError):
        await receiving
    asyncio.get_running_loop().remove_reader(twin)
    os.close(twin)
    assert await pipe.reader.receive() == b"kept"


async def test_reading_without_waiting_gives_way(pipe: Pipe) -> None:
    """A reader that always finds bytes lets other tasks run, and can be cancelled."""
    await pipe.writer.send(bytes(1000))
    turns = 0
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(1000):
            await pipe.reader.receive(1)
            turns += 1
    assert turns < 1000


async def test_writing_without_waiting_gives_way(pipe: Pipe) -> None:
    """A writer that always finds room lets other tasks run, and can be cancelled."""
    turns = 0
    with anyio.CancelScope() as scope:
        scope.cancel()
        for _ in range(1000):
            await pipe.writer.send(b"x")
            turns += 1
    assert turns < 1000


async def test_closing_works_in_a_cancelled_task(pipe: Pipe) -> None:
    """Closing doesn't wait, so a cancelled scope can't prevent it."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await pipe.reader.aclose()
    assert pipe.reader.closed


async def test_a_stream_works_on_one_loop_after_another(pipe: Pipe) -> None:
    """A stream belongs to no event loop: it waits in the one that runs."""

    def elsewhere() -> bytes:
        async def receive() -> bytes:
            with anyio.move_on_after(0.01):
                await pipe.reader.receive()
            await pipe.writer.send(b"x")
            return await pipe.reader.receive()

        return asyncio.run(receive())

    assert await asyncio.to_thread(elsewhere) == b"x"
    await pipe.writer.send(b"y")
    assert await pipe.reader.receive() == b"y"


async def test_a_child_at_the_other_end() -> None:
    """1 MiB goes through `cat` and comes back unchanged."""
    data = os.urandom(1 << 20)
    to_child, from_us = os.pipe2(os.O_CLOEXEC)
    to_us, from_child = os.pipe2(os.O_CLOEXEC)
    child = await asyncio.create_subprocess_exec("cat", stdin=to_child, stdout=from_child)
    os.close(to_child)
    os.close(from_child)
    async with PipeReader(to_us) as reader, PipeWriter(from_us) as writer:
        receiving = asyncio.create_task(received(reader))
        await writer.send(data)
        await writer.aclose()
        assert await receiving == data
    assert await child.wait() == 0


def test_files_are_refused(tmp_path: Path) -> None:
    """A regular file or directory can't be waited for, is refused and stays the caller's."""
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(ValueError, match=f"descriptor {fd} is a file or directory"):
        PipeReader(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        PipeReader(fd)


def test_repr_shows_the_state(pipe: Pipe) -> None:
    """The representation tells the class, whether it is open, and the descriptor."""
    assert repr(pipe.reader) == f"<PipeReader open, fd {pipe.reader.fileno()}>"
    pipe.writer.close()
    assert repr(pipe.writer) == "<PipeWriter closed>"


def test_forgetting_to_close_is_warned_of_and_mended() -> None:
    """A stream that is collected open warns and closes its descriptor."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.close(write_end)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        PipeReader(read_end)
        gc.collect()
    assert [str(warning.message) for warning in caught] == [f"unclosed <PipeReader open, fd {read_end}>"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read_end)


async def test_lines_are_text_without_their_ends(pipe: Pipe) -> None:
    r"""A line ends with `\n` or `\r\n`; the last one needs no end, and a lone `\r` is text."""
    await pipe.writer.send("one\ntwo\r\n\nthrée\rmore\nlast".encode())
    await pipe.writer.aclose()
    assert await listed(pipe.reader) == ["one", "two", "", "thrée\rmore", "last"]


async def test_lines_keep_their_ends_if_asked_to(pipe: Pipe) -> None:
    """With `keepends=True` nothing is taken away."""
    await pipe.writer.send(b"one\r\ntwo\nlast")
    await pipe.writer.aclose()
    assert await listed(pipe.reader, keepends=True) == ["one\r\n", "two\n", "last"]


async def test_a_line_may_come_in_parts(pipe: Pipe) -> None:
    """A line is handed over when its end is there, however often its writer stopped."""
    taking = asyncio.create_task(first_line(pipe.reader))
    await until_waiting(pipe.reader)
    await pipe.writer.send(b"be")
    await until_waiting(pipe.reader)
    await pipe.writer.send(b"gin\nnext")
    assert await taking == "begin"


async def test_a_long_line_comes_in_pieces(pipe: Pipe) -> None:
    """A line beyond the limit comes in pieces of that length, one that is just as long comes whole."""
    await pipe.writer.send(b"x" * 25 + b"\n" + b"y" * 10 + b"\n" + b"z" * 11)
    await pipe.writer.aclose()
    pieces = await listed(pipe.reader, keepends=True, max_length=10)
    assert pieces == ["x" * 10, "x" * 10, "xxxxx\n", "y" * 10 + "\n", "z" * 10, "z"]


async def test_a_piece_does_not_cut_a_character(pipe: Pipe) -> None:
    """A character on the border of two pieces is whole in the second one."""
    await pipe.writer.send("aé\n".encode())
    assert [await anext(pipe.reader.lines(max_length=2))] == ["a"]
    lines = pipe.reader.lines(max_length=2)
    assert await anext(lines) == "�"  # a new iterator knows nothing of the first byte
    await pipe.writer.send("aé\n".encode())
    assert [await anext(lines), await anext(lines)] == ["a", "é"]


async def test_broken_text_is_replaced(pipe: Pipe) -> None:
    """Bytes that are no UTF-8 are replaced; each line stands for itself, and so does the end of the stream."""
    await pipe.writer.send(b"a\xc3\n\xa9b\n\xc3")
    await pipe.writer.aclose()
    assert await listed(pipe.reader) == ["a�", "�b", "�"]


async def test_an_encoding_can_be_named(pipe: Pipe) -> None:
    """The encoding and the treatment of errors are as in bytes.decode."""
    await pipe.writer.send(b"\xe9\n\xe9\n")
    assert await anext(pipe.reader.lines("latin-1")) == "é"
    with pytest.raises(UnicodeDecodeError):
        await anext(pipe.reader.lines("ascii", "strict"))


@pytest.mark.parametrize("max_length", [0, -3])
def test_lines_refuses_a_limit_that_is_not_positive(pipe: Pipe, max_length: int) -> None:
    """A limit of no bytes is a mistake, told before anything is read."""
    with pytest.raises(ValueError, match=f"max_length must be positive, not {max_length}"):
        pipe.reader.lines(max_length=max_length)


def test_lines_refuses_an_unknown_encoding(pipe: Pipe) -> None:
    """An encoding that doesn't exist is told before anything is read."""
    with pytest.raises(LookupError, match="unknown encoding: klingon"):
        pipe.reader.lines("klingon")


async def test_lines_can_stop_and_go_on(pipe: Pipe) -> None:
    """What was read ahead is there for the next iterator, and for receive()."""
    await pipe.writer.send(b"ready\none\ntwo\nrest")
    async for line in pipe.reader.lines():
        assert line == "ready"
        break
    assert await anext(pipe.reader.lines()) == "one"
    assert await pipe.reader.receive(6) == b"two\nre"
    assert await pipe.reader.receive() == b"st"


async def test_a_cancelled_line_loses_nothing(pipe: Pipe) -> None:
    """The first half of a line survives the cancel of its reader."""
    await pipe.writer.send(b"ha")
    lines = pipe.reader.lines()
    with anyio.move_on_after(0.01):
        await anext(lines)
    await pipe.writer.send(b"lf\n")
    assert await anext(lines) == "half"


@given(
    data=strategies.binary(max_size=200),
    cuts=strategies.lists(strategies.integers(1, 40)),
    limit=strategies.integers(1, 50),
)
def test_lines_lose_and_add_nothing(data: bytes, cuts: list[int], limit: int) -> None:
    """Whatever is written, in whatever parts: the lines together are the text, and none is too long."""

    async def run() -> list[str]:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        async with PipeReader(read_end) as reader, PipeWriter(write_end) as writer:
            reading = asyncio.create_task(collect(reader))
            rest = data
            for cut in cuts:
                await writer.send(rest[:cut])
                rest = rest[cut:]
                await asyncio.sleep(0)
            await writer.send(rest)
            await writer.aclose()
            return await reading

    async def collect(reader: PipeReader) -> list[str]:
        return [line async for line in reader.lines("latin-1", keepends=True, max_length=limit)]

    lines = asyncio.run(run())
    assert "".join(lines) == data.decode("latin-1")
    assert all(0 < len(line.removesuffix("\n")) <= limit or line == "\n" for line in lines)
    assert all("\n" not in line[:-1] for line in lines)
