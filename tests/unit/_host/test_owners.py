"""The files of dead owners, and the removal of their directories."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import descriptors
import pytest

from runc_async._host.owners import (
    DeadOwner,
    count_dead,
    files,
    held_by_living,
    is_open,
    remove_bundle,
    remove_scratch,
)
from runc_async._linux import owner
from runc_async._linux.libc import call_libc, detach
from runc_async._linux.owner import Claim, HeldBundle, HeldContainer, HeldScratch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WEB = HeldContainer(b"/run/runc", "web", b"/bundle")
SCRATCH = HeldScratch(b"/tmp/x")


def die(*held: owner.Held) -> None:
    """Hold things in a child that ends without a release."""
    child = os.fork()
    if not child:
        for one in held:
            Claim(one)
        os._exit(0)
    os.waitpid(child, 0)


def taken() -> list[DeadOwner]:
    """Take all dead owners."""
    return [found for path in files() if (found := DeadOwner.take(path)) is not None]


@pytest.mark.usefixtures("owners")
def test_a_dead_owner_is_taken_and_a_live_one_is_not() -> None:
    """The lock tells them apart; what live ones hold is known."""
    claim = Claim(WEB)
    die(SCRATCH, WEB)
    assert count_dead() == 2
    assert list(held_by_living()) == [WEB]
    (dead,) = taken()
    with dead:
        assert list(dead.held.values()) == [SCRATCH, WEB]
    claim.release()


@pytest.mark.usefixtures("owners")
def test_what_is_struck_out_stays_so() -> None:
    """A sweeper that comes later finds what is left; with the last thing the file goes."""
    die(SCRATCH, WEB)
    for left in (2, 1):
        (dead,) = taken()
        with dead:
            assert len(dead.held) == left
            dead.strike(next(iter(dead.held)))
    assert files() == []


@pytest.mark.usefixtures("owners")
def test_one_sweeper_at_a_time() -> None:
    """A file that a sweeper has taken isn't taken by another one, nor taken for a live owner's."""
    die(SCRATCH)
    (dead,) = taken()
    with dead:
        assert taken() == []
        assert list(held_by_living()) == []
        assert count_dead() == 0


def test_a_file_that_is_replaced_meanwhile_is_not_taken(owners: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name may mean another file, a live owner's, by the time the lock is had."""
    die(SCRATCH)
    (path,) = owners.iterdir()
    flock = fcntl.flock

    def late(fd: int, operation: int) -> None:
        flock(fd, operation)
        path.unlink()
        path.touch(0o600)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", late)
        assert DeadOwner.take(str(path)) is None
    assert path.exists()


@pytest.mark.root
def test_only_files_of_this_user_count(owners: Path, tmp_path: Path) -> None:
    """Another user's file, a link, a second name of a file, and a FIFO are passed over, and stay."""
    line = b'\n{"n":1,"held":{"type":"scratch","path":"L3RtcC94"}}'
    for name in ("other", "linked", "own"):
        (tmp_path / name).write_bytes(line)
    os.link(tmp_path / "linked", tmp_path / "second")
    (owners / f"{owner.PREFIX}1").write_bytes(line)
    os.chown(owners / f"{owner.PREFIX}1", 65534, 65534)
    (owners / f"{owner.PREFIX}2").symlink_to(tmp_path / "own")
    (owners / f"{owner.PREFIX}3").write_bytes(line)
    os.link(owners / f"{owner.PREFIX}3", owners / "name")
    os.mkfifo(owners / f"{owner.PREFIX}4")
    assert len(files()) == 4
    assert taken() == []
    assert count_dead() == 0
    assert len(files()) == 4


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Return a directory with something in it, in one whose path has no symbolic link."""
    place = tmp_path.resolve() / "private"
    (place / "inner").mkdir(parents=True)
    (place / "inner" / "file").touch()
    return place


def test_a_directory_is_removed(private: Path) -> None:
    """It goes with all that is in it; one that is gone already is no error."""
    remove_scratch(os.fsencode(private))
    assert not private.exists()
    remove_scratch(os.fsencode(private))


@pytest.mark.parametrize("where", ["itself", "above"])
def test_no_link_is_followed(where: str, private: Path) -> None:
    """A link in place of the directory, or of one above it, is an error, and what it leads to stays."""
    link = private.parent / "link"
    link.symlink_to(private if where == "itself" else private.parent)
    with pytest.raises(NotADirectoryError):
        remove_scratch(os.fsencode(link if where == "itself" else link / "private"))
    assert (private / "inner" / "file").exists()


@pytest.mark.root
def test_another_users_directory_stays(private: Path) -> None:
    """A directory of another user under the recorded name isn't removed."""
    os.chown(private, 65534, 65534)
    with pytest.raises(PermissionError):
        remove_scratch(os.fsencode(private))
    assert (private / "inner" / "file").exists()


def remove_temporary(path: bytes) -> None:
    """Remove a temporary bundle."""
    remove_bundle(HeldBundle(path, temporary=True, mounted=True))


@pytest.mark.root
@pytest.mark.parametrize(
    ("remove", "inside"),
    [
        (remove_scratch, "inner"),
        (remove_temporary, "rootfs"),
    ],
    ids=["scratch", "bundle"],
)
def test_no_mount_is_entered(remove: Callable[[bytes], object], inside: str, private: Path) -> None:
    """A directory in which something is mounted stays, and so does what is mounted: a bind mount too."""
    outside = private.parent / "outside"
    outside.mkdir()
    (outside / "file").touch()
    place = private / inside
    place.mkdir(exist_ok=True)
    assert call_libc("mount", os.fsencode(outside), os.fsencode(place), None, 4096, None) == 0  # MS_BIND
    try:
        with pytest.raises(OSError, match="mounted"):
            remove(os.fsencode(private))
        assert (outside / "file").exists()
    finally:
        detach(str(place))
    remove_bundle(HeldBundle(os.fsencode(private), temporary=True, mounted=True))
    assert (outside / "file").exists()
    assert not private.exists()


def test_a_bundle_that_stays_keeps_its_directory(private: Path) -> None:
    """Only the mount of a bundle that isn't temporary is taken away, and the empty directory that it was on."""
    (private / "rootfs").mkdir()
    assert not remove_bundle(HeldBundle(os.fsencode(private), temporary=False, mounted=True))
    assert sorted(path.name for path in private.iterdir()) == ["inner"]


@pytest.mark.usefixtures("owners")
def test_without_descriptors_no_owner_counts_as_dead(private: Path) -> None:
    """What can't be looked at for want of a descriptor is an error: a live owner's things must not count as free."""
    claim = Claim(WEB)
    (path,) = files()
    with descriptors.spare(0):
        for look in (files, lambda: is_open(os.fsencode(private)), lambda: DeadOwner.take(path)):
            with pytest.raises(OSError, match="Too many open files"):
                look()
    with descriptors.spare(1):
        assert list(held_by_living()) == [WEB]
    claim.release()


def test_whether_a_directory_is_open(private: Path) -> None:
    """A process that has it open is seen."""
    assert not is_open(os.fsencode(private))
    fd = os.open(private, os.O_PATH)
    assert is_open(os.fsencode(private))
    os.close(fd)
