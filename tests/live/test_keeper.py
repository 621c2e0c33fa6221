"""Containers in a keeper: their streams go from service to service, and their exit statuses are exact."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import keepers
import proof
import pytest
from waiting import until

from runc_async import (
    CleanupWarning,
    ContainerExists,
    ContainerNotFound,
    ContainerRunning,
    ExecutableNotFound,
    InheritedIO,
    Keeper,
    KeeperError,
    PipedIO,
    PtyIO,
    RedirectIO,
    Runc,
    StreamsInUse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from containers import MakeBundle

pytestmark = pytest.mark.runc

ECHO = 'while read line; do echo "got $line"; done; exit 42'


@pytest.fixture
async def place(scratch: Path) -> AsyncIterator[Path]:
    """Return a place for a keeper, which is ended with the test."""
    directory = scratch / f"k{os.urandom(3).hex()}"
    yield directory
    await keepers.end(directory)
    keepers.remove(directory)


@pytest.fixture
async def keeper(place: Path) -> AsyncIterator[Keeper]:
    """Return a client of a keeper in the background."""
    async with Keeper.connect(place, start=True, timeout=60) as keeper:
        yield keeper


async def read_all(stream: anyio.abc.ByteReceiveStream) -> bytes:
    """Read a stream to its end."""
    data = b""
    async for chunk in stream:
        data += chunk
    return data


@pytest.mark.any_loop
async def test_streams_go_from_one_block_to_the_next(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """What was read ahead and not consumed comes first in the next block; stdin is closed when the block closes it."""
    name = container_id()
    bundle = make_bundle(["sh", "-c", "echo one; echo two; echo three; " + ECHO])
    await keeper.start(client, name, bundle, io=PipedIO())
    async with keeper.attach(name) as container:
        assert container.stdout
        async for line in container.stdout.lines():
            assert line == "one"
            break
    async with keeper.attach(name) as container:
        assert container.stdin
        assert container.stdout
        await container.stdin.send(b"hello\n")
        await container.stdin.aclose()
        assert [line async for line in container.stdout.lines()] == ["two", "three", "got hello"]
        assert (await container.wait()).code == 42
    async with keeper.attach(name) as container:
        assert container.stdin is None
        assert (await container.wait()).code == 42
    await keeper.delete(name)
    assert await keeper.list() == []


async def test_a_terminal_goes_from_one_block_to_the_next(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """The terminal is the container's own: what was shown meanwhile is there, and its size can be changed."""
    name = container_id()
    bundle = make_bundle(["sh", "-c", "stty size; read line; stty size; exit 42"], process={"terminal": True})
    await keeper.start(client, name, bundle, io=PtyIO(rows=33, cols=77))
    async with keeper.attach(name) as container:
        assert container.pty
        lines = container.pty.lines()
        assert await anext(lines) == "33 77"
    async with keeper.attach(name) as container:
        assert container.pty
        container.pty.resize(20, 40)
        await container.pty.send(b"\n")
        assert [line async for line in container.pty.lines() if line] == ["20 40"]
        assert (await container.wait()).code == 42
    await keeper.delete(name)


async def test_only_one_has_the_streams(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """The second attach is refused with an error of its own; without streams any number of them attach."""
    name = container_id()
    await keeper.start(client, name, make_bundle(["sleep", "60"]), io=PipedIO())
    async with keeper.attach(name) as first:
        assert [kept.attached for kept in await keeper.list()] == [True]
        with pytest.raises(StreamsInUse, match=f"another connection has the streams of container '{name}'"):
            async with keeper.attach(name):
                pass
        async with keeper.attach(name, streams=False) as second, keeper.attach(name, streams=False) as third:
            assert (first.pid, second.pid, third.pid, second.stdout) == (first.pid,) * 3 + (None,)
            assert (await third.exec(["echo", "inside"])).stdout == b"inside\n"
    assert [kept.attached for kept in await keeper.list()] == [False]
    with pytest.raises(ContainerRunning):
        await keeper.delete(name)
    await keeper.delete(name, force=True)


async def test_what_does_not_start_leaves_nothing(
    keeper: Keeper, place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """The error is that of the runtime, and neither a container nor a record is left."""
    name = container_id()
    with pytest.raises(ExecutableNotFound) as caught:
        await keeper.start(client, name, make_bundle(["no-such-program"]), io=PipedIO())
    assert caught.value.container_id == name
    assert "no-such-program" in caught.value.message
    assert (await client.list(), await keeper.list(), os.listdir(place / "containers")) == ([], [], [])


async def test_an_id_that_is_taken_is_refused(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A container of the keeper that has ended, and a container that the keeper doesn't know, stay as they are."""
    name, other = container_id(), container_id()
    bundle = make_bundle(["true"])
    await keeper.start(client, name, bundle)
    assert (await keeper.wait(name)).code == 0
    with pytest.raises(ContainerExists):
        await keeper.start(client, name, bundle)
    await client.create(other, bundle)
    with pytest.raises(ContainerExists):
        await keeper.start(client, other, bundle)
    assert sorted(state.id for state in await client.list()) == sorted([name, other])
    assert [kept.id for kept in await keeper.list()] == [name]
    await keeper.delete(name)
    for call in (keeper.wait, keeper.delete):
        with pytest.raises(ContainerNotFound):
            await call(name)
    await client.delete(other, force=True)


@pytest.mark.timeout(120)
async def test_a_cancelled_start_leaves_nothing(
    keeper: Keeper, place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """At whatever moment the cancel comes, there is neither a container nor a record when the call returns."""
    bundle = make_bundle(["sleep", "60"])
    for step in proof.chosen(range(12), 4):
        task = asyncio.create_task(keeper.start(client, container_id(), bundle, io=PipedIO()))
        await asyncio.sleep(0.02 * step)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await client.list(), await keeper.list(), os.listdir(place / "containers")) == ([], [], [])
        else:
            await task
            for kept in await keeper.list():
                await keeper.delete(kept.id, force=True)


@pytest.mark.needs("create --preserve-fds")
async def test_files_and_descriptors_are_passed_on(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], tmp_path: Path
) -> None:
    """A file of `RedirectIO`, a descriptor of the caller's and those of `preserve_fds` reach the container."""
    name = container_id()
    out, extra = tmp_path / "out", tmp_path / "extra"
    script = "read line; echo $line; echo wrong >&2; echo more >&3; exit 42"
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.write(theirs, b"typed\n")
    with extra.open("w") as third:
        io = RedirectIO(stdin=ours, stdout=out, stderr=out)
        await keeper.start(client, name, make_bundle(["sh", "-c", script]), io=io, preserve_fds=[third])
    assert (await keeper.wait(name)).code == 42
    os.close(ours)
    os.close(theirs)
    assert (out.read_text(), extra.read_text()) == ("typed\nwrong\n", "more\n")
    await keeper.delete(name)


async def test_the_callers_own_streams_are_passed_on(
    keeper: Keeper,
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With `InheritedIO` the container writes where this process does, not where the keeper does."""
    name = container_id()
    await keeper.start(client, name, make_bundle(["sh", "-c", "echo out; echo err >&2"]), io=InheritedIO())
    await keeper.wait(name)
    assert capfd.readouterr() == ("out\n", "err\n")
    await keeper.delete(name)


async def test_a_pipe_holds_as_much_as_is_asked_for(
    keeper: Keeper, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """While no service reads, a program goes on until the pipe is full; then it waits, and nothing is lost."""
    name = container_id()
    bundle = make_bundle(["sh", "-c", "head -c 300000 /dev/zero; echo done >&2; head -c 700000 /dev/zero"])
    await keeper.start(client, name, bundle, io=PipedIO(), pipe_size=1 << 19)
    async with keeper.attach(name) as container:
        assert container.stderr
        assert await container.stderr.receive() == b"done\n"
    async with keeper.attach(name) as container:
        assert container.stdout
        assert len(await read_all(container.stdout)) == 1_000_000
        assert (await container.wait()).code == 0
    await keeper.delete(name)


async def test_the_place_is_private(keeper: Keeper, place: Path) -> None:
    """The directory, the socket and the files are the owner's alone, and one that isn't private is refused."""
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in place.iterdir()} == {0}
    assert stat.S_IMODE((place / "socket").stat().st_mode) == 0o600
    place.chmod(0o755)
    with pytest.raises(KeeperError, match="mode 0700, not 0755"):
        await keeper.list()
    place.chmod(0o700)
    assert await keeper.list() == []


async def test_two_that_start_a_keeper_at_once_get_the_same(place: Path) -> None:
    """Only one keeper is at a place: the others find it."""

    async def pid() -> int:
        async with Keeper.connect(place, start=True, timeout=60) as keeper:
            return keeper.pid

    found = await asyncio.gather(*(pid() for _ in range(4)))
    assert set(found) == set(keepers.pids(place))
    assert len(set(found)) == 1


async def test_a_cancelled_connect_leaves_no_keeper_that_does_not_listen(place: Path) -> None:
    """Whenever the cancel comes, the keeper that was being started ends by itself, or listens."""
    for step in proof.chosen(range(6), 3):
        task = asyncio.create_task(keepers.begin(place))
        await asyncio.sleep(0.06 * step)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(30):
            while list(keepers.pids(place)):
                with contextlib.suppress(KeeperError):
                    async with Keeper.connect(place):
                        break
        await keepers.end(place)


async def test_without_a_keeper_it_is_said(place: Path) -> None:
    """Neither a directory nor a socket without a listener is waited for."""
    with pytest.raises(KeeperError, match="none listens at"):
        async with Keeper.connect(place):
            pass
    async with Keeper.connect(place, start=True, timeout=60):
        pass
    await keepers.end(place, signal.SIGKILL)
    with pytest.raises(KeeperError, match="none listens at"):
        async with Keeper.connect(place):
            pass


async def test_a_keeper_that_can_not_start_says_why(scratch: Path) -> None:
    """The error has the reason that the keeper had."""
    with pytest.raises(KeeperError, match=r"none could be started at .*No such file or directory"):
        async with Keeper.connect(scratch / "nowhere" / "place", start=True, timeout=60):
            pass


async def test_a_killed_keeper_is_followed_by_one_that_adopts(
    keeper: Keeper, place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Containers run on, output to files goes on, ends that were known stay known, and a wait goes on."""
    done, runs, logs = container_id(), container_id(), container_id()
    bundle = make_bundle(["sh", "-c", "read line; echo $line; exit 7"])
    gate, out = bundle / "gate", bundle / "out"
    os.mkfifo(gate)
    await keeper.start(client, done, make_bundle(["sh", "-c", "exit 42"]))
    await keeper.start(client, runs, make_bundle(["sleep", "60"]), io=PipedIO())
    await keeper.start(client, logs, bundle, io=RedirectIO(stdin=gate, stdout=out))
    assert (await keeper.wait(done)).code == 42
    waiting = asyncio.create_task(keeper.wait(runs))
    async with asyncio.timeout(30):
        async with contextlib.AsyncExitStack() as block:
            container = await block.enter_async_context(keeper.attach(runs))
            await keepers.end(place, signal.SIGKILL)
            assert not waiting.done()
            async with Keeper.connect(place, start=True, timeout=60) as second:
                assert second.pid != keeper.pid
            with pytest.warns(CleanupWarning, match=f"the streams of container '{runs}' can't go back"):
                await block.aclose()
        found = {kept.id: kept for kept in await keeper.list()}
        assert {name: (kept.pid, kept.status and kept.status.code) for name, kept in found.items()} == {
            done: (found[done].pid, 42),
            runs: (container.pid, None),
            logs: (found[logs].pid, None),
        }
        with gate.open("w") as typed:
            typed.write("late\n")
        status = await keeper.wait(logs)
        assert status.code in {7, None}
        assert out.read_text() == "late\n"
        async with keeper.attach(runs) as container:
            assert container.stdout is None
            await container.kill("KILL")
            assert (await container.wait()).signal in {signal.SIGKILL, None}
        assert (await waiting).signal in {signal.SIGKILL, None}
        for name in (done, runs, logs):
            await keeper.delete(name)
        assert await client.list() == []


@pytest.mark.timeout(120)
async def test_a_start_that_a_keeper_was_killed_in_is_undone_by_the_next(
    place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Whenever it is killed, the call fails and a partially created container is gone, or the container is whole."""
    bundle = make_bundle(["sleep", "60"])
    lost = 0
    for step in proof.chosen(range(12), 4):
        async with Keeper.connect(place, start=True, timeout=60) as keeper:
            name = container_id()
            task = asyncio.create_task(keeper.start(client, name, bundle, io=PipedIO()))
            await asyncio.sleep(0.015 * step)
            await keepers.end(place, signal.SIGKILL)
            try:
                await task
            except KeeperError:
                lost += 1
            async with asyncio.timeout(30):
                while (kept := await keeper.list()) != [] or await client.list():
                    if kept:
                        assert [each.id for each in kept] == [state.id for state in await client.list()] == [name]
                        await keeper.delete(name, force=True)
            await until(lambda: os.listdir(place / "containers") == [])
            assert await client.list() == []
    assert lost


async def test_sigterm_ends_the_keeper_and_no_container(
    place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Its containers are there for the next one, and it ends with 0."""
    process = await keepers.child(place)
    name = container_id()
    async with Keeper.connect(place) as keeper:
        await keeper.start(client, name, make_bundle(["sleep", "60"]))
        waiting = asyncio.create_task(keeper.wait(name))
        await asyncio.sleep(0)
        process.terminate()
        assert await process.wait() == 0
        process = await keepers.child(place)
        await keeper.delete(name, force=True)
        assert (await asyncio.gather(waiting, return_exceptions=True))[0] is not None
        process.terminate()
        await process.wait()
        with pytest.raises(KeeperError):
            await keeper.list()


async def test_an_upgrade_loses_nothing(
    place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """At SIGHUP the keeper executes the program anew: streams, the block that has them, waits and statuses go on."""
    process = await keepers.child(place)
    one, two = container_id(), container_id()
    async with Keeper.connect(place) as keeper:
        for name in (one, two):
            await keeper.start(client, name, make_bundle(["sh", "-c", "echo begun; echo ahead; " + ECHO]), io=PipedIO())
        waiting = asyncio.create_task(keeper.wait(two))
        async with keeper.attach(two) as container:
            assert container.stdout
            assert await anext(container.stdout.lines()) == "begun"
        async with keeper.attach(one) as container:
            assert container.stdin
            assert container.stdout
            three = container_id()
            starting = asyncio.create_task(keeper.start(client, three, make_bundle(["sleep", "60"]), io=PipedIO()))
            await until(lambda: any((place / "containers").glob(three)))
            await keepers.upgrade(process)
            await starting
            await keeper.delete(three, force=True)
            with pytest.raises(StreamsInUse):
                async with keeper.attach(one):
                    pass
            await container.stdin.send(b"hello\n")
            lines = container.stdout.lines()
            assert [await anext(lines) for _ in range(3)] == ["begun", "ahead", "got hello"]
        await keepers.upgrade(process)
        for name, expected in ((one, []), (two, ["ahead"])):
            async with keeper.attach(name) as container:
                assert container.stdin
                assert container.stdout
                await container.stdin.aclose()
                assert [line async for line in container.stdout.lines()] == expected
                assert (await container.wait()).code == 42
            await keeper.delete(name)
        assert (await waiting).code == 42
        assert await client.list() == []
    process.terminate()
    assert await process.wait() == 0


async def test_a_successor_that_does_not_start_replaces_nothing(
    place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], tmp_path: Path
) -> None:
    """The keeper goes on with all that it has, and says why it wasn't replaced."""
    broken = tmp_path / "broken"
    process = await keepers.child(place, env={**os.environ, "PYTHONPATH": str(broken)})
    broken.mkdir()
    (broken / "msgspec.py").write_text("raise ImportError('a broken release')")
    name = container_id()
    async with Keeper.connect(place) as keeper:
        await keeper.start(client, name, make_bundle(["sh", "-c", ECHO]), io=PipedIO())
        process.send_signal(signal.SIGHUP)
        assert process.stderr
        while b"a broken release" not in (line := await process.stderr.readline()):
            assert line
        async with keeper.attach(name) as container:
            assert container.stdin
            await container.stdin.aclose()
        assert (await keeper.wait(name)).code == 42
        await keeper.delete(name)
    process.terminate()
    assert await process.wait() == 0


async def test_a_service_that_dies_in_a_request_leaves_the_keeper_alone(
    keeper: Keeper, place: Path, client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Every request is broken off at once after it was sent: the keeper has no more descriptors than before."""
    name = container_id()
    await keeper.start(client, name, make_bundle(["sleep", "60"]), io=PipedIO())
    before = Counter(keepers.open_descriptors(keeper.pid).values())  # perhaps with the connection that has just ended
    for _ in range(20):
        for request in keepers.requests(name, client, make_bundle(["sleep", "60"]), container_id()):
            await keepers.send_and_die(place, request)
    await until(lambda: not Counter(keepers.open_descriptors(keeper.pid).values()) - before)
    assert [kept.id for kept in await keeper.list()] == [name]
    async with keeper.attach(name) as container:
        assert container.stdout
    await keeper.delete(name, force=True)
