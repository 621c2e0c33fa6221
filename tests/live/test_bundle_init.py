"""Containers whose first process is an init."""

from __future__ import annotations

import asyncio
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
from containers import heard

from runc_async._bundles.init import KNOWN
from runc_async.bundle import Bundle
from runc_async.spec import Spec
from runc_async.stdio import PipedIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runtime import Runtime

    from runc_async.client import Runc
    from runc_async.container import Container

pytestmark = [
    pytest.mark.runc,
    pytest.mark.skipif(not shutil.which("tini-static"), reason="needs tini-static"),
]

EXECS = 30


async def zombies(container: Container) -> list[str]:
    """List the zombies in a container."""
    script = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null || true"
    return (await container.exec(["sh", "-c", script])).output.split()


@pytest.mark.parametrize(
    ("script", "code"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("none", 127)]
)
async def test_exit_codes_are_kept(
    *, script: str, code: int, client: Runc, runtime: Runtime, container_id: Callable[[], str]
) -> None:
    """The program's exit code is the container's; its end by signal n is code 128+n; without a program it is 127.

    runsc reports an end by a signal as 128+n too, so that the init's exit code can't be told from that.
    """
    args = ["sh", "-c", script] if script != "none" else ["no-such-program"]
    async with Bundle.busybox(args, init=True) as bundle:
        assert (await client.run(container_id(), bundle)).exit_code == code
        async with client.open_container(container_id(), bundle) as container:
            status = await container.wait()
            signalled = runtime.is_sandbox and code > 128
            ends = (None, code - 128) if signalled else (code, None)
            assert (status.code, status.signal) in {ends, (None, None)}  # the latter on old kernels


@pytest.mark.parametrize("init", KNOWN)
async def test_each_init_reaps(init: str, client: Runc, container_id: Callable[[], str]) -> None:
    """What background processes of programs leave behind is reaped; without an init it stays."""
    path = shutil.which(init)
    if path is None or path.endswith("dumb-init"):
        pytest.skip("not here, or not a static one")
    left: dict[bool | str, int] = {}
    for choice in (False, path):
        async with (
            Bundle.busybox(["sleep", "100"], init=choice) as bundle,
            client.open_container(container_id(), bundle) as container,
        ):
            for _ in range(3):
                await container.exec(["sh", "-c", "(sh -c 'exit 3' &) ; true"], check=True)
            # The last process to be reaped may be a moment behind; a fourth command comes later than that.
            left[choice] = len(await zombies(container)) if choice is False else await count_until_none(container)
    assert left[False] > 0
    assert left[path] == 0


async def count_until_none(container: Container) -> int:
    """Look for zombies until there are none, some times at most."""
    found: list[str] = []
    for _ in range(20):
        found = await zombies(container)
        if not found:
            break
    return len(found)


async def test_signals_are_passed_on(client: Runc, container_id: Callable[[], str]) -> None:
    """A signal to the container arrives at the program, and what that ends with is its status."""
    script = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    async with (
        Bundle.busybox(["sh", "-c", script], init=True) as bundle,
        client.open_container(container_id(), bundle, io=PipedIO()) as container,
    ):
        assert container.stdout
        await heard(container.stdout.fileno(), b"ready\n")
        await container.kill(signal.SIGUSR1)
        assert b"got" in await heard(container.stdout.fileno(), b"got\n")
        assert (await container.wait()).code in {5, None}


@pytest.mark.needs("memory controller")
async def test_a_program_that_was_killed_for_memory(client: Runc, container_id: Callable[[], str]) -> None:
    """`oom_killed` is true though it is not the first process that the kernel has killed, and false without a kill."""
    hungry = "x=12345678; while :; do x=$x$x; done"
    for script, killed in ((f"sh -c '{hungry}'", True), (f"exec sh -c '{hungry}'", True), ("exit 9", False)):
        spec = Spec.default().limit_memory(20 << 20).set_root("rootfs", readonly=False)
        async with (
            Bundle.busybox(["sh", "-c", script], spec=spec, init=True) as bundle,
            client.open_container(container_id(), bundle) as container,
        ):
            status = await container.wait()
            assert status.oom_killed is killed
            assert status.code in {137 if killed else 9, None}


async def test_the_number_of_processes_is_flat(client: Runc, container_id: Callable[[], str]) -> None:
    """Programs that leave a background process each leave nothing once that has ended."""
    async with (
        Bundle.busybox(["sleep", "100"], init=True) as bundle,
        client.open_container(container_id(), bundle) as container,
    ):
        for _ in range(EXECS):
            await container.exec(["sh", "-c", "sleep 0.01 & exit 0"], check=True)
        assert await count_until_none(container) == 0
        assert len(await container.ps()) <= 3  # the init, its sleep, and perhaps the last one's child


@pytest.mark.needs("user namespaces")
async def test_a_user_namespace(client: Runc, container_id: Callable[[], str], scratch: Path) -> None:
    """The init is there in a user namespace too, and with a root filesystem that is read-only."""
    spec = Spec.default().map_uids(0, 100_000, 65_536).map_gids(0, 100_000, 65_536).set_root("rootfs", readonly=True)
    async with Bundle.busybox(["cat", "/proc/1/cmdline"], spec=spec, directory=scratch, init=True) as bundle:
        bundle.path.chmod(0o711)
        (await asyncio.to_thread(scratch.chmod, 0o711))
        response = await client.run(container_id(), bundle)
        assert response.stdout.startswith(b"/dev/init\0"), response.output


async def test_without_a_pid_namespace(client: Runc, container_id: Callable[[], str]) -> None:
    """The init reaps also where it isn't process 1, and says nothing about that."""
    spec = Spec.default().remove_namespace("pid").set_root("rootfs", readonly=False)
    async with Bundle.busybox(["sh", "-c", "exit 4"], spec=spec, init=True) as bundle:
        response = await client.run(container_id(), bundle)
        assert (response.exit_code, response.output) == (4, "")
