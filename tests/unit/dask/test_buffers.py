"""Output at a node is read by offsets: nothing is lost or twice, and memory is bounded."""

from __future__ import annotations

import asyncio
import os

import pytest
from waiting import until

from runc_async._streams.pipes import PipeReader, PipeWriter
from runc_async.dask.buffers import LIMIT, OutputBuffer


async def test_every_byte_once() -> None:
    """A client that reads in pieces, with answers lost on their way, has all bytes in order, and the end."""
    reading, writing = os.pipe()
    data = os.urandom(LIMIT * 3 + 17)
    got = bytearray()
    async with PipeReader(reading) as stream, PipeWriter(writing) as writer:
        buffer = OutputBuffer(stream)
        async with asyncio.TaskGroup() as group:
            group.create_task(buffer.fill())

            async def write() -> None:
                await writer.send(data)
                await writer.aclose()

            group.create_task(write())
            ended = False
            while not ended:
                lost, _ = await buffer.read(len(got), 1000, 5)
                piece, ended = await buffer.read(len(got), 50_000, 5)
                assert piece.startswith(lost[: len(piece)])
                got += piece
    assert got == data


async def test_no_more_than_the_limit_is_kept() -> None:
    """A program whose client doesn't read waits, as it would for a pipe."""
    reading, writing = os.pipe()
    async with PipeReader(reading) as stream, PipeWriter(writing) as writer:
        buffer = OutputBuffer(stream)
        filling = asyncio.create_task(buffer.fill())
        sending = asyncio.create_task(writer.send(bytes(LIMIT * 8)))
        await until(lambda: writer.waiting)
        data, ended = await buffer.read(0, LIMIT * 8, 0)
        assert len(data) <= LIMIT
        assert not ended
        for task in (filling, sending):
            task.cancel()
        await asyncio.wait([filling, sending])


async def test_offsets_that_are_gone() -> None:
    """Bytes that were taken can't be asked for again, nor bytes that don't exist."""
    reading, writing = os.pipe()
    async with PipeReader(reading) as stream, PipeWriter(writing) as writer:
        buffer = OutputBuffer(stream)
        await writer.send(b"hello")
        await writer.aclose()
        await buffer.fill()
        assert await buffer.read(3, 10, 0) == (b"lo", True)
        for offset in (2, 6):
            with pytest.raises(ValueError, match="offset"):
                await buffer.read(offset, 10, 0)
