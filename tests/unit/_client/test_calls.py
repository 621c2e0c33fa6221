"""The client: its options, and what it puts into an invocation."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from calls import BUNDLE, CALLS, PROCESS, QUERIES, QUIET
from children import alive, write_program

from runc_async import (
    BundleNotFound,
    CapturedIO,
    DecodeError,
    InheritedIO,
    InvalidContainerID,
    NullIO,
    PipedIO,
    PtyIO,
    RedirectIO,
    Runc,
    spec,
)
from runc_async._client.calls import STRIPPED
from runc_async._commands.options import DEFAULT
from runc_async.runner import Document, OwnOutput, StopPolicy
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from anyio.abc import TaskStatus


def state(created: str) -> bytes:
    """Return what runc tells of a container."""
    return json.dumps({"id": "web", "status": "created", "bundle": "/b", "created": created}).encode()


# --- global options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ("runc", "--log", "<log>", "--log-format", "json")),
        ({"root": "r/../x"}, ("runc", "--root", f"{os.getcwd()}/x", "--log", "<log>", "--log-format", "json")),
        ({"debug": True}, ("runc", "--debug", "--log", "<log>", "--log-format", "json")),
        ({"systemd_cgroup": True}, ("runc", "--systemd-cgroup", "--log", "<log>", "--log-format", "json")),
        ({"rootless": True}, ("runc", "--rootless", "true", "--log", "<log>", "--log-format", "json")),
        ({"rootless": False}, ("runc", "--rootless", "false", "--log", "<log>", "--log-format", "json")),
        ({"rootless": "auto"}, ("runc", "--rootless", "auto", "--log", "<log>", "--log-format", "json")),
        ({"log": "/l"}, ("runc", "--log", "/l")),
        ({"log": "/l", "log_format": "text"}, ("runc", "--log", "/l", "--log-format", "text")),
        ({"command": "/usr/bin/crun"}, ("/usr/bin/crun", "--log", "<log>", "--log-format", "json")),
        ({"extra_args": ["--x", "y"]}, ("runc", "--log", "<log>", "--log-format", "json", "--x", "y")),
    ],
)
async def test_global_options(options: dict[str, Any], words: tuple[str, ...]) -> None:
    """Global options stand between the program and the command."""
    runner = FakeRunner()
    await Runc(**options, runner=runner).start("web")
    assert runner.invocations[0].args == (*words, "start", "--", "web")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"command": ""}, ValueError),
        ({"command": "a\0b"}, ValueError),
        ({"command": b"runc"}, TypeError),
        ({"root": ""}, ValueError),
        ({"log_format": "xml"}, ValueError),
        ({"rootless": "yes"}, ValueError),
        ({"extra_args": "--debug"}, TypeError),
        ({"env": {"A=B": "x"}}, ValueError),
        ({"env": {"A": 5}}, TypeError),
        ({"cwd": ""}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": float("inf")}, ValueError),
        ({"pdeathsig": True}, TypeError),
        ({"pdeathsig": "NOPE"}, ValueError),
        ({"pdeathsig": 0}, ValueError),
        ({"pdeathsig": 33}, ValueError),
        ({"process_group": -1}, ValueError),
        ({"process_group": "0"}, ValueError),
        ({"process_group": True}, ValueError),
        ({"max_concurrency": 0}, ValueError),
    ],
    ids=repr,
)
def test_options_that_cannot_be_right(options: dict[str, Any], error: type[Exception]) -> None:
    """An option that can't be right is refused when the client is made."""
    with pytest.raises(error):
        Runc(**options)


def test_repr() -> None:
    """A client shows its program and its root directory."""
    assert repr(Runc()) == "Runc('runc')"
    assert repr(Runc("crun", root="/r")) == "Runc('crun', root='/r')"
    assert repr(DEFAULT) == "DEFAULT"


async def test_how_processes_are_run() -> None:
    """Options for the process stand in each invocation."""
    runner = FakeRunner()
    client = Runc(runner=runner, cwd="/", pdeathsig="KILL", process_group=0, timeout=5)
    await client.start("web")
    await client.start("web", timeout=None)
    await client.start("web", timeout=7)
    await client.run("web", BUNDLE)
    first = runner.invocations[0]
    assert (first.cwd, first.pdeathsig, first.process_group, first.container_id) == ("/", 9, 0, "web")
    assert [invocation.timeout for invocation in runner.invocations] == [5, None, 7, None]


@pytest.mark.parametrize("restored", [True, False])
async def test_whose_signals_are_restored(restored: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Commands that make a container's process begin without our signals, unless asked to inherit them."""
    runner = FakeRunner()
    client = Runc(runner=runner) if restored else Runc(runner=runner, restore_signals=False)
    await client.create("web", BUNDLE)
    await client.run("web", BUNDLE)
    await client.exec("web", ["ls"])
    await client.kill("web")
    assert [invocation.restore_signals for invocation in runner.invocations] == [restored, restored, restored, False]


async def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without variables of its own runc has the caller's environment, and no copy is made of it."""
    for name in STRIPPED:
        monkeypatch.delenv(name, raising=False)
    runner = FakeRunner()
    await Runc(runner=runner).start("web")
    assert runner.invocations[0].env is None
    await Runc(runner=runner, env={"A": "1", "PATH": "/x"}).start("web")
    assert runner.invocations[1].env == {**os.environ, "A": "1", "PATH": "/x"}


@pytest.mark.parametrize("name", STRIPPED)
async def test_variables_that_make_runc_hang(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of systemd's that make runc wait or pass on descriptors are taken out, unless they are asked for."""
    monkeypatch.setenv(name, "caller's")
    runner = FakeRunner()
    await Runc(runner=runner).start("web")
    await Runc(runner=runner, env={name: "asked for"}).start("web")
    environments: list[Any] = [invocation.env for invocation in runner.invocations]
    assert name not in environments[0]
    assert environments[0].items() <= os.environ.items()
    assert environments[1][name] == "asked for"


async def test_the_environment_of_a_real_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program really gets that environment."""
    monkeypatch.setenv("NOTIFY_SOCKET", "/x")
    program = write_program(tmp_path / "runc", "#!/bin/sh\necho ${NOTIFY_SOCKET-none} $ADDED\n")
    response = await Runc(program, env={"ADDED": "added"}).run("web", BUNDLE)
    assert response.output == "none added\n"


# --- what goes into an invocation


@pytest.mark.parametrize("name", QUERIES)
async def test_queries_are_killed(name: str) -> None:
    """A command that only reads is killed when it is cancelled, but for the one with a ps; its output is runc's own."""
    runner = FakeRunner()
    with contextlib.suppress(DecodeError):
        await CALLS[name](Runc(runner=runner))
    stop = StopPolicy(patience=1.0, helpers=True) if name == "top" else StopPolicy()
    assert (runner.invocations[0].stop, runner.invocations[0].streams) == (stop, OwnOutput())


@pytest.mark.parametrize("name", QUIET)
async def test_changes_are_let_finish(name: str) -> None:
    """A command that changes something isn't killed at once; in the foreground its process gets SIGTERM first."""
    runner = FakeRunner()
    await CALLS[name](Runc(runner=runner))
    stop = runner.invocations[0].stop
    foreground = name.startswith(("run", "exec"))
    assert (stop.patience > 0, stop.grace > 0, stop.waits_for_process) == (not foreground, True, foreground)


async def test_detached_commands_are_let_finish() -> None:
    """Detached, `run` and `exec` change something and wait for nobody."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    await client.run("web", BUNDLE, detach=True)
    await client.exec("web", ["x"], detach=True)
    for invocation in runner.invocations:
        assert invocation.stop.patience > 0
        assert not invocation.stop.waits_for_process
        assert invocation.streams == NullIO()


@pytest.mark.parametrize(
    "io", [NullIO(), CapturedIO(limit=5), PipedIO(), PtyIO(), RedirectIO(stdout="/dev/null")], ids=repr
)
async def test_streams(io: Any) -> None:
    """The streams that are asked for stand in the invocation."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    await client.create("web", BUNDLE, io=io)
    await client.run("web", BUNDLE, io=io)
    await client.exec("web", ["x"], io=io)
    assert [invocation.streams for invocation in runner.invocations] == [io, io, io]


async def test_streams_that_are_not_asked_for() -> None:
    """Without a word `run` and `exec` capture, and a container that is created has no streams."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    await client.create("web", BUNDLE)
    await client.run("web", BUNDLE)
    await client.exec("web", ["x"])
    assert [invocation.streams for invocation in runner.invocations] == [NullIO(), CapturedIO(), CapturedIO()]


async def test_input() -> None:
    """Input stands in the invocation, with each kind of streams that has no stdin of its own."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    for io in (None, NullIO(), InheritedIO(), RedirectIO(stdout="/dev/null"), CapturedIO()):
        await client.run("web", BUNDLE, io=io, input=b"text")
        await client.exec("web", ["x"], io=io, input=b"text")
    assert {invocation.input for invocation in runner.invocations} == {b"text"}


@pytest.mark.parametrize(
    "options", [{"detach": True}, {"io": InheritedIO(stdin=True)}, {"io": RedirectIO(stdin=0)}], ids=repr
)
async def test_input_that_nobody_would_get(options: dict[str, Any]) -> None:
    """Input beside a stdin that comes from elsewhere, or of a detached process, is refused."""
    client = Runc(runner=FakeRunner())
    with pytest.raises(ValueError, match="input goes neither"):
        await client.run("web", BUNDLE, input=b"", **options)
    with pytest.raises(ValueError, match="input goes neither"):
        await client.exec("web", ["x"], input=b"", **options)


@pytest.mark.parametrize("options", [{"drain_timeout": -1}, {"drain_timeout": float("nan")}, {"timeout": 0}], ids=repr)
async def test_times_that_are_none(options: dict[str, Any]) -> None:
    """Times are numbers of seconds that make sense."""
    runner = FakeRunner()
    with pytest.raises(ValueError, match="timeout must be a"):
        await Runc(runner=runner).run("web", BUNDLE, **options)
    assert runner.invocations == []


async def test_a_bundle_is_looked_at(tmp_path: Path) -> None:
    """A directory that is no bundle is refused before anything is started; one that isn't here is left to runc."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    with pytest.raises(BundleNotFound) as caught:
        await client.create("web", tmp_path)
    assert (caught.value.container_id, caught.value.args) == ("web", ())
    assert runner.invocations == []
    await client.create("web", tmp_path / "missing")


async def test_descriptors() -> None:
    """`preserve_fds` are descriptors; runc is told how many."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    await client.create("web", BUNDLE, preserve_fds=(0, 1))
    await client.run("web", BUNDLE, preserve_fds=(0, 1))
    await client.exec("web", ["x"], preserve_fds=(0, 1))
    for invocation in runner.invocations:
        assert invocation.preserve_fds == (0, 1)
        assert invocation.args[invocation.args.index("--preserve-fds") + 1] == "2"


async def test_a_process_document() -> None:
    """A process goes whole, as a document, and no changes go beside it."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    await client.exec("web", PROCESS)
    document = runner.invocations[0].argv[runner.invocations[0].args.index("--process") + 1]
    assert isinstance(document, Document)
    assert json.loads(document.data)["cwd"] == "/path/to/dir"
    changes: list[dict[str, Any]] = [{"cwd": "/"}, {"tty": True}, {"env": {"A": "1"}}, {"caps": ["CAP_CHOWN"]}]
    for change in changes:
        with pytest.raises(ValueError, match=r"a spec.Process says everything itself"):
            await client.exec("web", PROCESS, **change)


async def test_update_takes_resources() -> None:
    """Limits go as a document; a dict is refused."""
    runner = FakeRunner()
    client = Runc(runner=runner)
    await client.update("web", spec.LinuxResources(pids=spec.LinuxPids(limit=5)))
    document = runner.invocations[0].argv[runner.invocations[0].args.index("--resources") + 1]
    assert isinstance(document, Document)
    assert json.loads(document.data) == {"pids": {"limit": 5}}
    with pytest.raises(TypeError, match=r"resources must be a spec.LinuxResources"):
        await client.update("web", {"pids": {"limit": 5}})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


TAKE_ID: dict[str, Callable[[Runc, str], Awaitable[object]]] = {
    "create": lambda client, name: client.create(name, BUNDLE),
    "start": lambda client, name: client.start(name),
    "kill": lambda client, name: client.kill(name),
    "delete": lambda client, name: client.delete(name, force=True),
    "pause": lambda client, name: client.pause(name),
    "resume": lambda client, name: client.resume(name),
    "update": lambda client, name: client.update(name, spec.LinuxResources()),
    "state": lambda client, name: client.state(name),
    "ps": lambda client, name: client.ps(name),
    "top": lambda client, name: client.top(name),
    "events": lambda client, name: client.stats(name),
    "run": lambda client, name: client.run(name, BUNDLE),
    "exec": lambda client, name: client.exec(name, ["id"]),
}


@pytest.mark.parametrize("call", TAKE_ID.values(), ids=TAKE_ID)
async def test_nothing_is_started_for_an_id_that_is_none(call: Callable[[Runc, str], Awaitable[object]]) -> None:
    """An id that can't be one is refused before anything is started."""
    runner = FakeRunner()
    with pytest.raises(InvalidContainerID):
        await call(Runc(runner=runner), "../fake-id")
    assert runner.invocations == []


@pytest.mark.any_loop
@pytest.mark.parametrize("name", ["run", "exec"])
async def test_task_status(name: str, tmp_path: Path) -> None:
    """`await tg.start(...)` returns runc's pid as soon as it runs."""
    program = write_program(tmp_path / "runc", "#!/bin/sh\ncase $5 in state|delete) exit 0; esac; exec sleep 100\n")
    client = Runc(program)

    async def work(*, task_status: TaskStatus[int]) -> None:
        if name == "run":
            await client.run("web", BUNDLE, task_status=task_status)
        else:
            await client.exec("web", ["x"], task_status=task_status)

    async with anyio.create_task_group() as group:
        assert alive(await group.start(work))
        group.cancel_scope.cancel()
