"""News of files: that one was made, and that it is complete."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
from pathlib import Path

import leaks
import pytest
import uvloop
from children import run_in
from descriptors import spare

from runc_async._linux import inotify, libc as libc_module
from runc_async._linux.inotify import arrivals, news

pytestmark = pytest.mark.any_loop


class News:
    """What has arrived."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()

    def __call__(self, name: str, complete: bool) -> None:  # noqa: FBT001 - as it is called
        """Note it."""
        self.told.put_nowait((name, complete))

    async def next(self) -> tuple[str, bool]:
        """Wait for the next one."""
        async with asyncio.timeout(5):
            return await self.told.get()


async def test_a_file_that_is_renamed(tmp_path: Path) -> None:
    """A file is told as it is made, when it is closed, and under its last name when it is renamed."""
    news = News()
    with arrivals(str(tmp_path), news):
        (tmp_path / ".pid").write_text("1", encoding="ascii")
        (tmp_path / ".pid").rename(tmp_path / "pid")
        assert [await news.next() for _ in range(3)] == [(".pid", False), (".pid", True), ("pid", True)]


async def test_a_file_that_is_written_in_place(tmp_path: Path) -> None:
    """A file that nobody renames is complete when its writer has closed it."""
    news = News()
    with arrivals(str(tmp_path), news), (tmp_path / "pid").open("w", encoding="ascii") as file:
        assert await news.next() == ("pid", False)
        file.write("1")
        assert news.told.empty()
        file.close()
        assert await news.next() == ("pid", True)


async def test_names_of_all_kinds(tmp_path: Path) -> None:
    """Names may be long, and no text."""
    news = News()
    names = ["x" * 255, os.fsdecode(b"\xff\xfe"), "é\n"]
    with arrivals(str(tmp_path), news):
        for name in names:
            (tmp_path / name).mkdir()
        assert [await news.next() for _ in names] == [(name, False) for name in names]


async def test_several_watches(tmp_path: Path) -> None:
    """Watches of one directory, and of several, share one descriptor, and each ends for itself."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    before = leaks.footprint()
    first, second, other = News(), News(), News()
    with contextlib.ExitStack() as stack:
        stack.enter_context(arrivals(str(tmp_path / "b"), other))
        with arrivals(str(tmp_path / "a"), first):
            stack.enter_context(arrivals(str(tmp_path / "a"), second))
            opened = leaks.footprint().descriptors - before.descriptors
            assert [target for target in opened if "inotify" in target] == list(opened)
            assert len(opened) == 1
            (tmp_path / "a" / "1").mkdir()
            assert await first.next() == await second.next() == ("1", False)
        (tmp_path / "a" / "2").mkdir()
        (tmp_path / "b" / "3").mkdir()
        assert await second.next() == ("2", False)
        assert await other.next() == ("3", False)
        assert first.told.empty()
    assert await leaks.left_in_loop(before) == []


async def test_a_watch_that_ends_while_it_is_told(tmp_path: Path) -> None:
    """Who ends a watch from within hears nothing more of what the kernel has told already."""
    told: list[str] = []
    with contextlib.ExitStack() as stack:

        def arrived(name: str, _: bool) -> None:  # noqa: FBT001 - as it is called
            told.append(name)
            stack.close()

        stack.enter_context(arrivals(str(tmp_path), arrived))
        (tmp_path / "1").mkdir()
        (tmp_path / "2").mkdir()
        for _ in range(3):
            await asyncio.sleep(0)
    assert told == ["1"]


async def test_many_files(tmp_path: Path) -> None:
    """More news than one read holds are all told."""
    news, names = News(), [f"{number:0200}" for number in range(600)]
    with arrivals(str(tmp_path), news):
        for name in names:
            (tmp_path / name).mkdir()
        assert [await news.next() for _ in names] == [(name, False) for name in names]


async def test_a_directory_that_goes_away(tmp_path: Path) -> None:
    """A directory that is removed ends nothing and breaks nothing."""
    (tmp_path / "a").mkdir()
    news = News()
    with arrivals(str(tmp_path), news), arrivals(str(tmp_path / "a"), News()):
        (tmp_path / "a").rmdir()
        (tmp_path / "b").mkdir()
        assert await news.next() == ("b", False)


async def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    """A directory that isn't there is an error, and leaves no descriptor."""
    before = leaks.footprint()
    with pytest.raises(FileNotFoundError, match="missing"), arrivals(str(tmp_path / "missing"), News()):
        pass
    assert await leaks.left_in_loop(before) == []


@pytest.mark.usefixtures("no_inotify")
async def test_no_instance_is_left(tmp_path: Path) -> None:
    """Where the kernel gives no instance, that is an OSError that names inotify and the sysctl."""
    with pytest.raises(OSError, match=r"inotify.*fs\.inotify\.max_user_instances"), arrivals(str(tmp_path), News()):
        pass
    assert not inotify.has_instance()


async def test_no_watch_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel gives no watch, that is an OSError that names inotify and the other sysctl."""
    real = libc_module.libc()

    class Libc:
        """A libc whose user has no inotify watch left."""

        inotify_init1 = real.inotify_init1

        def inotify_add_watch(self, *_: object) -> int:
            """Fail."""
            ctypes.set_errno(errno.ENOSPC)
            return -1

    monkeypatch.setattr(inotify, "libc", Libc)
    with pytest.raises(OSError, match=r"inotify.*fs\.inotify\.max_user_watches"), arrivals(str(tmp_path), News()):
        pass


async def test_a_want_of_descriptors_is_not_one_of_instances(tmp_path: Path) -> None:
    """Where it is this process that has no descriptor left, that is the error, and no timer goes on without."""
    for watch in (arrivals, news):
        with spare(0), pytest.raises(OSError, match="Too many open files"), watch(str(tmp_path), News()):
            pass


async def test_an_instance_is_not_kept_where_descriptors_are_scarce(tmp_path: Path) -> None:
    """An instance is closed at once where a clean-up may need its descriptor."""
    before = leaks.footprint()
    with spare(3):
        with arrivals(str(tmp_path), News()):
            pass
        assert not inotify.watches
    assert leaks.left_since(before) == []


async def test_an_instance_is_kept_for_a_while(tmp_path: Path) -> None:
    """One instance serves all uses that follow each other, and is closed a second after the last one."""
    before = leaks.footprint()
    loop = asyncio.get_running_loop()
    opened: set[str] = set()
    for name in "abc":
        news = News()
        with arrivals(str(tmp_path), news):
            (tmp_path / name).mkdir()
            assert await news.next() == (name, False)
            opened |= leaks.footprint().descriptors - before.descriptors
    assert len(opened) == 1
    begun = loop.time()
    assert await leaks.left_in_loop(before, patience=10) == []
    assert loop.time() - begun > inotify.IDLE / 2


@pytest.mark.parametrize("in_use", [False, True])
def test_the_end_of_the_loop(tmp_path: Path, in_use: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The end of the loop closes its instance, and doesn't wait for a second; also one whose use was never ended."""
    before = leaks.footprint()
    forgotten = contextlib.ExitStack()

    async def use() -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(arrivals(str(tmp_path), News()))
            if in_use:
                forgotten.push(stack.pop_all())

    for new_loop in (asyncio.new_event_loop, uvloop.new_event_loop):
        run_in(new_loop, use())
        assert not inotify.watches
        assert leaks.left_since(before) == []
        forgotten.close()


# news without inotify


@pytest.mark.usefixtures("no_inotify")
async def test_a_timer_where_there_is_no_instance(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no instance a timer looks again and again, and the log says so once, with the sysctl."""
    for _ in range(2):
        found = News()
        with news(str(tmp_path), found):
            assert [await found.next() for _ in range(3)] == [("", True)] * 3
        while not found.told.empty():
            found.told.get_nowait()
        await asyncio.sleep(3 * inotify.LAST_GLANCE)
        assert found.told.empty()
    (record,) = [each for each in caplog.records if each.name == "runc_async"]  # asyncio logs slow steps too
    assert (record.name, record.levelname) == ("runc_async", "WARNING")
    assert "fs.inotify.max_user_instances" in record.message


async def test_a_timer_that_ends_while_it_looks(tmp_path: Path) -> None:
    """Who ends the news from within hears nothing more of the timer."""
    told: list[str] = []
    with contextlib.ExitStack() as stack:

        def arrived(name: str, _: bool) -> None:  # noqa: FBT001 - as it is called
            told.append(name)
            stack.close()

        stack.enter_context(news(str(tmp_path / "missing"), arrived))
        await asyncio.sleep(5 * inotify.LAST_GLANCE)
    assert told == [""]


async def test_a_directory_that_is_not_there_is_for_runc_to_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """News of a directory that isn't there are waited for without an error, and without a word about limits."""
    found = News()
    with news(str(tmp_path / "missing"), found):
        assert await found.next() == ("", True)
    assert caplog.records == []


async def test_a_loop_that_takes_no_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the loop can't watch one more descriptor, that is an OSError too, and none is left."""

    class Loop:
        """A loop whose epoll is full."""

        def add_reader(self, *_: object) -> None:
            """Fail."""
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = leaks.footprint()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "get_running_loop", Loop)
        with pytest.raises(OSError, match="No space left"), arrivals(str(tmp_path), News()):
            pass
    assert leaks.left_since(before) == []


def test_a_loop_that_was_forgotten(tmp_path: Path) -> None:
    """The instance of a loop that was closed without an end of its watches is closed by the next loop's."""
    before = leaks.footprint()
    forgotten = contextlib.ExitStack()

    async def forget() -> None:
        forgotten.enter_context(arrivals(str(tmp_path), News()))

    async def use() -> None:
        with arrivals(str(tmp_path), News()):
            pass

    loop = asyncio.new_event_loop()
    loop.run_until_complete(forget())
    loop.close()  # and not `shutdown_asyncgens`, as `asyncio.run` does
    run_in(asyncio.new_event_loop, use())
    assert leaks.left_since(before) == []
    forgotten.close()
    assert leaks.left_since(before) == []
