"""Every call of the client with a runtime that misbehaves, in all the ways that we could think of."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import proof
import pytest
from misbehaving import (
    DYING,
    FAILING,
    HANGING,
    LOUD,
    NONSENSE,
    NOT_PROGRAMS,
    ORPHANING,
    PID_FILES,
    SPECIAL,
    TELLING,
    WANDERING,
    WELL,
    WELL_BUT_LOUD,
    Behaviour,
    write_runtime,
)
from promises import BUNDLE, CELLS, LIMIT, Call, Cell, Table, documented

from runc_async import CommandError, DecodeError, Runc, RuncTimeout
from runc_async._client import identity
from runc_async.features import Version
from runc_async.runner import OwnOutput

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from proof import Tried

TRIED = "misbehaving runtime: behaviours x commands"

MEBIBYTE = 1 << 20


class Forgetful(dict[identity.Binary, Version]):
    """Keeps no version: one program plays all runtimes here."""

    def __setitem__(self, binary: identity.Binary, version: Version) -> None:
        """Forget it."""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> Table:
    """Return an empty table; what is made for a short time is made in directories of its own."""
    monkeypatch.setattr(identity, "_versions", Forgetful())
    made = Table(tmp_path, prefix.replace("-", "_") + "cell")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return made


def check(table: Table, tried: Tried) -> None:
    """Count the cells of a table, and fail if anything is wrong with one."""
    tried(TRIED, len(table.tried))
    assert not table.wrong, "\n".join(table.wrong)


FAMILIES = {
    "dies": DYING,
    "fails": FAILING,
    "answers nonsense": NONSENSE,
    "leaves children behind": ORPHANING,
    "makes no file": SPECIAL,
    "works elsewhere": WANDERING,
    "tells a wrong pid": PID_FILES,
    "sends wrong descriptors": TELLING,
}


AT_ONCE = 8
"""Behaviours that one test tries, so that it is well within its time."""

PARTS = {
    f"{family}, {start // AT_ONCE + 1}": behaviours[start : start + AT_ONCE]
    for family, all_behaviours in FAMILIES.items()
    for behaviours in [proof.chosen(all_behaviours, 2)]
    for start in range(0, len(behaviours), AT_ONCE)
}


@pytest.mark.parametrize("part", PARTS)
async def test_each_call(table: Table, tried: Tried, part: str) -> None:
    """Each call with each behaviour ends with what it promises, and leaves nothing behind."""
    await table.fill(PARTS[part])
    check(table, tried)


async def test_each_call_of_a_runtime_that_hangs(table: Table, tried: Tried) -> None:
    """Each call gives a runtime up that hangs, in time, and ends it."""
    await table.fill(proof.chosen(HANGING, 2), limit=LIMIT, at_once=200)
    check(table, tried)


@pytest.mark.proof
@pytest.mark.parametrize("behaviour", LOUD, ids=lambda behaviour: behaviour.name)
async def test_each_call_of_a_runtime_that_prints_without_end(table: Table, tried: Tried, behaviour: Behaviour) -> None:
    """Each call takes so much of it as it may, and no more memory than for that."""
    with memory(4 * 3 * OwnOutput().limit):
        await table.fill(
            [behaviour], list({cell.documents: cell for cell in reversed(CELLS)}.values()), limit=0.5, at_once=2
        )
    check(table, tried)


async def test_each_call_of_what_is_no_runtime(table: Table, tried: Tried, tmp_path: Path) -> None:
    """What can't be started is told as such by each call."""
    places = {name: tmp_path / f"program-{number}" for number, name in enumerate(NOT_PROGRAMS)}
    for name, make in NOT_PROGRAMS.items():
        make(places[name])
    behaviours = [Behaviour(name, "", "can't be started") for name in NOT_PROGRAMS]
    await table.fill(behaviours, program_of=lambda behaviour: str(places[behaviour.name]))
    check(table, tried)


@contextlib.contextmanager
def memory(limit: int) -> Any:
    """See that this process takes no more memory in the block than `limit` bytes."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak is counted anew
    before = resident("VmRSS")
    yield
    peak = resident("VmHWM") - before
    assert peak < limit, f"took {peak / MEBIBYTE:.1f} MiB"


def resident(what: str) -> int:
    """Tell the memory that this process holds, or held at most, in bytes."""
    return int(re.findall(rf"^{what}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[0]) << 10


CAPTURING: dict[str, Callable[[Runc], Awaitable[Any]]] = {
    "run": lambda client: client.run("web", BUNDLE),
    "exec": lambda client: client.exec("web", ["true"]),
    "restore": lambda client: client.restore("web", BUNDLE, "/no/images"),
}


@pytest.mark.proof(every=4)
@pytest.mark.parametrize("name", CAPTURING)
async def test_a_gigabyte_is_captured(tmp_path: Path, name: str) -> None:
    """Of a gigabyte the last bytes are kept, in memory for a few times as many, and the exit code is right."""
    client = Runc(write_runtime(tmp_path, WELL_BUT_LOUD), root=tmp_path / "root")
    with memory(16 * MEBIBYTE):
        response = await CAPTURING[name](client)
    assert (response.exit_code, response.truncated, len(response.stdout)) == (0, True, MEBIBYTE)


async def test_a_gigabyte_instead_of_a_version(tmp_path: Path) -> None:
    """A program that is asked for its version, since it may be any runtime, and prints a gigabyte, costs no memory."""
    large, program = tmp_path / "large", tmp_path / "program"
    large.touch()
    os.truncate(large, 1 << 24)  # a script with the path of such a file may be a wrapper of a runtime
    program.write_text(f"#!/bin/sh\n# {large}\ncase $* in *--version) exec head -c 1000000000 /dev/zero; esac\n")
    program.chmod(0o755)
    with memory(16 * MEBIBYTE):
        await Runc(program, root=tmp_path / "root").kill("web")


async def test_an_endless_line_of_events(tmp_path: Path) -> None:
    """A gigabyte without a line's end is one broken event, and takes no more memory than a line may have."""
    client = Runc(write_runtime(tmp_path, WELL_BUT_LOUD), root=tmp_path / "root")
    with memory(32 * MEBIBYTE):
        async with client.events("web") as events:
            with pytest.raises(DecodeError, match="longer than"):
                await anext(events)
            assert [type(event).__name__ async for event in events] == ["OOMEvent"]


# --- the table sees what is wrong


def cell(call: Callable[[Call], Awaitable[object]], document: object = Runc.state) -> Cell:
    """Return a cell that promises what the given docstring says."""
    return Cell("planted", (document,), call, right=lambda result: result is None)


async def failing(error: Exception) -> None:
    """Raise."""
    raise error


class BadError(CommandError):
    """An error with a bad sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__((), 1)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


ANY = Behaviour("does what it likes", "whole", "anything")

PLANTED: dict[str, tuple[Callable[[Call], Awaitable[object]], Behaviour, str]] = {
    "an exception that isn't documented": (lambda _: failing(KeyError("x")), ANY, "no docstring names it"),
    "a timeout that isn't expected": (
        lambda call: call.client.state(call.id, timeout=0.05),
        Behaviour("hangs", "exec sleep 1000", "right"),
        "isn't what should follow",
    ),
    "control characters": (
        lambda _: failing(BadError("\x1b[2J")),
        ANY,
        "no terminal should be shown",
    ),
    "a long sentence": (
        lambda _: failing(BadError("x" * 5000)),
        ANY,
        "says too much",
    ),
    "a crash that isn't told": (lambda _: asyncio.sleep(0), DYING[0], "isn't what should follow"),
    "an orphan": (
        lambda call: call.client.pause(call.id),
        Behaviour("leaves a child", "sleep 1000 & exit 0", "anything"),
        "leaves process",
    ),
    "a container": (lambda call: call.client.create(call.id, BUNDLE), ANY, "leaves a container"),
    "a file": (lambda call: asyncio.to_thread((call.directory.parents[1] / "tmp" / "x").touch), WELL, "left behind: /"),
}


@pytest.mark.parametrize("name", PLANTED)
async def test_what_is_wrong_is_seen(table: Table, name: str, tmp_path: Path) -> None:
    """Each fault that is planted in a cell makes the table complain of it, and no other."""
    call, behaviour, complaint = PLANTED[name]
    planted = cell(call)
    if name == "a container":  # as by a call that should have deleted it
        planted = dataclasses.replace(planted, name="open", only="create")
    await table.fill([behaviour], [planted])
    assert table.wrong
    assert [wrong for wrong in table.wrong if complaint not in wrong] == []
    (tmp_path / "tmp" / "x").unlink(missing_ok=True)


async def test_a_child_that_is_left_is_seen(table: Table) -> None:
    """A child of ours that a call leaves is seen too, though it is no process of the runtime's."""
    children: list[asyncio.subprocess.Process] = []

    async def leave(_: Call) -> None:
        children.append(await asyncio.create_subprocess_exec("sleep", "1000"))

    await table.fill([WELL], [cell(leave)])
    for child in children:
        child.kill()
        await child.wait()
    assert any(wrong.startswith("left behind: child process") for wrong in table.wrong)


async def test_what_the_loop_is_told_is_seen(table: Table) -> None:
    """An exception in a callback of the event loop, which reaches nobody, is wrong."""

    async def break_callback(_: Call) -> None:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    await table.fill([WELL], [cell(break_callback)])
    assert ["the event loop was told" in wrong for wrong in table.wrong] == [True]


def test_what_is_documented() -> None:
    """The exceptions are those of the docstring."""
    assert {CommandError, DecodeError, RuncTimeout} < set(documented(Runc.state))
    assert OSError not in documented(Runc.state)
    assert all(documented(*cell.documents) for cell in CELLS)
