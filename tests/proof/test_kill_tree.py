"""All that an exec has started ends with it, wherever it stands by then, and however the exec is cut short."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import anyio
import proof
import pytest
import sandboxes
from containers import heard
from waiting import until

from runc_async import Bundle, PipedIO, RedirectIO, Runc, RuncTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from containers import MakeBundle
    from runtime import Runtime

pytestmark = [
    pytest.mark.runc,
    pytest.mark.root,
    pytest.mark.needs("pids controller"),
    pytest.mark.timeout(600),
]

TRIES = proof.amount(20, 2)
"""How often each is tried; half as often in a sandbox."""

EXECS = proof.amount(1000, 20)
"""How many execs leave a background child."""

LOOKS = proof.amount(20, 2)
"""How often the processes are counted meanwhile."""

LIMIT = 64
"""Processes of the container, at most."""

GRACE = 0.05

LONG_ENOUGH = {"host": 0.4, "sandbox": 3.0}
"""Seconds in which most trees stand."""

UP = b"up\n"

REAPER = "while :; do sleep 3600; done"
"""The first process: a shell that waits reaps all that comes to it."""

FIRST = 2
"""Processes of the container before any `exec`: the shell, and what it waits for."""

ORPHAN = "until read -r _ _ _ parent _ </proc/$$/stat; [ $parent = 1 ]; do :; done; echo up; sleep 3600; true"
"""A process that says so when it has lost its parent."""

TREES = {
    "background": "sleep 3600 & sh -c 'echo up; sleep 3600; true' & wait",
    "setsid": "setsid sh -c 'echo up; sleep 3600; true' & sleep 3600; true",
    "double fork": f"(setsid sh -c '{ORPHAN}' &) ; sleep 3600; true",
    "TERM ignored": "trap '' TERM; setsid sh -c 'echo up; sleep 3600; sleep 3600' & wait; sleep 3600",
    "fork bomb": (
        """export BOMB='BEGIN { while (1) system("awk \\"$BOMB\\" &") }'; awk "$BOMB" 2>/dev/null & """
        f"until set -- /proc/[0-9]*; [ $# -ge {LIMIT // 2} ]; do :; done; echo up; wait"
    ),
    "stopped": (
        "setsid sleep 3600 & until kill -STOP $!; read -r _ _ state _ </proc/$!/stat; [ $state = T ]; do :; done; "
        "echo up; kill -STOP $$; sleep 3600"
    ),
}
"""Ways to leave the process tree, or to be hard to end; each says `up` when all of it stands."""

BOUNDED = {"fork bomb"}
"""Those that only a limit of processes holds, and none is set in a sandbox."""


async def by_cancel(client: Runc, name: str, script: str, seconds: float) -> bool:
    """Cancel an exec whose tree stands."""
    del seconds
    return await _executed(client, name, script, None)


async def by_timeout(client: Runc, name: str, script: str, seconds: float) -> bool:
    """Let an exec run out of time; return whether its tree stood by then."""
    return await _executed(client, name, script, seconds)


async def _executed(client: Runc, name: str, script: str, timeout: float | None) -> bool:
    """Run an exec that ends in time, or is cancelled as soon as its tree stands; return whether it stood by then."""
    read, write = os.pipe()
    try:
        call = asyncio.create_task(
            client.exec(name, ["sh", "-c", script], io=RedirectIO(stdout=write), timeout=timeout, grace=GRACE)
        )
        os.set_blocking(read, False)
        if timeout is None:
            hearing = asyncio.create_task(heard(read, UP))
            await asyncio.wait((call, hearing), return_when=asyncio.FIRST_COMPLETED)
            if call.done():  # it couldn't fork: what was killed before holds the limit until it is reaped
                hearing.cancel()
                return False
            call.cancel()
        with pytest.raises(asyncio.CancelledError if timeout is None else RuncTimeout):
            await call
        return timeout is None or UP in os.read(read, len(UP))
    except BlockingIOError:
        return False
    finally:
        os.close(read)
        os.close(write)


async def by_end_of_block(client: Runc, name: str, script: str, seconds: float) -> bool:
    """Leave the block of an exec whose tree stands."""
    del seconds
    async with client.open_exec(name, ["sh", "-c", script], io=PipedIO(), grace=GRACE) as process:
        assert process.stdout is not None
        try:
            return (await process.stdout.receive()).startswith(UP)
        except anyio.EndOfStream:  # as above
            return False


WAYS = {"cancel": by_cancel, "timeout": by_timeout, "end of block": by_end_of_block}
"""Ways to be cut short."""


Members: TypeAlias = "Callable[[str], set[int]]"


@pytest.fixture
def members(runtime: Runtime, root: Path) -> Members:
    """Return a function that returns the processes of a container, without zombies, as the kernel numbers them."""

    def of_cgroup(name: str) -> set[int]:
        groups = Path("/sys/fs/cgroup/pids", name).rglob("cgroup.procs")
        return {int(pid) for group in groups for pid in group.read_text().split()}

    return (lambda name: sandboxes.processes(name, root)) if runtime.is_sandbox else of_cgroup


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "tree",
    [pytest.param(tree, marks=pytest.mark.needs("host kernel") if tree in BOUNDED else ()) for tree in TREES],
)
async def test_nothing_is_left(  # noqa: PLR0917 - the fixtures
    runtime: Runtime,
    members: Members,
    client: Runc,
    make_bundle: MakeBundle,
    container_id: Callable[[], str],
    tried: Callable[[str, int], None],
    tree: str,
    way: str,
) -> None:
    """When an exec that is cut short has returned, nothing of it runs, its cgroup is gone, and another exec goes on."""
    cut: Callable[[Runc, str, str, float], Awaitable[bool]] = WAYS[way]
    tries, seconds = (TRIES // 2, LONG_ENOUGH["sandbox"]) if runtime.is_sandbox else (TRIES, LONG_ENOUGH["host"])
    name = container_id()
    # The host would count the threads of a sandbox's kernel.
    limits = {} if runtime.is_sandbox else {"resources": {"pids": {"limit": LIMIT}}}
    bundle = make_bundle(["sh", "-c", REAPER], linux=limits)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(client.open_container(name, bundle, grace=0))
        await until(lambda: len(members(name)) == FIRST)
        other = await stack.enter_async_context(
            client.open_exec(name, ["sh", "-c", "sleep 3600 & cat"], io=PipedIO(), grace=0)
        )
        assert other.stdin is not None
        assert other.stdout is not None
        await other.stdin.send(b"hello\n")
        assert await other.stdout.receive() == b"hello\n"
        before, groups = members(name), cgroups(name)
        done = 0
        while done < tries:
            stood = await cut(client, name, TREES[tree], seconds)
            assert members(name) == before
            assert cgroups(name) == groups
            done += stood
        await other.stdin.send(b"still here\n")
        assert await other.stdout.receive() == b"still here\n"
    tried("trees of an exec, cut short", done)


def cgroups(name: str) -> set[Path]:
    """Return the cgroups of a container."""
    return {path for path in Path("/sys/fs/cgroup/pids", name).rglob("*") if path.is_dir()}


@pytest.mark.needs("host pids")
@pytest.mark.skipif(not shutil.which("tini-static"), reason="needs tini-static")
async def test_background_children_do_not_pile_up(
    client: Runc, container_id: Callable[[], str], tried: Callable[[str, int], None]
) -> None:
    """However many execs leave a background child, a container with an init has no more processes when they end."""
    name = container_id()
    counter = Path("/sys/fs/cgroup/pids", name, "pids.current")
    async with Bundle.busybox(["sleep", "3600"], init=True) as bundle, client.open_container(name, bundle, grace=0):
        await until(lambda: counter.read_text() == "2\n")  # the init and its program
        for _ in range(LOOKS):
            for _ in range(EXECS // LOOKS):
                await client.exec(name, ["sh", "-c", "sleep 0.1 >/dev/null 2>&1 &"])
            await until(lambda: counter.read_text() == "2\n")
            assert cgroups(name) == set()
    tried("execs with a background child", EXECS)
