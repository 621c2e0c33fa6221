"""What the kernel answers when a container's program is executed, on a real runtime: each failure is an error."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from runtime import has_controller

from runc_async import errors
from runc_async.stdio import NullIO, PipedIO

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.client import Runc

pytestmark = pytest.mark.runc

HEADER = struct.Struct("<4s12sHHIQQQIHHHHHH")
SEGMENT = struct.Struct("<IIQQQQQQ")
INTERPRETER, LOADED = 3, 1  # elf(5): PT_INTERP, PT_LOAD

TRIES = 150
"""Calls after which the limit of processes has been in the way of one of runc's threads: one in ten, or in two."""


def elf(interpreter: bytes) -> bytes:
    """Return a 64-bit executable, for x86 or ARM, whose dynamic loader is the given file."""
    machine = {"x86_64": 62, "aarch64": 183}[os.uname().machine]
    start = HEADER.size + 2 * SEGMENT.size
    sizes = (HEADER.size, SEGMENT.size, 2, 0, 0, 0)
    header = HEADER.pack(b"\x7fELF", b"\2\1\1" + bytes(9), 2, machine, 1, 1 << 22, HEADER.size, 0, 0, *sizes)
    interp = SEGMENT.pack(INTERPRETER, 4, start, 0, 0, len(interpreter) + 1, len(interpreter) + 1, 1)
    load = SEGMENT.pack(LOADED, 5, 0, 1 << 22, 1 << 22, 4096, 4096, 4096)
    return (header + interp + load + interpreter + b"\0").ljust(8192, b"\0")


REFUSED: dict[str, tuple[str, bytes]] = {
    "ENOTDIR": ("not a directory", b"#!/root/text/interpreter\n"),
    "ELOOP": ("too many levels of symbolic links", b"#!/root/program\n"),
    "ELIBBAD": ("accessing a corrupted shared library", elf(b"/root/text")),
    "ETXTBSY": ("text file busy", b"#!/bin/sh\n"),
}


@pytest.fixture
def folder(scratch: Path) -> Iterator[Path]:
    """Return a directory that containers get as /root, with a text file in it."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        (Path(directory) / "text").write_bytes(b"x" * 4096)
        (Path(directory) / "text").chmod(0o755)
        yield Path(directory)


def mounts(folder: Path) -> dict[str, Any]:
    """Return the change of a configuration that mounts the folder."""
    proc = {"destination": "/proc", "type": "proc", "source": "proc"}
    dev = {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}
    return {"mounts": [proc, dev, {"destination": "/root", "type": "bind", "source": str(folder), "options": ["bind"]}]}


OTHERWISE = {"ELOOP", "ETXTBSY"}
"""What gVisor's kernel words in another way, or takes."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.needs("host kernel") if name in OTHERWISE else ()) for name in REFUSED],
)
async def test_a_program_that_the_kernel_refuses(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], folder: Path, name: str
) -> None:
    """Whatever execve(2) fails with in the container, `run` and `exec` raise it and return no exit code."""
    text, content = REFUSED[name]
    program = folder / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    web = container_id()
    await client.run(web, make_bundle(["sleep", "60"], **mounts(folder)), detach=True, io=NullIO())
    writer = os.open(program, os.O_WRONLY) if name == "ETXTBSY" else -1
    try:
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: client.exec(web, ["/root/program"]),
            lambda: client.run(container_id(), make_bundle(["/root/program"], **mounts(folder))),
        )
        for call in calls:
            with pytest.raises(errors.ExecutableError) as caught:
                await call()
            assert type(caught.value) is errors.ExecutableError
            assert text in str(caught.value).lower()
    finally:
        if writer >= 0:
            os.close(writer)


@pytest.mark.needs("host kernel")
async def test_an_argument_that_the_kernel_refuses(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A long argument in config.json is refused in the container: the error says E2BIG and what to do instead."""
    with pytest.raises(errors.ExecutableError, match=r"(?i)argument list too long \(E2BIG\): .*input="):
        await client.run(container_id(), make_bundle(["echo", "x" * 200_000]))


@pytest.mark.needs("host kernel")
async def test_a_user_whose_processes_are_used_up(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """RLIMIT_NPROC counts the processes of a user in all containers; the next program can't be executed."""
    user = {"uid": 100_000 + os.getpid(), "gid": 100_000}
    script = ["sh", "-c", "sleep 60 & sleep 60 & echo; wait"]
    limited = {"user": user, "rlimits": [{"type": "RLIMIT_NPROC", "soft": 2, "hard": 2}]}
    async with client.open_container(
        container_id(), make_bundle(script, process={"user": user}), io=PipedIO(stdout=True), grace=0
    ) as other:
        assert other.stdout is not None
        await other.stdout.receive()
        with pytest.raises(errors.ResourceError, match=r"(?i)resource temporarily unavailable"):
            await client.run(container_id(), make_bundle(["true"], process=limited))


@pytest.mark.needs("host kernel")
async def test_a_container_whose_processes_are_used_up(
    client: Runc, runtime: Runtime, make_container: MakeContainer
) -> None:
    """Where `pids.limit` leaves runc no thread, an `exec` is a lack of resources, named by what is on stderr."""
    if runtime.is_crun:
        pytest.skip("crun has no threads")
    if not has_controller("pids"):
        pytest.skip("there is no pids controller here")
    name = await make_container(linux={"resources": {"pids": {"limit": 1}}})
    failures: list[errors.CommandError] = []
    for _ in range(TRIES):
        try:
            await client.exec(name, ["true"])
        except errors.CommandError as error:
            failures.append(error)
            break
    if not failures:
        pytest.skip("each runc had its threads before it was in the cgroup")
    assert type(failures[0]) is errors.ResourceError
    assert "Resource temporarily unavailable" in str(failures[0])
