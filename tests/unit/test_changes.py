"""`ChangeStream` on directories that look like those of containers, and small real processes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import Change, ChangeKind, ChangeStream, Runc, Status, changes as module
from runc_async._host import inotify
from runc_async._linux.procfs import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runc_async.events import OnLag


class Containers:
    """Makes directories as runc makes those of its containers.

    Attributes:
        root: The root directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.processes: list[subprocess.Popen[bytes]] = []

    def create(self, name: str, *, created: str = "2026-11-28T17:53:30.633449354Z") -> subprocess.Popen[bytes]:
        """Make a container, and return its process."""
        process = subprocess.Popen(["/bin/sleep", "60"])
        self.processes.append(process)
        directory = self.root / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "exec.fifo").touch()
        record = {
            "id": name,
            "init_process_pid": process.pid,
            "init_process_start": ProcessIdentity.of(process.pid).start_time,
            "created": created,
            "config": {"rootfs": "/rootfs", "version": "1.0.2", "labels": ["bundle=/bundle", "a=b=c"]},
            "cgroup_paths": {},
        }
        (directory / "state-1").write_text(json.dumps(record))
        (directory / "state-1").rename(directory / "state.json")
        return process

    def start(self, name: str) -> None:
        """Do what the first process does when it is started, and then runc."""
        fifo = self.root / name / "exec.fifo"
        fifo.write_bytes(b"0")
        fifo.unlink()

    def delete(self, name: str) -> None:
        """Remove a container."""
        (self.root / name / "state.json").unlink()
        shutil.rmtree(self.root / name)


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    """Return a maker of containers, whose processes end with the test."""
    (tmp_path / "root").mkdir()
    made = Containers(tmp_path / "root")
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


def watch(containers: Containers, on_lag: OnLag = "block") -> ChangeStream:
    """Watch the containers."""
    return Runc("runc", root=containers.root).watch(on_lag=on_lag)


async def words(stream: ChangeStream, number: int) -> list[str]:
    """Take some changes, and return each as `ID KIND`."""
    async with asyncio.timeout(20):
        return [f"{change.id} {change.kind}" for change in [await anext(stream) for _ in range(number)]]


def ended(process: subprocess.Popen[bytes]) -> bool:
    """Wait until a child has ended, and leave it a zombie."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT) is not None


async def skipped(stream: ChangeStream, number: int) -> None:
    """Wait until a number of changes have made way."""
    async with asyncio.timeout(20):
        while stream.skipped < number:  # noqa: ASYNC110 - the stream tells nobody of what it leaves out
            await asyncio.sleep(0.01)


@pytest.mark.any_loop
async def test_a_life(containers: Containers) -> None:
    """A container is created, started, exits with its status, and is deleted; nothing stays open after the watch."""
    before = len(os.listdir("/proc/self/fd"))
    async with watch(containers) as stream:
        process = containers.create("web")
        created = await anext(stream)
        assert created.state is not None
        assert (created.state.pid, created.state.status) == (process.pid, Status.CREATED)
        assert (created.state.bundle, created.state.annotations) == ("/bundle", {"a": "b=c"})
        containers.start("web")
        assert await words(stream, 1) == ["web started"]
        process.send_signal(signal.SIGTERM)
        exited = await anext(stream)
        assert exited.status is not None
        assert (exited.kind, exited.status.signal, exited.status.oom_killed) == ("exited", signal.SIGTERM, None)
        assert ended(process)  # the watch hasn't reaped it
        containers.delete("web")
        assert await words(stream, 1) == ["web deleted"]
    await asyncio.sleep(0.1)  # the inotify instance is closed by a thread
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # that of the loop's own


async def test_one_that_comes_and_goes_unseen(containers: Containers) -> None:
    """A container that was gone before it could be read is created and deleted, and its state is None."""
    async with watch(containers) as stream:
        containers.create("web")
        containers.start("web")
        containers.delete("web")
        taken = [await anext(stream) for _ in range(2)]
    assert [(change.kind, change.state) for change in taken] == [("created", None), ("deleted", None)]


async def test_one_that_is_replaced_unseen(containers: Containers) -> None:
    """Of a container that was deleted, and created again with the same id, both are told apart."""
    async with watch(containers) as stream:
        first = containers.create("web")
        await anext(stream)
        first.kill()
        ended(first)
        containers.delete("web")
        second = containers.create("web", created="2026-11-28T18:00:00Z")
        taken = [await anext(stream) for _ in range(3)]
    assert [change.kind for change in taken] == ["exited", "deleted", "created"]
    assert taken[2].state is not None
    assert taken[2].state.pid == second.pid


async def test_many_of_one_id_unseen(containers: Containers) -> None:
    """Lives of one id that nobody could look at come one by one, and the last is read."""
    async with watch(containers) as stream:
        for _ in range(3):
            containers.create("web")
            containers.delete("web")
        last = containers.create("web")
        taken = [await anext(stream) for _ in range(7)]
    assert [change.kind for change in taken] == ["created", "deleted"] * 3 + ["created"]
    assert [change.state and change.state.pid for change in taken] == [None] * 6 + [last.pid]


async def test_a_created_one_that_is_deleted_never_started(containers: Containers) -> None:
    """The removal of the file that tells of a start is no start."""
    async with watch(containers) as stream:
        process = containers.create("web")
        await anext(stream)
        process.kill()
        assert ended(process)  # before that, a runtime removes nothing
        (containers.root / "web" / "exec.fifo").unlink()
        containers.delete("web")
        assert await words(stream, 2) == ["web exited", "web deleted"]


async def test_one_that_fails_before_its_start(containers: Containers) -> None:
    """What is being removed when it is seen, without the file that tells of a start, and has ended, never started."""
    async with watch(containers) as stream:
        (containers.root / "web").mkdir()
        await asyncio.sleep(0.05)  # the watch of the directory stands
        process = containers.create("web")
        process.kill()
        assert ended(process)
        (containers.root / "web" / "exec.fifo").unlink()
        assert await words(stream, 2) == ["web created", "web exited"]
        containers.delete("web")
        assert await words(stream, 1) == ["web deleted"]


async def test_a_failed_creation_is_none(containers: Containers) -> None:
    """A directory that goes again without a record was no container."""
    async with watch(containers) as stream:
        directory = containers.root / "web"
        directory.mkdir()
        await asyncio.sleep(0.05)  # the watch of the directory stands
        (directory / "exec.fifo").touch()
        (directory / "exec.fifo").unlink()
        directory.rmdir()
        containers.create("next")
        assert await words(stream, 1) == ["next created"]


async def test_what_was_there(containers: Containers) -> None:
    """The stream begins with what is there, whatever the kernel's events of it say."""
    containers.create("a")
    containers.start("a")
    containers.create("b").kill()
    async with watch(containers) as stream:
        told = await words(stream, 4)
        assert sorted(told) == ["a created", "a started", "b created", "b exited"]


@pytest.mark.parametrize("lost", range(1, 7))
async def test_lost_events(containers: Containers, monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    """Whichever events are dropped, what is told is the same in the end."""
    read, number = inotify.Inotify.read, 0

    def with_overflow(self: inotify.Inotify) -> list[inotify.Notice]:
        nonlocal number
        if not (notices := read(self)):
            return notices
        number += 1
        return [inotify.Notice(-1, inotify.OVERFLOW, "")] if number == lost else notices

    monkeypatch.setattr(inotify.Inotify, "read", with_overflow)
    async with watch(containers) as stream:
        process = containers.create("web")
        told = await words(stream, 1)
        containers.start("web")
        told += await words(stream, 1)
        containers.create("other")
        told += await words(stream, 1)
        process.kill()
        told += await words(stream, 1)
        containers.delete("web")
        told += await words(stream, 1)
        containers.create("web", created="2026-11-28T18:00:00Z")
        told += await words(stream, 1)
    assert told == ["web created", "web started", "other created", "web exited", "web deleted", "web created"]


async def test_a_lost_start_is_found_before_what_follows(
    containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the event of a start was lost, and the look came too early, the removal of the fifo tells of it."""
    read, lost = inotify.Inotify.read, False

    def with_overflow(self: inotify.Inotify) -> list[inotify.Notice]:
        nonlocal lost
        notices = read(self)
        if any(notice.mask & inotify.CLOSE_WRITE for notice in notices):
            lost = True
            return [inotify.Notice(-1, inotify.OVERFLOW, "")]
        return notices

    async with watch(containers) as stream:
        containers.create("web")
        assert await words(stream, 1) == ["web created"]
        monkeypatch.setattr(inotify.Inotify, "read", with_overflow)
        (containers.root / "web" / "exec.fifo").write_bytes(b"0")
        await asyncio.sleep(0.05)
        assert lost
        (containers.root / "web" / "exec.fifo").unlink()
        assert await words(stream, 1) == ["web started"]


async def test_the_root_directory_is_replaced(containers: Containers) -> None:
    """With the root directory all containers are gone, and another one in its place is watched."""
    async with watch(containers) as stream:
        containers.create("web")
        await anext(stream)
        containers.root.rename(containers.root.parent / "elsewhere")
        assert await words(stream, 1) == ["web deleted"]
        containers.create("other")
        assert await words(stream, 1) == ["other created"]


async def test_the_newest_of_each(containers: Containers) -> None:
    """With `on_lag="latest"` the newest change of each container waits; of one that has come and gone, none."""
    async with watch(containers, "latest") as stream:
        containers.create("a")
        assert await words(stream, 1) == ["a created"]
        containers.start("a")
        containers.create("b")
        containers.start("b")
        containers.create("c")
        await skipped(stream, 1)
        containers.delete("c")
        await skipped(stream, 3)
        assert sorted(await words(stream, 2)) == ["a started", "b started"]
        containers.delete("a")
        assert await words(stream, 1) == ["a deleted"]
        assert stream.skipped == 3


async def test_a_slow_consumer(containers: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `on_lag="block"` no more is taken from the kernel than may wait, and no change is lost."""
    monkeypatch.setattr(module, "LIMIT", 4)
    async with watch(containers) as stream:
        for number in range(12):
            containers.create(f"c{number}")
            await asyncio.sleep(0.01)
        assert len(stream._waiting) < 12  # pyright: ignore[reportPrivateUsage] - what waits is shown nowhere
        assert sorted(await words(stream, 12)) == sorted(f"c{number} created" for number in range(12))


async def test_closing_ends_the_iteration_of_another_task(containers: Containers) -> None:
    """`aclose()` wakes who waits, and the iteration ends; closing twice is nothing."""
    stream = watch(containers)

    async def follow() -> list[Change]:
        return [change async for change in stream]

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    assert repr(stream) == f"<ChangeStream {str(containers.root)!r} open>"
    await stream.aclose()
    await stream.aclose()
    assert await task == []
    assert [change async for change in stream] == []


async def test_a_cancelled_wait_loses_nothing(containers: Containers) -> None:
    """A wait for the next change that is cancelled leaves the change to the next one."""
    async with watch(containers) as stream:
        waiting = asyncio.create_task(stream.__anext__())
        await asyncio.sleep(0)
        containers.create("web")
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        assert await words(stream, 1) == ["web created"]


async def test_no_watch_is_left(containers: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user has no inotify watch left, the stream ends with that error, and holds nothing."""
    add = inotify.Inotify.add

    def refuse(self: inotify.Inotify, path: str, mask: int) -> int:
        if path.endswith("web"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return add(self, path, mask)

    monkeypatch.setattr(inotify.Inotify, "add", refuse)
    stream = watch(containers)
    async with stream:
        containers.create("other")
        assert await words(stream, 1) == ["other created"]
        containers.create("web")
        with pytest.raises(OSError, match="No space left"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    with pytest.raises(OSError, match="No space left"):
        await anext(watch(containers))


def test_another_word_for_lag_is_refused() -> None:
    """An unknown `on_lag` is refused at once."""
    wrong: Any = "drop"
    with pytest.raises(ValueError, match="on_lag must be 'block' or 'latest', not 'drop'"):
        Runc().watch(on_lag=wrong)


async def test_a_dropped_stream_is_closed(containers: Containers) -> None:
    """A stream that is dropped while it watches closes what it holds, and warns."""
    stream = watch(containers)
    containers.create("web")
    await anext(stream)
    with pytest.warns(ResourceWarning, match="unclosed <ChangeStream"):
        del stream


def test_a_change_is_compared_by_its_kind() -> None:
    """A kind is its word."""
    assert ChangeKind("oom") == "oom" == f"{ChangeKind.OOM}"
