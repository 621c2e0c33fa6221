"""Bundles on the disk: made whole or not at all, read with care, written at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import archives
import pytest

from runc_async._bundles import directory
from runc_async._bundles.check import check_bundle
from runc_async._linux import files, scratch as scratch_directories
from runc_async.bundle import Bundle
from runc_async.errors import BundleNotFound, CleanupWarning, DecodeError, RootfsError
from runc_async.rootfs import Rootfs, Tar
from runc_async.spec import Root, Spec


@pytest.fixture
def place(scratch: Path) -> Iterator[Path]:
    """Return a directory that holds an empty one named `base`."""
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        (Path(made) / "base").mkdir()
        yield Path(made)


def mode(path: Path) -> int:
    """Return the permissions of a file."""
    return stat.S_IMODE(path.lstat().st_mode)


def config(path: Path) -> Any:
    """Read the config.json of a bundle without the library."""
    return json.loads((path / "config.json").read_bytes())


async def test_a_bundle_is_written_and_read(place: Path) -> None:
    """What was created can be opened again, with the same configuration; the caller's own is left alone."""
    spec = Spec.default().set_args("id")
    created = await Bundle.create(place / "b", rootfs=place / "base", spec=spec)
    opened = await Bundle.open(place / "b")
    assert (opened.path, opened.rootfs) == (created.path, created.rootfs) == (place / "b", place / "base")
    assert opened.spec == created.spec == spec.set_root(str(place / "base"))
    assert created.spec is not spec
    assert config(place / "b")["process"]["args"] == ["id"]
    assert os.fspath(opened) == str(place / "b")
    assert repr(opened) == f"<Bundle '{place / 'b'}'>"


async def test_nobody_else_can_look_into_it(place: Path) -> None:
    """Whatever the umask, only the owner can enter a new bundle, and read its config.json, also after a change."""
    old = os.umask(0)
    try:
        bundle = await Bundle.create(place / "b", rootfs=place / "base")
        assert (mode(bundle.path), mode(bundle.path / "config.json")) == (0o700, 0o600)
        (bundle.path / "config.json").chmod(0o644)
        await bundle.save()
        assert mode(bundle.path / "config.json") == 0o600
        async with Bundle.temporary(rootfs=place / "base") as temporary:
            assert mode(temporary.path) == 0o700
    finally:
        os.umask(old)


async def test_changes_count_once_they_are_saved(place: Path) -> None:
    """Saving writes the whole configuration, with what this version of the specification doesn't name."""
    bundle = await Bundle.create(place / "b", rootfs=place / "base")
    bundle.spec.set_args("true").extra["new.field"] = {"a": 1}
    assert config(bundle.path)["process"]["args"] == ["sh"]
    await bundle.save()
    assert config(bundle.path)["process"]["args"] == ["true"]
    assert (await Bundle.open(bundle)).spec == bundle.spec
    assert list(bundle.path.iterdir()) == [bundle.path / "config.json"]


@pytest.mark.parametrize(("before", "after"), [(True, 1), (1, True), (0, False), (1, 1.0)])
async def test_a_change_of_the_type_alone_is_a_change(before: object, after: object, place: Path) -> None:
    """Values that are equal in Python and aren't in JSON are told apart."""
    bundle = await Bundle.create(place / "b", rootfs=place / "base")
    for value in (before, after):
        bundle.spec.extra["mark"] = value
        async with bundle.saved():
            assert f'"mark": {json.dumps(value)}' in (bundle.path / "config.json").read_text()


async def test_a_directory_that_is_there_can_become_a_bundle(place: Path) -> None:
    """A directory without config.json becomes a bundle; a root filesystem inside of it has a relative path."""
    (place / "b" / "rootfs").mkdir(parents=True)
    first = await Bundle.create(place / "b", rootfs=place / "b" / "rootfs")
    assert config(first.path)["root"]["path"] == "rootfs"
    assert first.rootfs == place / "b" / "rootfs"
    (place / "c" / "mine").mkdir(parents=True)
    spec = Spec.default().set_root("mine")
    assert (await Bundle.create(place / "c", spec=spec)).rootfs == place / "c" / "mine"


async def test_a_bundle_is_not_overwritten(place: Path) -> None:
    """Creating a bundle where there is one fails and changes nothing."""
    bundle = await Bundle.create(place / "b", rootfs=place / "base")
    before = config(bundle.path)
    with pytest.raises(FileExistsError, match="there is a bundle already"):
        await Bundle.create(bundle.path, rootfs=place / "base", spec=Spec.default().set_args("other"))
    assert config(bundle.path) == before


async def test_one_of_many_creators_wins(place: Path) -> None:
    """Of many tasks that create the same bundle exactly one does, and the others don't disturb it."""

    async def create(number: int) -> Bundle:
        return await Bundle.create(
            place / "b", rootfs=place / "base", spec=Spec.default().set_args("echo", str(number))
        )

    results = await asyncio.gather(*map(create, range(20)), return_exceptions=True)
    (winner,) = [result for result in results if isinstance(result, Bundle)]
    assert {type(result) for result in results} == {Bundle, FileExistsError}
    assert (await Bundle.open(place / "b")).spec == winner.spec
    assert list((place / "b").iterdir()) == [place / "b" / "config.json"]


async def test_many_bundles_at_once(place: Path) -> None:
    """Many tasks make temporary bundles at once; each has its own directory, and none is left."""
    (place / "archive").write_bytes(archives.HONEST)
    together = asyncio.Barrier(20)

    async def use() -> Path:
        async with Bundle.temporary(rootfs=Tar(place / "archive"), directory=place) as bundle:
            await together.wait()
            assert (bundle.rootfs / "first").read_text() == "1"
            return bundle.path

    paths = await asyncio.gather(*(use() for _ in range(20)))
    assert len(set(paths)) == 20
    assert {path.name for path in place.iterdir()} == {"base", "archive"}


@pytest.mark.parametrize("planted", ["link to a directory", "dangling link", "file"])
async def test_nothing_is_followed_to_the_bundle(planted: str, place: Path) -> None:
    """A bundle isn't made through a symbolic link that somebody has put in its place, nor over a file."""
    if planted == "file":
        (place / "b").touch()
    else:
        (place / "b").symlink_to(place / ("base" if planted == "link to a directory" else "missing"))
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        await Bundle.create(place / "b", rootfs=place / "base")
    assert list((place / "base").iterdir()) == []
    assert not (place / "missing").exists()


async def test_a_planted_config_is_replaced_and_not_followed(place: Path) -> None:
    """Saving replaces a symbolic link in the place of config.json and leaves alone what it leads to."""
    bundle = await Bundle.create(place / "b", rootfs=place / "base")
    (place / "victim").write_text("as it was")
    (bundle.path / "config.json").unlink()
    (bundle.path / "config.json").symlink_to(place / "victim")
    await bundle.save()
    assert (place / "victim").read_text() == "as it was"
    assert not (bundle.path / "config.json").is_symlink()


@pytest.mark.parametrize("spec", [None, Spec(oci_version="1.0.2"), Spec.default().set_root("missing")])
async def test_a_bundle_needs_a_root_filesystem(spec: Spec | None, place: Path) -> None:
    """A bundle whose root filesystem isn't there, or isn't named, isn't made."""
    with pytest.raises(BundleNotFound) as caught:
        await Bundle.create(place / "b", spec=spec)
    assert not (place / "b").exists()
    assert (caught.value.args, caught.value.exit_code) == ((), None)


async def test_the_root_filesystem_can_be_taken_out(place: Path) -> None:
    """A bundle whose configuration lost its root says so when it is asked for it."""
    bundle = await Bundle.create(place / "b", rootfs=place / "base")
    bundle.spec.root = None
    with pytest.raises(BundleNotFound, match=r"config\.json names no root filesystem"):
        _ = bundle.rootfs


@pytest.mark.parametrize(
    ("rootfs", "says"), [("missing", "No such file"), ("file", "is no directory"), ("loop", "Too many levels")]
)
async def test_a_root_filesystem_is_a_directory(rootfs: str, says: str, place: Path) -> None:
    """A path that is no directory is no root filesystem; the directory that was to be the bundle is as it was."""
    (place / "file").touch()
    (place / "loop").symlink_to("loop")
    (place / "b").mkdir()
    (place / "b" / "mine").touch()
    with pytest.raises(BundleNotFound, match=says):
        await Bundle.create(place / "b", rootfs=place / rootfs)
    assert [path.name for path in (place / "b").iterdir()] == ["mine"]


CONFIG = Spec.default().encode()

BROKEN: dict[str, tuple[bytes, str]] = {
    "wrong type": (b'{"ociVersion": "1.0.2", "process": {"cwd": 7}}', r"at \$\.process\.cwd"),
    "out of range": (b'{"ociVersion": "1.0.2", "process": {"cwd": "/", "oomScoreAdj": "x"}}', "oomScoreAdj"),
    "duplicate key": (b'{"ociVersion": "1.0.2", "ociVersion": "1.0.2"}', "again"),
    "not UTF-8": (CONFIG.replace(b"runc", b"r\xffnc"), "not UTF-8"),
    "NaN": (b'{"ociVersion": "1.0.2", "annotations": NaN}', "NaN"),
    "cut short": (CONFIG[:-9], "not a JSON document"),
    "empty": (b"", "not a JSON document"),
    "an array": (b"[]", "an object"),
    "nested too deeply": (b"[" * 100_000, "nested"),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_a_broken_config_is_an_error(kind: str, place: Path) -> None:
    """A config.json that isn't JSON or breaks the schema is a DecodeError that says where, and in which file."""
    (place / "base" / "rootfs").mkdir()
    document, says = BROKEN[kind]
    (place / "base" / "config.json").write_bytes(document)
    with pytest.raises(DecodeError, match=says) as caught:
        await Bundle.open(place / "base")
    assert caught.value.__notes__ == [f"in '{place}/base/config.json'"]


async def test_a_huge_config_is_not_read(place: Path) -> None:
    """A config.json of 100 GB is an error, and not read into memory."""
    (place / "base" / "config.json").touch()
    os.truncate(place / "base" / "config.json", 100 << 30)
    with pytest.raises(DecodeError, match="over the limit"):
        await Bundle.open(place / "base")


async def test_strictness_can_be_given_up(place: Path) -> None:
    """A document that runtimes accept but the schema doesn't can be opened all the same."""
    document = Spec.default().set_root(str(place / "base")).to_builtins()
    document["linux"]["rootfsPropagation"] = "rslave"
    (place / "base" / "config.json").write_text(json.dumps(document))
    with pytest.raises(DecodeError, match="rootfsPropagation"):
        await Bundle.open(place / "base")
    opened = await Bundle.open(place / "base", strict=False)
    assert opened.spec.to_builtins() == document


async def test_an_open_bundle_needs_its_root_filesystem(place: Path) -> None:
    """A bundle without its root filesystem can't be opened."""
    (place / "base" / "config.json").write_bytes(Spec.default().encode())
    with pytest.raises(BundleNotFound, match="rootfs': No such file"):
        await Bundle.open(place / "base")


def test_a_bundle_is_checked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle has a directory and a config.json in it; its path is made absolute and otherwise left as it is."""
    (place / "base" / "config.json").touch()
    (place / "way").symlink_to("base")
    monkeypatch.chdir(place)
    assert check_bundle(place / "base") == str(place / "base")
    assert check_bundle("way/../base") == f"{place}/way/../base"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing", "'missing': No such file or directory"),
        ("", "'': No such file or directory"),
        ("base", "'base/config.json': No such file or directory"),
        ("file", "'file' is no directory"),
        ("loop", "'loop': Too many levels of symbolic links"),
        ("inner-loop", "'inner-loop/config.json': Too many levels of symbolic links"),
        ("fifo", "'fifo/config.json' is no regular file"),
    ],
)
async def test_what_is_no_bundle(path: str, says: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no bundle is found out without a runtime, and the error says what is wrong with it."""
    (place / "file").touch()
    (place / "loop").symlink_to("loop")
    (place / "inner-loop").mkdir()
    (place / "inner-loop" / "config.json").symlink_to("config.json")
    (place / "fifo").mkdir()
    os.mkfifo(place / "fifo" / "config.json")
    monkeypatch.chdir(place)
    with pytest.raises(BundleNotFound) as caught:
        check_bundle(path)
    assert caught.value.message == f"bundle '{path}': {says}"
    assert (caught.value.args, caught.value.exit_code) == ((), None)
    with pytest.raises(BundleNotFound, match=re.escape(says)):
        await Bundle.open(path)


def test_a_path_has_no_nul() -> None:
    """A path with a NUL in it is a bad argument."""
    with pytest.raises(ValueError, match="null"):
        check_bundle("a\0b")


def test_a_fifo_holds_up_nobody(place: Path) -> None:
    """A FIFO that took the place of a file between check and reading is read as empty."""
    os.mkfifo(place / "fifo")
    assert files.read_bounded(str(place / "fifo"), 10) == b""


@pytest.mark.parametrize("step", ["fsync", "rename", "open"])
async def test_a_failed_save_changes_nothing(step: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever step of writing fails, the old file is there, and nothing beside it."""
    bundle = await Bundle.create(place / "b", rootfs=place / "base")
    before = config(bundle.path)
    bundle.spec.set_args("new")
    real = os.open

    def fail(path: object, flags: int = 0, *args: Any, **options: Any) -> int:
        if step == "open" and not flags & os.O_CREAT:
            return real(str(path), flags, *args, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            await bundle.save()
    assert config(bundle.path) == before
    assert os.listdir(bundle.path) == ["config.json"]
    await bundle.save()
    assert config(bundle.path)["process"]["args"] == ["new"]


async def test_what_has_no_form_in_json_is_not_saved(place: Path) -> None:
    """A value that JSON has no form for is an error, and the old file stays."""
    bundle = await Bundle.create(place / "b", rootfs=place / "base")
    before = config(bundle.path)
    bundle.spec.extra["x"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        await bundle.save()
    assert config(bundle.path) == before


SAVE_AND_DIE = """
import asyncio, os, signal, sys
from runc_async.bundle import Bundle

async def main():
    path, step, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    bundle = await Bundle.open(path)
    bundle.spec.set_args("new")
    real, calls = getattr(os, step), iter(range(10))

    def die(*args, **options):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **options)

    setattr(os, step, die)
    await bundle.save()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("step", "count", "args"), [("fsync", 0, ["old"]), ("rename", 0, ["old"]), ("fsync", 1, ["new"])]
)
async def test_a_kill_leaves_one_of_both_files_whole(step: str, count: int, args: list[str], place: Path) -> None:
    """A process killed between two steps of a save leaves the old configuration or the new one, and a whole bundle."""
    await Bundle.create(place / "b", rootfs=place / "base", spec=Spec.default().set_args("old"))
    argv = [sys.executable, "-c", SAVE_AND_DIE, str(place / "b"), step, str(count)]
    ended = await anyio.run_process(argv, check=False)
    assert ended.returncode == -signal.SIGKILL
    survivor = await Bundle.open(place / "b")
    assert survivor.spec == Spec.default().set_args(*args).set_root(str(place / "base"))


async def test_saves_at_once_leave_one_whole_file(place: Path) -> None:
    """Many saves at once leave the configuration of one of them."""
    first = await Bundle.create(place / "b", rootfs=place / "base")
    others = [await Bundle.open(first) for _ in range(20)]
    for number, bundle in enumerate(others):
        bundle.spec.set_args("echo", "x" * number * 100)
    await asyncio.gather(*(bundle.save() for bundle in others))
    assert (await Bundle.open(first)).spec in [bundle.spec for bundle in others]
    assert os.listdir(first) == ["config.json"]


@pytest.mark.parametrize("cancel", ["task", "scope"])
@pytest.mark.parametrize("goes_on", [b"", archives.HONEST])
@pytest.mark.any_loop
async def test_cancelling_leaves_nothing(cancel: str, goes_on: bytes, place: Path) -> None:
    """A cancelled creation, by the task or by a cancel scope, ends when its thread has; nothing is left of it."""
    scope = anyio.CancelScope()

    async def create() -> None:
        with scope:
            await Bundle.create(place / "b", rootfs=Tar(place / "archive"))

    os.mkfifo(place / "archive")
    task = asyncio.create_task(create())
    writer = await asyncio.to_thread(os.open, place / "archive", os.O_WRONLY)
    assert (place / "b" / "rootfs").exists()
    for _ in range(3):
        task.cancel() if cancel == "task" else scope.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    if goes_on:
        os.write(writer, goes_on)
        await asyncio.wait((task,))  # it is given up: an unpacking that goes on would wait for the pipe's end
    os.close(writer)
    await asyncio.wait((task,))
    assert task.cancelled() is (cancel == "task")
    assert not (place / "b").exists()


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Have bundles made to their end, whatever is cancelled; return what is set by then, and what lets them go on."""
    done, go_on = threading.Event(), threading.Event()
    real = directory.make

    def make(
        path: str | None, parent: str | None, rootfs: Rootfs | None, spec: Spec, _check: object, *, init: str | None
    ) -> object:
        made = real(path, parent, rootfs, spec, lambda: None, init=init)
        done.set()
        go_on.wait(10)
        return made

    monkeypatch.setattr(directory, "make", make)
    return done, go_on


@pytest.mark.parametrize("names", [[], ["mine"]])
async def test_a_cancel_that_comes_too_late_undoes_it(
    names: list[str], place: Path, held_up: tuple[threading.Event, threading.Event]
) -> None:
    """A creation that was done when the cancel came is undone; in a directory that was there, only what was made."""
    done, go_on = held_up
    (place / "archive").write_bytes(archives.HONEST)
    for name in names:
        (place / "b" / name).mkdir(parents=True)
    task = asyncio.create_task(Bundle.create(place / "b", rootfs=Tar(place / "archive")))
    await asyncio.to_thread(done.wait, 10)
    assert (place / "b" / "config.json").exists()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert [path.name for path in (place / "b").glob("*")] == names
    assert (place / "b").exists() is bool(names)


def test_the_end_of_the_event_loop_leaves_nothing(place: Path) -> None:
    """A creation that is still under way when the event loop is shut down is given up, and nothing is left of it."""
    os.mkfifo(place / "archive")
    endless = archives.tar(archives.file("a"))[:512]
    begun = archives.header(endless, size=(124, b"%011o\0" % 2**30))

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(place / "archive", "wb", buffering=0) as archive:
            archive.write(begun)
            while True:
                archive.write(bytes(1024))
                written.set()

    async def main() -> None:
        running = asyncio.create_task(Bundle.create(place / "b", rootfs=Tar(place / "archive")))
        await asyncio.to_thread(written.wait, 10)
        assert not running.done()

    written = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    asyncio.run(main())
    writer.join()
    assert not (place / "b").exists()


async def test_a_cancelled_save_is_a_whole_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that is cancelled is there when the cancel goes on."""
    bundle = await Bundle.create(place / "b", rootfs=place / "base")
    bundle.spec.set_args("new")
    begun, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def fsync(fd: int) -> None:
        begun.set()
        go_on.wait(10)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    task = asyncio.create_task(bundle.save())
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert config(bundle.path)["process"]["args"] == ["new"]


@pytest.mark.any_loop
async def test_temporary_bundles_vanish(place: Path) -> None:
    """A temporary bundle is gone after its block, whether that ends well, fails or is cancelled."""
    (place / "archive").write_bytes(archives.HONEST)
    seen: list[Path] = []

    async def use(end: Callable[[], None] = lambda: None) -> None:
        async with Bundle.temporary(rootfs=Tar(place / "archive"), directory=place) as bundle:
            seen.append(bundle.path)
            (bundle.rootfs / "written").mkdir()
            end()
            if end is stop:
                await asyncio.sleep(60)

    def stop() -> None:
        task.cancel()

    def fail() -> None:
        raise ZeroDivisionError

    await use()
    with pytest.raises(ZeroDivisionError):
        await use(fail)
    task = asyncio.create_task(use(stop))
    await asyncio.wait((task,))
    assert task.cancelled()
    assert len(seen) == 3
    assert not any(path.exists() for path in seen)
    assert {path.name for path in place.iterdir()} == {"base", "archive"}


async def test_closing_twice_is_closing_once(place: Path) -> None:
    """A closed bundle can be closed again, also at the same time; its directory, if new, isn't touched."""
    async with Bundle.temporary(rootfs=place / "base") as bundle:
        await asyncio.gather(bundle.aclose(), bundle.aclose())
        bundle.path.mkdir()
    assert bundle.path.exists()
    bundle.path.rmdir()


async def test_what_cannot_be_removed_is_named(place: Path) -> None:
    """A temporary bundle that can't be removed is a warning with its name, and no exception."""
    temporary = Bundle.temporary(rootfs=place / "base")
    bundle = await temporary.__aenter__()
    (bundle.path / "config.json").unlink()
    bundle.path.rmdir()
    with pytest.warns(CleanupWarning, match=re.escape(f"bundle '{bundle.path}' is left behind: ")):
        await temporary.__aexit__(None, None, None)


@pytest.mark.parametrize("end", ["refused", "cancelled"])
async def test_what_cannot_be_undone_is_named(
    end: str, place: Path, held_up: tuple[threading.Event, threading.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a creation can't take back is a warning with its name; the error, or the cancel, is still the one it was."""

    def remove(_path: str) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    done, go_on = held_up
    monkeypatch.setattr(directory, "remove_tree", remove)
    hostile = archives.tar(archives.file("../planted"))
    (place / "archive").write_bytes(hostile if end == "refused" else archives.HONEST)
    task = asyncio.create_task(Bundle.create(place / "b", rootfs=Tar(place / "archive")))
    if end == "cancelled":
        await asyncio.to_thread(done.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
    with pytest.warns(CleanupWarning, match=re.escape(f"bundle '{place / 'b'}' is left behind: ")):
        await asyncio.wait((task,))
    if end == "cancelled":
        assert task.cancelled()
    else:
        assert isinstance(task.exception(), RootfsError)


async def test_a_cancel_hides_no_warning(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be removed is named also when the task is cancelled meanwhile."""
    begun, go_on = threading.Event(), threading.Event()

    def remove(_path: str) -> None:
        begun.set()
        go_on.wait(10)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(directory, "remove_tree", remove)
    temporary = Bundle.temporary(rootfs=place / "base", directory=place)
    bundle = await temporary.__aenter__()
    task = asyncio.create_task(bundle.aclose())
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.warns(CleanupWarning, match="left behind: .*not permitted"):
        await asyncio.wait((task,))
    assert task.cancelled()
    await temporary.__aexit__(None, None, None)


# in memory


@pytest.fixture
def memory(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that stands for memory, while no other place is chosen for temporary files."""
    for name in scratch_directories.CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(directory, "MEMORY", str(place / "memory"))
    (place / "memory").mkdir()
    return place / "memory"


async def test_a_small_bundle_is_made_in_memory(place: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary bundle with a shared root filesystem is made and removed in memory, without a thread or fsync(2)."""
    monkeypatch.setattr("runc_async.bundle.begin", None)
    monkeypatch.setattr(os, "fsync", None)
    async with Bundle.temporary(rootfs=place / "base") as bundle:
        assert bundle.path.parent == memory
        assert (mode(bundle.path), mode(bundle.path / "config.json")) == (0o700, 0o600)
        assert config(bundle.path)["root"]["path"] == str(place / "base")
    assert list(memory.iterdir()) == []


async def test_a_change_is_saved_in_memory(place: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary bundle whose configuration has changed is saved without fsync(2)."""
    monkeypatch.setattr(os, "fsync", None)
    async with Bundle.temporary(rootfs=place / "base") as bundle:
        assert bundle.path.parent == memory
        bundle.spec.set_args("new")
        async with bundle.saved():
            assert config(bundle.path)["process"]["args"] == ["new"]


@pytest.mark.parametrize("reason", ["is full", "isn't there", "is chosen otherwise", "would hold a root filesystem"])
async def test_what_is_not_made_in_memory(
    reason: str, place: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room in memory, and with a root filesystem of its own, a bundle is made where Python makes files."""
    rootfs: Rootfs = place / "base"
    match reason:
        case "is full":
            monkeypatch.setattr(directory, "_ROOM", 1 << 62)
        case "isn't there":
            memory.rmdir()
        case "is chosen otherwise":
            monkeypatch.setenv("TMPDIR", tempfile.gettempdir())
        case _:
            (place / "archive").write_bytes(archives.HONEST)
            rootfs = Tar(place / "archive")
    async with Bundle.temporary(rootfs=rootfs) as bundle:
        assert bundle.path.parent == Path(tempfile.gettempdir())


async def test_what_can_not_be_removed_from_memory_is_named(place: Path, memory: Path) -> None:
    """There, too, it is a warning."""
    temporary = Bundle.temporary(rootfs=place / "base")
    bundle = await temporary.__aenter__()
    assert bundle.path.parent == memory
    bundle.path.rename(place / "elsewhere")
    with pytest.warns(CleanupWarning, match=re.escape(f"bundle '{bundle.path}' is left behind: ")):
        await temporary.__aexit__(None, None, None)


async def test_what_fails_in_memory_leaves_nothing(place: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the last step removes the directory."""

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(directory, "write_private", fail)
    with pytest.raises(OSError, match="no space left"):
        async with Bundle.temporary(rootfs=place / "base"):
            pass
    assert list(memory.iterdir()) == []


# proposals


async def test_the_proposal_is_that_of_runc(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a configuration it is what `runc spec` proposes; with a root filesystem of its own, a writable one."""
    (place / "archive").write_bytes(archives.HONEST)
    shared = await Bundle.create(place / "b", rootfs=place / "base")
    assert shared.spec == Spec.default().set_root(str(place / "base"))
    assert shared.spec.root == Root(path=str(place / "base"), readonly=True)
    own = await Bundle.create(place / "c", rootfs=Tar(place / "archive"))
    assert own.spec == Spec.default().set_root("rootfs", readonly=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    rootless = await Bundle.create(place / "d", rootfs=place / "base")
    assert rootless.spec == Spec.default(rootless=True).set_root(str(place / "base"))


async def test_busybox_makes_a_bundle(place: Path) -> None:
    """A busybox bundle runs its arguments without a terminal, has the usual commands, and takes a configuration."""
    spec = Spec.default().set_env({"A": "1"})
    async with Bundle.busybox(["echo", "hello"], spec=spec, directory=place) as bundle:
        assert bundle.spec == spec.set_args("echo", "hello").set_terminal(enabled=False)
        assert bundle.path.parent == place
        assert (bundle.rootfs / "bin" / "sh").resolve() == bundle.rootfs / "bin" / "busybox"
        assert (mode(bundle.rootfs), mode(bundle.rootfs / "tmp")) == (0o755, 0o1777)
        for command in (bundle.rootfs / "bin").iterdir():
            assert command.exists(), f"{command} leads nowhere"
    assert not bundle.path.exists()


def test_busybox_takes_arguments_and_no_line() -> None:
    """One text instead of a sequence of arguments is a bad argument."""
    with pytest.raises(TypeError, match="must be a sequence"):
        Bundle.busybox("echo hello")


def test_what_few_need_is_not_imported() -> None:
    """Importing bundles doesn't import what makes them: tarfile and others, which would double the time."""
    code = "import runc_async.bundle, sys; print({'tarfile', 'runc_async._bundles.directory'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
