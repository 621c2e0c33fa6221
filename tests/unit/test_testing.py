"""The fake runner."""

from __future__ import annotations

import asyncio
import signal

import anyio
import pytest

from runc_async import Runc
from runc_async.errors import ContainerNotFound, ExitError, RuncNotFound, RuncTimeout
from runc_async.runner import Invocation
from runc_async.testing import FakeRunner

pytestmark = pytest.mark.any_loop

STATE = Invocation(command="state", argv=("runc", "state", "--", "web"))


async def test_what_was_started_is_kept() -> None:
    """Each invocation is kept in order."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    await client.start("web")
    await client.kill("web", "KILL")
    assert [invocation.command for invocation in runner.invocations] == ["start", "kill"]
    assert runner.invocations[1].args[-4:] == ("kill", "--", "web", "9")


async def test_a_command_without_a_reply_succeeds() -> None:
    """Nothing has to be told for a command to succeed with no output."""
    response = await Runc(runner=FakeRunner()).run("web", "/bundle")
    assert (response.exit_code, response.output) == (0, "")


async def test_replies_in_order() -> None:
    """Replies are given in order, each command its own, and the last one again and again."""
    runner = FakeRunner()
    for code in (1, 2):
        runner.reply("run", exit_code=code, stdout=[b"a", b"b"], stderr=b"c", truncated=True)
    client = Runc(runner=runner)
    responses = [await client.run("web", "/bundle") for _ in range(3)]
    assert [response.exit_code for response in responses] == [1, 2, 2]
    assert (responses[0].output, responses[0].truncated) == ("abc", True)
    assert len({response.pid for response in responses}) == 3
    await client.start("web")


async def test_failures_of_runc() -> None:
    """An error in the log is a failure of runc's, of the class that its words call for."""
    runner = FakeRunner()
    runner.reply("run", exit_code=1, log=b'{"level":"error","msg":"container does not exist"}\n')
    with pytest.raises(ContainerNotFound):
        await Runc(runner=runner).run("web", "/bundle")


async def test_failures_of_the_process() -> None:
    """Without one the exit code is the process's own."""
    runner = FakeRunner()
    runner.reply("exec", exit_code=3)
    with pytest.raises(ExitError):
        await Runc(runner=runner).exec("web", ["false"], check=True)


async def test_an_error_instead_of_a_start() -> None:
    """An exception that was told is raised instead of starting anything."""
    runner = FakeRunner()
    runner.reply("state", error=RuncNotFound("runc"))
    with pytest.raises(RuncNotFound):
        await Runc(runner=runner).state("web")


async def test_a_runc_that_hangs_is_out_of_time() -> None:
    """A reply that hangs is out of time when there is a limit, with the output so far."""
    runner = FakeRunner()
    runner.reply("start", hang=True, stdout=b"so far")
    with pytest.raises(RuncTimeout) as caught:
        await Runc(runner=runner).start("web", timeout=0.3)
    assert caught.value.stdout == b"so far"


async def test_a_runc_that_hangs_can_be_cancelled() -> None:
    """A reply that hangs ends when the call is cancelled."""
    runner = FakeRunner()
    runner.reply("start", hang=True)
    with anyio.move_on_after(0.01) as scope:
        await Runc(runner=runner).start("web")
    assert scope.cancelled_caught


async def test_started() -> None:
    """`started` gets the pid that the result has."""
    pids: list[int] = []
    completed = await FakeRunner().run(STATE, started=pids.append)
    assert pids == [completed.pid]


async def test_an_open_process() -> None:
    """An open process gives its pieces one by one, each at most as long as asked for, then the end."""
    runner = FakeRunner()
    runner.reply("state", stdout=[b"one", b"", b"two"])
    process = await runner.open(STATE)
    assert (process.stdin, process.stderr) == (None, None)
    assert [await process.stdout.receive(), await process.stdout.receive(2), await process.stdout.receive()] == [
        b"one",
        b"tw",
        b"o",
    ]
    with pytest.raises(anyio.EndOfStream):
        await process.stdout.receive()
    assert (await process.wait()).returncode == 0
    await process.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await process.stdout.receive()


async def test_an_open_process_that_hangs() -> None:
    """A process that hangs ends with a signal, and so do those who wait for it or read its output."""
    runner = FakeRunner()
    runner.reply("state", stdout=b"text", hang=True)
    process = await runner.open(STATE)
    assert await process.stdout.receive() == b"text"
    wait = asyncio.create_task(process.wait())
    read = asyncio.create_task(process.stdout.receive())
    await asyncio.sleep(0)
    assert not wait.done()
    process.send_signal(signal.SIGTERM)
    assert (await wait).returncode == -signal.SIGTERM
    with pytest.raises(anyio.EndOfStream):
        await read
    assert process.signals == [signal.SIGTERM]
    await process.aclose()
