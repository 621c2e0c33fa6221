"""The lines that each command has in the log of the library."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from children import shell
from waiting import until

from runc_async._process.running import ProcessRunner
from runc_async.errors import RuncNotFound
from runc_async.runner import Completed, Document, Invocation, OwnOutput, Setting
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from runc_async._process.running import RunningProcess


@pytest.fixture
def at_debug(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Have the library's lines of level DEBUG in the test's log, and none of asyncio's."""
    caplog.set_level(logging.DEBUG, "runc_async")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the library's lines."""
    return [record.getMessage() for record in log.records if record.name == "runc_async"]


async def test_a_command_has_a_line_at_its_start_and_one_at_its_end(at_debug: pytest.LogCaptureFixture) -> None:
    """They have the container, the process id, the arguments, the exit code and the seconds, also as attributes."""
    completed = await ProcessRunner().run(shell("exit 3", container_id="web"))
    started, ended = (record for record in at_debug.records if record.name == "runc_async")
    assert started.getMessage() == f"container 'web': test (pid {completed.pid}) started: /bin/sh -c exit 3 sh"
    seconds = vars(ended)["seconds"]
    assert 0 < seconds < 60
    end = f"container 'web': test (pid {completed.pid}) ended after {seconds:.3f} s: exit code 3"
    assert ended.getMessage() == end
    assert {started.levelname, ended.levelname} == {"DEBUG"}
    assert [vars(record)["container_id"] for record in (started, ended)] == ["web", "web"]
    assert [vars(record)["pid"] for record in (started, ended)] == [completed.pid] * 2
    assert vars(ended)["returncode"] == 3


async def test_secrets_and_line_ends_do_not_reach_the_log(at_debug: pytest.LogCaptureFixture) -> None:
    """A variable's value and a document's contents are hidden, and an argument can't begin a line of its own."""
    argv = ("/bin/true", Setting("TOKEN", "hidden"), Document("process.json", b"hidden"), "one\ntwo\x1b[1m")
    await ProcessRunner().run(Invocation(command="exec", argv=argv))
    first, _ = lines(at_debug)
    assert first.endswith("/bin/true TOKEN=*** <process.json> one; two\\x1b[1m")
    assert "hidden" not in at_debug.text


async def test_a_command_that_is_cut_short_has_both_lines(at_debug: pytest.LogCaptureFixture) -> None:
    """The second line says which signal ended it, after a cancel as well as after its time limit."""
    task = asyncio.create_task(ProcessRunner().run(shell("exec sleep 60", streams=OwnOutput())))
    await until(lambda: lines(at_debug) != [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ProcessRunner().run(shell("exec sleep 60", timeout=0.05))
    assert [line.rpartition(": ")[2] for line in lines(at_debug)[1::2]] == ["killed by signal 9"] * 2


async def test_a_command_that_is_dropped_has_both_lines(at_debug: pytest.LogCaptureFixture) -> None:
    """A process whose handle goes to the garbage collector is killed, and its end is logged when it has ended."""
    process: RunningProcess = await ProcessRunner().open(shell("exec sleep 60", streams=PipedIO()))
    process.drop()
    await until(lambda: len(lines(at_debug)) == 2)
    assert lines(at_debug)[1].endswith("killed by signal 9")


async def test_a_command_that_cannot_start_has_no_line(at_debug: pytest.LogCaptureFixture) -> None:
    """Its exception says why."""
    with pytest.raises(RuncNotFound):
        await ProcessRunner().run(Invocation(command="state", argv=("/no/such/program",)))
    assert lines(at_debug) == []


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
async def test_nothing_is_formatted_while_the_level_is_off(
    level: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments aren't even put together."""
    caplog.set_level(level, "runc_async")
    monkeypatch.setattr(Invocation, "args", property(lambda _: pytest.fail("the arguments are put together")))
    completed = await ProcessRunner().run(shell("exit 0"))
    assert isinstance(completed, Completed)
    assert lines(caplog) == []
