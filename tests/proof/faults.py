"""Faults of the host: no descriptor, no room, no process, no program; and what an operation does about them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import containers
import leaks
from operations import Operation, Stage
from runtime import CGROUPS, is_cgroup2
from sweep import Place, complaints

from runc_async import CleanupWarning, RuncError
from runc_async._process.running import ProcessRunner, RunningProcess
from runc_async.runner import Completed, Invocation

Fault = Callable[[], AbstractContextManager[object]]

PAGE = 4096


class Trials:
    """Operations that are run while something is wrong with the host.

    Attributes:
        tried: How many times the host was at fault.
        failures: What the operations raised.
        found: What they shouldn't have raised, and what they left behind.
    """

    def __init__(self, stage: Stage, place: Place, root: Path) -> None:
        """Keep where they are run, where to look, and the runtime's root directory."""
        self.tried = 0
        self.failures: list[Exception] = []
        self.found: list[str] = []
        self._stage = stage
        self._place = place
        self._root = root

    async def under(self, operation: Operation, fault: AbstractContextManager[object], name: str = "") -> bool:
        """Run an operation once while there is a fault, and return whether it succeeded all the same.

        What it raises has to be documented, and it may leave nothing but a container that a `CleanupWarning` names.
        Such a one has to be gone after `delete --force`, once the fault is.
        """
        await self._stage.ready(operation)
        before = self._place.stock()
        known = set(leaks.containers(self._root))
        error: Exception | None = None
        with warnings.catch_warnings(record=True) as caught, complaints() as said:
            warnings.simplefilter("always", CleanupWarning)
            with fault:
                try:
                    await operation.work(self._stage)
                except Exception as exc:  # noqa: BLE001 - judged below
                    error = exc
                    self.failures.append(exc)
        self.tried += 1
        problems = [*said]
        told = " ".join(str(warning.message) for warning in caught)
        if error is not None:
            problems += [f"raised {culprit!r}" for culprit in undocumented(error)]
        for left in sorted(set(leaks.containers(self._root)) - known):
            if error is not None and left not in told:
                problems.append(f"left container {left} and did not say so: {error!r}")
            if error is not None or left in told:  # an operation that expects to run out of time raises nothing
                await self._stage.client.delete(left, force=True)
        await self._stage.done(operation, cut_short=error is not None)
        problems += [f"left {left}" for left in await self._place.left_since(before)]
        self.found += [f"{operation} {name}: {problem}" for problem in problems]
        return error is None


def undocumented(error: BaseException) -> list[BaseException]:
    """Return what of an error, or of a group of them, no docstring speaks of."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return [culprit for member in group.exceptions for culprit in undocumented(member)]
    return [] if isinstance(error, (RuncError, OSError)) else [error]


# no room


@contextlib.contextmanager
def small_disk(directory: Path, size: int = 64 * PAGE) -> Generator[Path]:
    """Mount a file system of `size` bytes on a new directory below `directory`, for the time of the block."""
    place = Path(tempfile.mkdtemp(dir=directory))
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["/bin/umount", "--lazy", place], check=True)
        place.rmdir()


@contextlib.contextmanager
def full(disk: Path, spare: int = 0) -> Generator[None]:
    """Leave so many pages of a file system free."""
    filler = disk / ".filler"
    with open(filler, "wb", buffering=0) as file:
        if room := os.statvfs(disk).f_bavail - spare:
            os.posix_fallocate(file.fileno(), 0, room * PAGE)
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only(disk: Path) -> Generator[None]:
    """Let nobody write to a file system."""
    subprocess.run(["/bin/mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["/bin/mount", "-o", "remount,rw", disk], check=True)


# no process


class Pids:
    """A cgroup that limits how many processes and threads this process and its children may have."""

    def __init__(self, mark: str) -> None:
        """Name the cgroup."""
        top = CGROUPS if is_cgroup2() else CGROUPS / "pids"
        self._home = top / own_cgroup("" if is_cgroup2() else "pids").lstrip("/")
        self._cgroup = self._home / f"{mark}pids"

    @contextlib.contextmanager
    def entered(self) -> Generator[None]:
        """Live in it for the time of the block."""
        self._cgroup.mkdir()
        try:
            self._move(self._cgroup)
            yield
        finally:
            self._move(self._home)
            for left in sorted(self._cgroup.rglob("*/"), reverse=True):
                left.rmdir()
            self._cgroup.rmdir()

    def _move(self, cgroup: Path) -> None:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))

    @contextlib.contextmanager
    def spare(self, count: int) -> Generator[None]:
        """Let only so many processes and threads be made."""
        current = int((self._cgroup / "pids.current").read_text())
        (self._cgroup / "pids.max").write_text(str(current + count))
        try:
            yield
        finally:
            (self._cgroup / "pids.max").write_text("max")


def own_cgroup(controller: str) -> str:
    """Tell the path of this process's cgroup in the hierarchy of a controller; "" for that of cgroup v2."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    raise LookupError(controller)


# no program


@contextlib.contextmanager
def replaced(program: Path, how: str) -> Generator[None]:
    """Do something to a program: `removed`, `not executable`, or put something else in its place."""
    away = program.with_name(program.name + ".away")
    program.rename(away)
    try:
        match how:
            case "removed":
                pass
            case "not executable":
                program.write_bytes(b"\x7fELF")
                program.chmod(0o600)
            case "garbage":
                program.write_bytes(b"\x7fELF and no more")
                program.chmod(0o700)
            case "a directory":
                program.mkdir()
            case "a failure":
                program.write_text("#!/bin/sh\nexit 3\n")
                program.chmod(0o700)
            case _:
                raise ValueError(how)
        yield
    finally:
        if how == "a directory":
            program.rmdir()
        away.rename(program)


# runc killed


class Killing(ProcessRunner):
    """A runner that sends SIGKILL to runc some time after it was started.

    Attributes:
        command: The command that it happens to; "" for none.
        after: The time in seconds.
    """

    def __init__(self) -> None:
        """Begin without killing."""
        self.command = ""
        self.after = 0.0

    async def run(self, invocation: Invocation, *, started: Callable[[int], None] | None = None) -> Completed:
        """Do as the runner does, and kill."""
        process = await self._start(invocation, live=False)
        with process.child.watched(), self._kills(process):
            try:
                if started is not None:
                    started(process.pid)
                return await process.finish()
            except BaseException:
                await process.aclose()
                raise
            finally:
                process.close_workload()

    async def open(self, invocation: Invocation) -> RunningProcess:
        """Do as the runner does, and kill."""
        process = await super().open(invocation)
        if invocation.command == self.command:
            self._later(process)
        return process

    def _later(self, process: RunningProcess) -> Callable[[], None]:
        if not self.after:  # before a busy loop comes around to it
            process.child.send_signal(signal.SIGKILL)
        handle = asyncio.get_running_loop().call_later(self.after, process.child.send_signal, signal.SIGKILL)
        return handle.cancel

    @contextlib.contextmanager
    def _kills(self, process: RunningProcess) -> Generator[None]:
        cancel = self._later(process) if process.invocation.command == self.command else None
        try:
            yield
        finally:
            if cancel is not None:
                cancel()


def force_deleted(program: str, root: Path, name: str) -> None:
    """Delete a container without the library."""
    containers.runc("--root", root, "delete", "--force", name, command=program)
