"""`Runc.watch` on real containers that other processes make and end."""

from __future__ import annotations

import asyncio
import contextlib
import os
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import leaks
import msgspec
import proof
import pytest
from churn import EXIT_CODE, Account, Bundles, Churn

from runc_async import ChangeKind, Runc, State, Status
from runc_async._host import inotify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from containers import MakeBundle, MakeContainer
    from proof import Tried
    from runtime import Runtime

    from runc_async import Change, ChangeStream

pytestmark = [pytest.mark.runc, pytest.mark.root]

COUNT = int(os.environ.get("WATCH_CONTAINERS", proof.amount(12, 4)))
"""How many ids each run of the churn has, with two lives each."""


async def take(changes: ChangeStream, kind: ChangeKind, name: str | None = None) -> list[Change]:
    """Take changes up to one of a kind."""
    taken: list[Change] = []
    async with asyncio.timeout(30):
        async for change in changes:
            taken.append(change)
            if change.kind == kind and name in {None, change.id}:
                return taken
    raise AssertionError


def told(change: Change) -> State:
    """Return the state of a change, without what crun's `list` leaves out."""
    assert change.state is not None
    return change.state if change.state.oci_version else msgspec.structs.replace(change.state, rootfs="")


def kinds(changes: list[Change], name: str) -> list[str]:
    """Return the kinds of a container's changes."""
    return [change.kind for change in changes if change.id == name]


@pytest.mark.any_loop
async def test_a_life(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """Each change comes once, in order, with the state that `list` has, and the exit status."""
    name = container_id()
    async with client.watch() as changes:
        await client.create(name, make_bundle(["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.02; done"]))
        (created,) = await take(changes, ChangeKind.CREATED)
        (listed,) = await client.list()
        assert told(created) == listed
        assert listed.status == Status.CREATED
        await client.start(name)
        (started,) = await take(changes, ChangeKind.STARTED)
        (listed,) = await client.list()
        assert told(started) == listed
        await client.pause(name)
        (paused,) = await take(changes, ChangeKind.PAUSED)
        (listed,) = await client.list()
        assert told(paused) == listed
        await client.resume(name)
        await take(changes, ChangeKind.RESUMED)
        await asyncio.sleep(0.1)  # the shell sets its trap
        await client.kill(name)
        (exited,) = await take(changes, ChangeKind.EXITED)
        assert exited.status is not None
        assert (exited.status.code, exited.status.signal) == (7, None)
        (listed,) = await client.list()
        assert told(exited) == listed
        await client.delete(name)
        (deleted,) = await take(changes, ChangeKind.DELETED)
        assert deleted.state == exited.state


async def test_what_is_there_comes_first(client: Runc, make_container: MakeContainer) -> None:
    """A container that is there begins with the changes that have brought it where it is."""
    created = await make_container(Status.CREATED)
    running = await make_container()
    paused = await make_container(Status.PAUSED)
    stopped = await make_container(Status.STOPPED)
    expected = {
        created: ["created"],
        running: ["created", "started"],
        paused: ["created", "started", "paused"],
        stopped: ["created", "started", "exited"],
    }
    async with client.watch() as changes:
        taken = [await anext(changes) for _ in range(9)]
        assert {name: kinds(taken, name) for name in expected} == expected
        assert {change.id: told(change) for change in taken} == {state.id: state for state in await client.list()}


async def test_the_root_directory_comes_and_goes(
    runtime: Runtime, root: Path, make_bundle: MakeBundle, container_id: Callable[[], str]
) -> None:
    """A root directory that doesn't exist, not even its parent, is watched as soon as it does; again if it is gone."""
    client = Runc(runtime.command, root=root / "deep" / "below")
    bundle = make_bundle(["sleep", "60"])
    async with client.watch() as changes:
        for _ in range(2):
            name = container_id()
            await client.run(name, bundle, detach=True)
            await client.container(name).stop(grace=0)
            await client.delete(name)  # by force, crun freezes the container for a moment
            taken = await take(changes, ChangeKind.DELETED, name)
            assert kinds(taken, name) == ["created", "started", "exited", "deleted"]
            for left in (root / "deep" / "below").iterdir():
                left.rmdir()  # crun's .empty-directory
            (root / "deep" / "below").rmdir()
            (root / "deep").rmdir()


@pytest.mark.needs("memory controller")
async def test_out_of_memory(client: Runc, make_bundle: MakeBundle, container_id: Callable[[], str]) -> None:
    """A process that is killed for memory is reported, once for each look, and the container may go on."""
    name = container_id()
    hungry = "x=12345678; while true; do x=$x$x; done"
    memory = {"limit": 16 << 20, "swap": 16 << 20}
    bundle = make_bundle(["sh", "-c", f"(sh -c '{hungry}'); sleep 60"], linux={"resources": {"memory": memory}})
    async with client.watch() as changes:
        await client.run(name, bundle, detach=True)
        taken = await take(changes, ChangeKind.OOM)
        assert kinds(taken, name) == ["created", "started", "oom"]
        assert taken[-1].state is not None
        assert taken[-1].state.status == Status.RUNNING
        await client.delete(name, force=True)
        taken = await take(changes, ChangeKind.DELETED)
        assert kinds(taken, name) == ["exited", "deleted"]  # removing the cgroup signals the eventfd, and is no kill
        assert taken[0].status is not None
        assert taken[0].status.oom_killed


async def test_what_isnt_a_container_isnt_reported(client: Runc, make_bundle: MakeBundle, root: Path) -> None:
    """A creation that fails before there is a record, a directory without one, and a stray file are no changes."""
    missing = {"type": "bind", "source": "/no/such/source", "destination": "/mnt", "options": ["rbind"]}
    async with client.watch() as changes:
        (root / "empty").mkdir()
        (root / "file").touch()
        (root / "full").mkdir()
        (root / "full" / "other").touch()
        with pytest.raises(Exception, match="/no/such/source"):
            await client.run("failing", make_bundle(["true"], mounts=[missing]))
        await client.run("last", make_bundle(["true"]))
        taken = await take(changes, ChangeKind.DELETED, "last")
        assert {change.id for change in taken} == {"last"}
    (root / "file").unlink()
    (root / "full" / "other").unlink()
    (root / "full").rmdir()
    (root / "empty").rmdir()


async def test_a_program_that_isnt_there_is_found_missing_before_or_after_the_creation(
    client: Runc, make_bundle: MakeBundle
) -> None:
    """A creation that fails after the record was written is a container that comes and goes, and is never started."""
    # crun, and runc where the program is looked for after the record is written, have made that one. The record may be
    # gone before it can be read: then no state is known, and no end.
    async with client.watch() as changes:
        with pytest.raises(Exception, match="no-such-program"):
            await client.run("failing", make_bundle(["no-such-program"]))
        await client.run("last", make_bundle(["true"]))
        taken = await take(changes, ChangeKind.DELETED, "last")
    assert {change.id for change in taken} - {"failing"} == {"last"}
    assert kinds(taken, "failing") in ([], ["created", "deleted"], ["created", "exited", "deleted"])


class MakeChurn(Protocol):
    """What the fixture `make_churn` gives."""

    def __call__(self, seed: int, deaths: float = 0.0) -> Churn:
        """Return a churn in the client's root directory."""
        ...


@pytest.fixture
def make_churn(runtime: Runtime, root: Path, make_bundle: MakeBundle) -> MakeChurn:
    """Return a function that makes a churn."""
    bundles = Bundles(make_bundle(["sleep", "1000"]), make_bundle(["sh", "-c", f"exit {EXIT_CODE}"]))

    def make(seed: int, deaths: float = 0.0) -> Churn:
        random = Random(seed)  # noqa: S311 - no secret
        return Churn(runtime.command, root, bundles, random, deaths=deaths, freezes=runtime.is_crun)

    return make


@pytest.fixture
def names(prefix: str) -> list[str]:
    """Return the container ids of a churn."""
    return [f"{prefix}churn{number}" for number in range(COUNT)]


async def churned(client: Runc, churn: Churn, names: list[str]) -> tuple[Account, Any]:
    """Watch a churn until all is over."""
    account = Account()

    async def follow(changes: ChangeStream) -> None:
        async for change in changes:
            account.add(change)

    async with client.watch() as changes:
        following = asyncio.create_task(follow(changes))
        truth = await churn.run(names, lives=2, at_once=4)
        async with asyncio.timeout(30):
            await asyncio.sleep(0.3)
            while not account.is_over():  # noqa: ASYNC110 - what is to come is no event of ours
                await asyncio.sleep(0.05)
        await changes.aclose()
        await following
    return account, truth


@pytest.mark.timeout(60 + 4 * COUNT)
async def test_an_account_of_many(client: Runc, make_churn: MakeChurn, names: list[str], tried: Tried) -> None:
    """What is told of containers that are made, paused, killed and deleted at random is what is true of each."""
    account, truth = await churned(client, make_churn(1), names)
    assert account.disagreements(truth) == []
    tried("watched containers", len(names) * 2)


@pytest.mark.timeout(60 + 4 * COUNT)
async def test_an_account_without_some_events(
    client: Runc, make_churn: MakeChurn, names: list[str], monkeypatch: pytest.MonkeyPatch, tried: Tried
) -> None:
    """Where the kernel had to drop events, nothing that is told is wrong, and what was missed is found."""
    random, read, dropped = Random(2), inotify.Inotify.read, 0  # noqa: S311 - no secret

    def with_overflows(self: inotify.Inotify) -> list[inotify.Notice]:
        nonlocal dropped
        notices = read(self)
        if not notices or random.random() > 0.15:
            return notices
        dropped += len(notices)
        return [inotify.Notice(-1, inotify.OVERFLOW, "")]

    monkeypatch.setattr(inotify.Inotify, "read", with_overflows)
    account, truth = await churned(client, make_churn(2), names)
    assert account.disagreements(truth, lost=True) == []
    assert dropped > 0
    tried("watched containers, events dropped", len(names) * 2)


@pytest.mark.timeout(60 + 4 * COUNT)
async def test_an_account_of_what_is_killed(
    client: Runc, runtime: Runtime, make_churn: MakeChurn, names: list[str], tried: Tried
) -> None:
    """Where the runtime itself is killed at random moments, what is told is true all the same."""
    if runtime.is_crun:
        pytest.skip("a crun that is killed leaves half of a record, and processes of its own")
    churn = make_churn(3, deaths=0.25)
    account, truth = await churned(client, churn, names)
    for cgroup in leaks.cgroups(names[0].removesuffix("0")):  # a runc that was killed leaves them, and no record
        async with asyncio.timeout(10):
            while os.path.isdir(cgroup):
                with contextlib.suppress(OSError):
                    os.rmdir(cgroup)
                await asyncio.sleep(0.01)
    assert account.disagreements(truth) == []
    tried("watched containers, runtimes killed", churn.killed)
