"""Real containers written into files by criu, and made anew from them."""

from __future__ import annotations

import array
import ast
import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import containers
import criu
import leaks
import pytest
from containers import ended, heard

import runc_async
from runc_async import client as client_module
from runc_async._client import checkpoints
from runc_async._containers.leftovers import remove_cgroups
from runc_async.client import Runc
from runc_async.errors import (
    CheckpointError,
    CleanupWarning,
    ContainerExists,
    ContainerNotFound,
    ContainerNotRunning,
    ExitError,
    RuncCrashed,
    RuncTimeout,
    UnsupportedError,
)
from runc_async.runner import StopPolicy
from runc_async.state import Status
from runc_async.stdio import CapturedIO, PipedIO, PtyIO, RedirectIO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from anyio.abc import TaskStatus
    from containers import MakeBundle
    from runtime import Runtime

    from runc_async._commands.criu import CgroupsMode
    from runc_async.container import Container

    Prepare = Callable[..., tuple[str, Path]]

pytestmark = [
    pytest.mark.runc,
    pytest.mark.criu,
    # which leaves crun out: its `restore` leaves cgroups behind
    pytest.mark.needs("restore --no-subreaper"),
]

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "checkpoint.md"

COUNTER = ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); usleep 10000; done"]
ECHO = ["sh", "-c", "i=0; while read line; do i=$((i+1)); echo $i $line; done; exit 7"]

MOMENTS = [0, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15]
"""Seconds after which a `checkpoint` or a `restore` is cancelled; each takes about 0.15."""


@pytest.fixture
def make_client(runtime: Runtime, root: Path) -> Callable[[str], Runc]:
    """Return a function that makes a client with a $PATH, in which runc looks for criu."""
    program = shutil.which(runtime.command)
    assert program is not None
    return lambda path: Runc(program, root=root, env={"PATH": path})


@pytest.fixture
def client(make_client: Callable[[str], Runc]) -> Runc:
    """Return a client whose criu suits the kernel."""
    return make_client(criu.search_path())


@pytest.fixture
def prepare(make_bundle: MakeBundle, container_id: Callable[[], str]) -> Prepare:
    """Return a function that gives an id and writes a bundle; it takes what `MakeBundle` takes."""

    def write(args: Sequence[str], **changes: Any) -> tuple[str, Path]:
        return container_id(), make_bundle(args, **changes)

    return write


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """End a runc that is cancelled at once, and the criu that it has started a second later."""
    monkeypatch.setattr(checkpoints, "LET_CRIU_FINISH", StopPolicy(grace=1, helpers=True))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a restore that is cancelled at once, instead of in ten seconds."""
    policy = StopPolicy(grace=5, helpers=True, helpers_first=True)
    for module in (checkpoints, client_module):
        monkeypatch.setattr(module, "LET_RESTORE_FINISH", policy)
    monkeypatch.setattr(checkpoints, "LET_FINISH", StopPolicy(grace=5))


@pytest.fixture
def images(scratch: Path) -> Iterator[Path]:
    """Return an empty directory for images."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        yield Path(directory)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return a pipe's reading and writing end."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(fd)


class Stuck:
    """A criu that tells its version, and then does nothing: `mark` is there as soon as it is asked for more.

    Attributes:
        path: The $PATH in which it is the first.
        mark: A file, with its process id in it.
        work: Where it leaves a mount, as a criu that is killed does.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = f"{directory}:{criu.search_path()}"
        self.mark = directory / "mark"
        self.work = directory / "work"
        real = shutil.which("criu", path=criu.search_path())
        yard = self.work / ".criu.cgyard.stuck"
        (directory / "criu").write_text(
            "#!/bin/sh\n"
            f'mkdir {directory}/asked 2>/dev/null && exec {real} "$@"\n'
            f"mkdir -p {yard} && mount -t tmpfs none {yard}\n"
            f"echo $$ >{self.mark}.new && mv {self.mark}.new {self.mark}\n"
            "exec sleep 60\n"
        )
        (directory / "criu").chmod(0o755)

    async def asked(self) -> int:
        """Wait until it hangs, and return its process id."""
        async with asyncio.timeout(20):
            while not self.mark.exists():  # noqa: ASYNC110 - a shell script can't tell in a better way
                await asyncio.sleep(0.005)
        return int(self.mark.read_text())

    def unmount(self) -> None:
        """Take its mount away."""
        for mount in leaks.mounts(str(self._directory)):
            subprocess.run(["/bin/umount", mount], check=True)


@pytest.fixture
def stuck(scratch: Path) -> Iterator[Stuck]:
    """Return a criu that hangs."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        found = Stuck(Path(directory))
        try:
            yield found
        finally:
            found.unmount()


async def lines(container: Container, count: int) -> list[bytes]:
    """Read this many lines of a container's stdout."""
    assert container.stdout is not None
    data = b""
    async with asyncio.timeout(20):
        while data.count(b"\n") < count:
            data += await container.stdout.receive()
    return data.splitlines()


@pytest.mark.needs("criu")
async def test_the_count_goes_on(
    client: Runc, make_client: Callable[[str], Runc], images: Path, prepare: Prepare, pipe: tuple[int, int]
) -> None:
    """A container is gone after its checkpoint, and another client makes it anew where it was, its output elsewhere."""
    (name, bundle), (reading, writing) = prepare(COUNTER), pipe
    await client.run(name, bundle, detach=True, io=RedirectIO(stdout=writing))
    os.close(writing)
    await heard(reading)
    before = await client.state(name)
    await client.checkpoint(name, images)
    with pytest.raises(ContainerNotFound):
        await client.state(name)
    counted = (await heard(reading, b"nothing that comes: to the end")).split()

    again, theirs = os.pipe2(os.O_CLOEXEC)
    other = make_client(criu.search_path())
    try:
        with open(theirs, "wb") as stdout:
            response = await other.restore(name, bundle, images, detach=True, io=RedirectIO(stdout=stdout))
        first = (await heard(again)).split()[0]
    finally:
        os.close(again)
    assert int(first) == int(counted[-1]) + 1
    assert (response.exit_code, response.stdout) == (0, b"")
    after = await other.state(name)
    assert (after.status, after.pid != before.pid) == (Status.RUNNING, True)
    assert {"inventory.img", "dump.log", "restore.log"} <= {path.name for path in images.iterdir()}


async def test_open_restored(client: Runc, images: Path, prepare: Prepare) -> None:
    """The streams of a restored container are live in both directions, and its end is waited for."""
    name, bundle = prepare(ECHO)
    async with client.open_container(name, bundle, io=PipedIO()) as container:
        assert container.stdin is not None
        await container.stdin.send(b"a\n")
        assert await lines(container, 1) == [b"1 a"]
        await container.checkpoint(images)
        assert container.stdout is not None
        with pytest.raises(anyio.EndOfStream):
            await container.stdout.receive()
    async with client.open_restored(name, bundle, images, io=PipedIO()) as restored:
        assert restored.stdin is not None
        await restored.stdin.send(b"b\nc\n")
        assert await lines(restored, 2) == [b"2 b", b"3 c"]
        assert restored.pid == (await restored.state()).pid != container.pid
        assert (await restored.exec(["echo", "inside"])).stdout == b"inside\n"
        await restored.stdin.aclose()
        status = await restored.wait()
        assert status.code in {7, None}  # before Linux 6.15 nobody knows
    assert await client.list() == []


@pytest.mark.needs("criu")
async def test_leave_running(client: Runc, images: Path, prepare: Prepare) -> None:
    """A container that is left running goes on, and a second one is made of what it was."""
    name, bundle = prepare(COUNTER)
    work = images / "work"
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        await lines(container, 1)
        await container.checkpoint(images / "images", work_path=work, leave_running=True)
        assert (await container.state()).status == Status.RUNNING
        await lines(container, 3)
        async with client.open_restored(
            f"{name}-2", bundle, images / "images", work_path=work, io=PipedIO(), grace=0
        ) as restored:
            await lines(restored, 1)
            assert restored.pid != container.pid
            assert len(await client.list()) == 2
    assert {path.name for path in work.iterdir()} >= {"dump.log", "restore.log"}
    assert not (images / "images" / "dump.log").exists()


async def test_a_terminal(client: Runc, images: Path, prepare: Prepare) -> None:
    """A restored container has a terminal again, of the size that is asked for."""
    script = "stty size; while read line; do stty size; done"
    name, bundle = prepare(["sh", "-c", script], process={"terminal": True})
    async with client.open_container(name, bundle, io=PtyIO(rows=30, cols=90), grace=0) as container:
        assert container.pty is not None
        assert await container.pty.receive() == b"30 90\r\n"
        await container.checkpoint(images)
    async with client.open_restored(name, bundle, images, io=PtyIO(rows=31, cols=91), grace=0) as restored:
        assert restored.pty is not None
        await restored.pty.send(b"\n")
        seen = b""
        while b"31 91" not in seen:
            seen += await restored.pty.receive()


@pytest.mark.needs("criu")
async def test_the_foreground(client: Runc, images: Path, prepare: Prepare, pipe: tuple[int, int]) -> None:
    """A `run` ends with 137 at the checkpoint; `restore` feeds the process, captures it, and tells its exit code."""
    (name, bundle), (reading, writing) = prepare(ECHO), pipe
    # A stdin that doesn't end: the process waits in the middle of its work.
    idle, silent = os.pipe2(os.O_CLOEXEC)
    try:
        running = asyncio.create_task(client.run(name, bundle, io=RedirectIO(stdin=idle, stdout=writing)))
        os.write(silent, b"a\n")
        assert await heard(reading) == b"1 a\n"
        await client.checkpoint(name, images)
        assert (await running).exit_code == 128 + signal.SIGKILL
    finally:
        os.close(idle)
        os.close(silent)
    response = await client.restore(name, bundle, images, io=CapturedIO(), input=b"b\n")
    assert (response.exit_code, response.stdout) == (7, b"2 b\n")
    with pytest.raises(ExitError):
        await client.restore(name, bundle, images, check=True)
    assert await client.list() == []


async def test_a_terminal_in_the_foreground(client: Runc, images: Path, prepare: Prepare) -> None:
    """`restore` gives a process that had a terminal another one, and has its output."""
    script = "echo ready; sleep 1; test -t 0 && echo on a terminal; exit 3"
    name, bundle = prepare(["sh", "-c", script], process={"terminal": True})
    async with client.open_container(name, bundle, io=PtyIO()) as container:
        assert container.pty is not None
        await container.pty.receive()
        await container.checkpoint(images)
    response = await client.restore(name, bundle, images, io=PtyIO())
    assert (response.exit_code, response.output.strip()) == (3, "on a terminal")


async def test_pid_file(client: Runc, images: Path, prepare: Prepare) -> None:
    """The pid file of a detached restore holds the new pid."""
    name, bundle = prepare(["sleep", "60"])
    async with client.open_container(name, bundle) as container:
        await container.checkpoint(images)
    await client.restore(name, bundle, images, detach=True, pid_file=images / "pid")
    assert int((images / "pid").read_text()) == (await client.state(name)).pid != container.pid


async def test_task_status(client: Runc, images: Path, prepare: Prepare) -> None:
    """The pid of runc is known as soon as it runs; cancelling it then leaves no container."""
    name, bundle = prepare(["sleep", "60"])
    async with client.open_container(name, bundle, io=PipedIO()) as container:
        await container.checkpoint(images)

    async def restore(*, task_status: TaskStatus[int]) -> None:
        await client.restore(name, bundle, images, task_status=task_status)

    async with asyncio.timeout(20), anyio.create_task_group() as group:
        pid: int = await group.start(restore)
        assert Path(f"/proc/{pid}").exists()
        group.cancel_scope.cancel()
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


async def test_console_socket(client: Runc, images: Path, prepare: Prepare) -> None:
    """A listening socket gets the terminal of a container that is restored and left to itself."""
    script = "echo ready; read line; echo heard $line; sleep 60"
    name, bundle = prepare(["sh", "-c", script], process={"terminal": True})
    async with client.open_container(name, bundle, io=PtyIO()) as container:
        assert container.pty is not None
        await container.pty.receive()
        await container.checkpoint(images)
    path = images / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        await client.restore(name, bundle, images, detach=True, console_socket=path)
        peer, _ = listener.accept()
        with peer:
            _, ancillary, _, _ = peer.recvmsg(100, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    [master] = array.array("i", ancillary[0][2])
    try:
        os.write(master, b"you\n")
        assert b"heard you" in await heard(master, b"heard you")
    finally:
        os.close(master)


async def run_page(block: str) -> None:
    """Run a block of Python with an `await` outside of functions."""
    code = compile(block, str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    await eval(code, {})  # noqa: S307 - our own page


@pytest.mark.parametrize(
    ("block", "output"), re.findall(r"```py\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
)
async def test_the_page(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], block: str, output: str
) -> None:
    """What docs/howto/checkpoint.md says is done, and prints what stands below it."""
    monkeypatch.setenv("PATH", criu.search_path())
    monkeypatch.setattr(runc_async, "Runc", lambda: Runc(root=root))
    await run_page(block)
    assert capsys.readouterr().out.strip() == output.strip()


# what fails


@pytest.mark.needs("criu")
async def test_without_criu(client: Runc, make_client: Callable[[str], Runc], images: Path, prepare: Prepare) -> None:
    """Where no criu is to be found, both commands say so, and the container goes on."""
    without = make_client(str(images))
    name, bundle = prepare(ECHO)
    async with client.open_container(name, bundle, io=PipedIO()) as container:
        with pytest.raises(CheckpointError, match=f"{name}.*criu") as caught:
            await without.checkpoint(name, images)
        assert (caught.value.log_path, caught.value.log_tail) == (None, b"")
        assert (await container.state()).status == Status.RUNNING
        await container.checkpoint(images)
    with pytest.raises(CheckpointError):
        await without.restore(name, bundle, images, detach=True)
    assert await client.list() == []


@pytest.mark.needs("criu")
async def test_what_criu_says(client: Runc, images: Path, prepare: Prepare) -> None:
    """A checkpoint that fails tells the path of criu's log, its end, and the reason; the container goes on."""
    with (images / "outside").open("w") as outside:  # a regular file from outside can't be dumped
        name, bundle = prepare(["sleep", "60"])
        await client.run(name, bundle, detach=True, io=RedirectIO(stdout=outside))
    with pytest.raises(CheckpointError) as caught:
        await client.checkpoint(name, images / "images", work_path=images / "work")
    error = caught.value
    assert error.log_path == str(images / "work" / "dump.log")
    assert b"Can't lookup mount=" in error.log_tail
    assert len(error.log_tail) <= 4096
    assert "mount" in error.__notes__[0]
    assert (await client.state(name)).status == Status.RUNNING


@pytest.mark.needs("criu")
async def test_images_that_are_not_there(client: Runc, images: Path, prepare: Prepare) -> None:
    """A restore without images, or with broken ones, leaves no container."""
    name, bundle = prepare(COUNTER)
    with pytest.raises(CheckpointError, match="no such file"):
        await client.restore(name, bundle, images / "nowhere")
    (images / "descriptors.json").write_text('["/dev/null","/dev/null","/dev/null"]')
    with pytest.raises(CheckpointError) as caught:
        await client.restore(name, bundle, images, detach=True)
    assert caught.value.log_path == str(images / "restore.log")
    assert b"inventory" in caught.value.log_tail
    with pytest.raises(CheckpointError):
        async with client.open_restored(name, bundle, images):
            pytest.fail("there is nothing to open")
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


@pytest.mark.needs("criu")
async def test_a_container_that_does_not_run(client: Runc, images: Path, prepare: Prepare) -> None:
    """What has only been created, or is stopped, can't be checkpointed, nor what isn't there."""
    name, bundle = prepare(["true"])
    with pytest.raises(ContainerNotFound):
        await client.checkpoint(name, images)
    await client.create(name, bundle)
    with pytest.raises(ContainerNotRunning):
        await client.checkpoint(name, images)
    pid = (await client.state(name)).pid
    await client.kill(name, "KILL")
    await ended(pid)
    with pytest.raises(ContainerNotRunning):
        await client.checkpoint(name, images)


async def test_an_id_that_is_taken(client: Runc, images: Path, prepare: Prepare) -> None:
    """A container isn't restored over another one, which doesn't care."""
    name, bundle = prepare(COUNTER)
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        await container.checkpoint(images, leave_running=True)
        before = await container.state()
        with pytest.raises(ContainerExists):
            await client.restore(name, bundle, images)
        with pytest.raises(ContainerExists):
            async with client.open_restored(name, bundle, images):
                pytest.fail("there is nothing to open")
        assert await container.state() == before


async def test_pre_dump(client: Runc, images: Path, prepare: Prepare) -> None:
    """What changed since a pre-dump is dumped on top of it, where the kernel tracks changes; else that is said."""
    name, bundle = prepare(COUNTER)
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        await lines(container, 1)
        try:
            await container.checkpoint(images / "1", pre_dump=True)
        except CheckpointError as error:
            assert "missing features" in error.message  # noqa: PT017 - one of two good ends
            await container.checkpoint(images / "1", leave_running=True)
            with pytest.raises(CheckpointError) as caught:
                await container.checkpoint(images / "2", parent_path=images / "1", leave_running=True)
            assert b"Tracking memory is not available" in caught.value.log_tail
            assert os.readlink(images / "2" / "parent") == "../1"
            await lines(container, 3)
            return
        await container.checkpoint(images / "2", parent_path=images / "1")
    async with client.open_restored(name, bundle, images / "2", io=PipedIO(), grace=0) as restored:
        await lines(restored, 1)


async def test_what_only_newer_runtimes_have(client: Runc, runtime: Runtime, images: Path, prepare: Prepare) -> None:
    """An option is taken where the runtime has it, and else refused before anything is done."""
    has = await client.supports("checkpoint --link-remap")
    assert has is runtime.has("checkpoint --link-remap")
    async with client.open_container(*prepare(COUNTER), io=PipedIO(), grace=0) as container:
        if has:
            await container.checkpoint(images, link_remap=True, tcp_skip_in_flight=True)
        else:
            with pytest.raises(UnsupportedError, match="link-remap"):
                await container.checkpoint(images, link_remap=True)
            assert list(images.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [{"empty_ns": ["network"]}, {"auto_dedup": True}, {"ext_unix_sk": True, "file_locks": True}],
    ids=" ".join,
)
async def test_options_of_both(client: Runc, images: Path, prepare: Prepare, options: dict[str, Any]) -> None:
    """What both commands have to be told is understood by runc and by criu, and the count goes on."""
    name, bundle = prepare(COUNTER)
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        await lines(container, 1)
        await container.checkpoint(images, **options)
    async with client.open_restored(name, bundle, images, io=PipedIO(), grace=0, **options) as restored:
        assert int((await lines(restored, 1))[0]) > 0


@pytest.mark.needs("criu")
async def test_established_connections(client: Runc, images: Path, prepare: Prepare) -> None:
    """A container with a TCP connection is dumped if that is asked for, and else criu names the option."""
    script = "nc -l -p 7000 -e cat & sleep 0.3; while :; do echo x; usleep 10000; done | nc 127.0.0.1 7000"
    name, bundle = prepare(["sh", "-c", script])
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        await lines(container, 1)
        with pytest.raises(CheckpointError) as caught:
            await container.checkpoint(images / "1")
        assert "tcp-established" in caught.value.__notes__[0]
        await container.checkpoint(images / "2", tcp_established=True, leave_running=True)
        await lines(container, 2)


@pytest.mark.parametrize("kind", ["apparmor", "selinux"])
@pytest.mark.needs("criu")
async def test_security_modules(client: Runc, images: Path, prepare: Prepare, kind: str) -> None:
    """Profile and context reach criu, which says so where the kernel has no such module."""
    name, bundle = prepare(COUNTER)
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        await container.checkpoint(images)
    if not Path("/sys/kernel/security/apparmor").exists() and not Path("/sys/fs/selinux/enforce").exists():
        with pytest.raises(CheckpointError) as caught:
            await client.restore(name, bundle, images, detach=True, lsm_profile=f"{kind}:a_u:a_r:a_t:s0")
        assert f"{kind} LSM specified" in caught.value.__notes__[0]
    context = "system_u:object_r:a_t:s0"
    async with client.open_restored(name, bundle, images, io=PipedIO(), grace=0, lsm_mount_context=context) as restored:
        await lines(restored, 1)


async def test_a_page_server(client: Runc, images: Path, prepare: Prepare, pipe: tuple[int, int]) -> None:
    """The memory goes to a page server, which adds it to the images, and nowhere else; then they are whole."""
    (name, bundle), (reading, writing) = prepare(COUNTER), pipe
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    program = shutil.which("criu", path=criu.search_path())
    assert program is not None
    elsewhere = images / "elsewhere"
    elsewhere.mkdir()
    words = ("page-server", "--images-dir", elsewhere, "--address", "127.0.0.1", "--port", port)
    server = await asyncio.create_subprocess_exec(
        program, *words, "--status-fd", str(writing), "--log-file", "server.log", pass_fds=(writing,)
    )
    try:
        assert await heard(reading, b"\0") == b"\0"
        async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
            await lines(container, 1)
            await container.checkpoint(images / "here", page_server=f"127.0.0.1:{port}")
        async with asyncio.timeout(20):
            assert await server.wait() == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
    assert not list((images / "here").glob("pages-*.img"))
    for pages in elsewhere.glob("page*.img"):
        shutil.copy2(pages, images / "here")
    async with client.open_restored(name, bundle, images / "here", io=PipedIO(), grace=0) as restored:
        assert int((await lines(restored, 1))[0]) > 0


# criu restores the cgroups of v1 hierarchies that exist, mounted or not, and fails at those runc has not made.
@pytest.mark.needs("cpu controller")
@pytest.mark.parametrize("mode", ["soft", "full", "strict", "ignore"])
async def test_manage_cgroups_mode(
    client: Runc,
    images: Path,
    prepare: Prepare,
    mode: CgroupsMode,
) -> None:
    """All ways of dealing with cgroups are taken where the runtime has them."""
    if mode == "ignore" and not await client.supports("restore --manage-cgroups-mode ignore"):
        pytest.skip("this runtime manages cgroups in any case")
    name, bundle = prepare(COUNTER)
    async with client.open_container(name, bundle, io=PipedIO()) as container:
        await container.checkpoint(images, manage_cgroups_mode=mode)
    if mode == "strict":  # then criu wants to find no cgroup, and runc 1.3 makes one before
        mode = "soft"
    async with client.open_restored(name, bundle, images, io=PipedIO(), grace=0, manage_cgroups_mode=mode) as restored:
        await lines(restored, 1)


# cancelling


@pytest.mark.proof(every=5)
@pytest.mark.parametrize("seconds", MOMENTS)
async def test_a_cancelled_restore(client: Runc, images: Path, prepare: Prepare, seconds: float) -> None:
    """A restore that is cancelled at any moment leaves nothing, however it was called, and the id is free."""
    name, bundle = prepare(["sleep", "60"])
    async with client.open_container(name, bundle) as container:
        await container.checkpoint(images)

    async def opened() -> None:
        async with client.open_restored(name, bundle, images, grace=0):
            await anyio.sleep_forever()

    for restore in (lambda: client.restore(name, bundle, images, detach=True), opened):
        with anyio.move_on_after(seconds) as scope:
            await restore()
        if not scope.cancelled_caught:
            await client.delete(name, force=True)
        assert await client.list() == []
        assert leaks.left_on_host(name) == []
    async with client.open_restored(name, bundle, images, grace=0) as restored:
        assert (await restored.state()).status == Status.RUNNING


@pytest.mark.needs("forwarded signals")
async def test_a_restore_out_of_time(client: Runc, images: Path, prepare: Prepare, pipe: tuple[int, int]) -> None:
    """A foreground restore is stopped with its process, which may end in its own way, and has the output so far."""
    script = "trap 'echo bye; exit 0' TERM; echo ready; sleep 60 & wait"
    (name, bundle), (reading, writing) = prepare(["sh", "-c", script]), pipe
    await client.run(name, bundle, detach=True, io=RedirectIO(stdout=writing))
    await heard(reading)
    await client.checkpoint(name, images)
    with pytest.raises(RuncTimeout) as caught:
        await client.restore(name, bundle, images, timeout=1)
    assert caught.value.stdout == b"bye\n"
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


@pytest.fixture
async def dumped(client: Runc, images: Path, prepare: Prepare, scratch: Path) -> AsyncIterator[tuple[str, Path, Path]]:
    """Return an id, the bundle that the images were made of, and a root filesystem that no other bundle has."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        root = Path(directory, "rootfs")
        containers.make_rootfs(root)
        name, bundle = prepare(["sleep", "60"], root={"path": str(root)})
        async with client.open_container(name, bundle) as container:
            await container.checkpoint(images)
        yield name, bundle, root


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("how", ["detached", "opened", "in the foreground"])
@pytest.mark.needs("criu")
async def test_a_restore_that_hangs(  # noqa: PLR0917 - the fixtures
    client: Runc,
    make_client: Callable[[str], Runc],
    images: Path,
    dumped: tuple[str, Path, Path],
    stuck: Stuck,
    how: str,
) -> None:
    """What a criu that has to be killed leaves is named, and no file of the container's is touched; the id is free."""
    (name, bundle, root), hanging = dumped, make_client(stuck.path)
    files = sorted(root.rglob("*"))

    async def opened() -> None:
        async with hanging.open_restored(name, bundle, images, work_path=stuck.work):
            pytest.fail("there is nothing to open")

    async def restored() -> None:
        await hanging.restore(name, bundle, images, work_path=stuck.work, detach=how == "detached", grace=1)

    restore = asyncio.create_task(opened() if how == "opened" else restored())
    await stuck.asked()
    restore.cancel()
    with pytest.raises(asyncio.CancelledError), pytest.warns(CleanupWarning, match="cgyard.stuck"):
        await restore
    stuck.unmount()
    assert sorted(root.rglob("*")) == files
    assert leaks.left_on_host(name) == []
    async with client.open_restored(name, bundle, images, grace=0) as again:
        assert (await again.state()).status == Status.RUNNING


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "somebody else's"])
@pytest.mark.needs("criu")
async def test_a_restore_whose_runc_is_killed(  # noqa: PLR0917 - the fixtures
    client: Runc,
    make_client: Callable[[str], Runc],
    runtime: Runtime,
    root: Path,
    images: Path,
    dumped: tuple[str, Path, Path],
    stuck: Stuck,
    ours: bool,  # noqa: FBT001
) -> None:
    """It leaves the root filesystem mounted in the directory that a deletion empties; not a file of it is lost."""
    name, bundle, directory = dumped
    files = sorted(directory.rglob("*"))
    hanging = make_client(stuck.path)
    words = (runtime.command, "--root", root, "restore", "--detach", "--bundle", bundle, "--image-path", images)

    async def our_own() -> None:
        with pytest.raises(RuncCrashed), pytest.warns(CleanupWarning, match="cgyard.stuck"):
            await hanging.restore(name, bundle, images, work_path=stuck.work, detach=True)

    async def another() -> None:
        environment = {**os.environ, "PATH": stuck.path}
        process = await asyncio.create_subprocess_exec(*words, "--work-path", stuck.work, name, env=environment)
        await process.wait()
        await client.delete(name, force=True)
        assert await remove_cgroups(name) == []  # no command of runc's knows of them

    restore = asyncio.create_task(our_own() if ours else another())
    helper = await stuck.asked()
    assert (root / name / "criu-root" / "bin").is_dir()
    runc = int(Path(f"/proc/{helper}/stat").read_text().split()[3])
    os.kill(runc, signal.SIGKILL)
    os.kill(helper, signal.SIGKILL)  # a criu that is at work gives up by itself
    await restore
    stuck.unmount()
    assert sorted(directory.rglob("*")) == files
    assert not (root / name).exists()
    assert leaks.left_on_host(name) == []
    async with client.open_restored(name, bundle, images, grace=0) as again:
        assert (await again.state()).status == Status.RUNNING


@pytest.mark.proof(every=5)
@pytest.mark.parametrize("seconds", MOMENTS)
async def test_a_cancelled_checkpoint(client: Runc, images: Path, prepare: Prepare, seconds: float) -> None:
    """A checkpoint that is cancelled at any moment is done, or not, and never half."""
    name, bundle = prepare(COUNTER)
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        with anyio.move_on_after(seconds):
            await container.checkpoint(images)
        if await client.list():
            assert (await container.state()).status == Status.RUNNING
            await lines(container, 3)
            return
    async with client.open_restored(name, bundle, images, grace=0, io=PipedIO()) as restored:
        await lines(restored, 1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.needs("criu")
async def test_a_checkpoint_that_has_to_be_ended(client: Runc, images: Path, prepare: Prepare) -> None:
    """If runc is ended in the middle, criu gives up, and the container goes on."""
    script = "x=$(dd if=/dev/zero bs=1M count=200 2>/dev/null | tr '\\0' a); " + COUNTER[2]
    name, bundle = prepare(["sh", "-c", script])
    async with client.open_container(name, bundle, io=PipedIO(), grace=0) as container:
        await lines(container, 1)
        checkpoint = asyncio.create_task(container.checkpoint(images))
        while not list(images.glob("pages-*.img")):  # noqa: ASYNC110 - criu tells nobody that it writes the memory now
            await asyncio.sleep(0.002)
        checkpoint.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checkpoint
        assert (await container.state()).status == Status.RUNNING
        await lines(container, 3)
    assert leaks.left_on_host(name) == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.needs("criu")
async def test_lazy_pages(client: Runc, images: Path, prepare: Prepare, pipe: tuple[int, int], prefix: str) -> None:
    """With lazy pages a byte on `status_fd` tells that criu serves them; nobody fetches them, and criu is ended."""
    reading, writing = pipe
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with client.open_container(*prepare(COUNTER), io=PipedIO(), grace=0) as container:
        checkpoint = asyncio.create_task(
            container.checkpoint(
                images, lazy_pages=True, page_server=f"127.0.0.1:{port}", status_fd=writing, timeout=None
            )
        )
        assert await heard(reading, b"\0") == b"\0"
        assert not checkpoint.done()
        checkpoint.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checkpoint
        assert not [process for process in leaks.processes(prefix) if "criu" in process]


@pytest.mark.needs("criu")
async def test_a_mount_of_runc_itself(client: Runc, images: Path, prepare: Prepare, root: Path, tmp_path: Path) -> None:
    """What an `exec` that was killed has left mounted doesn't keep a checkpoint from freeing the container's id."""
    name, bundle = prepare(["sleep", "1000"])
    program = tmp_path / "program"
    program.touch()
    await client.run(name, bundle, detach=True)
    place = root / name / "runc.aSr41G"
    place.touch()
    subprocess.run(["/bin/mount", "--bind", program, place], check=True)  # noqa: ASYNC221 - it is short
    await client.checkpoint(name, images)
    assert not (root / name).exists()
    await client.restore(name, bundle, images, detach=True)
    await client.delete(name, force=True)
