"""gVisor's runsc: what an `exec` that is cut short leaves in its sandbox, whose exit code it is, copies, ids."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import leaks
import proof
import pytest
import sandboxes
from waiting import until

from runc_async import (
    Bundle,
    BundleNotFound,
    CapturedIO,
    ContainerExists,
    ContainerNotFound,
    ContainerNotRunning,
    ContainerPaused,
    ExecutableNotFound,
    PipedIO,
    PtyIO,
    Runc,
    RuncCrashed,
    RuncTimeout,
    Runsc,
    StatsEvent,
    Status,
    UnsupportedError,
    subreaper,
)
from runc_async._containers.alone import alone
from runc_async._linux.procfs import children, name_of
from runc_async.runner import PrivateRoot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from runc_async import Container

pytestmark = [pytest.mark.runc, pytest.mark.timeout(300)]

WAYS = {
    "plain": "sleep 1000",
    "child": "sleep 1000 & wait",
    "orphan": "(sleep 1000 &); sleep 1000",
    "session": "setsid sleep 1000 & sleep 1000",
    "session's orphan": "(setsid sleep 1000 &); sleep 1000",
    "double fork": "(setsid sh -c '(sleep 1000 &)' &); sleep 1000",
    "double fork in two sessions": "setsid sh -c 'setsid sh -c \"(sleep 1000 &)\" &' & sleep 1000",
    "no environment": "(env -i setsid sleep 1000 &); sleep 1000",
    "no streams": "(setsid sleep 1000 </dev/null >/dev/null 2>&1 &); sleep 1000",
    "daemon": "(cd /; env -i setsid sh -c '(/bin/sleep 1000 </dev/null >/dev/null 2>&1 &)' &); sleep 1000",
    "ignored SIGTERM": "trap '' TERM; sleep 1000 & wait; sleep 1000",
    "ignored signals": "trap '' TERM INT HUP QUIT; (setsid sleep 1000 &); while :; do sleep 1; done",
    "nohup": "nohup sleep 1000 >/dev/null & sleep 1000",
    "stopped": "sleep 1000 & kill -STOP $!; (kill -STOP $$ &); sleep 1000",
    "many": "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do (setsid sleep 1000 &); done; sleep 1000",
    "a chain": 'sh -c \'sh -c "sh -c \\"sleep 1000; :\\"; :"; :\'',
    "forks again and again": "while :; do (sleep 1000 &); sleep 0.2; done",
    "relays": "f() { (sleep 1; f) & }; f; sleep 1000",
    "executes another": "(exec setsid sh -c 'exec sleep 1000' &); exec sleep 1000",
    "another name": "(exec -a other sleep 1000 &) ; sleep 1000",
}


@pytest.fixture
def runsc(tmp_path: Path) -> Runsc:
    """Return a client with a root directory of its own."""
    return sandboxes.client(tmp_path / "root")


@pytest.fixture
async def box(runsc: Runsc) -> AsyncIterator[Container]:
    """Return a container that sleeps."""
    name = f"box-{os.urandom(4).hex()}"
    async with Bundle.busybox(["sleep", "100000"]) as bundle, runsc.open_container(name, bundle) as container:
        yield container


def outside(root: Path) -> list[str]:
    """Return the command lines of processes that name a root directory."""
    found: list[str] = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = place.read_bytes()
        except OSError:
            continue
        if os.fsencode(str(root)) in line:
            found.append(os.fsdecode(line.replace(b"\0", b" ")))
    return found


async def test_no_way_out_of_an_execs_tree(runsc: Runsc, box: Container, tmp_path: Path) -> None:
    """What an exec has started ends with it when its time is up, in each of 20 ways to get away; nothing else does."""
    own = await runsc.exec(box.id, ["sh", "-c", "(setsid sleep 1000 &)"])
    assert own.exit_code == 0
    before = sandboxes.processes(box.id, tmp_path / "root")
    assert len(before) == 2

    async def cut_short(script: str) -> None:
        with pytest.raises(RuncTimeout):
            await box.exec(["sh", "-c", script], timeout=4, grace=0.2)

    async with asyncio.TaskGroup() as tasks:
        for script in WAYS.values():
            tasks.create_task(cut_short(script))
    assert len(WAYS) == 20
    assert sandboxes.processes(box.id, tmp_path / "root") == before


async def test_an_exec_cancelled_at_any_moment_leaves_nothing(runsc: Runsc, box: Container, tmp_path: Path) -> None:
    """Execs that are cancelled at random moments leave no process, inside or outside of the sandbox."""
    chance = random.Random(7)  # noqa: S311 - moments, and no secrets
    around = outside(tmp_path / "root")

    async def cut_short(seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await box.exec(["sh", "-c", "(setsid sleep 1000 &); sleep 1000"], grace=0)

    for _ in range(proof.amount(20, 4)):
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(cut_short(chance.uniform(0, 2)))
    assert sandboxes.processes(box.id, tmp_path / "root") == {1}
    assert len(outside(tmp_path / "root")) == len(around)
    assert (await runsc.exec(box.id, ["true"])).exit_code == 0


async def test_an_exec_that_ignores_sigterm(box: Container, tmp_path: Path) -> None:
    """At the end of its block it is killed, with its children, and its status is the signal."""
    script = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    async with box.open_exec(["sh", "-c", script], io=PipedIO(), grace=0.3) as process:
        assert process.stdout is not None
        await process.stdout.receive()
    status = await process.wait()
    assert (status.code, status.signal) == (None, signal.SIGKILL)
    assert sandboxes.processes(box.id, tmp_path / "root") == {1}


async def test_a_runsc_that_is_killed(box: Container, tmp_path: Path) -> None:
    """An exec whose runsc was killed is a crash, and all that it has started in the sandbox ends."""
    file, root = tmp_path / "pid", tmp_path / "root"
    call = asyncio.create_task(box.exec(["sh", "-c", "(setsid sleep 1000 &); sleep 1000"], pid_file=file))
    await until(file.exists)
    await until(lambda: len(sandboxes.processes(box.id, root)) > 2)
    os.kill(int(file.read_text()), signal.SIGKILL)
    with pytest.raises(RuncCrashed) as caught:
        await call
    assert caught.value.exit_code == -signal.SIGKILL
    assert sandboxes.processes(box.id, root) == {1}


async def test_a_runsc_that_is_killed_as_it_runs_a_container(runsc: Runsc, tmp_path: Path) -> None:
    """A run whose runsc was killed is a crash, and its sandbox is gone."""
    async with Bundle.busybox(["sleep", "1000"]) as bundle:
        call = asyncio.create_task(runsc.run("killed", bundle))
        clients: list[int] = []

        def runs() -> bool:
            clients[:] = [
                pid for pid in children(os.getpid()) if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            return bool(clients) and (tmp_path / "root" / "killed_sandbox:killed.state").exists()

        await until(runs)
        while (await runsc.state("killed")).status != Status.RUNNING:
            pass
        os.kill(clients[0], signal.SIGKILL)
        with pytest.raises(RuncCrashed):
            await call
    assert await runsc.list() == []
    assert outside(tmp_path / "root") == []


async def test_a_creation_that_fails_leaves_no_cgroup(tmp_path: Path) -> None:
    """A create and a run that fail leave no cgroup of the container, and have the class of what runsc has logged."""
    runsc = Runsc(sandboxes.program(), root=tmp_path / "root", network="none")
    name = f"fails-{os.urandom(4).hex()}"
    async with Bundle.busybox(["true"]) as bundle:
        bundle.spec.set_root("missing")
        with pytest.raises(BundleNotFound):
            await runsc.create(name, bundle)
        with pytest.raises(BundleNotFound):
            await runsc.run(name, bundle)
    assert list(leaks.cgroups(name)) == []
    assert await runsc.list() == []


async def test_whose_exit_code_it_is(box: Container) -> None:
    """A program's 128 is its own; runsc's own failure, which is 128 whatever it is, is an exception."""
    assert (await box.exec(["sh", "-c", "exit 128"])).exit_code == 128
    assert (await box.exec(["sh", "-c", "kill -9 $$"])).exit_code == 137
    with pytest.raises(ExecutableNotFound):
        await box.exec(["/nonexistent"])
    with pytest.raises(UnsupportedError, match="-no-such-option"):
        await box.exec(["true"], extra_args=["--no-such-option"])
    await box.pause()
    with pytest.raises(ContainerPaused):
        await box.exec(["true"])
    await box.resume()


@pytest.mark.needs("memory controller")
async def test_a_sandbox_without_memory(tmp_path: Path) -> None:
    """An exec that uses up the memory has no exit code: all of the sandbox is killed, and its status says so."""
    runsc = Runsc(sandboxes.program(), root=tmp_path / "root", network="none")
    name = f"hungry-{os.urandom(4).hex()}"
    async with Bundle.busybox(["sleep", "1000"]) as bundle:
        bundle.spec.limit_memory(128 << 20)
        async with runsc.open_container(name, bundle) as container:
            with pytest.raises(ContainerNotRunning):
                await container.exec(["dd", "if=/dev/zero", "of=/dev/null", "bs=1024M", "count=1"])
            assert (await container.wait()).oom_killed
            with pytest.raises(ContainerNotRunning):
                await container.stats()
            with pytest.raises(ContainerNotRunning):
                await anext(runsc.events(name))


async def test_a_second_checkpoint_replaces_the_first(runsc: Runsc, box: Container, tmp_path: Path) -> None:
    """A checkpoint into a directory with an earlier one replaces that, and one that fails leaves it as it was."""
    images = tmp_path / "images"
    await box.checkpoint(images, leave_running=True)
    first = (images / "checkpoint.img").stat()
    with pytest.raises(ContainerNotFound):
        await runsc.checkpoint("nobody", images)
    assert (images / "checkpoint.img").stat().st_ino == first.st_ino
    await box.checkpoint(images, leave_running=True)
    assert (images / "checkpoint.img").stat().st_ino != first.st_ino
    assert [file.name for file in images.iterdir()] == ["checkpoint.img"]
    async with runsc.open_restored("again", (await box.state()).bundle, images) as restored:
        assert (await restored.exec(["true"])).exit_code == 0


async def test_a_create_of_a_taken_id_does_no_harm(runsc: Runsc, box: Container) -> None:
    """It is refused before runsc is asked, which would delete the record of the container that has the id."""
    async with Bundle.busybox(["true"]) as bundle:
        for call in (runsc.create, runsc.run):
            with pytest.raises(ContainerExists):
                await call(box.id, bundle)
    assert (await box.exec(["echo", "alive"])).stdout == b"alive\n"


async def test_an_id_is_no_beginning_of_another(runsc: Runsc, tmp_path: Path) -> None:
    """A command for an id that another id begins with is for that container alone, existing or not."""
    root = tmp_path / "root"
    async with Bundle.busybox(["sleep", "100000"]) as bundle, runsc.open_container("web-10", bundle, grace=0) as longer:
        for client in (runsc, Runc(sandboxes.program(), root=root, extra_args=sandboxes.OPTIONS)):
            for call in (client.state, client.ps, client.kill, client.pause, client.delete, client.stats):
                with pytest.raises(ContainerNotFound):
                    await call("web-1")
            with pytest.raises(ContainerNotFound):
                await client.exec("web-1", ["true"])
            await client.delete("web-1", force=True)
        assert (await longer.state()).status == "running"
        async with runsc.open_container("web-1", bundle, grace=0) as shorter:
            assert (await shorter.exec(["echo", "out"])).output == "out\n"
            with pytest.raises(RuncTimeout):
                await shorter.exec(["sh", "-c", "(setsid sleep 1000 &); sleep 1000"], timeout=1, grace=0)
            with alone(PrivateRoot(str(root), "web-1_sandbox:web-1.state", "web-1_sandbox:web-1.lock")) as place:
                assert sandboxes.processes("web-1", Path(place)) == {1}
            await shorter.pause()
            assert {state.id: state.status for state in await runsc.list()} == {"web-1": "paused", "web-10": "running"}
            await shorter.resume()
            await shorter.kill("KILL")
            assert (await shorter.wait()).signal == signal.SIGKILL
        assert (await longer.state()).status == "running"
        with pytest.raises(ContainerNotFound):
            await runsc.state("web-1")
    assert list(root.glob("*")) == []


async def test_runc_finds_out_that_it_is_runsc(box: Container, tmp_path: Path) -> None:
    """By whatever name: a link, and a script in front of it."""
    link, script = tmp_path / "runc", tmp_path / "crun"
    program = sandboxes.program()
    link.symlink_to(program)
    script.write_text(f'#!/bin/sh\nexec {program} "$@"\n')
    script.chmod(0o755)
    for command in (link, script):
        client = Runc(command, root=tmp_path / "root", extra_args=sandboxes.OPTIONS)
        with pytest.raises(UnsupportedError, match=r"runsc .* has no exec --ignore-paused"):
            await client.exec(box.id, ["true"], ignore_paused=True)
        with pytest.raises(RuncTimeout):
            await client.exec(box.id, ["sleep", "1000"], timeout=1, grace=0)
    assert sandboxes.processes(box.id, tmp_path / "root") == {1}


SIZED = 'until [ "$(stty size 2>/dev/null)" = "30 100" ]; do sleep 0.01; done; echo sized; exit 7'


async def test_streams_of_an_exec(box: Container) -> None:
    """Pipes, a terminal that gets the size that was asked for, and descriptors from 3 on.

    runsc sets the size a moment after the program has begun, so the program waits for it.
    """
    async with box.open_exec(["cat"], io=PipedIO()) as process:
        assert process.stdin
        assert process.stdout
        await process.stdin.send(b"hello")
        assert await process.stdout.receive() == b"hello"
        process.terminate()
        assert (await process.wait()).signal == 15
    trap = "trap 'echo heard; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    async with box.open_exec(["sh", "-c", trap], io=PipedIO()) as process:
        assert process.stdout
        lines = process.stdout.lines()
        assert await anext(lines) == "ready"
        process.terminate()  # the program's process in the sandbox, and not that of runsc on the host
        assert await anext(lines) == "heard"
        assert (await process.wait()).code == 5
    assert await box.ps() == [1]
    async with box.open_exec(["sh", "-c", SIZED], io=PtyIO(rows=30, cols=100)) as process:
        assert process.pty
        assert await anext(process.pty.lines()) == "sized"
        assert (await process.wait()).code == 7
    with Path(__file__).open("rb") as file:
        response = await box.exec(["head", "-c", "3", "/proc/self/fd/3"], io=CapturedIO(), preserve_fds=[file])
        assert response.stdout == b'"""'


async def test_an_exec_has_the_user_of_its_container(runsc: Runsc) -> None:
    """The container's own process is the template, as everywhere else; and no value of `env` is in a command line."""
    async with Bundle.busybox(["sleep", "1000"]) as bundle:
        assert bundle.spec.process
        bundle.spec.process.user = type(bundle.spec.process.user)(uid=1000, gid=1001)  # type: ignore[misc]
        async with runsc.open_container(f"box-{os.urandom(4).hex()}", bundle) as container:
            response = await container.exec(["sh", "-c", "id -u; id -g; echo $A"], env={"A": "secret"})
            assert response.stdout == b"1000\n1001\nsecret\n"
            assert "secret" not in str(response.args)


async def test_events_end_with_the_container(box: Container) -> None:
    """Whole seconds between two; an exit by a signal is one."""
    async with box.events(interval=0.3) as events:
        assert isinstance(await anext(events), StatsEvent)
        await box.kill("KILL")
        assert all([isinstance(event, StatsEvent) async for event in events])
    assert (await box.wait()).signal == 9
    with pytest.raises(ContainerNotRunning):
        await box.exec(["true"])


async def test_copies_go_on_where_the_container_is(runsc: Runsc) -> None:
    """Each has streams of its own and the changed files; all end with the block, and the original goes on."""
    script = "i=0; echo old > /f; while read x; do i=$((i+1)); echo $i $x $(cat /f); done"
    async with (
        Bundle.busybox(["sh", "-c", script]) as bundle,
        runsc.open_container(f"box-{os.urandom(4).hex()}", bundle, io=PipedIO()) as box,
    ):
        assert box.stdin
        assert box.stdout
        await box.stdin.send(b"a\n")
        assert await box.stdout.receive() == b"1 a old\n"
        await box.exec(["sh", "-c", "echo new > /f"])
        async with box.fork(2, io=PipedIO()) as forks:
            for fork in forks:
                assert fork.stdin
                assert fork.stdout
                await fork.stdin.send(fork.id[-1:].encode() + b"\n")
                assert await fork.stdout.receive() == f"2 {fork.id[-1]} new\n".encode()
        assert [state.id for state in await runsc.list()] == [box.id]
        await box.stdin.send(b"b\n")
        assert await box.stdout.receive() == b"2 b new\n"
        with pytest.raises(ContainerNotFound):
            await forks[0].state()


async def test_under_a_subreaper_deletions_do_not_wait(runsc: Runsc) -> None:
    """Runsc waits for the end of its processes, which are ours to reap: it would give up after five seconds."""
    with subreaper():
        async with Bundle.busybox(["sleep", "1000"]) as bundle:
            async with runsc.open_container(f"box-{os.urandom(4).hex()}", bundle) as container:
                await container.exec(["true"])
            async with runsc.open_container(f"box-{os.urandom(4).hex()}", bundle) as container:
                await container.kill("KILL")
                assert (await container.wait()).signal == 9
                await container.delete()
            await runsc.create("created", bundle)
            await runsc.start("created")
            await runsc.delete("created", force=True)
            assert bundle.spec.process
            bundle.spec.process.args = ["sh", "-c", "exit 3"]
            assert (await runsc.run("run", bundle)).exit_code == 3
        deadline = time.monotonic() + 20
        while (zombies := [pid for pid in children(os.getpid()) if name_of(pid) == b"exe"]) and (  # noqa: ASYNC110
            time.monotonic() < deadline
        ):
            await asyncio.sleep(0.05)  # they are reaped one after the other, as the kernel reports their ends
        assert zombies == []
