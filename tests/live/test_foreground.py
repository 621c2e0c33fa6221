"""`run` and `exec`, with their options, on a real runtime and seen from inside."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from containers import heard
from runtime import KERNEL_KEEPS, is_cgroup2

from runc_async.client import Runc
from runc_async.errors import ContainerNotFound, ExecutableNotFound, ExitError
from runc_async.spec import LinuxCapabilities, POSIXRlimit, Process, User
from runc_async.state import Status
from runc_async.stdio import CapturedIO, NullIO, PipedIO, PtyIO, RedirectIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anyio.abc import TaskStatus
    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.response import Response

pytestmark = pytest.mark.runc

CAP_NET_RAW = 13

SIZE = "until stty size 2>/dev/null | grep .; do usleep 1000; done"
"""runc sets the size of the terminal when the program runs already; until then busybox says nothing, or fails."""


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    """Return an empty directory."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        yield Path(directory)


def shell(script: str) -> list[str]:
    """Return the arguments that run a script."""
    return ["sh", "-c", script]


# run


@pytest.mark.parametrize("code", [0, 1, 2, 7, 126, 255])
async def test_run_returns_the_exit_code(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], code: int
) -> None:
    """What the program ends with is the result, whatever it is; the container is gone then."""
    script = f"echo out; echo 'runc run failed: container does not exist' >&2; exit {code}"
    response = await client.run(container_id(), make_bundle(shell(script)))
    assert (response.exit_code, response.stdout) == (code, b"out\n")
    assert response.stderr == b"runc run failed: container does not exist\n"
    assert not response.truncated
    assert await client.list() == []


async def test_a_runtime_that_fails_with_the_same_code(
    client: Runc, make_bundle: MakeBundle, make_container: MakeContainer, container_id: Callable[[], str]
) -> None:
    """A runtime that fails with 1, or with 255 for `exec`, is an error; a program that ends so is a result."""
    name = await make_container()
    with pytest.raises(ExecutableNotFound) as of_run:
        await client.run(container_id(), make_bundle(["/nonesuch"]))
    with pytest.raises(ExecutableNotFound) as of_exec:
        await client.exec(name, ["/nonesuch"])
    for code in of_run.value.exit_code, of_exec.value.exit_code:
        assert (await client.run(container_id(), make_bundle(shell(f"exit {code}")))).exit_code == code
        assert (await client.exec(name, shell(f"exit {code}"))).exit_code == code


async def test_run_of_a_process_that_is_killed(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A program ended by signal n is told as 128 + n, and the pid of the runtime as soon as there is one."""
    name, bundle = container_id(), make_bundle(shell("echo ready; sleep 60"))
    reading, writing = os.pipe()
    results: list[Response] = []

    async def run(*, task_status: TaskStatus[int]) -> None:
        results.append(await client.run(name, bundle, io=RedirectIO(stdout=writing), task_status=task_status))

    pids: list[int] = []
    try:
        async with anyio.create_task_group() as group:
            pids.append(await group.start(run))
            await heard(reading)
            await client.kill(name, signal.SIGKILL)
    finally:
        os.close(reading)
        os.close(writing)
    assert [result.pid for result in results] == pids
    assert [result.exit_code for result in results] == [137]


async def test_run_with_check(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """With `check` a code other than 0 is an error that has the response."""
    with pytest.raises(ExitError, match="code 3") as caught:
        await client.run(container_id(), make_bundle(shell("echo out; exit 3")), check=True)
    assert caught.value.response.stdout == b"out\n"
    await client.run(container_id(), make_bundle(["true"]), check=True)


@pytest.mark.needs("run --keep")
async def test_run_with_keep(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """With `keep` the container is there afterwards, stopped."""
    name = container_id()
    assert (await client.run(name, make_bundle(shell("exit 3")), keep=True)).exit_code == 3
    assert (await client.state(name)).status == Status.STOPPED


async def test_run_detached(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], folder: Path
) -> None:
    """With `detach` the container runs on, and holds the streams themselves."""
    name, bundle = container_id(), make_bundle(shell("echo out; exec sleep 60"))
    reading, writing = os.pipe()
    streams = RedirectIO(stdout=writing)
    try:
        response = await client.run(name, bundle, detach=True, io=streams, pid_file=folder / "pid")
        assert await heard(reading) == b"out\n"
    finally:
        os.close(reading)
        os.close(writing)
    state = await client.state(name)
    assert (response.exit_code, state.status) == (0, Status.RUNNING)
    assert int((folder / "pid").read_text()) == state.pid


async def test_run_leaves_orphans_to_others(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """`no_subreaper` runs a container all the same."""
    response = await client.run(container_id(), make_bundle(["echo", "out"]), no_subreaper=True)
    assert response.stdout == b"out\n"


@pytest.mark.parametrize("data", [b"", b"one line\n", os.urandom(1 << 20)], ids=["nothing", "a-line", "a-megabyte"])
async def test_input(
    client: Runc,
    make_bundle: MakeBundle,
    make_container: MakeContainer,
    container_id: Callable[[], str],
    data: bytes,
) -> None:
    """A program reads its input up to the end; without `input` there is nothing to read."""
    name = await make_container()
    assert (await client.run(container_id(), make_bundle(["cat"]), input=data)).stdout == data
    assert (await client.exec(name, ["cat"], input=data or None)).stdout == data


async def test_input_that_nobody_reads(client: Runc, make_container: MakeContainer) -> None:
    """Input beyond what the pipe holds is no error for a program that doesn't read it."""
    response = await client.exec(await make_container(), ["true"], input=bytes(1 << 20))
    assert response.exit_code == 0


async def test_output_beyond_the_limit(client: Runc, make_container: MakeContainer) -> None:
    """Of too much output the end is kept, and the response says so."""
    script = "head -c 3000000 /dev/zero; echo the end"
    response = await client.exec(await make_container(), shell(script), io=CapturedIO(limit=100))
    assert (len(response.stdout), response.stdout[-8:], response.truncated) == (100, b"the end\n", True)


async def test_output_of_a_program_that_floods(client: Runc, make_container: MakeContainer) -> None:
    """Streams that are thrown away hold up nobody."""
    response = await client.exec(await make_container(), shell("head -c 9000000 /dev/zero; exit 4"), io=NullIO())
    assert (response.exit_code, response.stdout) == (4, b"")


@pytest.mark.needs("process details")
async def test_a_terminal(
    client: Runc, runtime: Runtime, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A container whose process wants a terminal gets one of the size that was asked for."""
    if runtime.is_crun:
        pytest.skip("crun 1.28 sets no size, and prints the end of the output into its log")
    bundle = make_bundle(shell(f"tty; {SIZE}; exit 5"), process={"terminal": True})
    response = await client.run(container_id(), bundle, io=PtyIO(rows=33, cols=99))
    assert response.exit_code == 5
    assert response.stdout.startswith(b"/dev/")
    assert response.stdout.endswith(b"\r\n33 99\r\n")


# exec


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_exec_returns_the_exit_code(client: Runc, make_container: MakeContainer, code: int) -> None:
    """What the program ends with is the result, whatever it is; the container goes on."""
    name = await make_container()
    response = await client.exec(name, shell(f"echo out; echo wrong >&2; exit {code}"))
    assert (response.exit_code, response.stdout, response.stderr) == (code, b"out\n", b"wrong\n")
    assert (await client.state(name)).status == Status.RUNNING


async def test_exec_of_a_process_that_is_killed(client: Runc, make_container: MakeContainer) -> None:
    """A program ended by signal n is told as 128 + n."""
    assert (await client.exec(await make_container(), shell("kill -TERM $$"))).exit_code == 143


EXEC_OPTIONS: list[tuple[str, dict[str, Any], str, str]] = [
    ("cwd", {"cwd": "/tmp"}, "pwd", "/tmp"),
    ("env", {"env": {"A": "one two", "B": ""}}, 'echo "$A,$B,$PATH"', "one two,,/usr/local/sbin"),
    ("user", {"user": 7}, "id -u", "7"),
    ("user-and-group", {"user": (7, 8)}, "id -u; id -g", "7\n8"),
    ("user-as-text", {"user": "7:8"}, "id -u; id -g", "7\n8"),
    ("no-new-privs", {"no_new_privs": True}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
    ("privileges-as-they-are", {}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0"),
]
NEEDED = {"privileges-as-they-are": pytest.mark.needs("process details")}


@pytest.mark.parametrize(
    ("options", "script", "expected"),
    [pytest.param(*row[1:], id=row[0], marks=NEEDED.get(row[0], ())) for row in EXEC_OPTIONS],
)
async def test_exec_changes_the_containers_process(
    client: Runc, make_container: MakeContainer, options: dict[str, Any], script: str, expected: str
) -> None:
    """What isn't given is as the container's own process has it."""
    name = await make_container(process={"noNewPrivileges": False})
    response = await client.exec(name, shell(script), **options)
    assert response.stdout.decode().startswith(expected)


@pytest.mark.needs("exec --additional-gids")
async def test_exec_with_more_groups(client: Runc, make_container: MakeContainer) -> None:
    """More groups are there beside the first."""
    response = await client.exec(await make_container(), ["id", "-G"], additional_gids=[20, 30])
    assert response.stdout.split() == [b"0", b"20", b"30"]


@pytest.mark.needs("process details")
async def test_exec_with_capabilities(client: Runc, runtime: Runtime, make_container: MakeContainer) -> None:
    """A capability is there beside those of the container's process."""
    if runtime.is_crun:
        pytest.skip("crun 1.28 breaks down over --cap")
    name = await make_container()
    looked = ["sed", "-n", r"s/^CapEff:\s*//p", "/proc/self/status"]
    before, after = [int((await client.exec(name, looked, caps=caps)).stdout, 16) for caps in ((), ("CAP_NET_RAW",))]
    assert before
    assert after == before | 1 << CAP_NET_RAW != before


async def test_what_exec_shows_of_itself(client: Runc, make_container: MakeContainer) -> None:
    """A value of the environment isn't in the arguments that the response shows."""
    response = await client.exec(await make_container(), ["env"], env={"TOKEN": "secret"})
    assert b"TOKEN=secret\n" in response.stdout
    assert "<process.json>" in response.args
    assert "secret" not in str(response.args)


async def test_exec_with_a_terminal(client: Runc, make_container: MakeContainer) -> None:
    """With `tty` the program has a terminal, of the size that was asked for, if it doesn't ask at once."""
    script = f"sleep 0.3; test -t 0 && test -t 1 && test -t 2 && {SIZE}"
    response = await client.exec(await make_container(), shell(script), tty=True, io=PtyIO(rows=7))
    assert (response.exit_code, response.stdout) == (0, b"7 80\r\n")


@pytest.mark.needs("process details")
async def test_exec_of_a_document(client: Runc, make_container: MakeContainer) -> None:
    """A whole process document says everything about the process.

    The limit is one that the Go runtime leaves alone; that of descriptors it raises, racing with runc before 1.1.13.
    """
    name = await make_container()
    privileges = "grep -E 'CapEff|NoNewPrivs' /proc/self/status"
    process = Process(
        args=shell("id -u; id -g; id -G; pwd; echo $ONLY,$TERM; ulimit -c; " + privileges),
        cwd="/etc",
        env=["PATH=/bin", "ONLY=this"],
        user=User(uid=7, gid=8, additional_gids=[9]),
        rlimits=[POSIXRlimit(type="RLIMIT_CORE", soft=100 * 512, hard=200 * 512)],
        capabilities=LinuxCapabilities(),
        no_new_privileges=True,
    )
    response = await client.exec(name, process)
    assert response.output.split("\n") == [
        *("7", "8", "8 9", "/etc", "this,", "100"),
        *("CapEff:\t0000000000000000", "NoNewPrivs:\t1", ""),
    ]
    assert "<process.json>" in response.args


async def test_exec_of_a_large_document(client: Runc, make_container: MakeContainer) -> None:
    """A document may be longer than an argument vector can be."""
    process = Process(args=["sh", "-c", "env | wc -c"], cwd="/", env=[f"V{i}=" + "x" * 1000 for i in range(1500)])
    process.env = [*(process.env or []), "PATH=/bin"]
    response = await client.exec(await make_container(), process)
    assert int(response.stdout) > 1_500_000


@pytest.mark.needs("host pids")
async def test_exec_detached(client: Runc, make_container: MakeContainer, folder: Path) -> None:
    """With `detach` the process runs on in the container; the pid file names it."""
    name = await make_container()
    response = await client.exec(name, ["sleep", "60"], detach=True, pid_file=folder / "pid")
    assert response.exit_code == 0
    assert int((folder / "pid").read_text()) in await client.ps(name)


async def test_exec_detached_does_not_wait_for_the_streams(client: Runc, make_container: MakeContainer) -> None:
    """A detached process that holds captured pipes holds up nobody."""
    name = await make_container()
    async with asyncio.timeout(0.9):
        await client.exec(name, ["sleep", "60"], detach=True, io=CapturedIO())


async def test_exec_with_descriptors(client: Runc, make_container: MakeContainer) -> None:
    """Descriptors arrive as 3, 4, ..."""
    reading, writing = os.pipe()
    try:
        await client.exec(await make_container(), shell("echo through >&4"), preserve_fds=[reading, writing])
        assert await heard(reading) == b"through\n"
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.needs("exec --cgroup")
@pytest.mark.parametrize("sub", ["sub", ["pids:sub", "memory:sub"]], ids=["all", "some"])
async def test_exec_in_a_cgroup(
    client: Runc, runtime: Runtime, make_container: MakeContainer, sub: str | list[str]
) -> None:
    """The process is in a cgroup below the container's, of all controllers or of some."""
    if runtime.is_crun and not isinstance(sub, str):
        pytest.skip("crun knows no cgroups of single controllers")
    if is_cgroup2() and not isinstance(sub, str):
        pytest.skip("cgroup v2 has one hierarchy for all controllers")
    unified = "" if is_cgroup2() else "unified"
    name = await make_container()
    for line in Path(f"/proc/{(await client.state(name)).pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        parent = Path("/sys/fs/cgroup", controllers.removeprefix("name=") or unified, path.lstrip("/"))
        if name in path and parent.is_dir():
            (parent / "sub").mkdir()
            for file in ("cpuset.cpus", "cpuset.mems") if controllers == "cpuset" else ():
                (parent / "sub" / file).write_text((parent / file).read_text())
    response = await client.exec(name, ["cat", "/proc/self/cgroup"], cgroup=sub)
    inside = {line.split(":")[1]: line.split(":")[2] for line in response.output.splitlines()}
    known = {""} if is_cgroup2() else set(inside) - {""}
    chosen = known if isinstance(sub, str) else {"pids", "memory"}
    assert {controller for controller in known if inside[controller].endswith("/sub")} == chosen


@pytest.mark.needs("exec --ignore-paused")
async def test_exec_in_a_paused_container(client: Runc, make_container: MakeContainer) -> None:
    """With `ignore_paused` the process waits in the paused container until that is resumed."""
    name = await make_container(Status.PAUSED)
    call = asyncio.create_task(client.exec(name, ["echo", "awake"], ignore_paused=True))
    async with asyncio.timeout(20):
        while len(await client.ps(name)) < 2:
            pass
        assert not call.done()
        await client.resume(name)
        assert (await call).stdout == b"awake\n"


async def test_exec_in_parallel(client: Runc, make_container: MakeContainer) -> None:
    """Processes of one container run beside each other, and no output gets to another's caller."""
    name = await make_container()
    responses = await asyncio.gather(
        *(client.exec(name, shell(f"echo {n}; cat; exit {n}"), input=b"in%d\n" % n) for n in range(12))
    )
    assert [response.exit_code for response in responses] == list(range(12))
    assert [response.stdout for response in responses] == [b"%d\nin%d\n" % (n, n) for n in range(12)]


@pytest.mark.any_loop
@pytest.mark.parametrize("restored", [True, False])
@pytest.mark.needs("process details")
async def test_the_signals_of_a_service_are_its_own(
    runtime: Runtime,
    root: Path,
    make_bundle: MakeBundle,
    make_container: MakeContainer,
    container_id: Callable[[], str],
    *,
    restored: bool,
) -> None:
    """What a service blocks or ignores isn't blocked or ignored in a container, unless that is asked for."""
    client = Runc(runtime.command, root=root, restore_signals=restored)
    args = ["grep", "Sig[BI]", "/proc/self/status"]
    name = await make_container()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        run = await client.run(container_id(), make_bundle(args))
        executed = await client.exec(name, args)
        async with client.open_container(container_id(), make_bundle(args), io=PipedIO()) as container:
            assert container.stdout is not None
            opened = b"".join([chunk async for chunk in container.stdout])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGHUP, before)
    for told in (run.stdout, executed.stdout, opened):
        # Signals 32 and 33 are the C library's own; make(1) starts programs with both ignored.
        blocked, ignored = (int(line.split()[1], 16) & ~(3 << 31) for line in told.splitlines())
        if restored:
            assert (blocked, ignored) == (0, 0)
        elif isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop) and not runtime.is_crun:
            assert blocked == 1 << (signal.SIGUSR1 - 1)


async def test_exec_of_what_leaves_a_process_behind(client: Runc, make_container: MakeContainer) -> None:
    """A process left behind with the pipes in its hand holds the call up for the drain timeout at most."""
    name = await make_container()
    async with asyncio.timeout(10):
        response = await client.exec(name, shell("echo out; sleep 60 & exit 7"), drain_timeout=0.2)
    assert response.exit_code in {7, None}
    assert (response.stdout, response.truncated) == (b"out\n", False)


@pytest.mark.needs("exec --pidfd-socket")
@pytest.mark.skipif(not KERNEL_KEEPS, reason="this kernel doesn't keep the status")
async def test_exec_of_what_is_gone_at_once(client: Runc, make_container: MakeContainer) -> None:
    """A runtime that sends a pidfd loses no exit code, however short the process is and whoever holds its pipes."""
    name = await make_container()
    assert await client.supports("exec --pidfd-socket")
    for _ in range(5):
        response = await client.exec(name, shell("sleep 60 & exit 7"), drain_timeout=0.1)
        assert response.exit_code == 7
    async with client.open_exec(name, shell("sleep 60 & exit 7"), io=PipedIO()) as process:
        assert (await process.wait()).code == 7


async def test_exec_without_a_drain_timeout(client: Runc, make_container: MakeContainer) -> None:
    """Without patience for those who hold the pipe, what the process itself did is told in full all the same."""
    name = await make_container()
    response = await client.exec(name, shell("head -c 300000 /dev/zero; exit 7"), drain_timeout=0)
    assert (response.exit_code, len(response.stdout)) == (7, 300_000)


async def test_one_exec_after_the_end(client: Runc, make_container: MakeContainer) -> None:
    """A container that was deleted is not found."""
    name = await make_container()
    await client.delete(name, force=True)
    with pytest.raises(ContainerNotFound, match=re.escape(name)):
        await client.exec(name, ["true"])
