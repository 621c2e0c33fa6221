"""Whose container it is: known by its first process."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from runc_async._containers.ownership import Attempt, gone, is_being_made, recorded_process
from runc_async._linux.procfs import ProcessIdentity
from runc_async.errors import CommandError, ContainerNotFound
from runc_async.runner import Completed, Invocation, StopPolicy
from runc_async.state import State

LATE = 1 << 60
"""A start time after that of any process."""

CREATE = Invocation(command="create", argv=("runc", "create", "web"))
RUN = Invocation(command="run", argv=("runc", "run", "web"), stop=StopPolicy(waits_for_process=True))


async def unasked(_container_id: str) -> State:
    """Fail, for the file system is enough."""
    raise AssertionError("asked")


@pytest.mark.parametrize(
    ("invocation", "code", "processes", "seen", "expected"),
    [
        (RUN, -2, [ProcessIdentity(7, LATE)], False, True),
        (RUN, -2, [ProcessIdentity(7, 0)], False, True),
        (RUN, -15, [ProcessIdentity(8, LATE)], True, False),
        (RUN, -15, [], True, False),
        (RUN, -15, [], False, None),
        (RUN, 2, [], False, None),
        (RUN, 143, [], False, None),
        (RUN, 1, [], False, False),
        (RUN, 0, [], False, False),
        (CREATE, 0, [], False, True),
    ],
    ids=["reported", "number only", "noted another", "noted none", "killed", "panic", "shell", "failed", "ran", "made"],
)
def test_owner(
    invocation: Invocation,
    code: int,
    processes: list[ProcessIdentity],
    seen: bool,  # noqa: FBT001
    expected: bool | None,  # noqa: FBT001
) -> None:
    """A process is a call's own if its runtime process has reported it, or was seen to have started it."""
    attempt = Attempt("/run/runc", "web")
    attempt.ended(invocation, Completed(pid=1, returncode=code), processes, seen=seen)
    assert attempt.owns(ProcessIdentity(7, LATE)) is expected
    assert attempt.owns(ProcessIdentity(7, 1)) is False


@pytest.mark.parametrize("noted", [0, LATE], ids=["number only", "with start time"])
def test_owner_of_an_ended_process(noted: int) -> None:
    """Of a process that has ended, and has no start time in the record, the number is compared."""
    attempt = Attempt("/run/runc", "web")
    attempt.ended(CREATE, Completed(pid=1, returncode=-9), [ProcessIdentity(7, noted)], seen=True)
    assert attempt.owns(ProcessIdentity(7, 0)) is True
    assert attempt.owns(ProcessIdentity(8, 0)) is False


@pytest.mark.parametrize("name", ["state.json", "status"])
def test_recorded_process(tmp_path: Path, name: str) -> None:
    """The runtime's record keeps the first process and its start time; a record that is not finished has none."""
    with pytest.raises(FileNotFoundError):
        recorded_process(str(tmp_path), "web")
    (tmp_path / "web").mkdir()
    assert recorded_process(str(tmp_path), "web") is None
    record = {"init_process_pid": 7, "init_process_start": 9} if name == "state.json" else {}
    (tmp_path / "web" / name).write_text(json.dumps(record or {"pid": 7, "process-start-time": 9}))
    assert recorded_process(str(tmp_path), "web") == ProcessIdentity(7, 9)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["runc", "create", "--bundle", "/b", "web"], True),
        (["sudo", "runc", "--root", "/r", "run", "web"], True),
        (["runc", "--root=/r", "run", "web"], True),
        (["runc", "--root", "/other", "run", "web"], False),
        (["runc", "create", "web2"], False),
        (["runc", "state", "web"], False),
        (["web"], False),
        ([], False),
    ],
)
def test_rivals(tmp_path: Path, words: list[str], expected: bool) -> None:  # noqa: FBT001
    """A runtime process that makes a container of that id, under the same root directory, is found by its arguments."""
    for place in (tmp_path / "7", tmp_path / "8", tmp_path / "self"):
        place.mkdir()
    (tmp_path / "7" / "cmdline").write_text("".join(f"{word}\0" for word in words))
    assert is_being_made("web", "/r", str(tmp_path)) is expected


async def test_a_record_is_waited_for(tmp_path: Path) -> None:
    """While another call makes a container of that id, its record gets a process: then it is foreign."""
    ours, other = Attempt(str(tmp_path), "web"), Attempt(str(tmp_path), "web")
    (tmp_path / "web").mkdir()
    with ours.compared(), other.compared():
        with other.noted():
            judging = asyncio.create_task(ours.judge(unasked))
            await asyncio.sleep(0)
            ours.ended(RUN, Completed(pid=1, returncode=-15), [], seen=True)
            record = {"init_process_pid": 7, "init_process_start": LATE}
            (tmp_path / "web" / "state.json").write_text(json.dumps(record))
            assert await judging is False
        assert ours.shared
        (tmp_path / "web" / "state.json").unlink()
        assert await ours.judge(unasked) is True


async def test_a_container_that_is_gone(tmp_path: Path) -> None:
    """Where the directory has none, the runtime is asked, which may keep it elsewhere."""

    async def ask(_container_id: str) -> State:
        raise ContainerNotFound((), 1, container_id="web")

    with pytest.raises(ContainerNotFound):
        await Attempt(str(tmp_path), "web").judge(ask)


def test_cgroups_of_others() -> None:
    """A cgroup with an older process is another container's; an empty one, or one with a process of ours, isn't."""
    attempt = Attempt("/run/runc", "web")
    assert attempt.may_hold([])
    assert not attempt.may_hold([1, os.getpid()])
    attempt.processes.add(ProcessIdentity.of(os.getpid())._replace(start_time=LATE))
    assert not attempt.may_hold([os.getpid()])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, True),
        (ContainerNotFound((), 1, container_id="web", message="container does not exist"), True),
        (CommandError((), 1), False),
        (CommandError((), None), False),
    ],
    ids=["done", "gone before", "refused", "no exit code"],
)
async def test_a_deletion(error: CommandError | None, expected: bool) -> None:  # noqa: FBT001
    """What the runtime deletes or doesn't know is gone, and what the runtime refuses to delete isn't."""

    async def delete() -> None:
        if error is not None:
            raise error

    assert await gone(delete) is expected


async def test_a_deletion_that_a_signal_ends() -> None:
    """A deletion cut short by a signal is an error: `retried` begins anew."""
    with pytest.raises(CommandError):
        await gone(AsyncMock(side_effect=CommandError((), -2)))
