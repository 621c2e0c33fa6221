"""Streams of real containers: how much goes through them, who waits for whom, and what they may be."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import proof
import pytest
from containers import ended, heard

from runc_async.errors import ExecutableNotFound, RuncCrashed, RuncTimeout
from runc_async.limits import Limits
from runc_async.state import Status
from runc_async.stdio import CapturedIO, PipedIO, RedirectIO

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from anyio.abc import TaskStatus
    from containers import MakeBundle, MakeContainer

    from runc_async._streams.pipes import PipeReader, PipeWriter
    from runc_async.client import Runc
    from runc_async.container import Container
    from runc_async.containerprocess import ContainerProcess
    from runc_async.response import Response

pytestmark = pytest.mark.runc

WAYS = pytest.mark.parametrize("way", ["container", "exec"])

BLOCK = os.urandom(1 << 20)
BLOCKS = proof.amount(256, 64)
GROWTH = 24 << 20
"""Bytes by which our memory may grow: far less than what goes through."""

WRITING = "1 0x1 "
"""proc_pid_syscall(5): a process that waits in write(2) to its stdout."""


@pytest.fixture
def folder(scratch: Path) -> Generator[Path]:
    """Return an empty directory."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        yield Path(directory)


@contextlib.asynccontextmanager
async def opened(
    way: str, client: Runc, make_bundle: MakeBundle, name: str, args: list[str], **options: Any
) -> AsyncGenerator[Container | ContainerProcess]:
    """Run a program with streams: as a container's first process, or as one more."""
    if way == "container":
        async with client.open_container(name, make_bundle(args), grace=0, **options) as container:
            yield container
    else:
        async with (
            client.open_container(name, make_bundle(["sleep", "600"]), grace=0) as container,
            container.open_exec(args, grace=0.2, **options) as process,
        ):
            yield process


def memory() -> int:
    """Tell the memory that this process holds, in bytes: proc_pid_statm(5)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def fill(stdin: PipeWriter) -> bytes:
    """Send all blocks, and the end; return their digest."""
    digest = hashlib.sha256()
    for number in range(BLOCKS):
        item = number.to_bytes(8, "big") + BLOCK[8:]
        digest.update(item)
        await stdin.send(item)
    await stdin.aclose()
    return digest.digest()


async def empty(stdout: PipeReader, peaks: list[int]) -> bytes:
    """Receive everything, looking at our memory meanwhile; return its digest."""
    digest = hashlib.sha256()
    turn = 0
    async for chunk in stdout:
        digest.update(chunk)
        turn += 1
        if turn % 64 == 0:
            peaks.append(memory())
    return digest.digest()


@pytest.mark.any_loop
@WAYS
async def test_echo(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str) -> None:
    """Hundreds of MiB go in and come back at the same time, unharmed, and our memory doesn't grow."""
    async with opened(way, client, make_bundle, container_id(), ["cat"], io=PipedIO(stderr=False)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before, peaks = memory(), list[int]()
        sent, received = await asyncio.gather(fill(process.stdin), empty(process.stdout, peaks))
        assert sent == received
        assert max(peaks) - before < GROWTH
        await process.wait()


def written(pid: int) -> int:
    """Tell how many bytes a process has written: proc_pid_io(5)."""
    counters = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines())
    return int(counters["wchar"])


async def held_back(pid: int) -> None:
    """Wait until a process is held back by its stdout, and writes no more."""
    async with asyncio.timeout(20):
        before = -1
        while not (os.path.exists(f"/proc/{pid}/syscall") and before == written(pid) > 0 and in_write(pid)):
            before = written(pid)
            await asyncio.sleep(0.1)


def in_write(pid: int) -> bool:
    """Tell whether a process waits in write(2) to its stdout."""
    return Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").startswith(WRITING)


@pytest.mark.any_loop
@WAYS
@pytest.mark.needs("host pids")
async def test_a_reader_that_stops_reading(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str
) -> None:
    """Output that nobody reads stays in the kernel's pipe and holds the program up; it goes on when it is read."""
    size = 64 << 20
    args = ["dd", "if=/dev/zero", "bs=65536", f"count={size >> 16}"]
    io = PipedIO(stdin=False, stderr=False)
    async with opened(way, client, make_bundle, container_id(), args, io=io) as process:
        assert process.stdout is not None
        assert process.pid is not None
        assert await process.stdout.receive(1) == b"\0"
        before = memory()
        await held_back(process.pid)
        assert written(process.pid) < 4 << 20
        assert memory() - before < 4 << 20
        async with asyncio.timeout(30):
            left = sum([len(chunk) async for chunk in process.stdout])
        assert left == size - 1


@WAYS
@pytest.mark.needs("host pids")
async def test_a_program_that_does_not_read(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str
) -> None:
    """Sending to a program that reads nothing waits, and can be cancelled; one that has ended breaks the stream."""
    async with opened(way, client, make_bundle, container_id(), ["sleep", "600"], io=PipedIO()) as process:
        assert process.stdin is not None
        with anyio.move_on_after(0.3) as scope:
            await process.stdin.send(bytes(4 << 20))
        assert scope.cancelled_caught
        assert process.pid is not None
        os.kill(process.pid, 9)
        await ended(process.pid)
        async with asyncio.timeout(20):
            with pytest.raises(anyio.BrokenResourceError):
                await process.stdin.send(bytes(1 << 20))


@WAYS
async def test_a_reader_that_closes(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str
) -> None:
    """Closing our end is the program's SIGPIPE, and its matter; for us it is a clean end."""
    args = ["sh", "-c", "(trap '' PIPE; while echo line; do :; done) 2>/dev/null; exit 9"]
    async with opened(way, client, make_bundle, container_id(), args, io=PipedIO(stdin=False)) as process:
        assert process.stdout is not None
        await process.stdout.receive()
        await process.stdout.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await process.stdout.receive()
        async with asyncio.timeout(20):
            status = await process.wait()
        # runc gets the signal too where it copies, and passes it on to the first process, as any other.
        assert status.code in {9, None}
        assert status.signal in {None, signal.SIGPIPE}


@pytest.mark.any_loop
@WAYS
async def test_three_streams(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str) -> None:
    """Stdin ends when we close it, and the other two are apart."""
    args = ["sh", "-c", "while read line; do echo out $line; echo err $line >&2; done; echo end"]
    async with opened(way, client, make_bundle, container_id(), args, io=PipedIO()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        out, err = process.stdout.lines(), process.stderr.lines()
        for word in "one", "two":
            await process.stdin.send(f"{word}\n".encode())
            assert (await anext(out), await anext(err)) == (f"out {word}", f"err {word}")
        await process.stdin.aclose()
        assert [line async for line in out] == ["end"]
        assert [line async for line in err] == []


async def test_streams_that_were_not_asked_for(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A stream that isn't a pipe isn't there, and `CapturedIO` belongs to `run` and `exec`."""
    bundle = make_bundle(["sleep", "600"])
    async with client.open_container(container_id(), bundle, grace=0) as container:
        assert (container.stdin, container.stdout, container.stderr, container.pty) == (None, None, None, None)
        async with container.open_exec(["sleep", "600"], io=PipedIO(stderr=False), grace=0.1) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert (process.stderr, process.pty) == (None, None)
        with pytest.raises(ValueError, match="PipedIO"):
            async with container.open_exec(["true"], io=CapturedIO()):
                pass
    with pytest.raises(ValueError, match="PipedIO"):
        async with client.open_container(container_id(), bundle, io=CapturedIO()):
            pass
    assert await client.list() == []


# files and FIFOs


async def started(way: str, client: Runc, bundle: Path, name: str, *, args: list[str], io: RedirectIO) -> None:
    """Run a program with redirected streams by one of the commands, and wait for its end."""
    if way == "run":
        await client.run(name, bundle, io=io)
    elif way == "exec":
        await client.exec(name, args, io=io, check=True)
    else:
        await client.create(name, bundle, io=io)
        pid = (await client.state(name)).pid
        await client.start(name)
        await ended(pid)


@pytest.mark.parametrize("way", ["create", "run", "exec"])
async def test_files(
    *,
    client: Runc,
    make_bundle: MakeBundle,
    make_container: MakeContainer,
    container_id: Callable[[], str],
    way: str,
    folder: Path,
) -> None:
    """Files are read and appended to: by path, by descriptor, and as open files."""
    args = ["sh", "-c", "cat; echo err >&2"]
    name = await make_container() if way == "exec" else container_id()
    (folder / "in").write_bytes(b"fed\n")
    (folder / "out").write_bytes(b"before\n")
    with (folder / "in").open("rb") as given, (folder / "err").open("wb") as errors:
        io = RedirectIO(stdin=given, stdout=folder / "out", stderr=errors.fileno())
        await started(way, client, make_bundle(args), name, args=args, io=io)
    assert (folder / "out").read_bytes() == b"before\nfed\n"
    assert (folder / "err").read_bytes() == b"err\n"


@pytest.mark.parametrize("way", ["create", "run", "exec"])
async def test_fifos(
    *,
    client: Runc,
    make_bundle: MakeBundle,
    make_container: MakeContainer,
    container_id: Callable[[], str],
    way: str,
    folder: Path,
) -> None:
    """FIFOs hold nobody up, whether or not there is a peer yet."""
    args = ["sh", "-c", "read line; echo got $line"]
    name = await make_container() if way == "exec" else container_id()
    for side in "in", "out":
        os.mkfifo(folder / side)
    reading = os.open(folder / "out", os.O_RDONLY | os.O_NONBLOCK)
    try:
        work = asyncio.create_task(
            started(
                way,
                client,
                make_bundle(args),
                name,
                args=args,
                io=RedirectIO(stdin=folder / "in", stdout=folder / "out"),
            )
        )
        writing = await asyncio.to_thread(os.open, folder / "in", os.O_WRONLY)
        os.write(writing, b"word\n")
        os.close(writing)
        async with asyncio.timeout(20):
            await work
        assert await heard(reading) == b"got word\n"
    finally:
        os.close(reading)


LINES = 20
ALTERNATING = ["sh", "-c", f"i=0; while [ $i -lt {LINES} ]; do echo out; echo err >&2; i=$((i + 1)); done"]


async def test_both_streams_of_a_container_in_one(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """What a container writes to both streams comes as one, in the order in which it was written."""
    io = PipedIO(stderr="stdout")
    async with client.open_container(container_id(), make_bundle(ALTERNATING), io=io, grace=0) as container:
        assert container.stdout is not None
        assert container.stderr is None
        assert b"".join([chunk async for chunk in container.stdout]) == b"out\nerr\n" * LINES


@pytest.mark.any_loop
async def test_both_streams_of_an_exec_in_one(client: Runc, make_container: MakeContainer) -> None:
    """So does what an exec writes, captured or live, though runc would copy each stream by itself."""
    container = client.container(await make_container())
    captured = await container.exec(ALTERNATING, io=CapturedIO(stderr="stdout"))
    assert (captured.stdout, captured.stderr) == (b"out\nerr\n" * LINES, b"")
    async with container.open_exec(ALTERNATING, io=PipedIO(stderr="stdout"), grace=0) as process:
        assert process.stdout is not None
        assert b"".join([chunk async for chunk in process.stdout]) == b"out\nerr\n" * LINES
        assert (await process.wait()).code == 0


async def test_an_exec_with_both_streams_in_one_ends_as_any(client: Runc, make_container: MakeContainer) -> None:
    """Input, exit codes, signals, limits, and a program that isn't there: all is as with separate streams."""
    container = client.container(await make_container())
    run = functools.partial(container.exec, io=CapturedIO(stderr="stdout"))
    assert (await run(["cat"], input=b"fed")).stdout == b"fed"
    left = await run(["sh", "-c", "echo a; sleep 60 & echo b >&2; exit 3"])
    assert (left.stdout, left.exit_code, left.reason) == (b"a\nb\n", 3, "exited")
    assert (await run(["sh", "-c", "kill -9 $$"])).reason == "signaled"
    assert (await run(["yes"], limits=Limits(output=10))).stdout == b"y\n" * 5
    with pytest.raises(ExecutableNotFound, match="absent"):
        await run(["absent"])


async def test_both_streams_of_a_run_in_one(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """So does what a run writes; and nothing is left of the container."""
    name = container_id()
    response = await client.run(name, make_bundle(ALTERNATING), io=CapturedIO(stderr="stdout"))
    assert (response.stdout, response.stderr) == (b"out\nerr\n" * LINES, b"")
    assert name not in {listed.id for listed in await client.list()}


async def test_a_run_with_both_streams_in_one_ends_as_any(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Input, exit codes, usage, limits, `keep`, a timeout, a program that isn't there: as with separate streams."""

    async def run(*args: str, **options: Any) -> Response:
        return await client.run(container_id(), make_bundle(args), io=CapturedIO(stderr="stdout"), **options)

    assert (await run("cat", input=b"fed")).stdout == b"fed"
    left = await run("sh", "-c", "echo a; sleep 60 & echo b >&2; exit 3", usage=True)
    assert (left.stdout, left.exit_code, left.reason) == (b"a\nb\n", 3, "exited")
    assert left.usage is not None
    assert (await run("yes", limits=Limits(output=10))).stdout == b"y\n" * 5
    with pytest.raises(RuncTimeout) as caught:
        await run("sh", "-c", "echo up; sleep 60", timeout=1, grace=0)
    assert caught.value.stdout in {b"", b"up\n"}
    with pytest.raises(ExecutableNotFound, match="absent"):
        await run("absent")
    kept = container_id()
    await client.run(kept, make_bundle(["true"]), io=CapturedIO(stderr="stdout"), keep=True)
    assert (await client.state(kept)).status == Status.STOPPED


async def test_a_run_that_loses_what_waits_for_its_process(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """If the program in place of runc is killed, the call fails, and the container is gone."""
    name = container_id()
    bundle = make_bundle(["sh", "-c", "echo up >&3; exec sleep 600"])
    reading, writing = os.pipe()
    try:
        async with anyio.create_task_group() as group:

            async def run(*, task_status: TaskStatus[int]) -> None:
                with pytest.raises(RuncCrashed):
                    await client.run(
                        name, bundle, io=CapturedIO(stderr="stdout"), preserve_fds=(writing,), task_status=task_status
                    )

            pid = await group.start(run)
            await heard(reading, b"up\n")
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(reading)
        os.close(writing)
    assert name not in {listed.id for listed in await client.list()}


@WAYS
async def test_pipes_beside_files(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], folder: Path, way: str
) -> None:
    """Each stream is a pipe, a file or a descriptor, whatever the others are."""
    (folder / "in").write_bytes(b"fed\n")
    args = ["sh", "-c", "cat; echo err >&2"]
    with (folder / "err").open("wb") as errors:
        io = PipedIO(stdin=str(folder / "in"), stdout=True, stderr=errors)
        async with opened(way, client, make_bundle, container_id(), args, io=io) as process:
            assert process.stdout is not None
            assert (process.stdin, process.stderr) == (None, None)
            assert b"".join([chunk async for chunk in process.stdout]) == b"fed\n"
            await process.wait()
    assert (folder / "err").read_bytes() == b"err\n"


async def begun(way: str, client: Runc, bundle: Path, name: str, *, io: PipedIO | RedirectIO) -> None:
    """Begin a program by one of the commands, and leave it."""
    async with contextlib.AsyncExitStack() as stack:
        match way:
            case "container":
                await stack.enter_async_context(client.open_container(name, bundle, io=io))
            case "open_exec":
                await stack.enter_async_context(client.open_exec(name, ["true"], io=io))
            case "exec":
                await client.exec(name, ["true"], io=io)
            case _:
                await getattr(client, way)(name, bundle, io=io)


@pytest.mark.parametrize("io", [PipedIO, RedirectIO])
@pytest.mark.parametrize("way", ["run", "exec", "create", "container", "open_exec"])
async def test_a_file_that_cannot_be_opened(
    *,
    client: Runc,
    make_bundle: MakeBundle,
    make_container: MakeContainer,
    container_id: Callable[[], str],
    folder: Path,
    way: str,
    io: type[PipedIO | RedirectIO],
) -> None:
    """A file that can't be opened is an error before anything has started."""
    streams = io(stdout=folder / "missing" / "out")
    there = await make_container() if "exec" in way else container_id()
    with pytest.raises(FileNotFoundError, match="missing"):
        await begun(way, client, make_bundle(["true"]), there, io=streams)
    assert [state.id for state in await client.list()] == ([there] if "exec" in way else [])


async def test_the_first_bytes(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """With `keep="first"` a program writes all it wants, and the beginning is kept."""
    io = CapturedIO(limit=4, keep="first")
    response = await client.run(container_id(), make_bundle(["seq", "1", "100000"]), io=io)
    assert (response.stdout, response.exit_code, response.truncated) == (b"1\n2\n", 0, True)


async def test_input_beside_a_file(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Input for a stdin that is a file is refused."""
    with pytest.raises(ValueError, match="input goes neither"):
        await client.run(container_id(), make_bundle(["true"]), io=PipedIO(stdin="/dev/null"), input=b"x")


async def test_preserved_descriptors(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Descriptors reach the process of an opened container, and one that is added to it, as 3, 4, ..."""
    reading, writing = os.pipe()
    args = ["sh", "-c", "echo one >&4; sleep 600"]
    try:
        async with client.open_container(
            container_id(), make_bundle(args), preserve_fds=[reading, writing], grace=0
        ) as container:
            assert await heard(reading) == b"one\n"
            async with container.open_exec(["sh", "-c", "echo two >&3"], preserve_fds=[writing]) as process:
                assert (await process.wait()).code == 0
            assert await heard(reading) == b"two\n"
    finally:
        os.close(reading)
        os.close(writing)


# user namespaces


MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]
NAMESPACES = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "user")]
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
]


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.needs("user namespaces")
async def test_the_owner_of_the_pipes(
    *,
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    rootfs: Path,
    prefix: str,
    owned: bool,
) -> None:
    """A process in a user namespace can open `/dev/stdout` anew if the pipe belongs to it, and not otherwise."""
    script = "read line < /dev/stdin; echo $line > /dev/stdout; echo over >&2"
    with tempfile.TemporaryDirectory(prefix=prefix, dir="/tmp") as directory:
        Path(directory).chmod(0o711)  # who is root inside has to get through
        copied = await asyncio.create_subprocess_exec("cp", "-a", rootfs, f"{directory}/rootfs")
        assert await copied.wait() == 0
        bundle = make_bundle(
            ["sh", "-c", script],
            linux={"namespaces": NAMESPACES, "uidMappings": MAPPING, "gidMappings": MAPPING},
            mounts=MOUNTS,
            root={"path": f"{directory}/rootfs", "readonly": False},
        )
        io = PipedIO(uid=100000, gid=100000) if owned else PipedIO()
        async with client.open_container(container_id(), bundle, io=io, grace=0) as container:
            assert container.stdin is not None
            assert container.stdout is not None
            assert container.stderr is not None
            with contextlib.suppress(anyio.BrokenResourceError):
                await container.stdin.send(b"word\n")
            async with asyncio.timeout(20):
                out = b"".join([chunk async for chunk in container.stdout])
                err = b"".join([chunk async for chunk in container.stderr])
    assert out == (b"word\n" if owned else b"")
    assert (b"ermission denied" in err) is not owned
    assert err.endswith(b"over\n")
