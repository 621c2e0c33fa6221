"""The sandbox: commands with streamed output and a limit each, files, a Python session, a terminal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from runc_async import Bundle, Container, ContainerProcess, PipedIO, Pty, PtyIO, Runc, rootfs

HOME = "/root"
"""Where commands run, and files are."""

SESSION = """\
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            exec(compile(json.loads(line), "<cell>", "exec"), names)
        except BaseException:
            traceback.print_exc()
    print(json.dumps(out.getvalue()), file=sys.__stdout__, flush=True)
"""
"""What the Python session runs: a cell for each line, and its output as a line."""


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: Its exit code; None if it was ended, or by a signal.
        timed_out: Whether its time was up.
    """

    code: int | None
    timed_out: bool


class PythonSession:
    """A Python that keeps its names from cell to cell. After a cell that took too long it begins anew.

    Args:
        container: Where it runs.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._opened: AsyncGenerator[ContainerProcess] | None = None
        self._process: ContainerProcess | None = None

    async def run(self, code: str, seconds: float) -> str:
        """Run a cell, and return what it printed.

        Raises:
            TimeoutError: If it takes longer; it is ended with all that it has started.
            EOFError: If Python itself has ended.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(code)
        except BaseException:  # what comes next on the pipe would be the answer to this cell
            await self.aclose()
            raise

    async def _ask(self, code: str) -> str:
        """Send a cell, and wait for its answer."""
        if self._process is None:
            self._opened = self._open()
            self._process = await anext(self._opened)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None, "PipedIO gives all three"
        assert stdout is not None, "PipedIO gives all three"
        await stdin.send(json.dumps(code).encode() + b"\n")
        async for line in stdout.lines():
            return str(json.loads(line))
        raise EOFError("Python has ended")

    async def _open(self) -> AsyncGenerator[ContainerProcess]:
        """Keep Python for as long as this generator is open."""
        io = PipedIO(stderr=False)
        async with self._container.open_exec(["python3", "-c", SESSION], io=io, cwd=HOME, grace=0) as process:
            yield process

    async def aclose(self) -> None:
        """End it. Idempotent; the next cell begins anew."""
        opened, self._opened, self._process = self._opened, None, None
        if opened is not None:
            await opened.aclose()


class Sandbox:
    """What an agent's tools can do.

    Args:
        container: A container that runs, with the host's Python.

    Attributes:
        container: The container.
        python: A Python session.
    """

    def __init__(self, container: Container) -> None:
        self.container = container
        self.python = PythonSession(container)

    async def command(self, args: Sequence[str], seconds: float, show: Callable[[str], object]) -> Ended:
        """Run a command; each line goes to `show` as it comes. Out of time, all that it has started ends as well."""
        io = PipedIO(stdin=False, stderr="stdout")
        try:
            async with (
                asyncio.timeout(seconds),
                self.container.open_exec(args, io=io, cwd=HOME, grace=0) as process,
            ):
                assert process.stdout is not None, "PipedIO gives it"
                async for line in process.stdout.lines():
                    show(line)
                return Ended((await process.wait()).code, timed_out=False)
        except TimeoutError:
            return Ended(None, timed_out=True)

    async def put(self, name: str, content: str) -> None:
        """Write a file, and make its directories."""
        await self.container.write_file(f"{HOME}/{name}", content.encode(), parents=True)

    async def get(self, name: str, limit: int = 1 << 20) -> str:
        """Read a file."""
        return (await self.container.read_file(f"{HOME}/{name}", limit=limit)).decode(errors="replace")

    @asynccontextmanager
    async def terminal(self, rows: int = 24, cols: int = 80) -> AsyncGenerator[Pty]:
        """Open a shell on a terminal; it ends with the block."""
        io = PtyIO(rows=rows, cols=cols)
        async with self.container.open_exec(["sh"], io=io, cwd=HOME, grace=0) as process:
            assert process.pty is not None, "PtyIO gives it"
            yield process.pty


@asynccontextmanager
async def open_sandbox(runc: Runc, name: str) -> AsyncGenerator[Sandbox]:
    """Make a sandbox without an image and without a network; it is deleted with the block."""
    async with Bundle.temporary(rootfs=rootfs.Host(), init=True) as bundle:
        bundle.spec.set_args("sleep", "infinity").set_terminal(enabled=False)
        async with runc.open_container(name, bundle, grace=0) as container:
            sandbox = Sandbox(container)
            try:
                yield sandbox
            finally:
                await sandbox.python.aclose()
