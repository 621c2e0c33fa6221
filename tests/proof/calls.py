"""One call of each command of the client, and what was started by a fake runner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runc_async import Runc, spec
from runc_async.testing import FakeRunner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BUNDLE = "/no/such/bundle"

PROCESS = spec.Process(cwd="/path/to/dir", user=spec.User(uid=1000, gid=1000))

# One call of each command that changes a container or asks for something.
CALLS: dict[str, Callable[[Runc], Awaitable[object]]] = {
    "create": lambda client: client.create("fake-id", BUNDLE),
    "start": lambda client: client.start("fake-id"),
    "kill": lambda client: client.kill("fake-id"),
    "delete": lambda client: client.delete("fake-id"),
    "pause": lambda client: client.pause("fake-id"),
    "resume": lambda client: client.resume("fake-id"),
    "update": lambda client: client.update("fake-id", spec.LinuxResources()),
    "state": lambda client: client.state("fake-id"),
    "list": lambda client: client.list(),
    "ps": lambda client: client.ps("fake-id"),
    "top": lambda client: client.top("fake-id"),
    "events": lambda client: client.stats("fake-id"),
    "spec": lambda client: client.spec(),
    "features": lambda client: client.features(),
    "version": lambda client: client.version(),
    "run": lambda client: client.run("fake-id", BUNDLE, check=True),
    "exec": lambda client: client.exec("fake-id", PROCESS, check=True),
    "exec of arguments": lambda client: client.exec("fake-id", ["id"], check=True),
}

QUIET = ("create", "start", "kill", "delete", "pause", "resume", "update", "run", "exec", "exec of arguments")

QUERIES = ("state", "list", "ps", "top", "events", "spec", "features", "version")


async def invoked(runner: FakeRunner, command: str) -> None:
    """Wait until a command was started."""
    while command not in commands(runner):  # noqa: ASYNC110 - the fake tells nobody
        await asyncio.sleep(0)


def commands(runner: FakeRunner) -> list[str]:
    """Tell what was started."""
    return [invocation.command for invocation in runner.invocations]
