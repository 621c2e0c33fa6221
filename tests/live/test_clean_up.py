"""What the clean-up of a container does when others act at the same time: signals, hooks, other calls, full pipes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import containers
import leaks
import msgspec
import pytest

from runc_async import client as client_module, container as container_module
from runc_async._client import calls, checkpoints, lifecycle, undo
from runc_async._client.calls import LET_FINISH
from runc_async._containers.leftovers import _places  # pyright: ignore[reportPrivateUsage] - where runc makes them
from runc_async.client import Runc
from runc_async.errors import CleanupWarning, RuncTimeout
from runc_async.state import Status
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

pytestmark = pytest.mark.runc

PRINTS_ON_SIGTERM = ["sh", "-c", "trap 'head -c 300000 /dev/zero; exit 7' TERM; echo ready; sleep 60 & wait"]

SERVICE = """\
import asyncio, signal, sys
from runc_async import Runc

async def main(command, root, name, bundle):
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    async with Runc(command, root=root).open_container(name, bundle, grace=0):
        pass

try:
    asyncio.run(main(*sys.argv[1:]))
except (KeyboardInterrupt, asyncio.CancelledError):
    pass
"""
"""A service that opens a container and leaves it at once, with SIGTERM as a cancel."""

FIRST_PROCESS = """\
import asyncio, glob, os, sys
from runc_async import Runc

async def main(command, root, bundle, *names):
    for number, name in enumerate(names):
        try:
            async with asyncio.timeout(0.01 * (number + 1)):
                await Runc(command, root=root).create(name, bundle)
        except TimeoutError:
            pass
        else:
            await Runc(command, root=root).delete(name, force=True)

asyncio.run(main(*sys.argv[1:]))
assert os.getpid() == 1
for path in glob.glob("/proc/[0-9]*/stat"):
    with open(path) as file:
        if file.read().rpartition(")")[2].split()[0] == "Z":
            print(path)
"""
"""A program that cancels creations, and prints the zombies that it is left with as process 1."""


async def test_the_id_of_a_block_is_taken_by_another(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """Leaving a block doesn't delete a container of the same id that was made by others in the meantime."""
    name, bundle = container_id(), make_bundle(["sleep", "60"])
    async with client.open_container(name, bundle):
        await client.delete(name, force=True)
        await client.create(name, bundle)
        before = await client.state(name)
    assert await client.state(name) == before
    assert before.status == Status.CREATED


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_during_clean_up(  # noqa: PLR0917  (each is a fixture)
    runtime: Runtime, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str], signum: int, tmp_path: Path
) -> None:
    """A signal to the process group that ends the runtime process of a deletion leaves no container."""
    name, gate = container_id(), tmp_path / "gate"
    os.mkfifo(gate)
    slow = tmp_path / "slow"
    # The first deletion waits here for the signal; those that follow go on at once.
    slow.write_text(f"""#!/bin/sh
for word; do
    if [ "$word" = delete ] && mkdir {tmp_path}/once 2>/dev/null; then echo deleting >{gate}; exec sleep 60; fi
done
exec {runtime.command} "$@"
""")
    slow.chmod(0o755)
    argv = [sys.executable, "-c", SERVICE, str(slow), str(root), name, str(make_bundle(["sleep", "60"]))]
    with subprocess.Popen(argv, start_new_session=True) as service:
        try:
            assert gate.read_text() == "deleting\n"
            os.killpg(service.pid, signum)
            assert service.wait(60) == 0
        finally:
            service.kill()
    assert list(leaks.containers(root)) == []
    assert leaks.left_on_host(name) == []


async def start(client: Runc, name: str, bundle: Path) -> None:
    """Create a container, and start it, with a time limit: runc 1.1 runs the hook for it when it creates."""
    await client.create(name, bundle, timeout=2)
    await client.start(name, timeout=1)


async def delete(client: Runc, name: str, bundle: Path) -> None:
    """Create a container, and delete it with a time limit."""
    await client.create(name, bundle)
    await client.delete(name, force=True, timeout=1)


async def open_in_time(client: Runc, name: str, bundle: Path) -> None:
    """Open a container with a time limit."""
    async with client.open_container(name, bundle, timeout=2):
        pass


async def leave_a_block(client: Runc, name: str, bundle: Path) -> None:
    """Open a container, and leave the block."""
    async with client.open_container(name, bundle, grace=0):
        pass


async def create(client: Runc, name: str, bundle: Path) -> None:
    """Create a container with a time limit."""
    await client.create(name, bundle, timeout=2)


async def run(client: Runc, name: str, bundle: Path) -> None:
    """Run a container with a time limit."""
    await client.run(name, bundle, timeout=2, grace=0.2)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runtimes that change something have less time to finish."""
    quick = msgspec.structs.replace(LET_FINISH, patience=0.1, grace=0.5)
    for module in (calls, checkpoints, client_module, lifecycle, undo):
        monkeypatch.setattr(module, "LET_FINISH", quick, raising=False)
    monkeypatch.setattr(container_module, "DELETE_TIMEOUT", 2.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.proof(every=3)
@pytest.mark.parametrize(
    ("kind", "call", "expected"),
    [
        ("prestart", create, pytest.raises(RuncTimeout)),
        ("prestart", open_in_time, pytest.raises(RuncTimeout)),
        ("prestart", run, pytest.raises(RuncTimeout)),
        ("poststart", start, pytest.raises(RuncTimeout)),
        ("poststart", open_in_time, pytest.raises(RuncTimeout)),
        ("poststop", delete, pytest.raises(RuncTimeout)),
        ("poststop", leave_a_block, pytest.warns(CleanupWarning, match="may be left behind")),
    ],
    ids=["create", "open", "run", "start", "open and start", "delete", "leave a block"],
)
async def test_a_hook_that_hangs(  # noqa: PLR0917  (each is a fixture)
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    tmp_path: Path,
    kind: str,
    call: Callable[[Runc, str, Path], Awaitable[object]],
    expected: AbstractContextManager[object],
) -> None:
    """A hook that hangs, and what it has started, ends with the call that runs out of time."""
    started = tmp_path / "started"
    script = f"sleep 60 & echo $$ $! >>{started}; wait"
    hooks = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    name = container_id()
    with expected:
        await call(client, name, make_bundle(["sleep", "60"], hooks=hooks))
    async with asyncio.timeout(20):
        for pid in map(int, started.read_text().split()):
            await containers.ended(pid)
    if call is start:  # where it hung, the container is there still
        await client.delete(name, force=True)
    assert await client.list() == []
    assert leaks.left_on_host(name) == []


async def test_a_cgroup_of_another_root(  # noqa: PLR0917  (each is a fixture)
    client: Runc,
    runtime: Runtime,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    tmp_path: Path,
    impatient: None,
) -> None:
    """A container of the same id under another root directory has the same cgroups: they are not named as left."""
    del impatient
    name = container_id()
    hangs = tmp_path / "hangs"
    hangs.write_text(f"""#!/bin/sh
for word; do [ "$word" = create ] && exec sleep 60; done
exec {runtime.command} "$@"
""")
    hangs.chmod(0o755)
    bundle = make_bundle(["sleep", "60"])
    async with client.open_container(name, bundle, grace=0) as container:
        places = [path for path in _places(name, Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")) if path.exists()]
        assert places
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuncTimeout):
                await Runc(str(hangs), root=tmp_path / "root").create(name, bundle, timeout=1)
        assert (await container.state()).status == Status.RUNNING
        assert [path for path in places if path.exists()] == places
        await client.delete(name, force=True)  # a sandbox may need longer than an impatient block has


async def test_output_while_a_block_is_left(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A program that prints 300 kB on SIGTERM ends in its own way, though no task reads: its output is discarded."""
    async with client.open_container(
        container_id(), make_bundle(PRINTS_ON_SIGTERM), io=PipedIO(), grace=30
    ) as container:
        assert container.stdout is not None
        assert await container.stdout.receive() == b"ready\n"
    assert (await container.wait()).exit_code == 7


async def test_output_while_an_exec_is_left(client: Runc, make_container: MakeContainer) -> None:
    """The same holds for one more process in a container, whose output goes through runc."""
    name = await make_container()
    async with client.open_exec(name, PRINTS_ON_SIGTERM, io=PipedIO(), grace=20) as process:
        assert process.stdout is not None
        assert await process.stdout.receive() == b"ready\n"
    assert (await process.wait()).code == 7


def test_cancelled_creations_as_process_1(
    runtime: Runtime, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """As process 1 of a pid namespace, without `subreaper()`, cancelled creations leave no zombie."""
    names = [container_id() for _ in range(8)]
    program = [
        sys.executable,
        "-c",
        FIRST_PROCESS,
        runtime.command,
        str(root),
        str(make_bundle(["sleep", "60"])),
        *names,
    ]
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *program]
    assert subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=60).stdout == b""
    assert list(leaks.containers(root)) == []
