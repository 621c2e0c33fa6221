"""What each command does to a container that is created, running, paused or stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from runtime import has_controller

from runc_async.errors import (
    CommandError,
    ContainerExists,
    ContainerNotFound,
    ContainerNotPaused,
    ContainerNotRunning,
    ContainerPaused,
    ContainerRunning,
    RuncCrashed,
)
from runc_async.spec import LinuxPids, LinuxResources
from runc_async.state import Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from containers import MakeBundle, MakeContainer
    from runtime import Runtime

    from runc_async.client import Runc

pytestmark = pytest.mark.runc

Outcome = type[CommandError] | Status | None
"""An error; or the status afterwards, None for a container that is gone."""

COMMANDS: dict[str, Callable[[Runc, str], Awaitable[Any]]] = {
    "start": lambda client, name: client.start(name),
    "kill": lambda client, name: client.kill(name, 0),
    "kill-all": lambda client, name: client.kill(name, 0, all=True),
    "pause": lambda client, name: client.pause(name),
    "resume": lambda client, name: client.resume(name),
    "delete": lambda client, name: client.delete(name),
    "force": lambda client, name: client.delete(name, force=True),
    "exec": lambda client, name: client.exec(name, ["true"], check=True),
    "state": lambda client, name: client.state(name),
    "ps": lambda client, name: client.ps(name),
    "stats": lambda client, name: client.stats(name),
    "update": lambda client, name: client.update(name, LinuxResources(pids=LinuxPids(limit=50))),
}

CREATED, RUNNING, PAUSED, STOPPED = Status.CREATED, Status.RUNNING, Status.PAUSED, Status.STOPPED

# What has no line here is no error and changes nothing.
OUTCOMES: dict[Status, dict[str, Outcome]] = {
    CREATED: {
        "start": RUNNING,
        "pause": PAUSED,
        "resume": ContainerNotPaused,
        "delete": None,
        "force": None,
    },
    RUNNING: {
        "start": ContainerRunning,
        "pause": PAUSED,
        "resume": ContainerNotPaused,
        "delete": ContainerRunning,
        "force": None,
    },
    PAUSED: {
        "start": ContainerPaused,
        "pause": ContainerPaused,
        "resume": RUNNING,
        "delete": ContainerPaused,
        "force": None,
        "exec": ContainerPaused,
    },
    STOPPED: {
        "start": ContainerNotRunning,
        "kill": ContainerNotRunning,
        "pause": ContainerNotRunning,
        "resume": ContainerNotPaused,
        "delete": None,
        "force": None,
        "exec": ContainerNotRunning,
        "stats": ContainerNotRunning,
        "update": ContainerNotRunning,
    },
}

# crun takes more for done, and doesn't always tell a paused container from a running one.
OUTCOMES_IN_CRUN: dict[Status, dict[str, Outcome]] = {
    CREATED: {"pause": CREATED, "resume": CREATED},
    RUNNING: {"resume": RUNNING},
    PAUSED: {"start": ContainerRunning, "pause": PAUSED, "delete": ContainerRunning},
    STOPPED: {"resume": ContainerNotRunning, "update": STOPPED},
}

# runsc panics over a pause, has no processes before the start, and takes an ended sandbox for one that runs.
OUTCOMES_IN_SANDBOX: dict[Status, dict[str, Outcome]] = {
    CREATED: {"pause": RuncCrashed, "ps": ContainerNotRunning},
    RUNNING: {},
    PAUSED: {},
    STOPPED: {"start": ContainerRunning},
}


@pytest.mark.proof(every=3)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("status", OUTCOMES)
async def test_a_command_in_a_status(
    client: Runc, runtime: Runtime, make_container: MakeContainer, status: Status, command: str
) -> None:
    """The command does its work, or says why the status doesn't allow it and changes nothing."""
    if command == "stats" and not runtime.has("events"):
        pytest.skip(f"{runtime} has no events")
    if command == "kill-all" and status == PAUSED:
        pytest.skip("runc up to 1.1 thaws the container to signal its processes, others don't")
    if command == "update" and not has_controller("pids"):
        pytest.skip("there is no pids controller here")
    own = {"crun": OUTCOMES_IN_CRUN, "runsc": OUTCOMES_IN_SANDBOX}.get(runtime.name)
    outcomes = OUTCOMES[status] | (own[status] if own else {})
    outcome = outcomes.get(command, status)
    name = await make_container(status)
    if isinstance(outcome, type):
        with pytest.raises(outcome) as caught:
            await COMMANDS[command](client, name)
        assert str(caught.value).startswith(f"container {name!r}: ")
        assert "\n" not in str(caught.value)
        outcome = status
    else:
        await COMMANDS[command](client, name)
    assert [state.status for state in await client.list()] == ([] if outcome is None else [outcome])


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "force"])
async def test_a_command_for_nobody(
    client: Runc, runtime: Runtime, container_id: Callable[[], str], command: str
) -> None:
    """Whatever needs a container says that there is none of that id."""
    if command == "stats" and not runtime.has("events"):
        pytest.skip(f"{runtime} has no events")
    name = container_id()
    with pytest.raises(ContainerNotFound, match=name):
        await COMMANDS[command](client, name)


@pytest.mark.parametrize("status", OUTCOMES)
@pytest.mark.parametrize("command", ["create", "run"])
async def test_an_id_that_is_taken(
    client: Runc, make_bundle: MakeBundle, make_container: MakeContainer, status: Status, command: str
) -> None:
    """No second container gets the id, and the first one stays as it was."""
    name = await make_container(status)
    before = await client.state(name)
    with pytest.raises(ContainerExists, match=name):
        await getattr(client, command)(name, make_bundle(["true"]))
    assert await client.state(name) == before
