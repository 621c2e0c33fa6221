"""The commands that change a container, with their options, on a real runtime and seen from inside."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from containers import ended, heard

from runc_async._client.calls import DRAIN_TIMEOUT
from runc_async.errors import ContainerNotFound, ContainerRunning
from runc_async.spec import LinuxCPU, LinuxMemory, LinuxPids, LinuxResources
from runc_async.state import Status
from runc_async.stdio import CapturedIO, RedirectIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from containers import MakeBundle, MakeContainer

    from runc_async.client import Runc

pytestmark = pytest.mark.runc

USER_MOUNTS = {"proc": "proc", "dev": "tmpfs"}
TRAPPING = ["sh", "-c", "trap 'echo heard; exit 3' TERM; echo ready; sleep 60 & wait"]


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    """Return an empty directory with a short path."""
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


def listening(path: Path) -> socket.socket:
    """Listen on an AF_UNIX socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.setblocking(False)
    return listener


async def received(listener: socket.socket) -> tuple[bytes, int]:
    """Accept one peer, and return what it says and the descriptor that comes with it."""
    peer, _ = await asyncio.get_running_loop().sock_accept(listener)
    with peer:
        await anyio.wait_readable(peer)
        data, ancillary, _, _ = peer.recvmsg(100, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    return data, fds[0]


async def test_a_life(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A container is created, started, killed and deleted, and is known until then."""
    name = container_id()
    response = await client.create(name, make_bundle(["sleep", "60"]))
    assert (response.exit_code, response.stdout) == (0, b"")
    created = await client.state(name)
    assert created.status == Status.CREATED
    await client.start(name)
    running = await client.state(name)
    assert (running.status, running.pid) == (Status.RUNNING, created.pid)
    await client.kill(name, signal.SIGKILL)
    await ended(created.pid)
    assert (await client.state(name)).status == Status.STOPPED
    await client.delete(name)
    with pytest.raises(ContainerNotFound):
        await client.state(name)


async def test_the_process_waits_for_start(client: Runc, make_container: MakeContainer, pipe: tuple[int, int]) -> None:
    """Nothing of the program runs before `start`, and its streams are those given to `create`."""
    reading, writing = pipe
    name = await make_container(Status.CREATED, ["echo", "hello"], RedirectIO(stdout=writing))
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)
    await client.start(name)
    assert await heard(reading) == b"hello\n"


async def test_files_take_the_output(client: Runc, make_container: MakeContainer, folder: Path) -> None:
    """Stdin comes from a file, and stdout and stderr go to one."""
    (folder / "in").write_text("from a file\n")
    streams = RedirectIO(stdin=folder / "in", stdout=folder / "out", stderr=folder / "out")
    name = await make_container(Status.CREATED, ["sh", "-c", "cat; echo wrong >&2"], streams)
    pid = (await client.state(name)).pid
    await client.start(name)
    await ended(pid)
    assert (folder / "out").read_text() == "from a file\nwrong\n"


async def test_create_does_not_wait_for_the_container(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """`create` ends with runc, though the container holds the captured pipes for as long as it lives."""
    name, bundle = container_id(), make_bundle(["sleep", "60"])
    before = time.monotonic()
    await client.create(name, bundle, io=CapturedIO())
    assert time.monotonic() - before < DRAIN_TIMEOUT
    assert (await client.state(name)).status == Status.CREATED


async def test_pid_file(
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file holds the pid of the container's process, and a relative path is the caller's own."""
    name, bundle = container_id(), make_bundle(["sleep", "60"])
    monkeypatch.chdir(folder)
    await client.create(name, bundle, pid_file="pid")
    assert int((folder / "pid").read_text()) == (await client.state(name)).pid


async def test_no_pivot(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Without pivot_root(2) the container has its own root file system all the same."""
    response = await client.run(container_id(), make_bundle(["ls", "/"]), no_pivot=True)
    assert response.stdout.split() == b"bin dev etc proc root sys tmp".split()


@pytest.mark.needs("create --no-new-keyring")
@pytest.mark.parametrize("kept", [False, True])
async def test_no_new_keyring(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], *, kept: bool
) -> None:
    """The container gets a session keyring named after it, unless it shall keep the caller's."""
    name = container_id()
    bundle = make_bundle(["cat", "/proc/keys"], linux={"maskedPaths": []})
    response = await client.run(name, bundle, no_new_keyring=kept)
    assert (name in response.output) is not kept


async def test_preserve_fds(
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    pipe: tuple[int, int],
    folder: Path,
) -> None:
    """Descriptors of any number arrive as 3 and 4, in their order, and nothing else does."""
    reading, writing = pipe
    name, script = container_id(), "echo $(ls /proc/self/fd) >&4; cat <&3 >&4"
    with (folder / "lent").open("w+") as lent:
        lent.write("lent\n")
        lent.seek(0)
        await client.create(name, make_bundle(["sh", "-c", script]), preserve_fds=[lent, writing])
    await client.start(name)
    # 5 is the directory that ls itself has open
    assert await heard(reading, b"lent\n") == b"0 1 2 3 4 5\nlent\n"


async def test_console_socket(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], folder: Path
) -> None:
    """A listening socket gets the terminal of a process that wants one."""
    name = container_id()
    bundle = make_bundle(["sh", "-c", "test -t 0 && echo a terminal; sleep 60"], process={"terminal": True})
    with listening(folder / "console") as listener:
        async with asyncio.TaskGroup() as group:
            terminal = group.create_task(received(listener))
            await client.create(name, bundle, console_socket=folder / "console")
    _, master = terminal.result()
    try:
        await client.start(name)
        assert await heard(master) == b"a terminal\r\n"
    finally:
        os.close(master)


@pytest.mark.needs("create --pidfd-socket")
async def test_pidfd_socket(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], folder: Path
) -> None:
    """A listening socket gets a pidfd of the container's process."""
    name = container_id()
    with listening(folder / "pidfd") as listener:
        async with asyncio.TaskGroup() as group:
            message = group.create_task(received(listener))
            await client.create(name, make_bundle(["sleep", "60"]), pidfd_socket=folder / "pidfd")
    said, pidfd = message.result()
    try:
        assert said == b"standard"
        pid = (await client.state(name)).pid
        assert f"Pid:\t{pid}\n" in Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("signum", [15, signal.SIGTERM, "TERM", "SIGTERM", "sigterm", "15"])
async def test_kill_takes_numbers_and_names(
    client: Runc, make_container: MakeContainer, pipe: tuple[int, int], signum: int | str
) -> None:
    """A signal by number or name reaches the handler of the container's process."""
    reading, writing = pipe
    name = await make_container(args=TRAPPING, io=RedirectIO(stdout=writing))
    await heard(reading, b"ready\n")
    await client.kill(name, signum)
    assert await heard(reading) == b"heard\n"


async def test_kill_sends_sigterm(client: Runc, make_container: MakeContainer, pipe: tuple[int, int]) -> None:
    """Without a signal it is SIGTERM."""
    reading, writing = pipe
    name = await make_container(args=TRAPPING, io=RedirectIO(stdout=writing))
    await heard(reading, b"ready\n")
    await client.kill(name)
    assert await heard(reading) == b"heard\n"


async def test_kill_all_of_a_stopped_container(client: Runc, make_container: MakeContainer) -> None:
    """With `all` a stopped container is no error."""
    await client.kill(await make_container(Status.STOPPED), "KILL", all=True)


async def test_delete_by_force(client: Runc, make_container: MakeContainer, container_id: Callable[[], str]) -> None:
    """A running container is deleted by force only, its process killed; an unknown one is then no error."""
    name = await make_container()
    pid = (await client.state(name)).pid
    with pytest.raises(ContainerRunning):
        await client.delete(name)
    await client.delete(name, force=True)
    await ended(pid)
    assert await client.list() == []
    await client.delete(container_id(), force=True)


async def test_pause_and_resume(client: Runc, make_container: MakeContainer, pipe: tuple[int, int]) -> None:
    """Paused processes stand still, and go on when resumed."""
    reading, writing = pipe
    counting = ["sh", "-c", "while :; do echo; usleep 10000; done"]
    name = await make_container(args=counting, io=RedirectIO(stdout=writing))
    await heard(reading)
    await client.pause(name)
    assert (await client.state(name)).status == Status.PAUSED
    os.set_blocking(reading, False)
    with contextlib.suppress(BlockingIOError):
        os.read(reading, 1 << 16)
    with pytest.raises(TimeoutError):
        await heard(reading, seconds=0.1)
    await client.resume(name)
    assert (await client.state(name)).status == Status.RUNNING
    assert await heard(reading)


@pytest.mark.needs("memory controller")
@pytest.mark.needs("pids controller")
@pytest.mark.needs("cpu controller")
async def test_update(client: Runc, make_container: MakeContainer) -> None:
    """New limits are those of the cgroup of the container's process, and the others stay."""
    name = await make_container()
    memory = LinuxMemory(limit=64 << 20)
    await client.update(name, LinuxResources(pids=LinuxPids(limit=17), memory=memory, cpu=LinuxCPU(shares=512)))
    await client.update(name, LinuxResources(pids=LinuxPids(limit=18)))
    pid = (await client.state(name)).pid
    limits = [own_cgroup(pid, "pids", "pids.max"), own_cgroup(pid, "memory", "memory.limit_in_bytes")]
    assert [*limits, own_cgroup(pid, "cpu", "cpu.shares")] == ["18", str(64 << 20), "512"]


def own_cgroup(pid: int, controller: str, file: str) -> str:
    """Read a file of the cgroup that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{file}").read_text().strip()
    pytest.skip(f"this host has no cgroup v1 controller {controller}")


@pytest.mark.needs("user namespaces")
async def test_a_user_namespace(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], rootfs: Path, prefix: str
) -> None:
    """A container whose root is nobody on the host is created, and has its streams and its exec."""
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "user")]
    mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    linux = {"namespaces": namespaces, "uidMappings": mapping, "gidMappings": mapping}
    mounts = [{"destination": f"/{name}", "type": kind, "source": kind} for name, kind in USER_MOUNTS.items()]
    with tempfile.TemporaryDirectory(prefix=prefix, dir="/tmp") as directory:
        # Who is root inside has to get through all directories above the root file system.
        outside = Path(directory)
        outside.chmod(0o711)
        copied = await asyncio.create_subprocess_exec("cp", "-a", rootfs, outside / "rootfs")
        assert await copied.wait() == 0
        root = {"path": str(outside / "rootfs"), "readonly": False}
        bundle = make_bundle(["sleep", "60"], linux=linux, mounts=mounts, root=root)
        name = container_id()
        await client.create(name, bundle)
        await client.start(name)
        response = await client.exec(name, ["sh", "-c", "id -u; cat /proc/self/uid_map; cat"], input=b"fed")
        assert response.output.split() == ["0", "0", "100000", "65536", "fed"]
        assert os.stat(f"/proc/{(await client.state(name)).pid}").st_uid == 100000
        await client.delete(name, force=True)


@pytest.mark.parametrize("variable", ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"])
async def test_the_service_managers_variables(
    client: Runc, make_container: MakeContainer, monkeypatch: pytest.MonkeyPatch, folder: Path, variable: str
) -> None:
    """What a service manager has put into the caller's environment doesn't hold a container up."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(folder / "notify"))
        monkeypatch.setenv(variable, str(folder / "notify") if variable == "NOTIFY_SOCKET" else "1")
        async with asyncio.timeout(10):
            name = await make_container()
            response = await client.exec(name, ["env"])
    assert variable not in response.output
