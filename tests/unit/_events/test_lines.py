"""Lines out of chunks: the same ones wherever the chunks were cut, and never more memory than a line may have."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, strategies as st

from runc_async._events.lines import LineFramer


def fed(chunks: list[bytes], limit: int = 1 << 20) -> tuple[list[bytes], bytes]:
    """Return the lines that come of these chunks, and what is left at their end."""
    framer = LineFramer(limit)
    blocks = [framer.feed(chunk) for chunk in chunks]
    assert all(block.endswith(b"\n") for block in blocks if block)
    return b"".join(blocks).split(b"\n")[:-1], framer.end()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at some places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


PLACES = st.lists(st.integers(0, 1 << 16), max_size=20)


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"."))), PLACES)
def test_lines_are_the_same_wherever_chunks_are_cut(lines: list[bytes], places: list[int]) -> None:
    """Every line comes once, whole and in order, however the bytes were cut into chunks."""
    data = b"".join(line + b"\n" for line in lines)
    assert fed(cut(data, places)) == (lines, b"")


@given(st.binary(max_size=200), PLACES, st.integers(1, 20))
def test_any_bytes_give_the_same_wherever_they_are_cut(data: bytes, places: list[int], limit: int) -> None:
    """That holds for bytes of any kind and for lines over the limit, which lose what is beyond it."""
    data = data.replace(b"x", b"\n") + b"\n"
    expected = [line[: limit + 1] for line in data.split(b"\n")[:-1]]
    assert fed(cut(data, places), limit) == (expected, b"")


def test_what_has_no_end_is_kept_to_the_last() -> None:
    """Bytes behind the last line's end are no line, and are told at the end."""
    assert fed([b"one\ntw", b"o"]) == ([b"one"], b"two")
    assert fed([]) == ([], b"")


def test_a_line_of_just_the_limit_is_not_too_long() -> None:
    """The limit counts without the line's end; the first byte more makes it too long."""
    assert fed([b"12345\n"], 5) == ([b"12345"], b"")
    assert fed([b"12345", b"\n"], 5) == ([b"12345"], b"")
    assert fed([b"1234567\n"], 5) == ([b"123456"], b"")


def test_the_beginning_of_an_endless_line_comes_at_once() -> None:
    """A line is known to be too long before it ends; the next line is whole again."""
    framer = LineFramer(4)
    assert framer.feed(b"1234") == b""
    assert framer.feed(b"5") == b"12345\n"
    assert framer.feed(b"6789" * 100) == b""
    assert framer.feed(b"last\nnext\n") == b"next\n"


def test_an_endless_line_takes_no_memory() -> None:
    """A hundred megabytes without an end cost no more than the limit and a chunk."""
    framer = LineFramer(1 << 20)
    chunk = bytes(1 << 16)
    tracemalloc.start()
    try:
        for _ in range((100 << 20) // len(chunk)):
            framer.feed(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 << 20


def test_many_small_chunks_of_one_line_take_linear_time() -> None:
    """A line of a megabyte that comes byte by byte is put together without copying it for each."""
    framer = LineFramer(2 << 20)
    for _ in range(1 << 20):
        framer.feed(b"x")
    assert len(framer.feed(b"\n")) == (1 << 20) + 1


def test_a_limit_is_at_least_a_byte() -> None:
    """A limit of nothing is refused."""
    with pytest.raises(ValueError, match="at least 1 byte, not 0"):
        LineFramer(0)
