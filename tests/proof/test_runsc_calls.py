"""Each call on gVisor's runsc gives what it gives on runc, or is refused before anything starts."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
import sandboxes

from runc_async import (
    Bundle,
    CapturedIO,
    ContainerExists,
    ContainerNotFound,
    ContainerNotPaused,
    ContainerNotRunning,
    ContainerPaused,
    ContainerRunning,
    ExecutableNotFound,
    ExitError,
    InvalidSignal,
    InvalidSpec,
    Limits,
    NullIO,
    PipedIO,
    PtyIO,
    RuncTimeout,
    Runsc,
    StatsEvent,
    UnsupportedError,
)
from runc_async.spec import LinuxPids, LinuxResources, Process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from proof import Tried

    from runc_async import Container

pytestmark = [pytest.mark.runc, pytest.mark.timeout(300)]


class Stage:
    """What a call works on.

    Attributes:
        runsc: The client.
        box: A running container.
        bundle: A bundle whose program sleeps.
        place: A private directory.
    """

    def __init__(self, runsc: Runsc, box: Container, bundle: Bundle, place: Path) -> None:
        self.runsc = runsc
        self.box = box
        self.bundle = bundle
        self.place = place
        self.names: list[str] = []

    def name(self) -> str:
        """Return the id of a container that is deleted at the end."""
        self.names.append(f"call-{os.urandom(4).hex()}")
        return self.names[-1]

    async def clean(self) -> None:
        """Delete what calls have left, as they are to."""
        for state in await self.runsc.list():
            if state.id in self.names:
                await self.runsc.delete(state.id, force=True)

    async def exec(self, *words: str, **options: Any) -> Any:
        """Run a program in the container."""
        return await self.box.exec(words, **options)

    async def run(self, *words: str, **options: Any) -> Any:
        """Run a container of its own."""
        async with Bundle.busybox(words) as bundle:
            return await self.runsc.run(self.name(), bundle, **options)


async def lifecycle(stage: Stage) -> list[str]:
    """Take a container through its life, and return its statuses."""
    name, found = stage.name(), list[str]()
    await stage.runsc.create(name, stage.bundle)
    found.append((await stage.runsc.state(name)).status)
    await stage.runsc.start(name)
    found.append((await stage.runsc.state(name)).status)
    await stage.runsc.pause(name)
    found.append((await stage.runsc.state(name)).status)
    await stage.runsc.resume(name)
    found.append((await stage.runsc.state(name)).status)
    await stage.runsc.kill(name, "KILL")
    await stage.runsc.container(name).ended()
    await stage.runsc.delete(name, force=True)
    return found


async def opened(stage: Stage, io: Any, *words: str) -> Any:
    """Open a container of its own, and return what it prints first with its exit status."""
    async with Bundle.busybox(words) as bundle:
        if isinstance(io, PtyIO):
            bundle.spec.set_terminal()
        async with stage.runsc.open_container(stage.name(), bundle, io=io) as container:
            stream = container.pty or container.stdout
            assert stream is not None
            line = await anext(stream.lines())
            return line, (await container.wait()).code


async def opened_exec(stage: Stage, io: Any, *words: str) -> Any:
    """Open a program in the container, and return what it prints first with its exit status."""
    async with stage.box.open_exec(words, io=io) as process:
        stream = process.pty or process.stdout
        assert stream is not None
        line = await anext(stream.lines())
        return line, (await process.wait()).code


async def stopped(stage: Stage, call: Callable[[str], Awaitable[Any]]) -> Any:
    """Do something to a container that has ended."""
    name = stage.name()
    await stage.runsc.run(name, stage.bundle, detach=True)
    await stage.runsc.kill(name, "KILL")
    await stage.runsc.container(name).ended()
    return await call(name)


async def created(stage: Stage, call: Callable[[str], Awaitable[Any]]) -> Any:
    """Do something to a container that hasn't been started."""
    name = stage.name()
    await stage.runsc.create(name, stage.bundle)
    return await call(name)


async def stop(stage: Stage) -> Any:
    """Stop a container as its handle does."""
    async with stage.runsc.open_container(stage.name(), stage.bundle) as container:
        return await container.stop(grace=1)


async def paused(stage: Stage, call: Callable[[str], Awaitable[Any]]) -> Any:
    """Do something to the container while it is paused."""
    await stage.box.pause()
    try:
        return await call(stage.box.id)
    finally:
        await stage.box.resume()


async def first_event(stage: Stage) -> bool:
    """Return whether events begin with figures."""
    async with stage.box.events(interval=1) as events:
        return isinstance(await anext(events), StatsEvent)


async def restored(stage: Stage) -> Any:
    """Restore from a checkpoint under another name, with pipes, and return its next line."""
    script = "read x; echo got $x; read x; echo got $x; sleep 100"
    images, name = stage.place / f"images-{os.urandom(4).hex()}", stage.name()
    async with Bundle.busybox(["sh", "-c", script]) as bundle:
        async with stage.runsc.open_container(stage.name(), bundle, io=PipedIO()) as container:
            assert container.stdin
            assert container.stdout
            await container.stdin.send(b"a\n")
            assert await anext(container.stdout.lines()) == "got a"
            await container.checkpoint(images)
        async with stage.runsc.open_restored(name, bundle, images, io=PipedIO()) as container:
            assert container.stdin
            assert container.stdout
            await container.stdin.send(b"b\n")
            return await anext(container.stdout.lines())


async def forked(stage: Stage) -> int:
    """Return how many copies there are."""
    async with stage.box.fork(2) as forks:
        return len(forks)


async def bad_spec(stage: Stage) -> Any:
    """Run a bundle whose document runsc can't read."""
    directory = stage.place / "bad"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text("{")
    return await stage.runsc.run(stage.name(), directory)


async def bounded(stage: Stage, call: Awaitable[Any]) -> Any:
    """Wait for a call that is out of time, and return how many processes there are in the sandbox then."""
    with pytest.raises(RuncTimeout):
        await call
    return len(sandboxes.processes(stage.box.id, stage.place / "root"))


ECHO = ("sh", "-c", "echo out; echo err >&2; exit 3")


def gives(wanted: object) -> Callable[[Any], object]:
    """Return a test of what a call gives."""
    return lambda value: value == wanted


RIGHT: dict[str, tuple[Callable[[Stage], Awaitable[Any]], type[Exception] | Callable[[Any], object]]] = {
    "version": (lambda s: s.runsc.version(), lambda v: v.version.startswith(("0.0~", "release-"))),
    "list": (lambda s: s.runsc.list(), lambda v: [each.status for each in v] == ["running"]),
    "spec": (lambda s: s.runsc.spec(), lambda v: v.process.args == ["sh"]),
    "state": (lambda s: s.box.state(), lambda v: (v.status, v.pid > 0) == ("running", True)),
    "ps": (lambda s: s.box.ps(), lambda v: v == [1]),
    "top": (lambda s: s.box.top(), lambda v: "PID" in v.header),
    "stats": (lambda s: s.box.stats(), lambda v: v.memory.usage.usage > 0),
    "events": (first_event, gives(True)),
    "check": (lambda s: s.runsc.check(s.bundle.spec), lambda v: v == []),
    "supports features": (lambda s: s.runsc.supports("features"), gives(False)),
    "supports exec --tty": (lambda s: s.runsc.supports("exec --tty"), gives(False)),
    "create to delete": (lifecycle, gives(["created", "running", "paused", "running"])),
    "run": (lambda s: s.run("true"), lambda v: v.exit_code == 0),
    "run, exit code": (lambda s: s.run("sh", "-c", "exit 7"), lambda v: v.exit_code == 7),
    "run, 128": (lambda s: s.run("sh", "-c", "exit 128"), lambda v: v.exit_code == 128),
    "run, signal": (lambda s: s.run("sh", "-c", "kill -9 $$"), lambda v: (v.exit_code, v.reason) == (137, "signaled")),
    "run, captured": (lambda s: s.run(*ECHO), lambda v: (v.stdout, v.stderr) == (b"out\n", b"err\n")),
    "run, input": (lambda s: s.run("cat", input=b"in"), lambda v: v.stdout == b"in"),
    "run, null": (lambda s: s.run("true", io=NullIO()), lambda v: v.exit_code == 0),
    "run, check": (lambda s: s.run("false", check=True), ExitError),
    "run, timeout": (lambda s: s.run("sleep", "100", timeout=2, grace=0), RuncTimeout),
    "run, limit of time": (lambda s: s.run("sleep", "100", limits=Limits(wall=1)), lambda v: v.reason == "wall"),
    "run, limit of output": (
        lambda s: s.run("yes", limits=Limits(output=10)),
        lambda v: v.stdout == b"y\ny\ny\ny\ny\n",
    ),
    "run, detached": (lambda s: s.runsc.run(s.name(), s.bundle, detach=True), lambda v: v.exit_code == 0),
    "open_container, pipes": (lambda s: opened(s, PipedIO(), "sh", "-c", "echo a; exit 4"), gives(("a", 4))),
    "open_container, terminal": (lambda s: opened(s, PtyIO(), "sh", "-c", "test -t 0 && echo a"), gives(("a", 0))),
    "exec": (lambda s: s.exec("true"), lambda v: v.exit_code == 0),
    "exec, exit code": (lambda s: s.exec("sh", "-c", "exit 7"), lambda v: v.exit_code == 7),
    "exec, 128": (lambda s: s.exec("sh", "-c", "exit 128"), lambda v: v.exit_code == 128),
    "exec, signal": (lambda s: s.exec("sh", "-c", "kill -9 $$"), lambda v: v.exit_code == 137),
    "exec, captured": (lambda s: s.exec(*ECHO), lambda v: (v.stdout, v.stderr) == (b"out\n", b"err\n")),
    "exec, joined": (lambda s: s.exec(*ECHO, io=CapturedIO(stderr="stdout")), lambda v: v.stdout == b"out\nerr\n"),
    "exec, input": (lambda s: s.exec("cat", input=b"in"), lambda v: v.stdout == b"in"),
    "exec, env": (lambda s: s.exec("sh", "-c", "echo $A", env={"A": "b"}), lambda v: v.stdout == b"b\n"),
    "exec, cwd": (lambda s: s.exec("pwd", cwd="/bin"), lambda v: v.stdout == b"/bin\n"),
    "exec, user": (lambda s: s.exec("id", "-u", user=5), lambda v: v.stdout == b"5\n"),
    "exec, groups": (lambda s: s.exec("id", "-G", additional_gids=[7]), lambda v: b"7" in v.stdout.split()),
    "exec, caps": (lambda s: s.exec("true", caps=["NET_RAW"]), lambda v: v.exit_code == 0),
    "exec, document": (lambda s: s.box.exec(Process(args=["echo", "a"], cwd="/")), lambda v: v.stdout == b"a\n"),
    "exec, descriptors": (lambda s: s.exec("true", preserve_fds=[0]), lambda v: v.exit_code == 0),
    "exec, check": (lambda s: s.exec("false", check=True), ExitError),
    "exec, timeout": (
        lambda s: bounded(s, s.exec("sh", "-c", "setsid sleep 99 & sleep 99", timeout=1, grace=0)),
        gives(1),
    ),
    "exec, limit of time": (lambda s: s.exec("sleep", "100", limits=Limits(wall=1)), lambda v: v.reason == "wall"),
    "exec, limit of output": (lambda s: s.exec("yes", limits=Limits(output=2)), lambda v: v.stdout == b"y\n"),
    "exec, detached": (lambda s: s.exec("sh", "-c", "exit 0", "--detach", detach=True), lambda v: v.exit_code == 0),
    "open_exec, pipes": (lambda s: opened_exec(s, PipedIO(), "sh", "-c", "echo a; exit 4"), gives(("a", 4))),
    "open_exec, terminal": (lambda s: opened_exec(s, PtyIO(), "sh", "-c", "test -t 0 && echo a"), gives(("a", 0))),
    "kill": (lambda s: stopped(s, s.runsc.state), lambda v: v.status == "stopped"),
    "start": (lambda s: created(s, s.runsc.start), gives(None)),
    "stop": (stop, lambda v: v.signal in {9, 15}),
    "usage": (lambda s: s.box.usage(), lambda v: v.wall_seconds > 0),
    "checkpoint and open_restored": (restored, gives("got b")),
    "fork": (forked, gives(2)),
    "delete of a stopped one": (lambda s: stopped(s, s.runsc.delete), gives(None)),
    "sweep": (lambda s: s.runsc.sweep(), lambda v: v is not None),
    "no container": (lambda s: s.runsc.state("none"), ContainerNotFound),
    "exec, no container": (lambda s: s.runsc.exec("none", ["true"]), ContainerNotFound),
    "kill, no container": (lambda s: s.runsc.kill("none"), ContainerNotFound),
    "delete, no container": (lambda s: s.runsc.delete("none"), ContainerNotFound),
    "create, taken": (lambda s: s.runsc.create(s.box.id, s.bundle), ContainerExists),
    "start, running": (lambda s: s.box.start(), ContainerRunning),
    "delete, running": (lambda s: s.box.delete(), ContainerRunning),
    "pause, paused": (lambda s: paused(s, s.runsc.pause), ContainerPaused),
    "exec, paused": (lambda s: paused(s, lambda name: s.runsc.exec(name, ["true"])), ContainerPaused),
    "resume, running": (lambda s: s.box.resume(), ContainerNotPaused),
    "exec, stopped": (lambda s: stopped(s, lambda name: s.runsc.exec(name, ["true"])), ContainerNotRunning),
    "pause, stopped": (lambda s: stopped(s, s.runsc.pause), ContainerNotRunning),
    "exec, no program": (lambda s: s.exec("/nonexistent"), ExecutableNotFound),
    "run, no program": (lambda s: s.run("/nonexistent"), ExecutableNotFound),
    "kill, no signal": (lambda s: s.box.kill("NONE"), InvalidSignal),
    "run, bad document": (bad_spec, InvalidSpec),
}

REFUSED: dict[str, Callable[[Stage], Awaitable[Any]]] = {
    "features": lambda s: s.runsc.features(),
    "update": lambda s: s.box.update(LinuxResources(pids=LinuxPids(limit=9))),
    "top with options": lambda s: s.box.top("-o", "pid"),
    "exec, tty": lambda s: s.exec("true", tty=True),
    "exec, no_new_privs": lambda s: s.exec("true", no_new_privs=True),
    "exec, apparmor": lambda s: s.exec("true", apparmor="none"),
    "exec, ignore_paused": lambda s: s.exec("true", ignore_paused=True),
    "kill 0": lambda s: s.box.kill(0),
    "run, keep": lambda s: s.runsc.run(s.name(), s.bundle, keep=True),
    "create, no_pivot": lambda s: s.runsc.create(s.name(), s.bundle, no_pivot=True),
    "spec, rootless": lambda s: s.runsc.spec(rootless=True),
    "read_file": lambda s: s.box.read_file("/etc/passwd"),
}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Return what a call works on."""
    runsc = sandboxes.client(tmp_path / "root")
    async with (
        Bundle.busybox(["sleep", "100000"]) as bundle,
        runsc.open_container(f"box-{os.urandom(4).hex()}", bundle) as box,
    ):
        found = Stage(runsc, box, bundle, tmp_path)
        try:
            yield found
        finally:
            await found.clean()


async def outcome(call: Awaitable[Any], expected: type[Exception] | Callable[[Any], object]) -> str:
    """Return "right", or what a call gives instead."""
    try:
        async with asyncio.timeout(30):
            value = await call
            right = not isinstance(expected, type) and expected(value)
    except Exception as exc:  # noqa: BLE001 - it stands in the table
        right = isinstance(expected, type) and isinstance(exc, expected)
        return "right" if right else f"{type(exc).__name__}: {exc}"[:200]
    return "right" if right else f"gives {value!r}"[:200]


@pytest.mark.proof
async def test_each_call(stage: Stage, tried: Tried) -> None:
    """In a table of 80 calls and more, each is right, or an `UnsupportedError`."""
    cases = dict(RIGHT)
    cases.update({name: (call, UnsupportedError) for name, call in REFUSED.items()})
    table = {name: await outcome(call(stage), expected) for name, (call, expected) in cases.items()}
    width = max(map(len, table))
    for name, found in table.items():
        said = "UnsupportedError" if name in REFUSED and found == "right" else found
        print(f"{name:{width}}  {said}")  # noqa: T201 - the table
    assert {name: found for name, found in table.items() if found != "right"} == {}
    tried("calls on runsc that are right", len(RIGHT))
    tried("calls on runsc that are refused", len(REFUSED))
