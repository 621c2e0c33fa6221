"""What can go wrong on a real runtime: each failure has its class and one readable line, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import leaks
import pytest
from runtime import has_controller

from runc_async import errors
from runc_async.client import Runc
from runc_async.spec import LinuxMemory, LinuxPids, LinuxResources, Process
from runc_async.state import Status
from runc_async.stdio import NullIO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

pytestmark = pytest.mark.runc

HOSTILE_IDS = ["", ".", "..", "a/b", "../x", "a b", "a\0b", "a\nb", "é", "a:b", "$(id)", "a\u202eb", "x" * 5 + "/.."]


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    """Return an empty directory that the container's processes can be given as /root."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        yield Path(directory)


@contextlib.contextmanager
def failing(cls: type[errors.CommandError], name: str) -> Generator[None]:
    """Expect an error of exactly this class that says in one line of text what happened to whom."""
    with pytest.raises(cls) as caught:
        yield
    error = caught.value
    assert type(error) is cls
    sentence = str(error)
    assert sentence.isprintable()
    assert 10 < len(sentence) < 1200
    assert error.container_id == name
    assert sentence.startswith(f"container {name!r}: ")
    assert error.message in sentence
    assert error.args
    assert error.exit_code


def executable(path: Path, content: bytes, mode: int = 0o755) -> None:
    """Write a program."""
    path.write_bytes(content)
    path.chmod(mode)


# create and run

SECCOMP = {"defaultAction": "SCMP_ACT_BOGUS"}
NAMESPACES = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]

BAD_CONFIGURATIONS: dict[str, tuple[type[errors.CommandError], dict[str, Any]]] = {
    "executable-missing": (errors.ExecutableNotFound, {"process": {"args": ["/nonesuch"]}}),
    "executable-not-in-path": (errors.ExecutableNotFound, {"process": {"args": ["nonesuch"]}}),
    "no-arguments": (errors.InvalidSpec, {"process": {"args": []}}),
    "rootfs-missing": (errors.BundleNotFound, {"root": {"path": "/nonesuch"}}),
    "namespace-unknown": (errors.InvalidSpec, {"linux": {"namespaces": [*NAMESPACES, {"type": "bogus"}]}}),
    "namespace-path-missing": (
        errors.InvalidSpec,
        {"linux": {"namespaces": [*NAMESPACES, {"type": "network", "path": "/nonesuch"}]}},
    ),
    "seccomp-action-unknown": (errors.InvalidSpec, {"linux": {"seccomp": SECCOMP}}),
    "rlimit-unknown": (
        errors.InvalidSpec,
        {"process": {"rlimits": [{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]}},
    ),
    "mount-source-missing": (
        errors.InvalidSpec,
        {"mounts": [{"destination": "/tmp", "type": "bind", "source": "/nonesuch", "options": ["bind"]}]},
    ),
    "sysctl-of-the-host": (errors.InvalidSpec, {"linux": {"sysctl": {"kernel.bogus": "1"}}}),
    "user-namespace-without-mapping": (errors.InvalidSpec, {"linux": {"namespaces": [*NAMESPACES, {"type": "user"}]}}),
    "working-directory-relative": (errors.InvalidSpec, {"process": {"cwd": "tmp"}}),
    "apparmor-profile-missing": (errors.InvalidSpec, {"process": {"apparmorProfile": "nonesuch"}}),
    "cpuset-beyond-the-host": (errors.ResourceError, {"linux": {"resources": {"cpu": {"cpus": "4095"}}}}),
    "memory-too-low": (errors.MemoryLimitTooLow, {"linux": {"resources": {"memory": {"limit": 4096}}}}),
    "hook-fails": (errors.HookError, {"hooks": {"createRuntime": [{"path": "/bin/false"}]}}),
    "hook-missing": (errors.HookError, {"hooks": {"createRuntime": [{"path": "/nonesuch"}]}}),
    "terminal-without-a-socket": (errors.TerminalError, {"process": {"terminal": True}}),
}

NOT_IN_CRUN = {
    "user-namespace-without-mapping",  # it makes one
    "working-directory-relative",
    "apparmor-profile-missing",
    "namespace-path-missing",  # it doesn't say what it couldn't open
    "cpuset-beyond-the-host",  # it leaves the cgroups behind
    "cwd-relative",
}
"""Cases that crun takes, or fails at in a way of its own."""

NOT_IN_RUNSC = {
    "namespace-unknown",  # it ignores it, and what follows up to the next comment
    "namespace-path-missing",
    "seccomp-action-unknown",
    "sysctl-of-the-host",
    "working-directory-relative",
    "apparmor-profile-missing",
    "terminal-without-a-socket",
    "user-namespace-without-mapping",  # the kernel refuses it, and it can't say why
    "memory-too-low",  # it is killed itself: `RuncCrashed`
    "cwd-missing",  # it makes one
    "cwd-relative",
}
"""Cases that runsc takes, or fails at in a way of its own."""

STARTED = {"executable-missing", "executable-not-in-path"}
"""Cases in which a `create` of runsc succeeds, and `start` fails."""


def skip_unknown(runtime: Runtime, case: str) -> None:
    """Skip a case that the runtime takes, or in which this host lacks something."""
    if case in (NOT_IN_CRUN if runtime.is_crun else NOT_IN_RUNSC if runtime.is_sandbox else ()):
        pytest.skip(f"not in {runtime.name}")
    if case == "memory-too-low" and not has_controller("memory"):
        pytest.skip("there is no memory controller here")


@pytest.mark.proof(every=3)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.needs("rootfs errors") if case == "rootfs-missing" else ())
        for case in BAD_CONFIGURATIONS
    ],
)
@pytest.mark.parametrize("command", ["create", "run"])
async def test_a_bundle_that_cannot_run(
    *,
    client: Runc,
    runtime: Runtime,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    command: str,
    case: str,
) -> None:
    """What config.json asks for and can't have is told by its class; no container, cgroup or process is left."""
    skip_unknown(runtime, case)
    cls, changes = BAD_CONFIGURATIONS[case]
    name, bundle = container_id(), make_bundle(["sleep", "60"], **changes)
    if runtime.is_sandbox and command == "create" and case in STARTED:
        await client.create(name, bundle)
        command = "start"
    with failing(cls, name):
        await (client.start(name) if command == "start" else getattr(client, command)(name, bundle))
    if command == "start":
        await client.delete(name, force=True)
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


@pytest.mark.parametrize("text", [b"", b"no JSON", b'{"ociVersion": "1.0.2", "process": {"ar', b"[]", b"{}"])
async def test_a_broken_configuration(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], text: bytes
) -> None:
    """A config.json that isn't one is an invalid specification."""
    name, bundle = container_id(), make_bundle(["true"])
    (bundle / "config.json").write_bytes(text)
    with failing(errors.InvalidSpec, name):
        await client.create(name, bundle)
    assert await client.list() == []


@pytest.mark.parametrize("command", ["create", "run"])
async def test_a_missing_bundle(
    client: Runc, runtime: Runtime, container_id: Callable[[], str], folder: Path, command: str
) -> None:
    """A directory without config.json is no bundle, and nor is one that isn't there."""
    name = container_id()
    with pytest.raises(errors.BundleNotFound, match=r"config\.json") as caught:
        await getattr(client, command)(name, folder)
    assert str(caught.value).startswith(f"container {name!r}: ")
    # crun says so on stderr and not in its log, and the streams of `create` are the container's
    with failing(errors.CommandError if runtime.is_crun and command == "create" else errors.BundleNotFound, name):
        await getattr(client, command)(name, folder / "nonesuch")
    assert await client.list() == []


PROGRAMS: dict[str, tuple[type[errors.CommandError], bytes, int]] = {
    "not-executable": (errors.ExecutableDenied, b"#!/bin/sh\n", 0o644),
    "no-program": (errors.ExecFormatError, b"\x7fELF garbage", 0o755),
    "interpreter-missing": (errors.ExecutableNotFound, b"#!/nonesuch\n", 0o755),
}


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if "not" in case else pytest.mark.needs("exec errors")) for case in PROGRAMS],
)
async def test_a_program_that_cannot_be_executed(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], folder: Path, case: str
) -> None:
    """A file that the kernel refuses to execute is told from a program that ends with the same code."""
    cls, content, mode = PROGRAMS[case]
    executable(folder / "program", content, mode)
    mount = {"destination": "/root", "type": "bind", "source": str(folder), "options": ["bind"]}
    proc = {"destination": "/proc", "type": "proc", "source": "proc"}
    dev = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}
    name = container_id()
    with failing(cls, name):
        await client.run(name, make_bundle(["/root/program"], mounts=[proc, dev, mount]))
    assert await client.list() == []
    await client.run(name, make_bundle(["sleep", "60"], mounts=[proc, dev, mount]), detach=True, io=NullIO())
    with failing(cls, name):
        await client.exec(name, ["/root/program"])


async def test_a_directory_as_the_program(
    client: Runc, make_bundle: MakeBundle, make_container: MakeContainer, container_id: Callable[[], str]
) -> None:
    """A directory can't be executed."""
    name = container_id()
    with pytest.raises(errors.ExecutableDenied):
        await client.run(name, make_bundle(["/tmp"]))
    with pytest.raises(errors.ExecutableDenied):
        await client.exec(await make_container(), ["/tmp"])


# exec, update, kill

BAD_CALLS: dict[str, tuple[type[errors.CommandError], Callable[[Runc, str], Awaitable[Any]]]] = {
    "executable-missing": (errors.ExecutableNotFound, lambda client, name: client.exec(name, ["/nonesuch"])),
    "executable-not-in-path": (errors.ExecutableNotFound, lambda client, name: client.exec(name, ["nonesuch"])),
    "detached": (errors.ExecutableNotFound, lambda client, name: client.exec(name, ["nonesuch"], detach=True)),
    "cwd-missing": (errors.InvalidSpec, lambda client, name: client.exec(name, ["true"], cwd="/nonesuch")),
    "cwd-relative": (errors.InvalidSpec, lambda client, name: client.exec(name, Process(args=["true"], cwd="tmp"))),
    "no-terminal": (errors.TerminalError, lambda client, name: client.exec(name, ["true"], tty=True)),
    "no-socket": (errors.TerminalError, lambda client, name: client.exec(name, ["true"], tty=True, detach=True)),
    "socket-missing": (
        errors.TerminalError,
        lambda client, name: client.exec(name, ["true"], tty=True, detach=True, console_socket="/nonesuch"),
    ),
    "memory-too-low": (
        errors.MemoryLimitTooLow,
        lambda client, name: client.update(name, LinuxResources(memory=LinuxMemory(limit=4096))),
    ),
    "unknown-option": (
        errors.UnsupportedUsage,
        lambda client, name: client.exec(name, ["true"], extra_args=["--nonesuch"]),
    ),
}


@pytest.mark.parametrize("case", BAD_CALLS)
async def test_a_call_that_cannot_be_done(
    client: Runc, runtime: Runtime, make_container: MakeContainer, case: str
) -> None:
    """A call that fails has its class, and leaves the container as it was, without another process in it."""
    skip_unknown(runtime, case)
    cls, call = BAD_CALLS[case]
    name = await make_container()
    before = await client.state(name)
    with failing(cls, name):
        await call(client, name)
    assert await client.state(name) == before
    assert await client.ps(name) == [1 if runtime.is_sandbox else before.pid]


@pytest.mark.needs("exec --cgroup")
async def test_a_missing_cgroup(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """A cgroup that isn't below the container's; crun makes it."""
    name = await make_container()
    if runtime.is_crun:
        await client.exec(name, ["true"], cgroup="nonesuch")
    else:
        with failing(errors.ResourceError, name):
            await client.exec(name, ["true"], cgroup="nonesuch")


@pytest.mark.parametrize("signal", ["BOGUS", "", "KILL ", "9x", "-1", 65, -1, "RTMAX+1"])
async def test_a_signal_that_is_none(client: Runc, make_container: MakeContainer, signal: int | str) -> None:
    """What is no signal is refused before a runtime could take it for one."""
    name = await make_container()
    with pytest.raises(errors.InvalidSignal) as caught:
        await client.kill(name, signal)
    assert caught.value.args == ()
    assert (await client.state(name)).status == Status.RUNNING


async def test_capabilities_that_are_none(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """A capability that the runtime doesn't know is ignored by it, with a warning that makes no error."""
    if runtime.is_crun:
        pytest.skip("crun 1.28 breaks down over --cap")
    if runtime.is_sandbox:
        pytest.skip("runsc refuses it")
    assert (await client.exec(await make_container(), ["false"], caps=["CAP_BOGUS"])).exit_code == 1


async def test_events_of_a_runtime_without(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """A runtime that has no such command says so."""
    if runtime.has("events"):
        pytest.skip(f"{runtime} has events")
    name = await make_container()
    with pytest.raises(errors.UnsupportedError, match="events"):
        await client.stats(name)


@pytest.mark.parametrize("text", [b"", b"no JSON", b"[]", b'{"id": 5}'])
@pytest.mark.needs("events")  # crun keeps its record elsewhere
@pytest.mark.needs("record directory")
async def test_a_record_that_cannot_be_read(
    client: Runc, make_container: MakeContainer, root: Path, text: bytes
) -> None:
    """A container whose record is damaged is told apart from one that isn't there."""
    name = await make_container()
    record = root / name / "state.json"
    good = record.read_bytes()
    record.write_bytes(text)
    try:
        with failing(errors.CorruptState, name):
            await client.state(name)
        with failing(errors.CorruptState, name):
            await client.exec(name, ["true"])
        assert await client.list() == []
    finally:
        record.write_bytes(good)


# ids


@pytest.mark.parametrize("name", HOSTILE_IDS)
async def test_an_id_that_is_none(folder: Path, name: str) -> None:
    """A hostile id is refused before anything is spawned: here there isn't even a program."""
    client = Runc(folder / "nonesuch")
    calls: list[Awaitable[object]] = [
        *(client.create(name, folder), client.run(name, folder), client.exec(name, ["true"])),
        *(client.start(name), client.kill(name), client.delete(name, force=True)),
        *(client.pause(name), client.resume(name), client.update(name, LinuxResources(pids=LinuxPids(limit=5)))),
        *(client.state(name), client.ps(name), client.top(name), client.stats(name)),
    ]
    for call in calls:
        with pytest.raises(errors.InvalidContainerID) as caught:
            await call
        assert caught.value.args == ()
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["-x", "--help", "-", "--root", "a+b_c.d-e", "a..", "0"])
async def test_an_id_that_looks_like_something_else(
    client: Runc, runtime: Runtime, make_bundle: MakeBundle, prefix: str, name: str
) -> None:
    """An id with a dash in front is an id, and never an option; for runsc, which takes it for one, it is refused."""
    cgroup = f"/{prefix}odd"  # by which a container that is left behind is found
    bundle = make_bundle(["sleep", "60"], linux={"cgroupsPath": cgroup})
    if runtime.is_sandbox and name.startswith("-"):
        with pytest.raises(errors.InvalidContainerID, match="dash"):
            await client.create(name, bundle)
        return
    await client.create(name, bundle)
    assert (await client.state(name)).id == name
    await client.start(name)
    assert len(await client.ps(name)) == 1
    assert (await client.exec(name, ["echo", "--", "-x"])).stdout == b"-- -x\n"
    await client.delete(name, force=True)
    assert await client.list() == []


async def test_an_id_that_is_too_long(client: Runc, make_bundle: MakeBundle) -> None:
    """An id that the file system can't hold is refused by the runtime; crun 1.8.1 leaves out the reason."""
    with pytest.raises(
        errors.InvalidContainerID, match=r"[Ff]ile name too long|cannot create state directory for `x+`$"
    ):
        await client.create("x" * 300, make_bundle(["true"]))


# the runtime itself


async def test_no_runtime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that doesn't exist is told with where it was looked for."""
    with pytest.raises(errors.RuncNotFound, match="nonesuch") as caught:
        await Runc(folder / "nonesuch").version()
    assert caught.value.path is None
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(FileNotFoundError, match=str(folder)):
        await Runc("nonesuch").create("a", folder / "bundle")


async def test_a_runtime_that_cannot_be_executed(folder: Path) -> None:
    """A file that isn't executable, and one that is no program."""
    executable(folder / "data", b"data", 0o644)
    with pytest.raises(PermissionError, match="data"):
        await Runc(folder / "data").version()
    executable(folder / "binary", b"\x7fELF garbage")
    with pytest.raises(OSError, match="format error"):
        await Runc(folder / "binary").list()


@pytest.mark.parametrize("printed", ["", "no JSON", "[1", "[]", "null", '{"id": 5}', "\\377"])
async def test_output_that_is_no_answer(folder: Path, printed: str) -> None:
    """An answer that can't be understood is told with its bytes; what stands on stderr is no part of it."""
    executable(folder / "runtime", f"#!/bin/sh\nprintf '{printed}'\necho '{{}}' >&2\n".encode())
    with pytest.raises(errors.DecodeError) as caught:
        await Runc(folder / "runtime").state("a")
    assert caught.value.data == (b"\xff" if "377" in printed else printed.encode())


@pytest.mark.parametrize("code", [1, 2, 64, 255])
async def test_a_runtime_that_fails_without_a_word(folder: Path, code: int) -> None:
    """A runtime that says nothing is told by its exit code."""
    executable(folder / "runtime", f"#!/bin/sh\nexit {code}\n".encode())
    with pytest.raises(errors.CommandError, match=f"exit code {code}, and no error message"):
        await Runc(folder / "runtime").start("a")


async def test_a_runtime_that_is_killed(folder: Path) -> None:
    """A runtime that a signal ended has broken down, and its code is no code of a container's."""
    executable(folder / "runtime", b"#!/bin/sh\nkill -KILL $$\n")
    for call in (Runc(folder / "runtime").state("a"), Runc(folder / "runtime").exec("a", ["true"])):
        with pytest.raises(errors.RuncCrashed) as caught:
            await call
        assert caught.value.exit_code == -9


async def test_a_root_that_cannot_be_written(
    runtime: Runtime, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A root directory where nothing can be made."""
    name = container_id()
    with pytest.raises(errors.CommandError) as caught:
        await Runc(runtime.command, root="/proc/nonesuch").create(name, make_bundle(["true"]))
    assert "/proc/nonesuch" in str(caught.value)


async def test_a_user_without_the_right(
    runtime: Runtime, root: Path, folder: Path, make_container: MakeContainer
) -> None:
    """Another user may not look into the root directory, and is told so."""
    name = await make_container()
    # crun needs a mount namespace on some hosts, which is root's to make
    executable(
        folder / "unprivileged",
        f'#!/bin/sh\nexec setpriv --reuid 65534 --regid 65534 --clear-groups {runtime.command} "$@"\n'.encode(),
    )
    if runtime.is_crun:
        pytest.skip("crun needs a mount namespace of its own here, which only root can make")
    root.chmod(stat.S_IRWXU)
    folder.chmod(0o711)
    with pytest.raises(errors.PermissionDenied) as caught:
        await Runc(folder / "unprivileged", root=root).state(name)
    assert type(caught.value) is errors.PermissionDenied
