"""Containers that other processes make, pause, kill and delete at random, and what is true of each."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from runc_async.change import Change, ChangeKind

EXIT_CODE = 23
"""What the program of a short life exits with."""

LETTERS = {kind: kind[0].upper() for kind in ChangeKind}
"""One letter for each kind, so that a life is a word, and what may be true a pattern."""


class Bundles(NamedTuple):
    """What containers are made of.

    Attributes:
        long: Its program sleeps.
        short: Its program exits at once, with `EXIT_CODE`.
    """

    long: Path
    short: Path


class Life(NamedTuple):
    """What is true of one container.

    Attributes:
        pattern: A pattern for the letters of its changes.
        ended: How its first process ended, as `ExitStatus` has it: the code, or minus the signal; None if unknown.
    """

    pattern: str
    ended: int | None


class Churn:
    """Drives a runtime's command line.

    Args:
        command: The runtime.
        root: Its root directory.
        bundles: What containers are made of.
        random: What decides.
        deaths: How many of the runtime's processes are killed, of one.
        freezes: The runtime freezes what it deletes, for a moment; one may see that.
    """

    def __init__(
        self,
        command: str,
        root: Path,
        bundles: Bundles,
        random: Random,
        *,
        deaths: float = 0.0,
        freezes: bool = False,
    ) -> None:
        self.killed = 0
        self._freezes = freezes
        self._command = command
        self._root = root
        self._bundles = bundles
        self._random = random
        self._deaths = deaths

    async def run(self, names: Sequence[str], lives: int, at_once: int) -> dict[str, list[Life]]:
        """Run some lives of each container id, and return what is true of them."""
        truth: dict[str, list[Life]] = {}
        turns = asyncio.Semaphore(at_once)

        async def work(name: str) -> None:
            for _ in range(lives):
                async with turns:
                    if (life := await self._live(name)) is not None:
                        truth.setdefault(name, []).append(life)

        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(work(name))
        return truth

    async def _live(self, name: str) -> Life | None:
        """Run one life; None if there never was a container."""
        short = self._random.random() < 0.3
        bundle = self._bundles.short if short else self._bundles.long
        await self._call("create", "--bundle", str(bundle), name)
        status = await self._status(name)
        if status is None:
            await self._delete(name)
            return None
        pattern, ended, started = "C", -signal.SIGKILL, False
        if status == "created" and self._random.random() < 0.8:
            certain = await self._call("start", name)
            status = await self._status(name)
            # A runc that was killed may have started the program, and not have taken note of it.
            pattern += "S" if certain or status in {"running", "paused"} else "S?"
            started = certain
        while status == "running" and not short and self._random.random() < 0.5:
            await self._call("pause", name)
            status = await self._status(name)
            while status == "paused":
                await self._call("resume", name)
                status = await self._status(name)
                pattern += "" if status == "paused" else "PR"
        if status == "running" and not short and self._random.random() < 0.5:
            await self._call("kill", name, "KILL")
        while short and started and status == "running":
            status = await self._status(name)  # else the deletion could kill it before it has executed anything
        await self._delete(name)
        if short and started:
            ended = EXIT_CODE
        if self._freezes:
            pattern += "(PR?)?"
        return Life(f"{pattern}ED", ended if not self._deaths else None)

    async def _delete(self, name: str) -> None:
        """Delete a container, or what is left of it, whatever it takes."""
        for attempt in range(20):
            await self._call("delete", "--force", name, mortal=attempt == 0)
            if not (self._root / name).exists():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{name} can't be deleted")

    async def _status(self, name: str) -> str | None:
        """Ask for the status of a container; None if there is none."""
        process = await asyncio.create_subprocess_exec(
            self._command,
            "--root",
            self._root,
            "state",
            name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        return json.loads(output)["status"] if process.returncode == 0 else None

    async def _call(self, *words: str, mortal: bool = True) -> bool:
        """Run the runtime, and perhaps kill it; tell whether it has succeeded."""
        process = await asyncio.create_subprocess_exec(
            self._command,
            "--root",
            self._root,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if mortal and self._random.random() < self._deaths:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._random.random() * 0.05)
            if process.returncode is None:
                process.kill()
                self.killed += 1
        return await process.wait() == 0


class Account:
    """What a watch has told of each container: a word for each life."""

    def __init__(self) -> None:
        self.lives: dict[str, list[list[Change]]] = {}

    def add(self, change: Change) -> None:
        """Take a change into account."""
        lives = self.lives.setdefault(change.id, [])
        if change.kind == ChangeKind.CREATED or not lives:
            lives.append([])
        lives[-1].append(change)

    def is_over(self) -> bool:
        """Whether nothing lives."""
        return all(lives[-1][-1].kind == ChangeKind.DELETED for lives in self.lives.values())

    def disagreements(self, truth: dict[str, list[Life]], *, lost: bool = False) -> list[str]:
        """Return what isn't true, or is missing.

        Args:
            truth: What is true.
            lost: Events were lost: short pauses, and whole short lives, may be missing.
        """
        found: list[str] = []
        for name in sorted({*truth, *self.lives}):
            told = [word(life) for life in self.lives.get(name, [])]
            expected = [life.pattern for life in truth.get(name, [])]
            if lost:
                # A pause may be over, and a program have ended, before the next look; also a program that was paused at
                # the last one.
                expected = [pattern.replace("PR", "(PR?)?").replace("CS", "CS?") for pattern in expected]
            # A container that was gone before it could be read, or that was refused: created and deleted, no more.
            pattern = "".join(f"({each} |-CD ){'?' if lost else ''}" for each in expected)
            if not re.fullmatch(f"(-CD )*{pattern}(-CD )*", "".join(f"{each} " for each in told)):
                found.append(f"{name}: told {told}, true {expected}")
            elif len(told) == len(expected):
                found += [
                    f"{name}: told {end.status}, true {life.ended}"
                    for changes, life in zip(self.lives.get(name, []), truth.get(name, []), strict=True)
                    for end in changes
                    if end.kind == ChangeKind.EXITED and life.ended not in {None, code(end)}
                ]
        return found

    def unread(self) -> int:
        """Return how many were gone before they could be read."""
        return sum(word(life) == "-CD" for lives in self.lives.values() for life in lives)


def word(life: list[Change]) -> str:
    """Return the letters of a life; with a dash before them if there is no state."""
    return ("-" if life[0].state is None else "") + "".join(LETTERS[change.kind] for change in life)


def code(change: Change) -> int | None:
    """Return how a process ended: the code, or minus the signal."""
    assert change.status is not None
    return change.status.code if change.status.signal is None else -change.status.signal
