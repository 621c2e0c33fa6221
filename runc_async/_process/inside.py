"""Processes of an `exec` in a sandbox, such as gVisor's: without pids on the host, and ended by commands."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import warnings
from collections.abc import Awaitable, Callable
from typing import ClassVar, Final

from msgspec import structs

from .._containers.workload import Workload
from .._linux.files import SCARCE
from .._linux.scratch import scratch_directory
from .._runtimes.dialect import UNDECODABLE, Inside as Commands
from .._runtimes.known import DIALECTS
from .._shield import shielded, start
from ..errors import CleanupWarning
from ..runner import Completed, Invocation, OwnOutput, Sandbox, StopPolicy
from .child import Child

COMMAND_TIME: Final = 10.0
"""Seconds for one command of the runtime; a busy sandbox answers late."""

START_TIME: Final = 10.0
"""Seconds for a sandbox to start a requested process."""

REPORT_TIME: Final = 2.0
"""Seconds for a client to report the end of a killed process."""

TREE_TIME: Final = 10.0
"""Seconds for the kill of a whole tree. A tree that forks faster than this is left behind with a warning."""

SCARCE_TIME: Final = 2.0
"""Seconds for a free descriptor: without one, no command can be run."""

AT_ONCE: Final = 8
"""Number of concurrent kill commands; each takes some 30 ms."""

# A process whose parent has ended belongs to the sandbox's first process from then on, so that its origin can't be seen
# afterwards. So the sandbox is asked to report each fork through a socket, as long as an `exec` runs.
_MESSAGE: Final = 1 << 16

Run = Callable[[Invocation], Awaitable[Completed]]


class Forks:
    """Reports of the forks in a sandbox, while the event loop follows at least one `exec` there.

    Attributes:
        complete: Whether the sandbox has reported each fork since the first `exec`.
    """

    _known: ClassVar[dict[tuple[asyncio.AbstractEventLoop, Sandbox], Forks]] = {}

    def __init__(self, sandbox: Sandbox, commands: Commands) -> None:
        self.complete = False
        self._key = (asyncio.get_running_loop(), sandbox)
        self._commands = commands
        self._users = 0
        self._starting: asyncio.Task[None] | None = None
        self._undo = contextlib.ExitStack()
        self._socket: socket.socket | None = None
        self._root_of: dict[int, int] = {}

    @classmethod
    async def follow(cls, sandbox: Sandbox, commands: Commands, run: Run, like: Invocation) -> Forks:
        """Follow a sandbox until `release` is called.

        Args:
            sandbox: The sandbox.
            commands: The commands of the runtime.
            run: Runs a command.
            like: An invocation with the environment to use.

        Raises:
            OSError: If no descriptor is left.
        """
        key = (asyncio.get_running_loop(), sandbox)
        forks = cls._known.get(key)
        if forks is None:
            forks = cls._known[key] = cls(sandbox, commands)
        # Counted before the first await: a release by another call can't close what this call is about to use.
        forks._users += 1
        try:
            if forks._starting is None:
                forks._starting = start(forks._start(run, like))
            # The start is shared with other calls: a cancelled caller doesn't cancel it.
            await shielded(forks._starting)
        except BaseException:
            forks.release()
            raise
        return forks

    async def _start(self, run: Run, like: Invocation) -> None:
        """Make the sandbox report. The sandbox connects to a socket and expects the same greeting back."""
        loop, sandbox = self._key
        directory = self._undo.enter_context(scratch_directory("socket", "follow.json"))
        listener = self._undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK))
        listener.bind(os.path.join(directory, "socket"))
        # Before the command: the sandbox connects while it runs.
        listener.listen(1)
        loop.add_reader(listener, self._accept, listener)
        self._undo.callback(loop.remove_reader, listener)
        document = os.path.join(directory, "follow.json")
        with open(document, "wb") as file:
            file.write(self._commands.follow_document(os.path.join(directory, "socket")))
        completed = await run(asking(like, sandbox, self._commands.follow(sandbox.container_id, document)))
        self.complete = completed.returncode == 0 and self._socket is not None

    def _accept(self, listener: socket.socket) -> None:
        """Accept the sandbox's connection."""
        loop = self._key[0]
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            self._socket = self._undo.enter_context(connection)
            loop.add_reader(connection, self._greet)
            self._undo.callback(loop.remove_reader, connection)

    def _greet(self) -> None:
        """Answer the greeting, and read reports from then on."""
        if self._socket is not None:
            loop = self._key[0]
            loop.remove_reader(self._socket)
            with contextlib.suppress(OSError):
                self._socket.send(self._socket.recv(_MESSAGE))
                loop.add_reader(self._socket, self.read)

    def read(self) -> None:
        """Read the newly arrived reports."""
        while self._socket is not None:
            try:
                message = self._socket.recv(_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:  # the sandbox has ended, or reports to another process from now on
                self._key[0].remove_reader(self._socket)
                self._socket = None
                self.complete = False
            elif fork := self._commands.decode_fork(message):
                parent, child = fork
                if child:
                    self._root_of[child] = self._root_of.get(parent, parent)
                else:
                    self._root_of.pop(parent, None)

    def started_by(self, pid: int) -> set[int]:
        """Return all descendants of a process started from outside, under any parent."""
        self.read()
        return {child for child, root in self._root_of.items() if root == pid}

    def release(self) -> None:
        """Stop following after the last user has released."""
        self._users -= 1
        if not self._users:
            self._known.pop(self._key, None)
            self._socket = None
            # A closed uvloop refuses to forget a reader; the descriptors are closed all the same.
            with contextlib.suppress(RuntimeError):
                self._undo.close()


class Inside:
    """The process of an `exec` in a sandbox, and the descendants of the process.

    Args:
        invocation: The `exec`.
        sandbox: The sandbox.
        run: Runs a command of the runtime.

    Attributes:
        pid: Returns the pid in the sandbox; 0 if unknown.
    """

    def __init__(self, invocation: Invocation, sandbox: Sandbox, run: Run) -> None:
        inside = DIALECTS[sandbox.runtime].inside
        if inside is None:
            raise ValueError(f"{sandbox.runtime} has no processes that are reached by commands")
        self.pid: Callable[[], int] = lambda: 0
        self._commands = inside
        self._invocation = invocation
        self._sandbox = sandbox
        self._run = run
        self._forks: Forks | None = None
        self._sent: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Record forks from now on, if all descendants are to end together with the process.

        Raises:
            OSError: If no descriptor is left.
        """
        if self._invocation.stop.tree:
            self._forks = await Forks.follow(self._sandbox, self._commands, self._run, self._invocation)

    async def stop(self, child: Child, workload: Workload | None, grace: float) -> None:
        """End the process and all descendants, then wait for the client's report; end a silent client.

        Args:
            child: The client.
            workload: The pid file, written by the client when the process runs.
            grace: Seconds between SIGTERM and SIGKILL.
        """
        if workload is not None:  # the sandbox may be about to start it
            await child.wait(START_TIME, or_for=workload.started)
        if child.returncode is None and grace > 0:
            await self.send(signal.SIGTERM)
            await child.wait(grace)
        await self.kill()
        await child.wait(REPORT_TIME)
        await child.stop()

    def send_soon(self, signum: int, *, tree: bool = False) -> None:
        """Send a signal in the order of the calls; with `tree`, to all descendants too."""
        self._sent = start(self._send_after(self._sent, signum, tree=tree))

    async def _send_after(self, before: asyncio.Task[None] | None, signum: int, *, tree: bool) -> None:
        """Send a signal after the previous signal."""
        # Each signal is a process of its own: without the wait, SIGTERM could overtake an earlier signal.
        if before is not None:
            await asyncio.wait([before])
        await (self.send_tree(signum) if tree else self.send(signum))

    async def send(self, signum: int) -> None:
        """Send a signal. Does nothing if the process has ended or hasn't started."""
        if pid := self.pid():
            await self._ask(self._commands.kill(self._sandbox.container_id, pid, signum))

    async def send_tree(self, signum: int) -> None:
        """Send a signal to the process and to all descendants."""
        if pid := self.pid():
            for each in await self._left(pid):
                await self._ask(self._commands.kill(self._sandbox.container_id, each, signum))

    async def kill(self) -> None:
        """Kill the process and all descendants, including detached processes. Warn if some are left."""
        if not (pid := self.pid()):
            return
        await self.send(signal.SIGKILL)
        if not self._invocation.stop.tree:
            return
        deadline = asyncio.get_running_loop().time() + TREE_TIME
        # Until a listing is empty: a process may have forked between the listing and its end.
        while left := await self._left(pid):
            for place in range(0, len(left), AT_ONCE):
                await asyncio.gather(*map(self._kill_one, left[place : place + AT_ONCE]))
            # Forks during the kill are reported already. Killing the new processes without another listing, which takes
            # 30 ms, nearly catches up with a process that forks and exits in a loop.
            while (
                self._forks is not None
                and asyncio.get_running_loop().time() < deadline
                and (new := self._forks.started_by(pid).difference(left))
            ):
                await asyncio.gather(*map(self._kill_one, sorted(new)[:AT_ONCE]))
                left += new
            if asyncio.get_running_loop().time() > deadline:
                break
        else:
            return
        text = f"processes {left} are left behind in container {self._sandbox.container_id!r}"
        warnings.warn(text, CleanupWarning, stacklevel=2)

    async def _kill_one(self, pid: int) -> None:
        """Kill a process."""
        await self._ask(self._commands.kill(self._sandbox.container_id, pid, signal.SIGKILL))

    async def _left(self, pid: int) -> list[int]:
        """List the running descendants, oldest first."""
        completed = await self._ask(self._commands.processes(self._sandbox.container_id))
        if completed.returncode != 0:  # the sandbox has ended
            return []
        try:
            processes = sorted(self._commands.decode_processes(completed.stdout))
        except UNDECODABLE:
            return []
        reported: set[int] = set() if self._forks is None else self._forks.started_by(pid)
        # Without reports, find at least the processes that still descend from the process or share its session.
        found = {pid}
        for each in processes:
            if each.parent in found or each.session in found or each.pid in reported:
                found.add(each.pid)
        return [each.pid for each in processes if each.pid in found]

    async def _ask(self, words: tuple[str, ...]) -> Completed:
        """Run a command of the runtime. If no descriptor gets free for that, warn and return a failure."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SCARCE_TIME
        while True:
            try:
                return await self._run(asking(self._invocation, self._sandbox, words))
            except OSError as exc:
                if exc.errno not in SCARCE or loop.time() > deadline:
                    name = self._sandbox.container_id
                    text = f"processes of an exec may be left behind in container {name!r}: {exc.strerror or exc}"
                    warnings.warn(text, CleanupWarning, stacklevel=2)
                    return Completed(pid=0, returncode=1)
            await asyncio.sleep(0.05)

    def close(self) -> None:
        """Stop following. Idempotent."""
        if self._forks is not None:
            self._forks.release()
            self._forks = None


def asking(like: Invocation, sandbox: Sandbox, words: tuple[str, ...]) -> Invocation:
    """Return the invocation of a command beside another command, with the same environment."""
    return structs.replace(
        like,
        command=words[0],
        argv=(*sandbox.options, *words),
        streams=OwnOutput(),
        input=None,
        timeout=COMMAND_TIME,
        stop=StopPolicy(),
        preserve_fds=(),
        pass_fds=(),
        reported=None,
        restore_signals=False,
        detach_at=None,
        sandbox=None,
    )
