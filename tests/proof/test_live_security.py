"""What others on this host, and what runs in a container, can't get hold of: with real containers, as another user."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import proof
import pytest

from runc_async import Bundle, CapturedIO, InheritedIO, NullIO, PipedIO, PtyIO, RedirectIO, Runc, spec
from runc_async._commands.options import ProcessOptions
from runc_async.errors import CommandError, ContainerNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from containers import MakeBundle, MakeContainer
    from proof import Tried
    from runtime import Runtime

    from runc_async.stdio import StdIO

pytestmark = pytest.mark.runc

# Ids, words and values as options

IDS = ("-", "-f", "-b", "-h", "-v", "-1", "--", "--help", "--version", "--force", "--all", "--root", "--debug", "-a")

WORDS = (
    "--",
    "-c",
    "--help",
    "--root=/x",
    "-e",
    "$(id)",
    "`id`",
    "a b",
    "a\nb",
    "*",
    "'",
    '"',
    "\\",
    "",
    "a,b=c",
    "%s",
)


@pytest.mark.proof(every=5)
@pytest.mark.parametrize("name", IDS)
async def test_an_id_like_an_option_is_an_id(name: str, client: Runc, make_bundle: MakeBundle, tried: Tried) -> None:
    """A container whose id looks like an option goes through its whole life under that id."""
    with pytest.raises(ContainerNotFound):
        await client.state(name)
    await client.create(name, make_bundle(["sleep", "60"], linux={"cgroupsPath": cgroup()}))
    try:
        assert (await client.state(name)).id == name
        await client.start(name)
        assert [state.id for state in await client.list()] == [name]
        assert (await client.exec(name, ["echo", name])).stdout == f"{name}\n".encode()
        assert len(await client.ps(name)) == 1
        await client.pause(name)
        await client.resume(name)
        await client.update(name, spec.LinuxResources())
        await client.kill(name, "KILL")
    finally:
        await client.delete(name, force=True)
    assert await client.list() == []
    tried("hostile words, live", 11)


def cgroup() -> str:
    """Return a path that carries the run's mark, for the ids don't."""
    return f"/{os.environ['RUNC_ASYNC_TEST_RUN']}{os.urandom(3).hex()}"


async def test_words_and_values_arrive_unchanged(client: Runc, make_container: MakeContainer, tried: Tried) -> None:
    """Arguments and variables are those that were given, byte for byte, also through a process document."""
    name = await make_container()
    show = ["sh", "-c", 'printf "%s\\n%s" "$A" "$*" ; printf "<%s>" "$@"', "sh"]
    for word in WORDS:
        expected = f"{word}\n{word} end<{word}><end>".encode()
        found = await client.exec(name, [*show, word, "end"], env={"A": word})
        assert found.stdout == expected
        process = spec.Process(cwd="/", args=[*show, word, "end"], env=["PATH=/bin", f"A={word}"])
        assert (await client.exec(name, process)).stdout == expected
    with contextlib.suppress(CommandError):
        await client.exec(name, ["--root=/x"], check=True)
    tried("hostile words, live", 4 * len(WORDS))


# Descriptors in the container

OURS = re.compile(r"runc_async|memfd|inotify|eventpoll|pidfd|socket")


async def listed(place: Path) -> dict[int, str]:
    """Read what a container has written of its descriptors, when it is complete."""
    async with asyncio.timeout(20):
        while not (place / "done").exists():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    lines = (place / "fds").read_text().splitlines()
    return {int(number): target for number, _, target in (line.partition(" ") for line in lines)}


LIST = (
    "cd /proc/$PPID/fd; ls > /out/names; for fd in $(cat /out/names); do "
    'echo "$fd $(readlink $fd)" >> /out/fds; done; : > /out/done'
)
SCRIPT = ("sh", "-c", 'sh -c "$0"; exit', LIST)
"""A shell that lets another one tell what it has itself: that one opens files."""


def streams(kind: str, place: Path, file: int) -> StdIO:
    """Return streams of a kind."""
    match kind:
        case "inherited":
            return InheritedIO()
        case "captured":
            return CapturedIO()
        case "piped":
            return PipedIO()
        case "redirected":
            return RedirectIO(stdout=place / "log", stderr=file)
        case "terminal":
            return PtyIO()
        case _:
            return NullIO()


KINDS = ("null", "inherited", "captured", "piped", "redirected", "terminal")

HOW = ("create", "run", "detached run", "exec", "detached exec", "document", "open_exec")

TRIED = [
    (how, kind, 3 if kind in {"piped", "redirected"} else 0)
    for how in HOW
    for kind in KINDS
    # a terminal of ours goes to a runc that stays, and what is captured comes with a Response
    if not (kind == "terminal" and how not in {"exec", "document", "open_exec"})
    and not (kind == "captured" and how == "open_exec")
    and not (kind in {"null", "captured"} and how == "detached exec")  # as in the others, and they take two seconds
]


@contextlib.contextmanager
def outside(scratch: Path) -> Generator[tuple[Path, list[dict[str, Any]]]]:
    """Make a directory that a container can write to, and give it with the mounts of such a container."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        out = {"destination": "/out", "type": "bind", "source": directory, "options": ["bind", "rw"]}
        yield Path(directory), [out]


@pytest.mark.proof(every=5)
@pytest.mark.parametrize(("how", "kind", "preserved"), TRIED)
async def test_a_container_has_its_own_descriptors_and_no_more(
    *,
    how: str,
    kind: str,
    preserved: int,
    client: Runc,
    base_config: dict[str, Any],
    make_bundle: MakeBundle,
    make_container: MakeContainer,
    container_id: Callable[[], str],
    scratch: Path,
    tried: Tried,
) -> None:
    """Whatever its streams, a process has 0, 1 and 2, those that were preserved as 3, 4, ..., and nothing else."""
    with outside(scratch) as (place, mounts), contextlib.ExitStack() as opened:
        files = [opened.enter_context(open(place / f"kept{number}", "wb")) for number in range(preserved)]
        error = opened.enter_context(open(place / "err", "wb"))
        io = streams(kind, place, error.fileno())
        script: list[str] = list(SCRIPT)
        changes: dict[str, Any] = {"mounts": [*base_config["mounts"], *mounts]}
        name = container_id()
        if how == "create":
            await client.create(name, make_bundle(script, **changes), io=io, preserve_fds=files)
            await client.start(name)
        elif how in {"run", "detached run"}:
            bundle = make_bundle(script, **changes)
            await client.run(name, bundle, io=io, preserve_fds=files, detach=how != "run")
        else:
            name = await make_container(**changes)
            options = ProcessOptions(preserve_fds=files, tty=kind == "terminal")
            await execute(client, name, script, how=how, options=options, io=io)
        found = await listed(place)
        assert set(found) == set(range(3 + preserved))
        for number, file in enumerate(files, 3):
            assert found[number].endswith(os.path.basename(str(file.name)))
        assert [target for target in found.values() if OURS.search(target)] == []
        await client.delete(name, force=True)
    tried("descriptors in containers", len(found))


async def execute(client: Runc, name: str, script: list[str], *, how: str, options: ProcessOptions, io: StdIO) -> None:
    """Run a script in a container, in one of the ways in which that can be done."""
    if how == "open_exec":
        async with client.open_exec(name, script, io=io, **options) as opened:
            await opened.wait()
    elif how == "document":
        process = spec.Process(cwd="/", args=script, env=["PATH=/bin"], terminal=options.pop("tty", False))
        await client.exec(name, process, io=io, **options)
    else:
        await client.exec(name, script, io=io, detach=how == "detached exec", **options)


async def test_a_descriptor_that_is_passed_would_be_seen(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], base_config: dict[str, Any], scratch: Path
) -> None:
    """The list from inside has what a container was given: a file in memory that is preserved stands there."""
    with outside(scratch) as (place, mounts):
        bundle = make_bundle(SCRIPT, mounts=[*base_config["mounts"], *mounts])
        fd = os.memfd_create("runc_async:planted")
        try:
            await client.run(container_id(), bundle, preserve_fds=[fd])
        finally:
            os.close(fd)
        assert OURS.search((await listed(place))[3])


# Another user of this host

ATTACK = """
    import json, os, socket, stat, sys
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    tops, secret = sys.argv[1].split(":"), sys.argv[2].encode()
    got, tries = set(), 0

    def attempt(what, path, call):
        global tries
        tries += 1
        try:
            result = call()
        except OSError:
            return None
        got.add((what, path))
        return result

    def look(path):
        try:
            found = os.lstat(path)
        except OSError:
            return
        if found.st_uid == 65534:
            return  # ours
        if stat.S_ISDIR(found.st_mode):
            names = attempt("list", path, lambda: os.listdir(path))
            attempt("replace", path, lambda: os.rename(path, path + ".moved"))
            attempt("make", path, lambda: os.close(os.open(path + "/planted", os.O_CREAT | os.O_WRONLY)))
            for name in names or ("config.json", "pid", ".pid", "s", "rootfs"):
                look(path + "/" + name)
        elif stat.S_ISSOCK(found.st_mode):
            attempt("connect", path, lambda: socket.socket(socket.AF_UNIX).connect(path))
        elif stat.S_ISREG(found.st_mode):
            attempt("read", path, lambda: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)))
            attempt("write", path, lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))
        attempt("remove", path, lambda: os.unlink(path))

    os.write(1, b"ready")
    while not os.path.exists(sys.argv[3]):
        for top in tops:
            for name in os.listdir(top):
                if name.startswith(("runc_async-", "runc-", "planted-")):
                    look(top + "/" + name)
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            proc = "/proc/" + pid
            try:
                line = open(proc + "/cmdline", "rb").read()
                owner = os.stat(proc).st_uid
            except OSError:
                continue
            if secret in line and b"setuid" not in line:
                got.add(("secret", "cmdline"))
            if b"runc" in line.split(b"\\0")[0] and owner == 0:
                attempt("list", "fd", lambda: os.listdir(proc + "/fd"))
                attempt("read", "environ", lambda: open(proc + "/environ", "rb").read())
                for number in range(12):
                    attempt("open", "fd", lambda: os.close(os.open(f"{proc}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK)))
    print(json.dumps([tries, sorted(got)]))
"""


class Attack:
    """What another user has tried, and what he got.

    Attributes:
        tries: How often he tried something.
        got: What he did, and with what.
    """

    def __init__(self) -> None:
        self.tries: int = 0
        self.got: list[tuple[str, str]] = []


@contextlib.asynccontextmanager
async def attacked(tops: list[Path | str], end: Path, secret: str) -> AsyncGenerator[Attack]:
    """Let another user look for what he can open, connect to or replace, for the time of the block."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-ISc", textwrap.dedent(ATTACK), ":".join(map(str, tops)), secret, str(end)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={},
    )
    assert child.stdout is not None
    attack = Attack()
    try:
        assert await child.stdout.readexactly(5) == b"ready"
        yield attack
    finally:
        end.touch()
        told = await child.stdout.read()
        await child.wait()
        end.unlink()
    attack.tries, got = json.loads(told)
    attack.got = [(what, path) for what, path in got]


@pytest.fixture
def public(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give temporary files a directory as /tmp is, which everybody may enter and write to."""
    place = scratch / "public"
    place.mkdir()
    place.chmod(0o1777)
    scratch.chmod(0o711)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    return place


SECRET = "hush-" + os.urandom(4).hex()


@pytest.mark.root
@pytest.mark.parametrize("temporary", ["a public directory", "memory"])
async def test_another_user_gets_hold_of_nothing(
    *,
    temporary: str,
    runtime: Runtime,
    root: Path,
    public: Path,
    container_id: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    tried: Tried,
) -> None:
    """While containers are made, run and deleted, another user opens, connects to and replaces nothing of ours."""
    if temporary == "memory":
        monkeypatch.delenv("TMPDIR")
    attack = None
    try:
        async with attacked([public, "/dev/shm", "/run"], public / "end", SECRET) as attack:
            for _ in range(proof.amount(2, 1)):
                await everything(runtime.command, root, container_id)
    finally:
        public.joinpath("end").unlink(missing_ok=True)
        public.rmdir()
    assert attack.got == []
    assert attack.tries
    tried("attempts of another user", attack.tries)


async def everything(command: str, root: Path, container_id: Callable[[], str]) -> None:
    """Do what makes files, sockets, documents and descriptors, with a secret in each that can have one."""
    process = spec.Process(cwd="/", args=["true"], env=["PATH=/bin", f"TOKEN={SECRET}"])
    client = Runc(command, root=root, env={"TOKEN": SECRET})
    config = spec.Spec.default().set_env({"TOKEN": SECRET})
    async with Bundle.busybox(["sleep", "60"], spec=config) as bundle:
        async with client.open_container(container_id(), bundle, grace=0) as container:
            for _ in range(3):
                await container.exec(process, input=SECRET.encode())
            async with container.open_exec(["cat"], io=PtyIO(), grace=0):
                await container.exec(["sleep", "0.2"])
            await container.update(spec.LinuxResources())
        await bundle.save()
    await client.spec()


@pytest.mark.root
async def test_an_attack_would_succeed_where_it_can(public: Path) -> None:
    """What anybody may read, connect to or replace is found by the same attacker."""
    (public / "planted-open").mkdir(mode=0o777)
    (public / "planted-open").chmod(0o777)
    (public / "planted-open" / "file").write_text(SECRET)
    try:
        async with attacked([public], public / "end", SECRET) as attack:
            teller = await asyncio.create_subprocess_exec("sleep", "0.5", env={})
            await teller.wait()
    finally:
        public.joinpath("end").unlink(missing_ok=True)
        for place in (public / "planted-open").iterdir():
            place.unlink()
        (public / "planted-open").rmdir()
        public.rmdir()
    assert {what for what, _ in attack.got} >= {"list", "make", "read", "remove"}
