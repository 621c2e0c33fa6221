"""What a call has made that was cut short, and whether it is deleted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from calls import BUNDLE, commands, invoked
from children import gone, post, write_program

from runc_async import (
    CleanupWarning,
    ContainerExists,
    ResourceError,
    Runc,
    RuncCrashed,
    RuncTimeout,
)
from runc_async._linux.procfs import ProcessIdentity
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

NAME = f"web-{os.getpid()}"
"""The id of each container: a runtime of any other process that makes one of that id counts as a rival."""

FALSE = '{"level":"error","msg":"%s"}\n'


def state(created: str) -> bytes:
    """Return what runc tells of a container."""
    return json.dumps({"id": NAME, "status": "created", "bundle": "/b", "created": created}).encode()


# --- what a call that is cut short has made


async def cut_short(
    runner: FakeRunner, how: str, make: Callable[[float | None], Awaitable[object]], command: str
) -> None:
    """Cancel a call, or let its time be over."""
    if how == "timeout":
        with pytest.raises(RuncTimeout):
            await make(0.01)
        return
    task = asyncio.ensure_future(make(None))
    await invoked(runner, command)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


MAKERS: dict[str, Callable[[Runc, float | None], Awaitable[object]]] = {
    "create": lambda client, timeout: client.create(NAME, BUNDLE, timeout=timeout),
    "run": lambda client, timeout: client.run(NAME, BUNDLE, timeout=timeout),
    "run detached": lambda client, timeout: client.run(NAME, BUNDLE, timeout=timeout, detach=True),
    "run detached to keep": lambda client, timeout: client.run(NAME, BUNDLE, timeout=timeout, detach=True, keep=True),
}
each_maker = pytest.mark.parametrize("maker", MAKERS)
each_cut = pytest.mark.parametrize("how", ["cancel", "timeout"])


@pytest.fixture
def hanging(tmp_path: Path) -> tuple[FakeRunner, Runc]:
    """Return a client of a runc that never ends to create."""
    runner = FakeRunner()
    runner.reply("create", hang=True)
    runner.reply("run", hang=True)
    runner.reply("version", stdout=b"runc version 1.3.0\n")
    return runner, Runc(runner=runner, root=tmp_path)


@pytest.mark.any_loop
@each_maker
@each_cut
async def test_what_it_has_made_is_deleted(hanging: tuple[FakeRunner, Runc], maker: str, how: str) -> None:
    """A call that was cut short deletes the container that it may have made."""
    runner, client = hanging
    runner.reply("state", stdout=state("2999-01-01T00:00:00Z"))
    await cut_short(runner, how, lambda timeout: MAKERS[maker](client, timeout), maker.split(maxsplit=1)[0])
    assert commands(runner)[-2:] == ["state", "delete"]
    assert runner.invocations[-1].args[-4:] == ("delete", "--force", "--", NAME)


@pytest.mark.parametrize("answer", [b"", b"{}"], ids=["nothing", "no state"])
async def test_what_is_half_made_is_deleted(hanging: tuple[FakeRunner, Runc], answer: bytes) -> None:
    """A container of which runc can't tell the state is half-made."""
    runner, client = hanging
    runner.reply("state", stdout=answer)
    await cut_short(runner, "cancel", lambda _: client.create(NAME, BUNDLE), "create")
    assert commands(runner) == ["create", "state", "delete"]


async def test_what_does_not_exist_is_not_deleted(hanging: tuple[FakeRunner, Runc]) -> None:
    """Where there is no container nothing is deleted: another call could make one of that id just then."""
    runner, client = hanging
    runner.reply("state", exit_code=1, log=(FALSE % "container does not exist").encode())
    await cut_short(runner, "cancel", lambda _: client.create(NAME, BUNDLE), "create")
    assert commands(runner) == ["create", "state"]


async def test_a_call_that_has_started_nothing_deletes_nothing(tmp_path: Path) -> None:
    """A call that is cancelled before a runtime process was started asks nothing and deletes nothing."""
    runner = FakeRunner()
    client = Runc(root=tmp_path, runner=runner, max_concurrency=1)
    async with client._calls.turn():  # pyright: ignore[reportPrivateUsage] - the call has to wait for it
        task = asyncio.create_task(client.create(NAME, BUNDLE))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert commands(runner) == []


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ResourceError((), 1)], ids=["cancelled", "resources"])
async def test_what_fails_before_a_start_deletes_nothing(tmp_path: Path, error: BaseException) -> None:
    """A call that fails before it asks its runner to start a runtime process asks nothing and deletes nothing."""
    runner = FakeRunner()
    with pytest.raises(type(error)):
        async with Runc(root=tmp_path, runner=runner)._undo.creating(NAME):  # pyright: ignore[reportPrivateUsage]
            raise error
    assert commands(runner) == []


@pytest.mark.any_loop
@pytest.mark.parametrize("whose", ["its own", "another's", "nobody's", "a rival's"])
async def test_whose_container_it_is(tmp_path: Path, whose: str) -> None:
    """A container is deleted if its first process was started by this call's own runtime process.

    One without a process is deleted unless another runtime process is making it: then a warning names it.
    """
    with post(tmp_path) as said:
        program = write_program(
            tmp_path / "runc",
            f"""#!/bin/sh
            shift 6
            [ $1 = delete ] && exec echo delete > {said.path}
            sleep 1000 & echo $! > {said.path}
            trap 'exit 1' TERM
            wait
            """,
        )
        verb = "create" if whose == "a rival's" else "look"
        with subprocess.Popen(["/bin/sh", "-c", "read _", verb, NAME], stdin=subprocess.PIPE) as other:  # noqa: ASYNC220
            task = asyncio.create_task(Runc(program, root=tmp_path).run(NAME, BUNDLE, grace=0.1))
            started = int(await said.word())
            first = {"its own": started, "another's": other.pid}.get(whose)
            (tmp_path / NAME).mkdir()
            if first is not None:
                process = ProcessIdentity.of(first)
                record = {"init_process_pid": process.pid, "init_process_start": process.start_time}
                (tmp_path / NAME / "state.json").write_text(json.dumps(record))
            task.cancel()
            warned = pytest.warns(CleanupWarning, match="may be left behind: another call")
            with warned if whose == "a rival's" else contextlib.nullcontext():
                await asyncio.wait([task])
            assert task.cancelled()
        with contextlib.suppress(ProcessLookupError):  # this runtime deletes no container, and so ends no process
            os.kill(started, signal.SIGKILL)
        said.tell("end")
        assert await said.word() == ("delete" if whose in {"its own", "nobody's"} else "end")


@pytest.mark.parametrize("code", [-signal.SIGINT, 128 + signal.SIGTERM])
async def test_a_deletion_that_a_signal_ends(hanging: tuple[FakeRunner, Runc], code: int) -> None:
    """It begins again: Ctrl-C, and a stop by systemd, reach the runtime process of the deletion too."""
    runner, client = hanging
    runner.reply("delete", exit_code=code)
    runner.reply("delete")
    await cut_short(runner, "cancel", lambda _: client.create(NAME, BUNDLE), "create")
    assert commands(runner)[-2:] == ["state", "delete"]
    assert commands(runner).count("delete") == 2


async def test_a_deletion_that_signals_end_again_and_again(hanging: tuple[FakeRunner, Runc]) -> None:
    """It is given up after five times, and named in a warning."""
    runner, client = hanging
    runner.reply("delete", exit_code=-signal.SIGINT)
    with pytest.warns(CleanupWarning, match=f"container '{NAME}' may be left behind"):
        await cut_short(runner, "cancel", lambda _: client.create(NAME, BUNDLE), "create")
    assert commands(runner).count("delete") == 5


async def test_leaving_a_block_whose_deletion_a_signal_ends() -> None:
    """The deletion at the end of a block begins again too."""
    runner = FakeRunner()
    runner.reply("version", stdout=b"runc version 1.3.0\n")
    runner.reply("delete", exit_code=-signal.SIGTERM)
    runner.reply("delete")
    async with Runc(runner=runner).open_container(NAME, BUNDLE):
        pass
    assert commands(runner)[-2:] == ["delete", "delete"]


@each_maker
@each_cut
async def test_what_was_there_before_stays(
    hanging: tuple[FakeRunner, Runc], maker: str, how: str, tmp_path: Path
) -> None:
    """A container that was there before, as the root directory shows, isn't touched."""
    runner, client = hanging
    (tmp_path / NAME).mkdir()
    await cut_short(runner, how, lambda timeout: MAKERS[maker](client, timeout), maker.split(maxsplit=1)[0])
    assert {"state", "delete"}.isdisjoint(commands(runner))


@each_maker
async def test_what_is_older_than_the_call_stays(hanging: tuple[FakeRunner, Runc], maker: str) -> None:
    """A container that was created before the call isn't touched, wherever the runtime keeps it."""
    runner, client = hanging
    runner.reply("state", stdout=state("2020-01-01T00:00:00Z"))
    await cut_short(runner, "cancel", lambda timeout: MAKERS[maker](client, timeout), maker.split(maxsplit=1)[0])
    assert commands(runner)[-1] == "state"


@each_cut
async def test_what_is_kept_is_not_deleted(hanging: tuple[FakeRunner, Runc], how: str) -> None:
    """With `keep` the container stays."""
    runner, client = hanging
    await cut_short(runner, how, lambda timeout: client.run(NAME, BUNDLE, timeout=timeout, keep=True), "run")
    assert "delete" not in commands(runner)


@pytest.mark.parametrize("existed", [False, True])
async def test_a_root_directory_that_we_cannot_look_into(tmp_path: Path, existed: bool) -> None:  # noqa: FBT001
    """Where the file system doesn't tell whether the container was there before, runc is asked."""
    runner = FakeRunner()
    runner.reply("create", hang=True)
    if existed:
        runner.reply("state", stdout=state("2999-01-01T00:00:00Z"))
    else:
        runner.reply("state", exit_code=1)
    client = Runc(runner=runner, root=tmp_path, max_concurrency=1)
    name = "x" * 256  # longer than a file's name may be
    await cut_short(runner, "cancel", lambda _: client.create(name, BUNDLE), "create")
    assert commands(runner) == ["state", "create", *([] if existed else ["state", "delete"])]


async def test_a_call_that_had_no_turn_deletes_nothing(hanging: tuple[FakeRunner, Runc], tmp_path: Path) -> None:
    """A call that is cancelled while it waits for its turn has made nothing, and asks nothing."""
    runner, _ = hanging
    runner.reply("pause", hang=True)
    client = Runc(runner=runner, root=tmp_path, max_concurrency=1)
    busy = asyncio.create_task(client.pause("other"))
    await invoked(runner, "pause")
    waiting = asyncio.create_task(client.create(NAME, BUNDLE))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    busy.cancel()
    await asyncio.gather(busy, waiting, return_exceptions=True)
    assert commands(runner) == ["pause"]


async def test_the_deletion_waits_for_no_turn(tmp_path: Path) -> None:
    """What was made is deleted although all places are taken."""
    runner = FakeRunner()
    runner.reply("run", hang=True)
    runner.reply("pause", hang=True)
    client = Runc(runner=runner, root=tmp_path, max_concurrency=1)
    busy = asyncio.create_task(client.pause("other"))
    await invoked(runner, "pause")
    await cut_short(runner, "cancel", lambda _: client.run(NAME, BUNDLE), "run")
    assert commands(runner)[-1] == "delete"
    busy.cancel()
    with pytest.raises(asyncio.CancelledError):
        await busy


@each_cut
async def test_a_deletion_that_fails(hanging: tuple[FakeRunner, Runc], how: str) -> None:
    """What couldn't be deleted is named in a warning, and the call ends as it would have."""
    runner, client = hanging
    runner.reply("delete", exit_code=1, log=(FALSE % "device or resource busy").encode())
    with pytest.warns(CleanupWarning, match=rf"container '{NAME}' may be left behind: .*device or resource busy"):
        await cut_short(runner, how, lambda timeout: client.create(NAME, BUNDLE, timeout=timeout), "create")


async def test_a_deletion_that_cannot_be_started(hanging: tuple[FakeRunner, Runc]) -> None:
    """The same holds if the deletion can't even be started."""
    runner, client = hanging
    runner.reply("delete", error=OSError(24, "Too many open files"))
    with pytest.warns(CleanupWarning, match=rf"container '{NAME}' may be left behind: .*Too many open files"):
        await cut_short(runner, "cancel", lambda _: client.create(NAME, BUNDLE), "create")


async def test_a_deletion_that_the_end_of_the_loop_cuts_short(hanging: tuple[FakeRunner, Runc]) -> None:
    """A deletion that is itself cancelled, as the end of the loop does, is begun anew."""
    runner, client = hanging
    runner.reply("delete", hang=True)
    runner.reply("delete")
    before = asyncio.all_tasks()
    task = asyncio.ensure_future(client.create(NAME, BUNDLE))
    await invoked(runner, "create")
    task.cancel()
    await invoked(runner, "delete")
    for other in asyncio.all_tasks() - before:
        other.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert commands(runner).count("delete") == 2


async def test_other_failures_delete_nothing() -> None:
    """A runc that fails has cleaned up itself, and a container that is refused is somebody else's."""
    runner = FakeRunner()
    runner.reply("create", exit_code=1, log=(FALSE % "container with given ID already exists").encode())
    with pytest.raises(ContainerExists):
        await Runc(runner=runner).create(NAME, BUNDLE)
    assert commands(runner) == ["create"]


@pytest.mark.any_loop
@each_cut
async def test_with_a_scripted_runtime(tmp_path: Path, how: str) -> None:
    """A runtime that is slow to create ends by itself, is asked for what it has made, and told to delete it."""
    with post(tmp_path) as said:
        program = write_program(
            tmp_path / "runc",
            f"""#!/bin/sh
            shift 4
            case $1 in
            create) echo create > {said.path}; sleep 1.2; echo created > {said.path} ;;
            *) echo "$@" > {said.path}; echo '{state("2999-01-01T00:00:00Z").decode()}' ;;
            esac
            """,
        )
        client = Runc(program)
        task = asyncio.create_task(client.create(NAME, BUNDLE, timeout=1.0 if how == "timeout" else None))
        assert await said.word() == "create"
        if how == "cancel":
            task.cancel()
        with pytest.raises(RuncTimeout if how == "timeout" else asyncio.CancelledError):
            await task
        assert [await said.word() for _ in range(3)] == ["created", f"state -- {NAME}", f"delete --force -- {NAME}"]


PROCESS = "sleep 100 & echo $! > process; echo $! > $5.tmp; mv $5.tmp $5; echo x: file exists >&2;"
"""What a runtime does before it waits: it starts the process, which says what it likes, and tells its pid."""


@pytest.mark.any_loop
@pytest.mark.parametrize("done", ["", PROCESS], ids=["before its process", "after it"])
async def test_a_run_whose_runc_breaks_down(tmp_path: Path, done: str) -> None:
    """A runc that gets no thread ends with 2; that is no end of a process, and all is deleted, whatever was printed."""
    with post(tmp_path) as said:
        program = write_program(
            tmp_path / "runc",
            f"""#!/bin/sh
            shift 6
            [ "$1 $2 $4" = "run --bundle --pid-file" ] && {{ {done} exit 2; }}
            echo "$@" > {said.path}
            echo '{state("2999-01-01T00:00:00Z").decode()}'
            """,
        )
        task = asyncio.create_task(Runc(program, root=tmp_path, cwd=tmp_path).run(NAME, BUNDLE))
        assert [await said.word() for _ in range(2)] == [f"state -- {NAME}", f"delete --force -- {NAME}"]
        with pytest.raises(RuncCrashed):
            await task
    if done:
        await gone(int((tmp_path / "process").read_text()))


async def opened(client: Runc, timeout: float | None) -> None:
    """Open a container."""
    async with client.open_container(NAME, BUNDLE, timeout=timeout):
        raise AssertionError("there is none")


RACING: dict[str, Callable[[Runc, float | None], Awaitable[object]]] = {
    "create": MAKERS["create"],
    "run detached": MAKERS["run detached"],
    "open_container": opened,
}
REFUSALS = (
    "container with given ID already exists",
    "container with id exists: web",
    "exec fifo /run/runc/web/exec.fifo already exists",
    "file exists",
)


@pytest.mark.parametrize(
    ("maker", "refusal"), [*((maker, REFUSALS[0]) for maker in RACING), *(("create", text) for text in REFUSALS[1:])]
)
@each_cut
async def test_what_somebody_else_makes_meanwhile_stays(tmp_path: Path, maker: str, refusal: str, how: str) -> None:
    """A runtime that is let finish, and refuses since there is such a container by then, has made nothing to delete."""
    with post(tmp_path) as said:
        program = write_program(
            tmp_path / "runc",
            f"""#!/bin/sh
            log=$2
            shift 4
            [ $1 = --version ] && exec echo runc version 1.1.5
            echo $1 > {said.path}
            sleep 0.3
            printf %s '{FALSE.strip() % refusal}' > $log
            exit 1
            """,
        )
        client = Runc(program)
        await client.supports("create --pidfd-socket")
        task = asyncio.ensure_future(RACING[maker](client, 0.2 if how == "timeout" else None))
        assert await said.word() == maker.partition(" ")[0].replace("open_container", "create")
        if how == "cancel":
            task.cancel()
        with pytest.raises(RuncTimeout if how == "timeout" else asyncio.CancelledError):
            await task
        assert (await asyncio.gather(client.kill(NAME), said.word(), return_exceptions=True))[1] == "kill"
