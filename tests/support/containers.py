"""Real containers for tests, made without the library under test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import leaks

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from runc_async.state import Status
    from runc_async.stdio import StdIO


class MakeBundle(Protocol):
    """What the fixture `make_bundle` gives."""

    def __call__(self, args: Sequence[str], **changes: Any) -> Path:
        """Write a bundle whose container runs `args`; return its directory.

        Each of `changes` is a key of config.json with a new value; dictionaries are merged, at any depth, into what is
        there: `make_bundle(["sh"], process={"terminal": True}, hostname="web")`. The root filesystem is read-only
        (`root={"readonly": False}` changes that) and shared by all bundles.
        """
        ...


class MakeContainer(Protocol):
    """What the fixture `make_container` gives."""

    async def __call__(
        self,
        status: Status = ...,
        args: Sequence[str] = ...,
        io: StdIO | None = None,
        **changes: Any,
    ) -> str:
        """Bring a container to a status, running if none is given, and return its id.

        Its process sleeps for a minute if there are no `args`; `changes` are those of `MakeBundle`.
        """
        ...


async def ended(pid: int) -> None:
    """Wait until a process that isn't our child has ended."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            await anyio.wait_readable(pidfd)
        finally:
            os.close(pidfd)


async def heard(fd: int, expected: bytes = b"\n", seconds: float = 20.0) -> bytes:
    """Read a pipe until `expected` has come, or its end, and return all of it."""
    data = b""
    async with asyncio.timeout(seconds):
        while expected not in data:
            await anyio.wait_readable(fd)
            if not (chunk := os.read(fd, 1 << 16)):
                break
            data += chunk
    return data


def runc(*args: str | Path, command: str = "runc") -> subprocess.CompletedProcess[str]:
    """Run the host's runc, or the runtime `command`, and return what it printed and its exit code.

    Files take the output: a created container keeps pipes open for as long as it lives.
    """
    argv = [command, *map(str, args)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False, timeout=30)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(argv, ended.returncode, out.read(), err.read())


@contextlib.contextmanager
def private_root(parent: Path, command: str = "runc") -> Generator[Path]:
    """Make a directory for `--root` of a runtime; delete it at the end, and by force whatever container is in it.

    Raises:
        RuntimeError: If a container can't be deleted.
    """
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        ids = list(leaks.containers(directory))
        results = [runc("--root", directory, "delete", "--force", name, command=command) for name in ids]
        shutil.rmtree(directory)
    if failed := [result.stderr for result in results if result.returncode]:
        raise RuntimeError("containers left behind: " + "".join(failed))


def make_rootfs(directory: Path) -> None:
    """Make a root filesystem with all of busybox's commands in /bin."""
    for name in ("bin", "dev", "etc", "proc", "root", "sys", "tmp"):
        (directory / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", directory / "bin" / "busybox")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in set(applets.stdout.split()) - {"busybox"}:
        (directory / "bin" / applet).symlink_to("busybox")


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` merged into it, dictionaries into dictionaries."""
    both = {**base, **changes}
    for name in base.keys() & changes.keys():
        if isinstance(base[name], dict) and isinstance(changes[name], dict):
            both[name] = merged(base[name], changes[name])
    return both
