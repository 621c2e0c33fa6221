"""Bytes that nobody should write: whatever reads them refuses them as documented, soon, and loses none.

The same targets run for longer, and guided by coverage, with `make fuzz`.
"""

from __future__ import annotations

import copy
import json
import os
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import fuzz_targets
import proof
import pytest
from fuzz_targets import PLANTED, SEPARATOR, TARGETS
from hypothesis import given, settings, strategies as st
from mirror import is_list, is_map

from runc_async._linux.cgroup import memory_cgroup
from runc_async.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proof import Tried

TRIED = "bad inputs for decoders"
SECONDS = 5.0
"""Processor time for one input of 64 KiB at most: a hundred times what is needed, for the machine may be slow."""

MEMORY = 200
"""Bytes of memory for each byte of input, beside a mebibyte: Python's own JSON reader takes fifty and more."""

JSON_TARGETS = (
    *("state", "list", "ps", "stats", "events", "features", "state-record"),
    *("spec", "process", "lenient", "folded", "validate"),
)

# What no well-meaning program prints, to be put anywhere.
PIECES = (
    b"\0",
    b"\x1b[2J\x1b]0;title\x07",
    b"\xff\xfe",
    b"\xed\xa0\x80",  # half of a surrogate pair
    b"\\ud800",
    b"\\u0000",
    b"\\u001b[31m",
    "\u202e\u2028\x85\x0b\x1c".encode(),
    b"\r",
    b"\n",
    b'"',
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"9" * 5000,
    b"[" * 500,
    b'{"a":' * 500,
    b" " * 300,
    b"%%",
    SEPARATOR,
)

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 63,
    1 << 64,
    10**400,
    1.5,
    1e308,
    "",
    "\0",
    "\x1b[2J\x7f\x9b",
    "\ud800",
    "x" * 3000,
    "9" * 5000,
    "2024-02-30T25:61:00Z",
    "9999-12-31T23:59:59.999999999-23:59",
    [],
    {},
    [[]],
    {"": {}},
    {"\x1b]0;\x07": "\x7f"},
)


@pytest.fixture(scope="module", autouse=True)
def workplace(scratch: object) -> Iterator[None]:
    """Give the targets a place for their files."""
    del scratch
    with fuzz_targets.workplace():
        yield


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Take a good input, and cut, repeat, exchange or put something into it, up to four times."""
    data = seeds[draw(st.integers(0, len(seeds) - 1))]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 60)))
        part = data[start:end]
        made = st.sampled_from((b"", part + part, part[::-1], part.upper(), part * 40))
        instead = draw(made | st.sampled_from(PIECES) | st.binary())
        data = data[:start] + instead + data[end:]
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 4)) == 0 else data


@st.composite
def altered(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Take a good JSON document, and up to four times put a wrong value into it, leave a key out, or write it twice."""
    document = json.loads(seeds[draw(st.integers(0, len(seeds) - 1))])
    for _ in range(draw(st.integers(1, 4))):
        holders = [place for place in nodes(document) if place]
        if not holders:
            return json.dumps(draw(st.sampled_from(VALUES))).encode()
        holder = draw(st.sampled_from(holders))
        key = draw(st.sampled_from(list(holder) if is_map(holder) else range(len(holder))))
        change = draw(st.sampled_from(("drop", "replace", "nest", "twice", "rename")))
        if change == "drop":
            del holder[key]
        elif change == "replace":
            holder[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
        elif change == "nest":
            holder[key] = nested(holder[key], draw(st.sampled_from((1, 30, 99, 150))))
        elif change == "twice":
            holder[key] = [holder[key], copy.deepcopy(holder[key])]
        elif is_map(holder):
            holder[draw(st.text(max_size=4) | st.sampled_from(("\x1b", "\x7f", "k" * 4000)))] = holder.pop(key)
    text = json.dumps(document)
    if draw(st.booleans()) and text.startswith("{") and len(text) > 2:
        text = "{" + text[1:-1] + ", " + text[1:]  # every key stands twice
    return text.encode()


def nodes(document: Any) -> Iterator[Any]:
    """Yield the objects and arrays of a document."""
    level = [document]
    while level:
        level = [node for node in level if is_map(node) or is_list(node)]
        yield from level
        level = [inner for node in level for inner in (node.values() if is_map(node) else node)]


def nested(value: object, levels: int) -> object:
    """Put a value into arrays and objects, one in another."""
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def fuzz(name: str, inputs: st.SearchStrategy[bytes], examples: int, tried: Tried) -> None:
    """Give a target so many inputs."""
    count = 0

    @settings(max_examples=examples)
    @given(inputs)
    def each(data: bytes) -> None:
        nonlocal count
        count += 1
        begun = time.process_time()
        TARGETS[name].check(data)
        assert time.process_time() - begun < SECONDS

    each()
    tried(TRIED, count)


@pytest.mark.parametrize("name", TARGETS)
def test_what_runtimes_really_write_is_taken(name: str, tried: Tried) -> None:
    """The seeds pass as they are, so that what is made of them is refused for the damage alone."""
    seeds = list(TARGETS[name].seeds())
    for seed in seeds:
        TARGETS[name].check(seed)
    assert seeds
    tried(TRIED, len(seeds))


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str, tried: Tried) -> None:
    """Bytes without any sense are taken, or refused as documented."""
    fuzz(name, st.binary(max_size=300), proof.amount(60, 10), tried)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs(name: str, tried: Tried) -> None:
    """Real answers with parts that are missing, repeated, cut off or something else are too."""
    fuzz(name, damaged(list(TARGETS[name].seeds())), proof.amount(100, 15), tried)


@pytest.mark.parametrize("name", JSON_TARGETS)
def test_altered_documents(name: str, tried: Tried) -> None:
    """So are documents with values of other types, keys left out or twice, deep nesting and large numbers."""
    fuzz(name, altered([seed for seed in TARGETS[name].seeds() if parses(seed)]), proof.amount(100, 15), tried)


def parses(data: bytes) -> bool:
    """Tell whether a seed is JSON."""
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("odd", ["\v", "\f", "\r", "\x1c", "\x85", "\xa0", "\u2028", "-", " - ", "\udcff"])
def test_names_of_cgroups_and_mounts_may_be_odd(odd: str, tmp_path: Path) -> None:
    """What Python takes for the end of a line, or for a blank, is a part of a name: cgroup and mount are found."""
    escaped = odd.replace(" ", "\\040")
    mounts = (
        f"1 2 0:3 / /before{escaped}x rw - ext4 /dev/sda rw\n4 2 0:5 / /top{escaped}y rw - cgroup cgroup rw,memory\n"
    )
    written = {"7/cgroup": f"5:memory:/c{odd}z\n", "self/cgroup": "5:memory:/\n", "self/mountinfo": mounts}
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(os.fsencode(text))
    assert memory_cgroup(7, tmp_path) == Path(f"/top{odd}y/c{odd}z")


SIZE = 1 << 16

BOMBS: dict[str, Callable[[int], bytes]] = {
    "brackets": lambda size: b"[" * size,
    "objects": lambda size: b'{"a":' * (size // 5),
    "nesting to the limit": lambda size: b" " * (size - 2 * 900) + b"[" * 900 + b"]" * 900,
    "a number": lambda size: b"9" * size,
    "a fraction": lambda size: b"[1." + b"9" * size + b"]",
    "an exponent": lambda size: b"[1e" + b"9" * size + b"]",
    "a text": lambda size: b'"' + b"x" * size + b'"',
    "an open text": lambda size: b'{"id":"' + b"\\\\" * (size // 2),
    "escapes": lambda size: b'"' + b"\\u0000" * (size // 6) + b'"',
    "empty lists": lambda size: b"[" + b"[]," * (size // 3) + b"[]]",
    "keys": lambda size: b"{" + b",".join(b'"%d":0' % number for number in range(size // 8)) + b"}",
    "one key again and again": lambda size: b"{" + b'"a":0,' * (size // 6) + b'"a":0}',
    "a long key over many lists": lambda size: b'{"%s":[%s[]]}' % (b"k" * (size // 2), b"[]," * (size // 6)),
    "a long key over repeated keys": lambda size: (
        b'{"%s":[%s[]]}' % (b"k" * (size // 2), b'{"a":0,"a":0},' * (size // 28))
    ),
    "long keys in each other over repeated keys": lambda size: (
        b'{"%s":' % (b"k" * (size // 200)) * 95 + b"[" + b'{"a":0,"a":0},' * (size // 30) + b"0]" + b"}" * 95
    ),
    "violations": lambda size: b'{"ociVersion":"1.0.0","mounts":[' + b"0," * (size // 2) + b"0]}",
    "violations under a long key": lambda size: (
        b'{"ociVersion":"1.0.0","linux":{"rdma":{"%s":[%s0]}}}' % (b"k" * (size // 2), b"0," * (size // 4))
    ),
    "blanks": lambda size: b" " * size,
    "lines": lambda size: b"\n" * size,
    "zeros": bytes,
    "blanks in a field": lambda size: b"runc version 1\ncommit: x" + b" " * size + b"y",
    "a line with blanks only behind a field": lambda size: b"runc version 1\nspec: x" + b" \n" * (size // 2) + b"y",
    "columns and rows": lambda size: b"a " * (size // 4) + b"\n" + b"b\n" * (size // 4),
    "open braces": lambda size: b"{\n" * (size // 2),
    "open records": lambda size: b"{\n  \n" * (size // 5),
    "open quotes": lambda size: b"level=" + b' msg="\\' * (size // 7),
    "equals signs": lambda size: b"level=error " + b"msg=" * (size // 4),
    "prefixes": lambda size: b"\x01\n%%\nexec failed: " + b"exec failed: " * (size // 13),
    "quoted programs": lambda size: b"\x0a\n%%\n" + b'exec: "": stat : ' * (size // 17),
    "many quoted programs": lambda size: b"\x0a\n%%\n" + (b'exec: "": stat : ' * 100 + b"\n") * (size // 1701),
    "unlogged": lambda size: b"\x0a\n%%\nexec " + b": " * (size // 2),
    "braces of crun": lambda size: b'\x0a\n%%\n{"msg": "exec ' + b": exec format error" * (size // 19),
    "errors of criu": lambda size: b"Error (\n" * (size // 8),
    "sizes of an archive": lambda size: (b"\x01" * 512) * (size // 512),
}


@pytest.mark.proof(every=3)
@pytest.mark.parametrize("bomb", BOMBS)
def test_time_is_bounded(bomb: str, tried: Tried) -> None:
    """An input that costs more than its length would say costs no target more than a bounded time."""
    data = BOMBS[bomb](SIZE)
    for name, target in TARGETS.items():
        begun = time.process_time()
        target.check(data)
        spent = time.process_time() - begun
        assert spent < SECONDS, f"{name} took {spent:.1f} s"
    tried(TRIED, len(TARGETS))


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_is_bounded(bomb: str, tried: Tried) -> None:
    """Nor does it cost more memory than so many times its length; half of it will do, for watching takes long."""
    size = SIZE // 2
    data = BOMBS[bomb](size)
    tracemalloc.start()
    try:
        for name, target in TARGETS.items():
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            target.check(data)
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken < MEMORY * size + (1 << 20), f"{name} took {taken >> 20} MiB"
    finally:
        tracemalloc.stop()
    tried(TRIED, len(TARGETS))


def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch, tried: Tried) -> None:
    """A target that raises for a damaged input is noticed."""
    monkeypatch.setitem(TARGETS, "planted", PLANTED["planted"])
    with pytest.raises(ZeroDivisionError):
        fuzz("planted", damaged([b"bug!bug!"]), 500, tried)


@pytest.mark.parametrize(
    ("check", "data"),
    [
        (fuzz_targets.decoder(lambda data: 1 // len(data)), b""),
        (fuzz_targets.decoder(lambda data: refuse(data[:-1])), b"lost"),
        (fuzz_targets.decoder(lambda data: refuse(data, cause="\x1b[2J")), b"x"),
        (fuzz_targets.decoder(lambda data: refuse(data, note="\x07")), b"x"),
        (fuzz_targets.decoder(lambda _: Unkempt()), b"x"),
    ],
    ids=[
        "raises",
        "loses bytes",
        "has a cause with an escape",
        "has a note with an escape",
        "has a repr with an escape",
    ],
)
def test_each_check_of_a_decoder_can_fail(check: Callable[[bytes], None], data: bytes) -> None:
    """A decoder that raises something else, loses bytes, or lets an escape through is found out."""
    with pytest.raises((ZeroDivisionError, AssertionError)):
        check(data)


class Unkempt:
    """A value that shows what it was made of."""

    def __repr__(self) -> str:
        """Clear the screen."""
        return "\x1b[2J"


def refuse(data: bytes, *, cause: str = "", note: str = "") -> NoReturn:
    """Raise a DecodeError, of what, and with what."""
    error = DecodeError("no", data)
    error.add_note(note)
    raise error from ValueError(cause)


def test_slowness_is_found(monkeypatch: pytest.MonkeyPatch, tried: Tried) -> None:
    """A target that takes too long is noticed."""
    monkeypatch.setitem(globals(), "SECONDS", -1.0)
    with pytest.raises(AssertionError):
        fuzz("pid-file", st.just(b"1"), 1, tried)
