"""The file in which this process records what it holds."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from typing import TYPE_CHECKING

import pytest

from runc_async._host.owners import held_by_living, read
from runc_async._linux import owner
from runc_async._linux.owner import Claim, HeldBundle, HeldContainer, HeldScratch, make_directory, note_use

if TYPE_CHECKING:
    from pathlib import Path

WEB = HeldContainer(b"/run/runc", "web", b"/bundle")


def contents(owners: Path) -> list[owner.Held]:
    """Return what the one file holds."""
    (path,) = owners.iterdir()
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(read(fd).values())
    finally:
        os.close(fd)


def test_the_file_is_there_as_long_as_anything_is_held(owners: Path) -> None:
    """The first claim makes the file, with a lock on it, and the last release removes it."""
    first = Claim(WEB)
    second = Claim(HeldScratch(b"/tmp/x"))
    (path,) = owners.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert contents(owners) == list(held_by_living()) == [WEB, HeldScratch(b"/tmp/x")]
    first.release()
    first.release()
    assert contents(owners) == [HeldScratch(b"/tmp/x")]
    second.release()
    assert list(owners.iterdir()) == []


def test_what_becomes_known_counts(owners: Path) -> None:
    """The latest line of a claim counts; a change of a released one is nothing."""
    claim = Claim(WEB)
    known = HeldContainer(b"/run/runc", "web", b"/bundle", pid=7, start_time=8)
    claim.change(known)
    assert contents(owners) == [known]
    other = Claim(HeldScratch(b"/tmp/x"))
    claim.release()
    claim.change(WEB)
    assert contents(owners) == [HeldScratch(b"/tmp/x")]
    other.release()


def test_it_does_not_grow_without_bound(owners: Path) -> None:
    """Ten thousand containers that come and go beside one leave a file that is still small, and whole."""
    kept = Claim(WEB)
    for number in range(10_000):
        Claim(HeldContainer(b"/run/runc", f"c{number}", b"/bundle")).release()
    (path,) = owners.iterdir()
    assert path.stat().st_size < 100_000
    assert contents(owners) == [WEB]
    kept.release()


def test_a_torn_line_is_nothing(owners: Path) -> None:
    """A line that was cut off, by a kill or a full disk, spoils no other."""
    claim = Claim(WEB)
    (path,) = owners.iterdir()
    with path.open("ab") as file:
        file.write(b'\n{"n":5,"held":{"type":"scra')
    second = Claim(HeldScratch(b"/tmp/x"))
    assert contents(owners) == [WEB, HeldScratch(b"/tmp/x")]
    second.release()
    claim.release()


def test_a_forked_child_holds_no_lock(owners: Path) -> None:
    """A child that outlives its parent doesn't keep the parent's things; what it holds itself is in its own file."""
    claim = Claim(WEB)
    (path,) = owners.iterdir()
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            claim.release()  # the parent's
            own = Claim(HeldScratch(b"/tmp/child"))
            os.write(to_parent, b"!")
            os.read(from_parent, 1)
            own.release()
            code = 0
        finally:
            os._exit(code)
    os.read(from_child, 1)
    assert sorted(map(str, held_by_living())) == sorted(map(str, [WEB, HeldScratch(b"/tmp/child")]))
    with path.open("rb") as file:
        owner._owner._close()  # pyright: ignore[reportPrivateUsage]
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the child doesn't hold it
    os.write(to_child, b"!")
    assert os.waitpid(child, 0)[1] == 0
    for fd in (from_child, to_parent, from_parent, to_child):
        os.close(fd)
    claim.release()
    assert list(owners.iterdir()) == []


@pytest.mark.parametrize("place", ["/no/such/place", "relative"])
def test_without_a_place_nothing_fails(
    place: str, owners: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A host without a tmpfs has nothing recorded; a warning in the log says so, once."""
    monkeypatch.setattr(owner, "MEMORY", "/no/such/place")
    monkeypatch.setenv("XDG_RUNTIME_DIR", place)
    monkeypatch.setattr("runc_async._linux.owner._owner._warned", False)
    with caplog.at_level(logging.WARNING, "runc_async"):
        for _ in range(2):
            Claim(WEB).release()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "can't record what is held" in caplog.text
    assert list(owners.iterdir()) == []


def test_the_runtime_directory_is_the_second_choice(owners: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /dev/shm the file is in $XDG_RUNTIME_DIR."""
    monkeypatch.setattr(owner, "MEMORY", "/no/such/place")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(owners))
    claim = Claim(WEB)
    assert contents(owners) == [WEB]
    claim.release()


def test_a_failure_is_made_up_for(owners: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What couldn't be written is written with the next thing."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, "MEMORY", "/no/such/place")
        first = Claim(WEB)
    second = Claim(HeldScratch(b"/tmp/x"))
    assert contents(owners) == [WEB, HeldScratch(b"/tmp/x")]
    second.release()
    first.release()


def test_a_directory_is_recorded_before_it_is_made(owners: Path, tmp_path: Path) -> None:
    """The record is there when mkdir(2) is called; a name that is taken is passed over; a failure leaves nothing."""
    seen: list[list[owner.Held]] = []
    mkdir = os.mkdir

    def look(path: str, mode: int) -> None:
        seen.append(contents(owners))
        if len(seen) == 1:
            raise FileExistsError
        mkdir(path, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", look)
        path, claim = make_directory("name-", str(tmp_path), HeldScratch)
    assert seen[1] == [HeldScratch(os.fsencode(path))]
    assert seen[0] != seen[1]
    assert os.stat(path).st_mode & 0o777 == 0o700
    claim.release()
    with pytest.raises(FileNotFoundError) as caught:
        make_directory("name-", str(tmp_path / "missing"), HeldScratch)
    assert caught.value.errno == errno.ENOENT
    assert list(owners.iterdir()) == []


def test_a_record_has_no_symbolic_link(owners: Path, tmp_path: Path) -> None:
    """The directory that a link leads to is recorded, so that a sweeper can refuse all links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path, claim = make_directory("name-", str(tmp_path / "link"), HeldScratch)
    assert path.startswith(str(tmp_path / "link"))
    assert contents(owners) == [HeldScratch(os.fsencode(os.path.realpath(path)))]
    claim.release()


def test_the_root_directories_that_use_a_bundle(owners: Path) -> None:
    """Each is noted once, for bundles that this process holds."""
    claim = Claim(HeldBundle(b"/no/bundle", temporary=True))
    for root in ("/one", "/two", "/one"):
        note_use("/no/bundle", root)
        note_use("/no/other", root)
    assert contents(owners) == [HeldBundle(b"/no/bundle", temporary=True, roots=(b"/one", b"/two"))]
    claim.release()
    note_use("/no/bundle", "/three")
    assert list(owners.iterdir()) == []


def test_many_threads(owners: Path) -> None:
    """Claims of several threads don't disturb each other."""
    kept = Claim(WEB)

    def work() -> None:
        for number in range(200):
            Claim(HeldContainer(b"/run/runc", f"c{number}", b"/bundle")).release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(owners) == [WEB]
    kept.release()
