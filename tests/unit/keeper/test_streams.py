"""The streams that a keeper lends, and takes back."""

from __future__ import annotations

import os

import anyio
import pytest

from runc_async.keeper import streams


async def test_what_was_read_ahead_is_consumed_as_it_is_read() -> None:
    """What one service has not read of it is there for the next, and what has been read and not consumed goes back."""
    memory = streams.memory_of(b"one\ntwo\nthree\n")
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.write(theirs, b"four\n")
    killed = streams.lent("stdout", os.dup(ours), os.dup(memory))
    assert isinstance(killed, streams.LentReader)
    assert await killed.receive(4) == b"one\n"
    assert killed.give_back() == b""  # as if it had been killed: nothing goes back
    second = streams.lent("stdout", os.dup(ours), os.dup(memory))
    assert isinstance(second, streams.LentReader)
    async for line in second.lines():
        assert line == "two"
        break
    assert second.give_back() == b"three\n"
    again = streams.memory_of(b"three\n")
    os.close(theirs)
    third = streams.lent("stderr", ours, again)
    assert isinstance(third, streams.LentReader)
    assert [line async for line in third.lines()] == ["three", "four"]
    with pytest.raises(anyio.EndOfStream):
        await third.receive()
    assert third.give_back() == b""
    os.close(memory)


def test_what_comes_before_a_stream_has_to_be_a_file() -> None:
    """A pipe in its place could block the event loop."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    with pytest.raises(ValueError, match="no file"):
        streams.lent("stdout", ours, theirs)
    os.close(ours)
    os.close(theirs)


async def test_closing_a_lent_stream_is_reported_once() -> None:
    """A stream that goes back is not closed for the keeper."""
    closed: list[str] = []
    for give_back in (False, True):
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        stream = streams.lent("stdin", theirs)
        stream.when_closed = closed.append
        if give_back:
            assert stream.give_back() == b""
        await stream.aclose()
        stream.close()
        os.close(ours)
    assert closed == ["stdin"]
