"""The handles, on a runtime that is played: what they ask of it, and what they say."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from waiting import until

from runc_async.client import Runc
from runc_async.container import Container
from runc_async.errors import (
    CleanupWarning,
    CommandError,
    ContainerExists,
    ContainerNotFound,
    InvalidContainerID,
    InvalidSignal,
    RuncTimeout,
    TerminalError,
)
from runc_async.exitstatus import ExitStatus
from runc_async.spec import LinuxResources, Process
from runc_async.stdio import CapturedIO, PipedIO, PtyIO
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path

    from runc_async.runner import Invocation

BUNDLE = "/nonesuch"
FALSE = '{"level": "error", "msg": "%s"}'
STATE = (
    '{"ociVersion": "1.0.2", "id": "web", "pid": %d, "status": "%s", "bundle": "/b", "rootfs": "/b/rootfs",'
    ' "created": "2026-01-01T00:00:00Z"}'
)


@pytest.fixture
def runner() -> FakeRunner:
    """Return a runner that plays the runtime."""
    return FakeRunner()


@pytest.fixture
def client(runner: FakeRunner, tmp_path: Path) -> Runc:
    """Return a client of it."""
    return Runc(runner=runner, root=tmp_path)


@pytest.fixture
def sleeper() -> Generator[subprocess.Popen[bytes]]:
    """Return a process that sleeps."""
    child = subprocess.Popen(["/bin/sleep", "600"])
    yield child
    child.kill()
    child.wait()


def commands(runner: FakeRunner) -> list[str]:
    """Tell what was started."""
    return [invocation.command for invocation in runner.invocations]


def words(invocation: Invocation) -> list[str]:
    """Tell the arguments of a command, behind the global options."""
    args = list(invocation.args)
    return args[args.index(invocation.command) :]


CALLS: dict[str, tuple[Callable[[Container], Awaitable[Any]], list[str]]] = {
    "start": (lambda c: c.start(timeout=3), ["start", "web"]),
    "exec": (lambda c: c.exec(["ls"], cwd="/tmp"), ["exec", "--cwd", "/tmp", "web", "ls"]),
    "kill": (lambda c: c.kill("HUP"), ["kill", "web", "1"]),
    "kill-all": (lambda c: c.kill(9, all=True), ["kill", "--all", "web", "9"]),
    "pause": (lambda c: c.pause(), ["pause", "web"]),
    "resume": (lambda c: c.resume(), ["resume", "web"]),
    "delete": (lambda c: c.delete(), ["delete", "web"]),
    "force": (lambda c: c.delete(force=True), ["delete", "--force", "web"]),
    "update": (lambda c: c.update(LinuxResources()), ["update", "--resources", "<resources.json>", "web"]),
}


@pytest.mark.parametrize("name", CALLS)
async def test_the_commands_without_the_id(runner: FakeRunner, client: Runc, name: str) -> None:
    """Each method is the client's, with the container's id put in."""
    call, expected = CALLS[name]
    await call(client.container("web"))
    (invocation,) = runner.invocations
    assert [word for word in words(invocation) if word not in {"--pid-file", "<pid file>", "--"}] == expected
    assert invocation.container_id == "web"


async def test_the_queries(runner: FakeRunner, client: Runc) -> None:
    """Queries give what the client's give."""
    runner.reply("state", stdout=(STATE % (7, "running")).encode())
    runner.reply("ps", stdout=b"[7, 8]")
    container = client.container("web")
    assert (await container.state()).pid == 7
    assert await container.ps() == [7, 8]
    assert container.events(on_lag="latest").container_id == "web"
    with pytest.raises(ValueError, match="on_lag"):
        container.events(on_lag="never")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert commands(runner) == ["state", "ps"]


def test_a_handle(client: Runc) -> None:
    """A handle asks nothing, says what it is, and can't be had for an impossible id."""
    container = client.container("web")
    assert repr(container) == "<Container 'web'>"
    assert (container.pid, container.stdin, container.pty) == (None, None, None)
    with pytest.raises(InvalidContainerID):
        client.container("../web")


TIMED: dict[str, Callable[[Container, float], Awaitable[Any]]] = {
    "state": lambda c, t: c.state(timeout=t),
    "start": lambda c, t: c.start(timeout=t),
    "kill": lambda c, t: c.kill(timeout=t),
    "pause": lambda c, t: c.pause(timeout=t),
    "resume": lambda c, t: c.resume(timeout=t),
    "delete": lambda c, t: c.delete(timeout=t),
    "update": lambda c, t: c.update(LinuxResources(), timeout=t),
    "ps": lambda c, t: c.ps(timeout=t),
    "top": lambda c, t: c.top("-o", "pid", timeout=t),
    "stats": lambda c, t: c.stats(timeout=t),
}


@pytest.mark.parametrize("name", TIMED)
async def test_the_time_of_a_command(runner: FakeRunner, client: Runc, name: str) -> None:
    """Each command without the id takes a time limit of its own."""
    for command in (name, "ps", "events"):  # `top` is a `ps`, and `stats` is an `events`
        runner.reply(command, hang=True)
    with pytest.raises(RuncTimeout) as caught:
        await TIMED[name](client.container("web"), 0.01)
    assert caught.value.timeout == 0.01
    assert [invocation.timeout for invocation in runner.invocations] == [0.01]


# open_container


async def test_opening(runner: FakeRunner, client: Runc) -> None:
    """A container is created, started, and deleted by force, with the options where they belong."""
    async with client.open_container("web", BUNDLE, no_pivot=True, timeout=4) as container:
        assert commands(runner) == ["create", "start"]
        assert container.pid is None
    assert commands(runner) == ["create", "start", "delete"]
    assert "--no-pivot" in words(runner.invocations[0])
    assert [invocation.timeout for invocation in runner.invocations[:2]] == [4, 4]
    assert words(runner.invocations[2]) == ["delete", "--force", "web"] or "--force" in words(runner.invocations[2])
    await container.aclose()
    assert commands(runner) == ["create", "start", "delete"]


async def test_what_create_refuses(runner: FakeRunner, client: Runc) -> None:
    """A container that the runtime refuses to make isn't deleted, for it is somebody else's."""
    runner.reply("create", exit_code=1, log=(FALSE % "container with given ID already exists").encode())
    with pytest.raises(ContainerExists):
        await entered(client)
    assert commands(runner) == ["create"]


async def test_what_start_refuses(runner: FakeRunner, client: Runc) -> None:
    """A container that can't be started is deleted."""
    runner.reply("start", exit_code=1, log=(FALSE % "no").encode())
    with pytest.raises(CommandError):
        await entered(client)
    assert commands(runner) == ["create", "start", "delete"]


@pytest.mark.parametrize("hanging", ["create", "start"])
async def test_out_of_time(runner: FakeRunner, client: Runc, hanging: str) -> None:
    """Where time runs out, the container is deleted."""
    runner.reply("state", exit_code=1)
    runner.reply(hanging, hang=True)
    with pytest.raises(RuncTimeout):
        await entered(client, timeout=0.3)
    assert commands(runner)[-1] == "delete"


async def test_no_terminal(runner: FakeRunner, client: Runc) -> None:
    """A runtime that has made a container and sent no terminal is an error, and the container is deleted."""
    with pytest.raises(TerminalError, match=r"process\.terminal isn't set; call set_terminal\(\)"):
        await entered(client, io=PtyIO())
    assert commands(runner) == ["create", "delete"]


async def test_a_deletion_that_fails(runner: FakeRunner, client: Runc) -> None:
    """A deletion that the runtime refuses is a warning that names the container and the reason."""
    runner.reply("delete", exit_code=1, log=(FALSE % "device or resource busy").encode())
    with pytest.warns(CleanupWarning, match="container 'web' may be left behind: .*device or resource busy"):
        await entered(client)


async def test_a_deletion_that_cannot_be_started(runner: FakeRunner, client: Runc) -> None:
    """So is one that can't be started."""
    runner.reply("delete", error=OSError(24, "Too many open files"))
    with pytest.warns(CleanupWarning, match="may be left behind: .*Too many open files"):
        await entered(client)


async def test_a_deletion_that_the_end_of_the_loop_cuts_short(runner: FakeRunner, client: Runc) -> None:
    """A deletion that is cancelled itself, as by the end of the loop, is begun anew."""
    runner.reply("delete", hang=True)
    runner.reply("delete")
    before = asyncio.all_tasks()
    closing = asyncio.create_task(client.container("web").aclose())
    await until(lambda: commands(runner) == ["delete"])
    for task in asyncio.all_tasks() - before - {closing}:
        task.cancel()
    await closing
    assert commands(runner) == ["delete", "delete"]


async def test_streams_that_come_with_a_response(runner: FakeRunner, client: Runc) -> None:
    """`CapturedIO` is refused before anything is started."""
    with pytest.raises(ValueError, match="PipedIO"):
        await entered(client, io=CapturedIO())
    with pytest.raises(ValueError, match="PipedIO"):
        async with client.open_exec("web", ["ls"], io=CapturedIO()):
            pass
    assert runner.invocations == []


async def entered(client: Runc, **options: Any) -> None:
    """Enter the block, and leave it."""
    async with client.open_container("web", BUNDLE, **options):
        pass


# wait


async def test_waiting_for_no_container(runner: FakeRunner, client: Runc) -> None:
    """What isn't there can't be waited for."""
    runner.reply("state", exit_code=1, log=(FALSE % "container does not exist").encode())
    with pytest.raises(ContainerNotFound):
        await client.container("web").wait()


@pytest.mark.parametrize("pid", [0, 1 << 22], ids=["stopped", "gone"])
async def test_waiting_too_late(runner: FakeRunner, client: Runc, pid: int) -> None:
    """What has ended before anybody waited has no status that is known."""
    runner.reply("state", stdout=(STATE % (pid, "stopped" if pid == 0 else "running")).encode())
    assert await client.container("web").wait() == ExitStatus()


async def test_a_number_that_changed_hands(
    runner: FakeRunner, client: Runc, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that began after the runtime has told its number is another one."""
    runner.reply("state", stdout=(STATE % (sleeper.pid, "running")).encode())

    def at_boot(_: int) -> float:
        return 0.0

    monkeypatch.setattr("runc_async._linux.procfs.time.clock_gettime", at_boot)
    assert await client.container("web").wait() == ExitStatus()


async def test_waiting(runner: FakeRunner, client: Runc, sleeper: subprocess.Popen[bytes]) -> None:
    """The end of the process ends the wait."""
    runner.reply("state", stdout=(STATE % (sleeper.pid, "running")).encode())
    waiting = asyncio.create_task(client.container("web").wait())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    os.kill(sleeper.pid, signal.SIGTERM)
    assert (await waiting).signal == signal.SIGTERM
    sleeper.returncode = -signal.SIGTERM  # reaped


async def test_the_end(runner: FakeRunner, client: Runc, sleeper: subprocess.Popen[bytes]) -> None:
    """`ended` returns at the end of the process, which is not reaped yet, and at once for one that has ended."""
    runner.reply("state", stdout=(STATE % (sleeper.pid, "running")).encode())
    waiting = asyncio.create_task(client.container("web").ended())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    os.kill(sleeper.pid, signal.SIGTERM)
    async with asyncio.timeout(10):
        await waiting
        assert sleeper.returncode is None
        await client.container("web").ended()


@pytest.mark.parametrize("pid", [0, 1 << 22], ids=["stopped", "gone"])
async def test_an_end_long_ago(runner: FakeRunner, client: Runc, pid: int) -> None:
    """`ended` returns at once for a container without a process."""
    runner.reply("state", stdout=(STATE % (pid, "stopped" if pid == 0 else "running")).encode())
    await client.container("web").ended()


# open_exec


async def test_executing(runner: FakeRunner, client: Runc) -> None:
    """A process is run, its output read, its end told."""
    runner.reply("exec", stdout=[b"one\ntw", b"o\n"], exit_code=0)
    async with client.container("web").open_exec(["ls"], io=PipedIO(), grace=3, tty=True) as process:
        assert repr(process) == "<ContainerProcess None in 'web'>"
        assert process.stdout is not None
        assert [line async for line in process.stdout.lines()] == ["one", "two"]
        assert (await process.wait()).code == 0
    (invocation,) = runner.invocations
    assert "--tty" in words(invocation)
    assert (invocation.stop.grace, invocation.stop.waits_for_process) == (3, True)


async def test_signalling(runner: FakeRunner, client: Runc) -> None:
    """Signals go to the runtime where the process isn't known; it passes them on."""
    runner.reply("exec", hang=True)
    async with client.open_exec("web", Process(args=["ls"], cwd="/")) as process:
        with pytest.raises(InvalidSignal):
            process.send_signal("NONESUCH")
        process.terminate()
        process.kill()
        process.send_signal("HUP")
        assert process._process.signals == [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP]  # type: ignore[attr-defined]  # the fake's


async def test_an_exec_that_fails(runner: FakeRunner, client: Runc) -> None:
    """What the runtime fails with before the process runs is raised before the block."""
    runner.reply("exec", exit_code=255, log=(FALSE % "container does not exist").encode())
    with pytest.raises(ContainerNotFound):
        async with client.open_exec("web", ["ls"]):
            pass
