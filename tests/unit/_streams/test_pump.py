"""Bytes into and out of pipes, by callbacks of the loop."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import pytest
from children import is_open
from waiting import until

from runc_async._streams import pump
from runc_async._streams.pipes import PipeReader
from runc_async._streams.pump import CHUNK, Drain, Feed, reading_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.any_loop


def pipe(*, blocking_read: bool = False, blocking_write: bool = True) -> tuple[int, int]:
    """Make a pipe."""
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, blocking_read)
    os.set_blocking(write, blocking_write)
    return read, write


@pytest.mark.parametrize(
    ("limit", "kept", "dropped"),
    [(100, b"0123456789", False), (10, b"0123456789", False), (4, b"6789", True), (0, b"", True)],
)
async def test_the_last_bytes_are_kept(limit: int, kept: bytes, dropped: bool) -> None:  # noqa: FBT001 - of the table
    """A drain keeps the last `limit` bytes and says whether there were more."""
    read, write = pipe()
    drain = Drain(read, limit)
    for piece in (b"012", b"345", b"6789"):
        os.write(write, piece)
        await asyncio.sleep(0)
    os.close(write)
    await drain.ended
    assert (drain.data, drain.dropped) == (kept, dropped)
    assert not is_open(read)


@pytest.mark.parametrize(
    ("limit", "kept", "dropped"),
    [(100, b"0123456789", False), (10, b"0123456789", False), (4, b"0123", True), (0, b"", True)],
)
async def test_the_first_bytes_are_kept(limit: int, kept: bytes, dropped: bool) -> None:  # noqa: FBT001 - of the table
    """A drain that keeps the first `limit` bytes reads all, and says whether there were more."""
    read, write = pipe()
    drain = Drain(read, limit, keep="first")
    for piece in (b"012", b"345", b"6789"):
        os.write(write, piece)
        await asyncio.sleep(0)
    os.close(write)
    await drain.ended
    assert (drain.data, drain.dropped) == (kept, dropped)


async def test_much_more_than_the_limit() -> None:
    """However much comes, the last bytes are the right ones, and memory stays near the limit."""
    read, write = pipe(blocking_write=False)
    drain = Drain(read, 1000)
    data = b"".join(b"%07d\n" % number for number in range(1 << 17))
    Feed(write, data)
    await drain.ended
    assert drain.data == data[-1000:]
    assert drain.dropped


@pytest.mark.proof
async def test_bytes_that_come_one_by_one() -> None:
    """A child that writes single bytes makes a drain hold no more memory than one that writes many."""
    read, write = pipe()
    drain = Drain(read, 1 << 13)
    await asyncio.sleep(0)
    tracemalloc.start()
    for number in range(1, (1 << 13) + 1):
        os.write(write, b"x")
        while len(drain.data) < number:  # noqa: ASYNC110 - a drain tells of its end only
            await asyncio.sleep(0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    os.close(write)
    await drain.ended
    assert drain.data == b"x" * (1 << 13)
    assert size < 1 << 16


async def test_closing_while_others_hold_the_pipe() -> None:
    """What is in the pipe is read before it is closed; the drain says that there may have been more."""
    read, write = pipe()
    drain = Drain(read, 100)
    os.write(write, b"last words")
    assert drain.close() is False
    assert drain.data == b"last words"
    assert drain.ended.done()
    assert not is_open(read)
    os.close(write)


async def test_closing_when_nobody_holds_the_pipe() -> None:
    """A pipe that nobody holds is read to its end, and the drain says that this was all."""
    read, write = pipe()
    drain = Drain(read, 1 << 20)
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(write, b"x" * (5 * CHUNK))
    os.close(write)
    assert drain.close() is True
    assert len(drain.data) == 5 * CHUNK
    assert drain.close() is True


async def test_closing_while_others_write_on() -> None:
    """A writer that never stops doesn't keep a drain from being closed."""
    read, write = pipe()

    class Followed(Drain):
        def _keep(self, data: bytes) -> None:
            super()._keep(data)
            os.write(write, b"more")

    os.write(write, b"x")
    assert Followed(read, 10).close() is False
    os.close(write)


async def test_the_end_of_a_terminal() -> None:
    """EIO is the end of a terminal whose last holder is gone."""
    master, slave = os.openpty()
    os.set_blocking(master, False)
    os.write(slave, b"text")
    drain = Drain(master, 100)
    while drain.data != b"text":  # noqa: ASYNC110 - a drain tells of its end only
        await asyncio.sleep(0)
    os.close(slave)
    await drain.ended
    assert not is_open(master)


@pytest.mark.parametrize("size", [0, 1, CHUNK, 5 << 20])
async def test_feeding(size: int) -> None:
    """All bytes go through a pipe, however many, and then the pipe is closed."""
    read, write = pipe(blocking_write=False)
    drain = Drain(read, 8 << 20)
    data = os.urandom(size)
    Feed(write, data)
    await drain.ended
    assert drain.data == data
    assert not is_open(write)


async def test_a_reader_that_goes_away() -> None:
    """Input that nobody reads any more is let go of without a word."""
    read, write = pipe(blocking_write=False)
    feed = Feed(write, b"x" * (1 << 20))
    await asyncio.sleep(0)
    os.close(read)
    while is_open(write):  # noqa: ASYNC110 - a feed tells nobody of its end
        await asyncio.sleep(0)
    feed.close()


async def test_closing_a_feed() -> None:
    """A feed that is closed stops where it is; to close it again does nothing to a descriptor of the same number."""
    read, write = pipe(blocking_write=False)
    feed = Feed(write, b"x" * (1 << 20))
    feed.close()
    assert not is_open(write)
    other = os.dup(read)
    feed.close()
    assert is_open(other)
    os.close(other)
    os.close(read)


@pytest.mark.parametrize("make", [partial(Drain, limit=5), partial(Feed, data=b"data")], ids=["drain", "feed"])
async def test_a_descriptor_that_cannot_be_watched(
    make: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the kernel can't watch one more descriptor, it is closed: whoever gave it has given it away."""

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "no space")

    class Loop:
        add_reader = add_writer = staticmethod(fail)
        create_future = staticmethod(asyncio.get_running_loop().create_future)

    read, write = pipe()
    monkeypatch.setattr(asyncio, "get_running_loop", Loop)
    with pytest.raises(OSError, match="no space"):
        make(write)
    assert not is_open(write)
    os.close(read)


async def test_reading_ahead() -> None:
    """What no task reads is kept in the stream, in order, and a task that comes later gets all of it."""
    read, write = pipe(blocking_write=False)
    async with PipeReader(read) as stream:
        data = b"".join(b"%07d\n" % number for number in range(1 << 15))
        with reading_ahead(stream, None):
            Feed(write, data)
            await until(lambda: stream.kept == len(data))
            assert (await stream.receive(8), await anext(stream.lines())) == (b"0000000\n", "0000001")
        assert b"".join([chunk async for chunk in stream]) == data[16:]


async def test_reading_ahead_of_more_than_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the writer waits, and loses nothing."""
    monkeypatch.setattr(pump, "READ_AHEAD", 1 << 16)
    read, write = pipe(blocking_write=False)
    async with PipeReader(read) as stream:
        data = bytes(1 << 20)
        with reading_ahead(stream):
            Feed(write, data)
            await until(lambda: stream.kept >= 1 << 16)
            assert len(b"".join([chunk async for chunk in stream])) == len(data)
            assert stream.kept == 0


async def test_reading_ahead_beside_a_reader() -> None:
    """A task that waits for the stream gets what comes, and nothing is kept back."""
    read, write = pipe()
    async with PipeReader(read) as stream:
        with reading_ahead(stream):
            for number in range(4):
                receiving = asyncio.create_task(stream.receive())
                await asyncio.sleep(0.03)
                os.write(write, b"%d" % number)
                assert await receiving == b"%d" % number
        os.close(write)
