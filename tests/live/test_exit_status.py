"""How processes of real containers end: told right, or told to be unknown, whoever asks."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import errno
import functools
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import leaks
import pytest
from containers import ended
from runtime import KERNEL_KEEPS, has_controller
from waiting import until

from runc_async._linux.exits import watches
from runc_async._linux.subreaper import strays, subreaper
from runc_async.errors import ContainerNotFound
from runc_async.exitstatus import ExitStatus
from runc_async.state import Status
from runc_async.stdio import PipedIO, RedirectIO

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.client import Runc

pytestmark = pytest.mark.runc

LIMIT = 48 << 20
"""Bytes of memory for each container here; runc itself needs some of them."""

REAPED_IN = 0.5
"""Seconds within which `wait()` tells a status that somebody has asked the kernel for."""


class Ending(NamedTuple):
    """One way to end."""

    script: str
    code: int | None = None
    signum: int | None = None
    oom_killed: bool = False

    @property
    def exit_code(self) -> int | None:
        """What a foreground runc ends with."""
        return self.code if self.signum is None else 128 + self.signum


# A process is its pid namespace's first one, which signals from inside don't kill; so there is no such namespace here.
ENDINGS = {
    "0": Ending("exit 0", code=0),
    "7": Ending("exit 7", code=7),
    "255": Ending("exit 255", code=255),
    "SIGTERM": Ending("kill -TERM $$; sleep 600", signum=signal.SIGTERM),
    "SIGKILL": Ending("kill -KILL $$; sleep 600", signum=signal.SIGKILL),
    "no memory": Ending("exec dd if=/dev/zero of=/dev/null bs=1024M count=1", signum=signal.SIGKILL, oom_killed=True),
}

NAMESPACES = [{"type": kind} for kind in ("mount", "ipc", "uts")]
MEMORY = {"limit": LIMIT, "swap": LIMIT}
WAITING = "read go; "
"""The container's process runs until it is told to go on."""

OTHER = """\
import asyncio, json, sys
from runc_async import Runc

async def main(command, root, name):
    print("waiting", flush=True)
    status = await Runc(command, root=root).container(name).wait()
    print(json.dumps([status.code, status.signal, status.oom_killed]))

asyncio.run(main(*sys.argv[1:]))
"""


class Told(NamedTuple):
    """What was told of an end."""

    code: int | None
    signum: int | None
    oom_killed: bool | None

    @classmethod
    def of(cls, status: ExitStatus) -> Told:
        """Take what was told, but for the time."""
        return cls(status.code, status.signal, status.oom_killed)


class Place(NamedTuple):
    """Where an ending takes place."""

    client: Runc
    name: str
    bundle: Path
    runtime: Sequence[str] = ()
    """The command and the root directory of the client, for others."""


@contextlib.contextmanager
def gate() -> Generator[tuple[int, Callable[[], int]]]:
    """Give a descriptor for stdin, and what lets a process behind it go on."""
    reading, writing = os.pipe()
    try:
        yield reading, functools.partial(os.write, writing, b"go\n")
    finally:
        os.close(reading)
        os.close(writing)


async def by_opening(place: Place) -> Told:
    """Wait with the handle that has made the container."""
    async with place.client.open_container(place.name, place.bundle, io=PipedIO()) as container:
        assert container.stdin is not None
        waiting = asyncio.create_task(container.wait())
        await container.stdin.send(b"go\n")
        return Told.of(await waiting)


async def detached(place: Place) -> Told:
    """Wait with a handle on a container that was made by a detached `run`."""
    with gate() as (stdin, go):
        await place.client.run(place.name, place.bundle, detach=True, io=RedirectIO(stdin=stdin))
        waiting = asyncio.create_task(place.client.container(place.name).wait())
        await held(place)
        go()
        told = Told.of(await waiting)
    await place.client.delete(place.name, force=True)
    return told


async def held(place: Place) -> None:
    """Wait until somebody on our loop waits for a container."""
    pid = (await place.client.state(place.name)).pid

    def is_held() -> bool:
        # Under a subreaper, all processes of a sandbox are watched, to be reaped, until somebody waits for one.
        watched = any(pid in watch.pids() for watch in watches.values())
        return watched and all(process.pid != pid for process in strays)

    await until(is_held)


async def in_foreground(place: Place) -> int | None:
    """Let `run` wait."""
    return (await place.client.run(place.name, place.bundle, input=b"go\n")).exit_code


async def executed(place: Place, script: str) -> Told:
    """Wait for one more process in a container."""
    async with (
        place.client.open_container(place.name, place.bundle, grace=0) as container,
        container.open_exec(["sh", "-c", WAITING + script], io=PipedIO()) as process,
    ):
        assert process.stdin is not None
        await process.stdin.send(b"go\n")
        return Told.of(await process.wait())


async def by_another_process(place: Place) -> Told:
    """Let another process wait, that has nothing to do with the container."""
    with gate() as (stdin, go):
        await place.client.run(place.name, place.bundle, detach=True, io=RedirectIO(stdin=stdin))
        pid = (await place.client.state(place.name)).pid
        argv = [sys.executable, "-c", OTHER, *place.runtime, place.name]
        other = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        assert other.stdout is not None
        await other.stdout.readline()
        await until(lambda: waits_for(other.pid, pid))
        go()
        said, _ = await other.communicate()
    await place.client.delete(place.name, force=True)
    return Told(*json.loads(said))


def waits_for(waiter: int, pid: int) -> bool:
    """Tell whether a process has a pidfd of another one in an epoll instance: proc_pid_fdinfo(5).

    By then it has read how much was killed before; a mere pidfd may be too young for that.
    """
    files: dict[str, str] = {}
    for entry in os.listdir(f"/proc/{waiter}/fdinfo"):
        with contextlib.suppress(OSError):
            files[entry] = Path(f"/proc/{waiter}/fdinfo/{entry}").read_text(encoding="ascii")
    pidfds = [entry for entry, content in files.items() if f"\nPid:\t{pid}\n" in content]
    watched = {number for content in files.values() for number in re.findall(r"^tfd: +(\d+) ", content, re.MULTILINE)}
    return not watched.isdisjoint(pidfds)


def refuse(pidfd: int) -> int:
    """Refuse to tell the status that is kept for a pidfd, as kernels before Linux 6.13 do."""
    raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), pidfd)


@pytest.fixture(params=["this-kernel", "older-kernel"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Say whether the kernel keeps a status; the older one has no such call."""
    if request.param == "older-kernel":
        monkeypatch.setattr("runc_async._linux.exits.kept_status", refuse)
        monkeypatch.setattr("runc_async._linux.pidfd.kept_status", refuse)
        monkeypatch.setattr("runc_async._containers.workload.kept_status", refuse)
        return False
    return KERNEL_KEEPS


@pytest.fixture(params=["without-subreaper", "subreaper"])
def adopting(request: pytest.FixtureRequest) -> Generator[bool]:
    """Say whether orphans come to this process."""
    with subreaper() if request.param == "subreaper" else contextlib.nullcontext():
        yield request.param == "subreaper"


@pytest.mark.proof(every=3)
@pytest.mark.parametrize("way", ["opened", "detached", "foreground", "exec", "another-process"])
async def test_every_ending(
    *,
    client: Runc,
    runtime: Runtime,
    root: Path,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    kept: bool,
    adopting: bool,
    way: str,
) -> None:
    """Each ending is told right or told to be unknown, and what was killed for memory is told from what was killed."""
    if way == "another-process" and (adopting or not kept):
        pytest.skip("the zombie is ours then, and its status nobody else's; an older kernel tells others nothing")

    counted = has_controller("memory")
    # Where the memory of a sandbox is used up, the kernel kills all of it: tests/live/test_runsc.py.
    counted_here = counted and not (runtime.is_sandbox and way == "exec")
    endings = {name: ending for name, ending in ENDINGS.items() if counted_here or not ending.oom_killed}

    async def end(ending: Ending) -> Any:
        linux = {"namespaces": NAMESPACES, "resources": {"memory": MEMORY} if counted else {}}
        script = "sleep 600" if way == "exec" else WAITING + ending.script
        place = Place(
            client, container_id(), make_bundle(["sh", "-c", script], linux=linux), (runtime.command, str(root))
        )
        if way == "exec":
            return await executed(place, ending.script)
        ways = {"opened": by_opening, "detached": detached, "foreground": in_foreground}
        return await ways.get(way, by_another_process)(place)

    def expected(ending: Ending) -> Any:
        if way == "foreground":
            return ending.exit_code
        if way == "exec":
            return Told(ending.code, ending.signum, None)
        return Told(ending.code, ending.signum, ending.oom_killed if counted else None)

    def unknown(ending: Ending) -> Any:
        """Return what may be told where process 1 reaps before anybody can look, and the kernel keeps nothing."""
        return Told(None, None, ending.oom_killed if counted else None)

    results = await asyncio.gather(*map(end, endings.values()))
    told = dict(zip(endings, results, strict=True))
    if way in {"opened", "detached"} and not (kept or adopting):
        told = {name: expected(endings[name]) if it == unknown(endings[name]) else it for name, it in told.items()}
    assert told == {name: expected(ending) for name, ending in endings.items()}
    assert await client.list() == []


@pytest.mark.parametrize(
    "namespaces",
    [
        pytest.param(
            NAMESPACES, id="shared", marks=pytest.mark.needs("cgroup removal")
        ),  # which waits for its processes
        pytest.param([*NAMESPACES, {"type": "pid"}], id="private"),
    ],
)
async def test_what_a_deleted_container_leaves_to_us(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], namespaces: list[dict[str, str]]
) -> None:
    """What `delete` ends becomes no zombie of a subreaper's, though nobody has waited for it."""
    name = container_id()
    with subreaper():
        await client.create(name, make_bundle(["sh", "-c", "sleep 600 & sleep 600"], linux={"namespaces": namespaces}))
        await client.start(name)
        while len(await client.ps(name)) < 2:
            pass
        await client.delete(name, force=True)
        assert [child for child in leaks.children() if " sleep " in child or " sh " in child] == []


async def test_what_others_reap(
    client: Runc,
    make_bundle: MakeBundle,
    make_container: MakeContainer,
    container_id: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A subreaper that reaps after one container keeps its hands off another one that has a handle."""
    monkeypatch.setattr("runc_async._linux.exits.kept_status", refuse)
    with subreaper():
        other = await make_container()
        async with client.open_container(container_id(), make_bundle(["sh", "-c", "exit 7"]), grace=0) as container:
            assert container.pid is not None
            await ended(container.pid)
            await client.delete(other, force=True)
            assert (await container.wait()).code == 7


@pytest.mark.needs("memory controller")
async def test_a_signal_from_outside(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A process that somebody kills was not killed for memory, whatever its code is."""
    async with client.open_container(container_id(), make_bundle(["sleep", "600"]), grace=0) as container:
        async with container.open_exec(["sleep", "600"]) as process:
            process.terminate()
            assert Told.of(await process.wait()) == Told(None, signal.SIGTERM, None)
        waiting = asyncio.create_task(container.wait())
        await container.kill("KILL")
        status = await waiting
        assert Told.of(status) == Told(None, signal.SIGKILL if KERNEL_KEEPS else None, oom_killed=False)
        assert status.exited_at is not None
    assert await container.wait() == status


# who holds the pipes doesn't matter


HOLDING = "sleep 600 & exit 7"


async def later_than(pid: int, waiting: asyncio.Task[ExitStatus]) -> float:
    """Tell by how many seconds a wait has ended later than the process that it is for."""
    await ended(pid)
    begun = time.monotonic()
    assert (await waiting).code == 7
    return time.monotonic() - begun


@pytest.mark.any_loop
@pytest.mark.needs("cgroup removal")
@pytest.mark.needs("host pids")
async def test_a_child_that_keeps_stdout_open(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A container has ended when its first process has, though another one lives on and holds its stdout."""
    bundle = make_bundle(["sh", "-c", WAITING + HOLDING], linux={"namespaces": NAMESPACES})
    name = container_id()
    with subreaper():
        async with client.open_container(name, bundle, io=PipedIO()) as container:
            assert container.stdin is not None
            assert container.pid is not None
            waiting = asyncio.create_task(container.wait())
            await container.stdin.send(b"go\n")
            assert await later_than(container.pid, waiting) < REAPED_IN
            assert len(await container.ps()) == 1
    assert leaks.left_on_host(name) == []


INSIDE = """\
import asyncio, json, os, sys, time
import anyio
from runc_async import PipedIO, Runc

async def main(command, root, name, bundle):
    async with Runc(command, root=root).open_container(name, bundle, io=PipedIO()) as container:
        pidfd = os.pidfd_open(container.pid)
        waiting = asyncio.create_task(container.wait())
        await container.stdin.send(b"go\\n")
        await anyio.wait_readable(pidfd)
        begun = time.monotonic()
        status = await waiting
        print(json.dumps([status.code, time.monotonic() - begun, len(await container.ps())]), flush=True)
        os.close(pidfd)

reader = os.fork()
if not reader:
    asyncio.run(main(*sys.argv[1:]))
    os._exit(0)
while REAPS:  # what process 1 has to do
    pid, status = os.wait()
    if pid == reader:
        os._exit(os.waitstatus_to_exitcode(status))
os._exit(os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]))
"""


@pytest.mark.parametrize(
    "reaps",
    [
        pytest.param(True, marks=pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")),
        False,
    ],
)
@pytest.mark.needs("host pids")
async def test_another_process_1(
    runtime: Runtime,
    root: Path,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    reaps: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Without a subreaper the status is there at the end, whether process 1 (here of a namespace) reaps or not."""
    bundle = make_bundle(["sh", "-c", WAITING + HOLDING], linux={"namespaces": NAMESPACES})
    argv = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", INSIDE.replace("REAPS", str(reaps))]
    inside = await asyncio.create_subprocess_exec(
        *argv, runtime.command, root, container_id(), bundle, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await inside.communicate()
    code, seconds, others = json.loads(said)
    assert (code, others) == (7, 1)
    assert seconds < REAPED_IN


@pytest.mark.any_loop
async def test_an_exec_whose_child_keeps_stdout_open(client: Runc, make_container: MakeContainer) -> None:
    """The same holds for one more process with live streams."""
    name = await make_container()
    async with client.open_exec(name, ["sh", "-c", WAITING + HOLDING], io=PipedIO()) as process:
        assert process.stdin is not None
        assert process.pid is not None
        waiting = asyncio.create_task(process.wait())
        await process.stdin.send(b"go\n")
        assert await later_than(process.pid, waiting) < REAPED_IN
    assert len(await client.ps(name)) == 2


@pytest.mark.parametrize("drain_timeout", [0.0, 0.7])
async def test_a_captured_exec_whose_child_keeps_stdout_open(
    client: Runc, make_container: MakeContainer, drain_timeout: float
) -> None:
    """Where the output is captured, it is complete when nothing has come for a moment, and nothing is said of it."""
    name = await make_container()
    # It lives for long enough to be looked at: the end of a shorter process may not be known.
    script = "echo out; sleep 600 & sleep 0.5; exit 7"
    response = await client.exec(name, ["sh", "-c", script], drain_timeout=drain_timeout)
    assert (response.exit_code, response.stdout, response.truncated) == (7, b"out\n", False)


SERVER = "sleep 0.3; (while :; do echo more; sleep 0.01; done) & echo out; exit 7"


@pytest.mark.needs("host pids")
async def test_an_exec_whose_child_writes_on(client: Runc, make_container: MakeContainer) -> None:
    """What another process goes on writing is read for the drain timeout, and that more was lost is said."""
    name = await make_container()
    response = await client.exec(name, ["sh", "-c", SERVER], drain_timeout=0.7)
    assert (response.exit_code, response.truncated) == (7, True)
    assert set(response.stdout.split()) == {b"out", b"more"}


async def test_an_exec_that_leaves_a_server_is_as_quick_as_another(client: Runc, make_container: MakeContainer) -> None:
    """A process that is left behind costs a call a moment, and not the drain timeout."""
    name = await make_container()

    async def seconds(script: str) -> float:
        begun = time.monotonic()
        response = await client.exec(name, ["sh", "-c", script], drain_timeout=60)
        assert (response.exit_code, response.truncated) == (7, False)
        return time.monotonic() - begun

    alone = await seconds("sleep 0.3; exit 7")
    assert await seconds("sleep 600 & sleep 0.3; exit 7") < alone + 30


# when it ended


@pytest.mark.any_loop
async def test_the_moment_of_the_end(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Without a subreaper, `ended` and `wait` return at the end of the process, however late process 1 reaps it."""
    bundle = make_bundle(["sh", "-c", WAITING + "exit 7"])
    async with client.open_container(container_id(), bundle, io=PipedIO()) as container:
        assert container.stdin is not None
        assert container.pid is not None
        other = client.container(container.id)
        waits = [container.ended(), other.ended(), container.wait()]
        waiting = [asyncio.create_task(wait) for wait in waits]
        await until(
            lambda: sum(map(len, (waits for watch in watches.values() for waits in watch.waits.values()))) == 4
        )  # one notes the end
        before = dt.datetime.now(dt.UTC)
        await container.stdin.send(b"go\n")
        await ended(container.pid)
        async with asyncio.timeout(5):
            *_, status = await asyncio.gather(*waiting)
        assert isinstance(status, ExitStatus)
        assert status.code == 7
        assert status.exited_at is not None
        assert before <= status.exited_at <= dt.datetime.now(dt.UTC)
    await container.ended()


@pytest.mark.any_loop
async def test_the_moment_at_which_an_exec_ends(client: Runc, make_container: MakeContainer) -> None:
    """The status of one more process has the moment of its end, however late it is asked for."""
    name = await make_container()
    async with client.open_exec(name, ["sh", "-c", WAITING + "exit 7"], io=PipedIO()) as process:
        assert process.stdin is not None
        assert process.pid is not None
        before = dt.datetime.now(dt.UTC)
        await process.stdin.send(b"go\n")
        await ended(process.pid)
        status = await process.wait()
        after = dt.datetime.now(dt.UTC)
        assert status.code == 7
        assert status.exited_at is not None
        assert before <= status.exited_at <= after
    assert await process.wait() == status


# whom nobody can wait for


async def test_no_container(client: Runc, container_id: Callable[[], str]) -> None:
    """Waiting for a container that never was is an error."""
    with pytest.raises(ContainerNotFound):
        await client.container(container_id()).wait()


async def test_a_container_that_has_ended(client: Runc, make_container: MakeContainer) -> None:
    """Who comes too late is told so at once, and no status."""
    name = await make_container(Status.STOPPED)
    async with asyncio.timeout(5):
        assert Told.of(await client.container(name).wait()) == Told(None, None, None)


async def test_a_container_that_is_deleted_meanwhile(client: Runc, make_container: MakeContainer) -> None:
    """Deleting a container that somebody waits for ends the wait with what the kernel tells."""
    name = await make_container()
    place = Place(client, name, Path())
    waiting = asyncio.create_task(client.container(name).wait())
    await held(place)
    await client.delete(name, force=True)
    async with asyncio.timeout(5):
        status = await waiting
    assert status.signal == (signal.SIGKILL if KERNEL_KEEPS else None)
    with pytest.raises(ContainerNotFound):
        await client.container(name).wait()


@pytest.mark.any_loop
async def test_a_container_that_deletes_itself_in_its_block(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """The handle of a container that its block deletes knows the status afterwards."""
    with subreaper():
        async with client.open_container(container_id(), make_bundle(["sleep", "600"])) as container:
            waits = [asyncio.create_task(container.wait()) for _ in range(3)]
            await container.delete(force=True)
            statuses = await asyncio.gather(*waits)
    assert {status.signal for status in statuses} == {signal.SIGKILL}
    assert (await container.wait()).signal == signal.SIGKILL
