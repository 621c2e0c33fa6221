"""Terminals of real containers: `open_container` with `terminal`, and `open_exec` with `PtyIO`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest

from runc_async import Runc
from runc_async._process.running import ProcessRunner, RunningProcess
from runc_async.errors import ExecutableNotFound, TerminalError
from runc_async.stdio import NullIO, PtyIO

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.console import Pty
    from runc_async.runner import Completed, Invocation
    from runc_async.stdio import StdIO

pytestmark = [pytest.mark.runc, pytest.mark.any_loop]

SHELL = ["env", "PS1=% ", "HOME=/tmp", "TERM=xterm", "sh"]

MEASURE = ["sh", "-c", "stty -echo; echo ready; while read line; do stty size; echo .; done"]

MEGABYTE = "dd if=/dev/zero bs=1024 count=1024 2>/dev/null | tr '\\0' x; echo; echo done"


async def until(pty: Pty, expected: str, seconds: float = 20.0) -> str:
    r"""Read the screen until `expected` has come, and return all of it, with `\n` at the ends of lines."""
    screen = ""
    async with asyncio.timeout(seconds):
        while expected not in screen:
            screen = (screen + (await pty.receive()).decode()).replace("\r\n", "\n")
    return screen


async def told_size(pty: Pty) -> tuple[int, int]:
    """Let `MEASURE` ask for the size of its terminal."""
    await pty.send(b"\r")
    found = re.search(r"(\d+) (\d+)\n", await until(pty, "\n.\n"))
    assert found is not None
    return int(found[1]), int(found[2])


@contextlib.asynccontextmanager
async def opened(way: str, client: Runc, make_bundle: MakeBundle, name: str, args: list[str]) -> AsyncGenerator[Pty]:
    """Run a program with a terminal: as a container's first process, or as one more."""
    bundle = make_bundle(args if way == "container" else ["sleep", "600"], process={"terminal": way == "container"})
    streams = PtyIO(rows=30, cols=100)
    async with client.open_container(name, bundle, io=streams if way == "container" else None, grace=0) as container:
        if way == "container":
            assert container.pty is not None
            yield container.pty
            return
        async with container.open_exec(args, io=streams, grace=0.2) as process:
            assert process.pty is not None
            yield process.pty


WAYS = pytest.mark.parametrize("way", ["container", "exec"])


@WAYS
async def test_a_shell_with_line_editing(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str
) -> None:
    """A shell shows its prompt, lets the user edit a line, runs it, and ends with the terminal."""
    async with opened(way, client, make_bundle, container_id(), SHELL) as pty:
        await until(pty, "% ")
        await pty.send(b"echo oops\x7f\x7f\x7f\x7fone$((1+1))three\r")
        await until(pty, "\none2three\n% ")
        await pty.send(b"\x1b[A\r")  # cursor up: the line before
        await until(pty, "\none2three\n% ")
        await pty.send_eof()
        async with asyncio.timeout(20):
            async for _ in pty:
                pass


@WAYS
async def test_the_size(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str) -> None:
    """The terminal inside has the size that was asked for, and each that is set later."""
    async with opened(way, client, make_bundle, container_id(), MEASURE) as pty:
        await until(pty, "ready\n")
        assert await told_size(pty) == (30, 100)
        for size in (50, 132), (10, 20), (24, 80):
            pty.resize(*size)
            assert pty.size == size
            assert await told_size(pty) == size


@WAYS
async def test_a_program_hears_of_a_new_size(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str
) -> None:
    """A resize sends SIGWINCH to the program in the foreground."""
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
    async with opened(way, client, make_bundle, container_id(), ["sh", "-c", script]) as pty:
        await until(pty, "ready")
        pty.resize(41, 77)
        assert "41 77" in await until(pty, "77\n")


@WAYS
async def test_a_megabyte_of_output(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str
) -> None:
    """No output is lost, also when its reader is slow to begin and the program has ended by then."""
    digest, size = hashlib.sha256(), 0
    async with opened(way, client, make_bundle, container_id(), ["sh", "-c", MEGABYTE]) as pty:
        async with asyncio.timeout(40):
            async for chunk in pty:
                digest.update(chunk)
                size += len(chunk)
    assert size == (1 << 20) + len("\r\ndone\r\n")
    assert digest.digest() == hashlib.sha256(b"x" * (1 << 20) + b"\r\ndone\r\n").digest()


@WAYS
async def test_output_that_is_read_late(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str
) -> None:
    """What was written before the end is there after it."""
    async with opened(way, client, make_bundle, container_id(), ["sh", "-c", "seq 1 300"]) as pty:
        await anyio.wait_readable(pty.fileno())
        await asyncio.sleep(1.2)  # longer than runc is given to report an end
        async with asyncio.timeout(20):
            screen = b"".join([chunk async for chunk in pty])
    assert screen.split() == [str(number).encode() for number in range(1, 301)]


@WAYS
async def test_only_the_program_changes_its_output(
    client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str], way: str
) -> None:
    """A line feed gets one carriage return, from the first line on, and none once the program has switched that off."""
    change = r"stty -onlcr; printf 'c\n'; stty -opost; printf 'd\n\r\n'; stty sane"
    script = rf"printf 'a\n'; printf 'b\r\n'; {change}; echo f"
    for _ in range(3):
        async with opened(way, client, make_bundle, container_id(), ["sh", "-c", script]) as pty, asyncio.timeout(20):
            assert b"".join([chunk async for chunk in pty]) == b"a\r\nb\r\r\nc\nd\n\r\nf\r\n"


async def test_captured_output_of_a_terminal(client: Runc, make_container: MakeContainer) -> None:
    """A call that captures the terminal's output gets the same bytes."""
    script = r"printf 'a\n'; stty -opost; printf 'b\n'; exit 5"
    response = await client.exec(await make_container(), ["sh", "-c", script], tty=True, io=PtyIO())
    assert (response.exit_code, response.stdout, response.stderr) == (5, b"a\r\nb\n", b"")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 0", (0, None)),
        ("exit 7", (7, None)),
        ("exit 255", (255, None)),
        ("kill -KILL $$", (None, signal.SIGKILL)),
    ],
)
async def test_the_end_of_a_program_on_a_terminal(
    client: Runc, make_container: MakeContainer, script: str, expected: tuple[int | None, int | None]
) -> None:
    """The exit status of a process with a terminal is exact, at once or after a while."""
    name = await make_container()
    for before in ("", "sleep 0.3; "):
        async with client.open_exec(name, ["sh", "-c", before + script], io=PtyIO()) as process, asyncio.timeout(20):
            status = await process.wait()
            assert (status.code, status.signal) == expected


async def test_a_terminal_that_others_hold(client: Runc, make_container: MakeContainer) -> None:
    """The end of the process is the end of the call, though another one holds its terminal."""
    args = ["sh", "-c", "trap '' HUP; sleep 100 & echo done; exit 3"]
    async with asyncio.timeout(20):
        response = await client.exec(await make_container(), args, tty=True, io=PtyIO())
    assert (response.exit_code, response.stdout) == (3, b"done\r\n")


class Behind(ProcessRunner):
    """Starts each runtime behind another command."""

    @staticmethod
    def changed(invocation: Invocation) -> Invocation:
        """Put the command in front."""
        return msgspec.structs.replace(invocation, argv=("nice", "-n", "1", *invocation.argv))

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Start runc and wait for its end."""
        return await super().run(self.changed(invocation), started=started)

    async def open(self, invocation: Invocation) -> RunningProcess:
        """Start runc and return it running."""
        return await super().open(self.changed(invocation))


async def test_a_terminal_behind_another_command(runtime: Runtime, root: Path, make_container: MakeContainer) -> None:
    """With a command in front of it runc stays, and copies between two terminals; they have the size that is set."""
    client, name = Runc(runtime.command, root=root, runner=Behind()), await make_container()
    async with client.open_exec(name, MEASURE, io=PtyIO(rows=30, cols=100)) as process:
        assert process.pty is not None
        await until(process.pty, "ready")
        process.pty.resize(50, 132)
        async with asyncio.timeout(20):
            while await told_size(process.pty) != (50, 132):  # noqa: ASYNC110 - runc passes it on, when it comes to that
                await asyncio.sleep(0.01)
    async with client.open_exec(name, ["sh", "-c", "exit 7"], io=PtyIO()) as process:
        assert (await process.wait()).code == 7


async def test_a_terminal_on_one_side_only(
    client: Runc, runtime: Runtime, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """`PtyIO` for a process without a terminal, and the reverse, are errors that leave no container.

    runsc takes the reverse: its terminal then leads nowhere.
    """
    sides: list[tuple[bool, StdIO]] = [(False, PtyIO()), (True, NullIO())]
    for terminal, io in sides[: 1 if runtime.is_sandbox else 2]:
        with pytest.raises(TerminalError):
            async with client.open_container(
                container_id(), make_bundle(["sh"], process={"terminal": terminal}), io=io
            ):
                pass
    assert await client.list() == []


async def test_a_program_that_is_not_there(client: Runc, make_container: MakeContainer) -> None:
    """What runc fails with is an exception, with a terminal too."""
    name = await make_container()
    with pytest.raises(ExecutableNotFound):
        async with client.open_exec(name, ["/nonesuch"], io=PtyIO()):
            pass


async def test_a_closed_terminal_of_an_exec(client: Runc, make_container: MakeContainer) -> None:
    """Closing our end hangs up here, too: the shell ends, and so does the wait for it."""
    async with client.open_exec(await make_container(), SHELL, io=PtyIO()) as process:
        assert process.pty is not None
        await until(process.pty, "% ")
        await process.pty.aclose()
        async with asyncio.timeout(20):
            await process.wait()


async def test_a_closed_terminal(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Closing our end hangs up: the shell of a container ends, and so does the wait for it."""
    bundle = make_bundle(SHELL, process={"terminal": True})
    async with client.open_container(container_id(), bundle, io=PtyIO()) as container:
        assert container.pty is not None
        await until(container.pty, "% ")
        await container.pty.aclose()
        async with asyncio.timeout(20):
            await container.wait()


# the caller's own terminal


class Typist:
    """Somebody at a terminal in which a program runs."""

    def __init__(self, *argv: str | Path) -> None:
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        termios.tcsetwinsize(slave, (33, 99))
        self.modes = termios.tcgetattr(slave)
        # In a session of its own the terminal is the controlling one, as in any real terminal.
        setsid = ["/usr/bin/setsid", "--ctty"]
        self.program = subprocess.Popen([*setsid, *argv], stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        self.screen = ""

    async def sees(self, expected: str) -> None:
        """Wait until something stands on the screen, and forget what was there until then."""
        async with asyncio.timeout(20):
            while expected not in self.screen:
                await anyio.wait_readable(self._master)
                self.screen += os.read(self._master, 1 << 16).decode().replace("\r\n", "\n")
        self.screen = self.screen.partition(expected)[2]

    def types(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._master, keys)

    def resizes(self, rows: int, cols: int) -> None:
        """Change the size of the window."""
        termios.tcsetwinsize(self._master, (rows, cols))

    def restored(self) -> bool:
        """Tell whether the terminal is as it was at first."""
        return termios.tcgetattr(self._master) == self.modes

    def close(self) -> None:
        """Leave."""
        self.program.kill()
        self.program.wait()
        os.close(self._master)


@pytest.fixture
def typist() -> Generator[Typist]:
    """Return somebody at a terminal in which the example runs."""
    typist = Typist(sys.executable, Path(__file__).parents[2] / "examples" / "shell.py")
    yield typist
    typist.close()


async def test_the_example_of_a_shell(typist: Typist) -> None:
    """A prompt, a command and its output, the size of the window and its change, and the terminal as it was before."""
    await typist.sees("container:/# ")
    assert not typist.restored()
    typist.types(b"echo $((6*7)); stty size\r")
    await typist.sees("\n42\n33 99\n")
    typist.resizes(20, 70)
    typist.types(b"stty size\r")
    await typist.sees("\n20 70\n")
    typist.types(b"sh -c 'echo o''n; exec sleep 600'\r")
    await typist.sees("\non\n")
    typist.types(b"\x03")  # for the program in the container, and not for us
    await typist.sees("container:/# ")
    typist.types(b"exit 3\r")
    await typist.sees("the shell exited with 3\n")
    assert await asyncio.to_thread(typist.program.wait) == 0
    assert typist.restored()


async def test_leaving_the_example(typist: Typist) -> None:
    """The keys for it leave the shell, and restore the terminal."""
    await typist.sees("container:/# ")
    typist.types(b"\x10\x11")
    await typist.sees("left the shell")
    assert await asyncio.to_thread(typist.program.wait) == 0
    assert typist.restored()
