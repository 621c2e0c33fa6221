"""What the comparisons need: compiled peers, a private root directory with containers, bundles, recorded events."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from bench.harness import Peer, peer
from runc_async import Bundle, spec

HERE = Path(__file__).parent
RECORDED = HERE.parent / "tests" / "data" / "recorded" / "runc-1.1.5-v1.jsonl"
RUNC = "runc"
GO_RUNC = "go-runc"
ASYNCIO = "bare asyncio"
BY_HAND = "by hand"
UVLOOP = "on uvloop"
SUBPROCESS = "subprocess.run"
FLOOR = "the floor (C)"
SHELL = "shell script"

GO_PATH = Path("/usr/share/gocode")
NO_GO = "needs Debian's packages golang-go and golang-github-containerd-go-runc-dev"
FAKE_RUNC = """\
#!/bin/sh
cat {path}
exec sleep 60
"""


class Stage:
    """Everything that the comparisons have in common; made by `stage`.

    Attributes:
        directory: A private directory.
        root: A private root directory of runc's.
        missing: Peers that can't be had here, with the reason.
    """

    def __init__(self, directory: Path, peers: contextlib.ExitStack) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.missing: dict[str, str] = {}
        self._peers = peers
        self._containers: list[str] = []

    @functools.cached_property
    def ours(self) -> Peer:
        """runc_async."""
        return self._start(sys.executable, "-m", "bench.peers.ours")

    @functools.cached_property
    def on_uvloop(self) -> Peer | None:
        """The same on uvloop; None without it."""
        if importlib.util.find_spec("uvloop") is None:
            self.missing[UVLOOP] = "needs uvloop"
            return None
        return self._start(sys.executable, "-m", "bench.peers.ours", "uvloop")

    @functools.cached_property
    def plain(self) -> Peer:
        """What Python has without a library."""
        return self._start(sys.executable, "-m", "bench.peers.plain")

    @functools.cached_property
    def shell(self) -> Peer:
        """A shell script."""
        return self._start("/bin/sh", str(HERE / "peers" / "cycle.sh"))

    @functools.cached_property
    def floor(self) -> Peer | None:
        """A C program; None without a compiler."""
        program = self.directory / "floor"
        source = HERE / "peers" / "floor.c"
        return self._compiled(FLOOR, program, ["cc", "-O2", "-pthread", "-o", str(program), str(source)], "needs cc")

    @functools.cached_property
    def go(self) -> Peer | None:
        """go-runc; None without a compiler or without the library."""
        program = self.directory / "gorunc"
        return self._compiled(GO_RUNC, program, ["go", "build", "-o", str(program), "."], NO_GO)

    def _compiled(self, name: str, program: Path, command: list[str], needs: str) -> Peer | None:
        """Compile a peer and start it, or note why that can't be done."""
        environment = os.environ | {"GO111MODULE": "off", "GOPATH": str(GO_PATH), "GOFLAGS": ""}
        environment["GOCACHE"] = str(self.directory / "go-cache")
        if shutil.which(command[0]) is None:
            self.missing[name] = needs
            return None
        made = subprocess.run(command, cwd=HERE / "peers" / "gorunc", env=environment, check=False)
        if made.returncode:
            self.missing[name] = f"can't be compiled; {needs}"
            return None
        return self._start(str(program))

    def _start(self, *argv: str) -> Peer:
        return self._peers.enter_context(peer(argv))

    @functools.cached_property
    def can_run(self) -> str:
        """Why real containers can't be run here; empty if they can."""
        if os.geteuid() != 0:
            return "needs root"
        wanted = [name for name in ("runc", "busybox") if shutil.which(name) is None]
        return f"needs {' and '.join(wanted)}" if wanted else ""

    def bundle(self, *args: str) -> str:
        """Make a bundle whose container runs `args`."""
        return asyncio.run(_bundle(self.directory, args))

    def runc(self, *args: str) -> None:
        """Run the host's runc; its containers get no pipes of ours."""
        null = subprocess.DEVNULL
        argv = [RUNC, "--root", str(self.root), *args]
        subprocess.run(argv, check=True, stdin=null, stdout=null, stderr=null)

    def containers(self, count: int) -> list[str]:
        """Have at least so many running containers, and return the names of the first ones."""
        while len(self._containers) < count:
            name = f"bench{os.getpid()}-{len(self._containers)}"
            self.runc("run", "--detach", "--bundle", self.sleeper, name)
            self._containers.append(name)
        return self._containers[:count]

    @functools.cached_property
    def sleeper(self) -> str:
        """A bundle whose container waits."""
        return self.bundle("sleep", "3600")

    @functools.cached_property
    def rootfs(self) -> str:
        """A root filesystem."""
        return os.path.join(self.sleeper, "rootfs")

    def document(self) -> Path:
        """Write a configuration of 10 kB into a file; return its path."""
        path = self.directory / "document.json"
        path.write_bytes(confined().encode(indent=2))
        return path

    def events(self, count: int) -> Path:
        """Write so many lines of recorded events into a file; return its path."""
        with RECORDED.open() as file:
            cases = [json.loads(line) for line in file]
        printed = "".join(case["stdout"] for case in cases if case["case"].startswith("events-interval"))
        lines = [line for line in printed.splitlines() if line.startswith("{") and line.endswith("}")]
        path = self.directory / f"events-{count}.jsonl"
        path.write_text("".join(f"{lines[number % len(lines)]}\n" for number in range(count)))
        return path

    def fake_runc(self, path: Path) -> str:
        """Make a program that prints a file, whatever its arguments, and then waits."""
        program = self.directory / "fake-runc"
        program.write_text(FAKE_RUNC.format(path=path))
        program.chmod(0o755)
        return str(program)

    def delete_all(self) -> None:
        """Delete all containers under the root directory."""
        for name in os.listdir(self.root) if self.root.exists() else []:
            self.runc("delete", "--force", name)


def confined() -> spec.Spec:
    """Configure a container as for a program that nobody trusts."""
    own = spec.Spec.default().set_args("true").set_seccomp(spec.default_seccomp()).drop_capabilities("ALL")
    for number in range(20):
        own.bind(f"/srv/data/{number}", f"/data/{number}", readonly=True)
    return own.set_env({f"VARIABLE_{number}": "value" * 4 for number in range(40)})


async def _bundle(directory: Path, args: tuple[str, ...]) -> str:
    """Make a bundle that lasts for as long as the directory."""
    async with Bundle.busybox(args, directory=directory) as temporary:
        path = tempfile.mkdtemp(dir=directory)
        shutil.copytree(temporary.path, path, symlinks=True, dirs_exist_ok=True)
    return path


@contextlib.contextmanager
def stage() -> Generator[Stage]:
    """Make a stage, and leave nothing of it."""
    with tempfile.TemporaryDirectory(prefix="runc_async-bench-") as directory, contextlib.ExitStack() as peers:
        made = Stage(Path(directory), peers)
        peers.callback(made.delete_all)
        yield made
