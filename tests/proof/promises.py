"""What each call of the client promises, and whether it keeps that with a runtime that misbehaves.

A cell is one call with one behaviour of the runtime. Whatever that does, the call ends in time, with the right result
or an exception that its docstring names, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import dataclasses
import functools
import inspect
import os
import re
import select
import shutil
import signal
import time
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import leaks
import msgspec
from misbehaving import Behaviour, kept, write_runtime

import runc_async
from runc_async import (
    CapturedIO,
    CleanupWarning,
    CommandError,
    Container,
    ContainerProcess,
    DecodeError,
    EventStream,
    ExitStatus,
    Features,
    OOMEvent,
    PipedIO,
    PtyIO,
    Response,
    Runc,
    RuncCrashed,
    State,
    Stats,
    TerminalError,
    Top,
    Version,
    spec,
)
from runc_async._client.calls import UNDO_TIMEOUT
from runc_async._linux.fdsocket import FDSocket
from runc_async._process.running import ProcessRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from runc_async._process.running import RunningProcess
    from runc_async.runner import Completed, Invocation
    from runc_async.stdio import StdIO

BUNDLE = "/no/such/bundle"
FASTER = 20
"""How much sooner a runner of these tests loses its patience."""

LIMIT = 0.4
"""Seconds after which a call gives up a runtime that hangs."""

LONGER = 10
"""How many times as long a call waits that has to do something before the runtime hangs."""

BOUND = 15.0
"""Seconds within which a call has to end, whatever the runtime does; most take milliseconds."""

PATIENCE = 0.5
"""Seconds for what was killed to be gone."""

SENTENCE = 1500
"""Characters that the sentence of an error may have: a thousand of the runtime's, and our own."""

MANY = 50
"""Events that are taken from a runtime that doesn't end to print them."""


class Hurried(ProcessRunner):
    """Starts runtimes as ever, and stops them by the same steps in less time."""

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Start runc and wait for its end."""
        return await super().run(hurried(invocation), started=started)

    async def open(self, invocation: Invocation) -> RunningProcess:
        """Start runc and return it running."""
        return await super().open(hurried(invocation))


def hurried(invocation: Invocation) -> Invocation:
    """Cut the times of a stop, and those for an undo, which are well above a call's own in these tests."""
    stop, timeout = invocation.stop, invocation.timeout
    stop = msgspec.structs.replace(stop, patience=stop.patience / FASTER, grace=stop.grace / FASTER)
    if timeout is not None and timeout >= UNDO_TIMEOUT:
        timeout /= FASTER / 2
    return msgspec.structs.replace(invocation, stop=stop, timeout=timeout)


class Call(NamedTuple):
    """The circumstances of a call.

    Attributes:
        client: The client.
        id: The container's id, which no other call has.
        limit: Seconds after which the runtime is given up; None if it is expected to end.
        directory: A directory of its own.
    """

    client: Runc
    id: str
    limit: float | None
    directory: Path


@dataclasses.dataclass(frozen=True)
class Cell:
    """One call.

    Attributes:
        name: What is called, and how.
        documents: Where the exceptions are told.
        call: Does it.
        right: Whether this is a right result of a runtime that behaves well.
        reads: What the runtime prints is understood, and not passed on.
        waits: The exit code is that of the container's process.
        only: The commands that the runtime misbehaves in; all if there are none.
        needs: What the runtime has an occasion to misbehave with, joined by "and".
        version: What the runtime says that it is.
    """

    name: str
    documents: tuple[object, ...]
    call: Callable[[Call], Awaitable[object]]
    right: Callable[[Any], object]
    reads: bool = False
    waits: bool = False
    only: str = ""
    needs: str = ""
    version: str = ""


# --- the calls


async def open_container(call: Call, io: StdIO | None = None) -> object:
    """Open a container, and leave it again."""
    opened = call.client.open_container(call.id, BUNDLE, io=io, grace=0.1, timeout=call.limit)
    async with opened as container:
        return container.pid, container.pty is not None


async def open_restored(call: Call, io: StdIO | None = None) -> object:
    """Open a restored container, and leave it again."""
    opened = call.client.open_restored(call.id, BUNDLE, "/no/images", io=io, grace=0.1, timeout=call.limit)
    async with opened as container:
        return container.pid, container.pty is not None


async def open_exec(call: Call, io: StdIO | None = None) -> object:
    """Open a process, and wait for it."""
    async with asyncio.timeout(call.limit), call.client.open_exec(call.id, ["true"], io=io, grace=2) as process:
        return await process.wait()


async def exec_with_a_pidfd(call: Call) -> object:
    """Execute a process with a runtime that is known to send a pidfd of it."""
    await call.client.supports("exec --pidfd-socket")
    return await call.client.exec(call.id, ["true"], timeout=call.limit)


async def wait(call: Call) -> object:
    """Wait for a container of somebody else's."""
    async with asyncio.timeout(call.limit):
        return await call.client.container(call.id).wait()


async def events(call: Call, on_lag: Any = "block") -> object:
    """Take events; the first broken line is raised when the stream has ended or there were many."""
    seen: list[object] = []
    broken: list[DecodeError] = []
    async with asyncio.timeout(call.limit), call.client.events(call.id, on_lag=on_lag) as stream:
        while len(seen) + len(broken) < MANY:
            try:
                seen.append(await anext(stream))
            except DecodeError as exc:
                broken.append(exc)
            except StopAsyncIteration:
                break
    if broken:
        raise broken[0]
    return seen


async def sent(call: Call, option: str) -> object:
    """Create a container, and take the descriptor that comes meanwhile."""
    async with FDSocket() as sock:
        options: dict[str, Any] = {option: sock.path}
        response = await call.client.create(call.id, BUNDLE, timeout=call.limit, **options)
        sock.receive_nowait(response.pid)
    return response


def responded(response: Response) -> bool:
    """Tell whether a response is that of a success."""
    return isinstance(response, Response) and response.exit_code == 0


def exited(status: ExitStatus) -> bool:
    """Tell whether a process has succeeded."""
    return isinstance(status, ExitStatus) and status.code == 0


def opened(handle: tuple[int | None, bool]) -> bool:
    """Tell whether a container was opened, with its process."""
    return bool(handle[0])


def _asking() -> Iterable[Cell]:
    """Yield the calls that ask for something."""
    asking: dict[str, tuple[object, Callable[[Call], Awaitable[object]], Callable[[Any], object]]] = {
        "state": (Runc.state, lambda c: c.client.state(c.id, timeout=c.limit), lambda r: isinstance(r, State)),
        "list": (Runc.list, lambda c: c.client.list(timeout=c.limit), lambda r: [s.id for s in r] == ["web"]),
        "ps": (Runc.ps, lambda c: c.client.ps(c.id, timeout=c.limit), lambda r: r == [1, 2, 3]),
        "top": (Runc.top, lambda c: c.client.top(c.id, timeout=c.limit), lambda r: isinstance(r, Top)),
        "stats": (Runc.stats, lambda c: c.client.stats(c.id, timeout=c.limit), lambda r: isinstance(r, Stats)),
        "features": (Runc.features, lambda c: c.client.features(timeout=c.limit), lambda r: isinstance(r, Features)),
        "version": (Runc.version, lambda c: c.client.version(timeout=c.limit), lambda r: isinstance(r, Version)),
    }
    for name, (method, call, right) in asking.items():
        yield Cell(name, (method,), call, right, reads=True)
    yield Cell(
        "spec",
        (Runc.spec,),
        lambda c: c.client.spec(timeout=c.limit),
        lambda r: isinstance(r, spec.Spec),
        reads=True,
        needs="spec",
    )
    yield Cell("supports", (Runc.supports,), lambda c: c.client.supports("run --keep", timeout=c.limit), bool)
    yield Cell("wait", (Container.wait, Runc.state), wait, lambda r: isinstance(r, ExitStatus), reads=True)
    for on_lag in ("block", "latest"):
        yield Cell(
            f"events, {on_lag}",
            (Runc.events, EventStream),
            functools.partial(events, on_lag=on_lag),
            lambda r: r and isinstance(r[-1], OOMEvent),
            reads=True,
        )


def _changing() -> Iterable[Cell]:
    """Yield the calls that change a container."""
    changing: dict[str, tuple[object, Callable[[Call], Awaitable[object]]]] = {
        "start": (Runc.start, lambda c: c.client.start(c.id, timeout=c.limit)),
        "kill": (Runc.kill, lambda c: c.client.kill(c.id, timeout=c.limit)),
        "delete": (Runc.delete, lambda c: c.client.delete(c.id, timeout=c.limit)),
        "delete by force": (Runc.delete, lambda c: c.client.delete(c.id, force=True, timeout=c.limit)),
        "pause": (Runc.pause, lambda c: c.client.pause(c.id, timeout=c.limit)),
        "resume": (Runc.resume, lambda c: c.client.resume(c.id, timeout=c.limit)),
        "update": (Runc.update, lambda c: c.client.update(c.id, spec.LinuxResources(), timeout=c.limit)),
        "checkpoint": (Runc.checkpoint, lambda c: c.client.checkpoint(c.id, "/no/images", timeout=c.limit)),
    }
    for name, (method, call) in changing.items():
        yield Cell(name, (method,), call, lambda r: r is None)


def _running() -> Iterable[Cell]:
    """Yield the calls that wait for a process."""
    running: dict[str, tuple[object, Callable[[Call], Awaitable[object]]]] = {
        "run": (Runc.run, lambda c: c.client.run(c.id, BUNDLE, timeout=c.limit)),
        "run, checked": (Runc.run, lambda c: c.client.run(c.id, BUNDLE, timeout=c.limit, check=True)),
        "restore": (Runc.restore, lambda c: c.client.restore(c.id, BUNDLE, "/no/images", timeout=c.limit)),
    }
    for name, (method, call) in running.items():
        yield Cell(name, (method,), call, responded, waits=True)
        yield Cell(f"{name}, then well", (method,), call, responded, waits=True, only=name.split(",")[0])
    executing: dict[str, Callable[[Call], Awaitable[object]]] = {
        "exec": lambda c: c.client.exec(c.id, ["true"], timeout=c.limit),
        "exec, checked": lambda c: c.client.exec(c.id, ["true"], timeout=c.limit, check=True),
        "exec of a document": lambda c: c.client.exec(c.id, spec.Process(cwd="/"), timeout=c.limit),
        "exec with input": lambda c: c.client.exec(c.id, ["cat"], timeout=c.limit, input=bytes(1 << 20)),
        "exec, the last bytes": lambda c: c.client.exec(c.id, ["true"], timeout=c.limit, io=CapturedIO(limit=10)),
    }
    for name, call in executing.items():
        yield Cell(name, (Runc.exec,), call, responded, waits=True, needs="pid file")
    yield Cell(
        "exec, with a pidfd",
        (Runc.exec,),
        exec_with_a_pidfd,
        responded,
        waits=True,
        only="exec",
        needs="socket",
        version="1.4.0",
    )
    for io in (None, PipedIO(), PtyIO()):
        yield Cell(
            f"open_exec, {io!r}",
            (Runc.open_exec, ContainerProcess.wait),
            functools.partial(open_exec, io=io),
            exited,
            waits=True,
            needs="pid file and socket" if isinstance(io, PtyIO) else "pid file",
        )


def _making() -> Iterable[Cell]:
    """Yield the calls that leave a container or a process, and wait for nobody."""
    yield Cell(
        "exec, detached", (Runc.exec,), lambda c: c.client.exec(c.id, ["true"], timeout=c.limit, detach=True), responded
    )
    making: dict[str, tuple[object, Callable[[Call], Awaitable[object]]]] = {
        "create": (Runc.create, lambda c: c.client.create(c.id, BUNDLE, timeout=c.limit)),
        "run, detached": (Runc.run, lambda c: c.client.run(c.id, BUNDLE, timeout=c.limit, detach=True)),
        "restore, detached": (
            Runc.restore,
            lambda c: c.client.restore(c.id, BUNDLE, "/no/images", timeout=c.limit, detach=True),
        ),
    }
    for name, (method, call) in making.items():
        yield Cell(name, (method,), call, responded)
        yield Cell(f"{name}, then well", (method,), call, responded, only=name.split(",")[0])
    for option in ("console_socket", "pidfd_socket"):
        yield Cell(
            f"create with {option}",
            (Runc.create, FDSocket.receive),
            functools.partial(sent, option=option),
            responded,
            needs="socket",
            version="1.4.0",
        )


def _opening() -> Iterable[Cell]:
    """Yield the calls that give a handle on a container."""
    for io in (None, PipedIO(), PtyIO()):
        needs = "socket" if isinstance(io, PtyIO) else "pid file"
        for command, method, call in (
            ("create", Runc.open_container, open_container),
            ("restore", Runc.open_restored, open_restored),
        ):
            name, doing = f"open {command}, {io!r}", functools.partial(call, io=io)
            yield Cell(name, (method,), doing, opened, needs=needs)
            yield Cell(f"{name}, then well", (method,), doing, opened, needs=needs, only=command)
    yield Cell(
        "open create, with a pidfd",
        (Runc.open_container,),
        open_container,
        opened,
        needs="socket",
        only="create",
        version="1.4.0",
    )
    for command in ("start", "delete"):
        yield Cell(f"open_container, {command} only", (Runc.open_container,), open_container, opened, only=command)


CELLS: tuple[Cell, ...] = (*_asking(), *_changing(), *_running(), *_making(), *_opening())


# --- what is documented


def documented(*places: object) -> tuple[type[BaseException], ...]:
    """Tell the exceptions that docstrings name: in a `Raises:` section, or in a list of errors."""
    names = {
        name
        for place in places
        for line in (inspect.getdoc(place) or "").partition("Raises:")[2].splitlines()
        if (found := re.match(r"    (\w+): ", line))
        for name in found.groups()
    } | {
        name
        for place in places
        for line in (inspect.getdoc(place) or "").splitlines()
        if line.startswith("- `")
        for name in re.findall(r"`(\w+)`", line.partition(":")[0])
    }
    kinds = [getattr(runc_async, name, None) or getattr(builtins, name, None) for name in sorted(names)]
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseException))


def complaints(cell: Cell, behaviour: Behaviour, outcome: object) -> Iterable[str]:
    """Yield what is wrong with the outcome of a cell, which is a result or an exception."""
    if isinstance(outcome, BaseException):
        yield from _documented(cell, behaviour, outcome)
        if type(outcome) is not TimeoutError:
            yield from _readable(outcome)
    effect: str = behaviour.effect
    if cell.only in {"start", "delete"} and effect != "can't be started":
        effect = _later(cell.only, effect)
    if cell.name == "supports" and effect in {"crashes", "fails", "panics", "answers nonsense"}:
        effect = "right"  # a runtime that can't be asked is taken to have everything
    check = CHECKS.get(effect)
    if check is not None and not check(cell, behaviour, outcome):
        yield "isn't what should follow"


def _later(command: str, effect: str) -> str:
    """Tell what a caller sees of a runtime that misbehaves at the end of a block only, or in its second command."""
    if command == "delete" or effect == "answers nonsense":
        return "right"
    return effect


def _documented(cell: Cell, behaviour: Behaviour, exc: BaseException) -> Iterable[str]:
    """Yield whether an exception is one that nobody is told of."""
    if behaviour.effect == "can't be started" and isinstance(exc, OSError):
        return
    endless = behaviour.effect in {"hangs", "anything"} and cell.name.startswith(("open_exec", "events", "wait"))
    if endless and type(exc) is TimeoutError:  # the cell's own, where the call takes no limit
        return
    if not isinstance(exc, documented(*cell.documents)):
        yield "no docstring names it"


def _readable(exc: BaseException) -> Iterable[str]:
    """Yield what is wrong with the sentence of an exception."""
    for text in (str(exc), repr(exc)):
        if not text or not text.isprintable():
            yield f"says what no terminal should be shown: {text!r:.200}"
        if len(text) > SENTENCE:
            yield f"says too much: {len(text)} characters"


def _right(cell: Cell, _: Behaviour, outcome: object) -> bool:
    """Tell whether the result is that of a runtime that behaves well."""
    return not isinstance(outcome, BaseException) and bool(cell.right(outcome))


def _crashed(cell: Cell, behaviour: Behaviour, outcome: object) -> bool:
    """Tell whether a crash was told as such; but for a process of which the kernel has told that it had ended well."""
    if isinstance(outcome, ExitStatus) and cell.waits:
        return outcome.code == 0 and "after its work" in behaviour.name
    return isinstance(outcome, RuncCrashed) and outcome.exit_code == behaviour.code


def _failed(cell: Cell, behaviour: Behaviour, outcome: object) -> bool:
    """Tell whether a failure was reported as such: without a process, or with an error in the log, by any exit code."""
    if cell.waits and isinstance(outcome, ExitStatus):
        return outcome.code == 0 and "all of its work" in behaviour.name
    return isinstance(outcome, CommandError) and outcome.exit_code == behaviour.code


def _undecoded(cell: Cell, behaviour: Behaviour, outcome: object) -> bool:
    """Tell whether nonsense was refused with its bytes, by who reads it, and passed on by who doesn't."""
    if not cell.reads:
        if isinstance(outcome, Response) and cell.waits:
            return outcome.exit_code == 0 and outcome.stdout in {behaviour.printed, behaviour.printed[-10:]}
        return not isinstance(outcome, BaseException) or "socket" in cell.needs
    if isinstance(outcome, DecodeError):
        return outcome.data in {behaviour.printed, *behaviour.printed.split(b"\n")}
    if cell.name in {"state", "stats", "version", "spec"}:
        return False
    return not isinstance(outcome, BaseException)


def _timed_out(cell: Cell, _: Behaviour, outcome: object) -> bool:
    """Tell whether a runtime that hangs was given up; a process may have ended well before."""
    if isinstance(outcome, ExitStatus):
        return cell.waits
    return isinstance(outcome, TimeoutError)


CHECKS: dict[str, Callable[[Cell, Behaviour, object], bool]] = {
    "right": _right,
    "crashes": _crashed,
    "fails": _failed,
    "panics": _failed,
    "answers nonsense": _undecoded,
    "hangs": _timed_out,
    "can't be started": lambda _cell, _behaviour, outcome: isinstance(outcome, OSError),
}


# --- the table


class Tried(NamedTuple):
    """A cell that was tried, with what came of it.

    Attributes:
        cell: The call.
        behaviour: The runtime's.
        outcome: The result, or the exception.
    """

    cell: Cell
    behaviour: Behaviour
    outcome: object

    def __str__(self) -> str:
        """Show what was called, what the runtime did, and what came of it."""
        return f"[{self.cell.name}] of a runtime that {self.behaviour.name}: {self.outcome!r:.300}"


class Table:
    """Tries calls with behaviours, side by side, and collects what is wrong.

    Args:
        directory: An empty directory. Temporary files have to be made in its `tmp`, and sockets in its `run`.
        mark: What all processes have in their environment that a runtime starts, with the container's id behind it.

    Attributes:
        wrong: What was wrong, and with which cell.
        tried: The cells, by the container's id.
    """

    def __init__(self, directory: Path, mark: str) -> None:
        self.wrong: list[str] = []
        self.tried: dict[str, Tried] = {}
        self._mark = mark
        self._programs = directory / "programs"
        self._root = directory / "root"
        self._work = directory / "work"
        self._rooms = [directory / "tmp", directory / "run"]
        for place in (self._programs, self._root, self._work, *self._rooms):
            place.mkdir(exist_ok=True)

    async def fill(
        self,
        behaviours: Sequence[Behaviour],
        cells: Sequence[Cell] = CELLS,
        *,
        limit: float | None = None,
        at_once: int = 16,
        program_of: Callable[[Behaviour], str] | None = None,
    ) -> None:
        """Try each of the cells with each of the behaviours that it gives an occasion to.

        Args:
            behaviours: What the runtime does.
            cells: What is called.
            limit: Seconds after which a runtime is given up.
            at_once: Cells that are tried at the same time.
            program_of: Gives a program, where it isn't the one that is written for the behaviour.
        """
        before = leaks.footprint()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.wrong.append(f"the event loop was told: {context}"))
        loop.set_debug(enabled=False)  # else half of the time is spent on the traceback of each callback
        turns = asyncio.Semaphore(at_once)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            async with asyncio.TaskGroup() as group:
                for behaviour in behaviours:
                    program = program_of(behaviour) if program_of else write_runtime(self._programs, behaviour)
                    for cell in cells:
                        if behaviour.needs in {"", *cell.needs.split(" and ")}:
                            group.create_task(self._try(cell, behaviour, program, limit, turns))
        loop.set_exception_handler(None)
        self._judge_left(self._warned([warning.message for warning in warned]))
        self.wrong += [f"left behind: {left}" for left in await leaks.left_in_loop(before)]

    async def _try(
        self, cell: Cell, behaviour: Behaviour, program: str, limit: float | None, turns: asyncio.Semaphore
    ) -> None:
        """Try one cell."""
        async with turns:
            container_id = f"c{len(self.tried)}"
            tried = self.tried[container_id] = Tried(cell, behaviour, None)
            if limit is not None and cell.only in {"start", "delete"}:
                limit *= LONGER
            directory = self._work / container_id
            directory.mkdir()
            env = {self._mark: f"{self._mark}{container_id}.", "ONLY": cell.only, "VERSION": cell.version}
            client = Runc(program, root=self._root, env=env, cwd=directory, runner=Hurried())
            begun = time.monotonic()
            try:
                async with asyncio.timeout(BOUND):
                    outcome = await cell.call(Call(client, container_id, limit, directory))
            except Exception as exc:  # noqa: BLE001 - it is judged
                outcome = exc
            tried = self.tried[container_id] = tried._replace(outcome=outcome)
            if (seconds := time.monotonic() - begun) > BOUND:
                self._complain(tried, f"takes {seconds:.1f} s")
            for complaint in complaints(cell, behaviour, outcome):
                self._complain(tried, complaint)
            if isinstance(outcome, BaseException):
                shrink(outcome)

    def _complain(self, tried: Tried, complaint: str) -> None:
        """Note what is wrong with a cell."""
        self.wrong.append(f"{tried}: {complaint}")

    def _warned(self, messages: Iterable[Warning | str]) -> set[str]:
        """Return the ids of the containers that warnings name; other warnings are wrong."""
        named: set[str] = set()
        for message in messages:
            found = re.match(r"container '(\w+)' may be left behind: ", str(message))
            if isinstance(message, CleanupWarning) and found is not None:
                named.add(found[1])
            else:
                self.wrong.append(f"warned: {message!r}")
        return named

    def _judge_left(self, named: set[str]) -> None:
        """Find what the calls have left behind, and remove it."""
        for pid in kept(self._programs):
            end(pid, self._mark)
        for container in self._root.iterdir():
            tried = self.tried[container.name]
            if container.name not in named and not may_leave_container(tried):
                self._complain(tried, "leaves a container")
            with contextlib.suppress(OSError, ValueError):
                end(int((container / "pid").read_text()), self._mark)
            shutil.rmtree(container)
        for process in leaks.persisting(lambda: list(leaks.processes(self._mark)), PATIENCE):
            pid = int(process.split()[0])
            tried = self.tried[owner(pid, self._mark)]
            if tried.cell.name != "exec, detached":
                self._complain(tried, f"leaves process {process}")
            end(pid, self._mark)
        for room in self._rooms:
            self.wrong += [f"left behind: {path}" for path in room.iterdir()]


def shrink(exc: BaseException) -> None:
    """Let an exception that was judged go of what was printed, which can be 64 MiB."""
    exc.with_traceback(None)
    exc.__cause__ = exc.__context__ = None
    for name in ("data", "stdout", "stderr"):
        if isinstance(data := getattr(exc, name, None), bytes):
            setattr(exc, name, data[:100])


def may_leave_container(tried: Tried) -> bool:
    """Tell whether it is right that there is a container.

    It was asked for; or the runtime has failed and left it; or it has said that it was deleted.
    """
    cell, behaviour, outcome = tried
    if cell.only in {"", "delete"} and behaviour.effect in {"answers nonsense", "anything"}:
        return True
    if isinstance(outcome, BaseException):
        return isinstance(outcome, CommandError) and not isinstance(outcome, RuncCrashed | TerminalError)
    return not cell.name.startswith("open")


def owner(pid: int, mark: str) -> str:
    """Tell for which container a process was started; empty for none of these tests'."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/environ", "rb") as file:
            found = re.search(rf"{mark}=(?:{mark})(\w+)\.", file.read().decode(errors="replace"))
        return found[1] if found else ""
    return ""


def end(pid: int, mark: str) -> None:
    """Kill a process that a runtime of these tests has left, and no other one; wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        try:
            if owner(pid, mark):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                select.select([pidfd], [], [], 5)
        finally:
            os.close(pidfd)
