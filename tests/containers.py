"""Real containers for tests, made without the library under test."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import leaks

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence


class MakeBundle(Protocol):
    """What the fixture `make_bundle` gives."""

    def __call__(self, args: Sequence[str], **changes: Any) -> Path:
        """Write a bundle whose container runs `args`; return its directory.

        Each of `changes` is a key of config.json with a new value; dictionaries are merged, at any depth, into what is
        there: `make_bundle(["sh"], process={"terminal": True}, hostname="web")`. The root filesystem is read-only
        (`root={"readonly": False}` changes that) and shared by all bundles.
        """
        ...


def runc(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the host's runc and return what it printed and its exit code.

    Files take the output: a created container keeps pipes open for as long as it lives.
    """
    command = ["runc", *map(str, args)]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False, timeout=30)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, ended.returncode, out.read(), err.read())


@contextlib.contextmanager
def private_root(parent: Path) -> Generator[Path]:
    """Make a directory for `runc --root`; at the end delete by force whatever container is in it, and the directory.

    Raises:
        RuntimeError: If a container can't be deleted.
    """
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield directory
    finally:
        results = [runc("--root", directory, "delete", "--force", name) for name in leaks.containers(directory)]
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
